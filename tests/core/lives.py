"""One guest's lifecycle with a clock: what the example tests play with."""

from datetime import UTC, datetime
from typing import Any

from bhyved.core.exits import Exit, ExitKind
from bhyved.core.lifecycle import Action, Answer, Cleaned, Ended, Event, Lifecycle, Prepared, Start, Tick, Turn, Up
from bhyved.core.spec import Restart, Stop, VmSpec
from bhyved.core.status import Desired, Hold, Phase
from bhyved.core.units import Duration

HOLD = Hold(by="alice", reason="disk swap", since_at=datetime(2026, 11, 25, tzinfo=UTC))


def end(kind: ExitKind | str = ExitKind.POWEROFF, text: str = "") -> Exit:
    """An end of that kind."""
    return Exit(kind=ExitKind(kind), text=text or f"it ended by {kind}")


class Guest:
    """A lifecycle, its clock and everything that it has asked its driver to do. Jitter is off."""

    def __init__(self, spec: VmSpec | None = None, *, desired: Desired = Desired.DOWN, **options: Any) -> None:
        spec = spec or VmSpec(name="web1", restart=Restart(), stop=Stop())
        self.life = Lifecycle(spec, rng=lambda: 0.0, desired=desired, **options)
        self.now = 1000.0
        self.log: list[tuple[float, Action]] = []

    @property
    def phase(self) -> Phase:
        return self.life.phase

    def tell(self, *events: Event) -> Answer:
        """Events at this moment; the answer to the last."""
        for event in events:
            answer, actions = self.life.step(event, self.now)
            self.log += [(self.now, action) for action in actions]
            assert isinstance(self.life.reason, str), f"{type(event).__name__} led to {self.phase}, and it is not said why"
        return answer

    def after(self, seconds: float, *events: Event) -> Answer:
        self.now += seconds
        return self.tell(*events)

    def until_deadline(self) -> Answer:
        """Let the deadline come."""
        assert self.life.deadline is not None
        self.now = max(self.now, self.life.deadline)
        return self.tell(Tick())

    def run(self, **wish: Any) -> "Guest":
        """Started by a person, and up."""
        self.tell(Start(by="alice", **wish), Turn(), Prepared(loader=False), Up())
        assert self.phase is Phase.UP
        return self

    def again(self) -> "Guest":
        """From `cleaning` up again, through whatever waiting there is."""
        self.tell(Cleaned())
        if self.phase is Phase.BACKOFF:
            self.until_deadline()
        self.tell(Turn(), Prepared(loader=False), Up())
        assert self.phase is Phase.UP
        return self

    def end(self, kind: ExitKind | str = ExitKind.POWEROFF, *, uptime_s: float = 1.0) -> Answer:
        """bhyve ends now."""
        return self.tell(Ended(end(kind), uptime_s))

    def did(self) -> list[str]:
        """What was asked for since the last time somebody looked."""
        names = [action.name for _, action in self.log]
        self.log = []
        return names

    def when(self, action: Action) -> list[float]:
        """At which times an action was asked for, seconds from the beginning."""
        return [round(at - 1000.0, 3) for at, done in self.log if done == action]


def spec(**tables: Any) -> VmSpec:
    """A guest with `restart`, `stop` or `boot` of its own."""
    return VmSpec(name="web1", **tables)


def seconds(*values: float) -> tuple[Duration, ...]:
    return tuple(map(Duration, values))
