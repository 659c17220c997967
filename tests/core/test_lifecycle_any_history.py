"""Any history of wishes, against any host that can exist: what holds for a guest whatever happens.

The machine plays the host. It performs the actions of the lifecycle, answers them in its own time, well or badly, and has the daemon
die in between.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bhyved.core.exits import ExitKind, Stage
from bhyved.core.lifecycle import (
    ASK_TURN,
    CLEAN,
    CLEAN_ALL,
    DROP_TURN,
    FORCE_POWEROFF,
    FORCE_RESET,
    KILL,
    LOAD,
    PREPARE,
    PRESS,
    SPAWN,
    SUSPEND,
    Action,
    Cleaned,
    CleanFailed,
    Ended,
    Event,
    Found,
    Interrupted,
    Lifecycle,
    LoaderEnded,
    Poweroff,
    Prepared,
    PrepareFailed,
    Release,
    Reset,
    Restart,
    SetHold,
    Shutdown,
    SpawnFailed,
    Start,
    Stop,
    Suspend,
    SuspendFailed,
    Tick,
    Turn,
    Up,
)
from bhyved.core.spec import Stop as StopSpec
from bhyved.core.spec import VmSpec
from bhyved.core.status import Desired, Phase
from bhyved.core.units import Duration
from tests.core.lives import HOLD, end

TIMED = {Phase.LOADING, Phase.STOPPING, Phase.KILLING, Phase.BACKOFF}
AT_REST = {Phase.DOWN, Phase.HELD}
WISHES = st.one_of(
    st.builds(Start, by=st.just("alice"), install=st.booleans(), auto=st.booleans()),
    st.builds(Stop, by=st.just("bob"), force=st.booleans(), timeout_s=st.sampled_from([None, 0.0, 5.0])),
    st.sampled_from([Restart(by="alice"), Reset(by="alice"), Poweroff(by="bob"), SetHold(hold=HOLD), Release(by="alice")]),
    st.just(Suspend(by="alice")),
)


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        # The host: at most one of the first three, and what may still be there of a run.
        self.preparing = False
        self.process = ""  # "loader" or "bhyve"
        self.cleaning: Action | None = None
        self.unborn = False  # it was told to start a process, and has not said yet whether it could
        self.shows_up = False
        self.suspending = False  # bhyve was asked to write the guest's state to disk, and has not said that it cannot
        self.turn_asked = False
        self.leftovers = ""  # what a run has left on the host: "node" (a CLEAN leaves it), "all"

    @initialize(wish=st.sampled_from(Desired), held=st.booleans(), timeout=st.sampled_from([0, 60]))
    def begin(self, wish: Desired, held: bool, timeout: int) -> None:
        self.spec = VmSpec(name="web1", stop=StopSpec(timeout=Duration(timeout)))
        self.life = Lifecycle(self.spec, rng=lambda: 0.5, desired=wish, hold=HOLD if held else None)
        self.wish = wish
        if wish is Desired.UP:
            self.tell(Start(by="autostart", auto=True))

    @property
    def at_work(self) -> bool:
        """Whether the host does something for the guest, of which there may be one thing at a time."""
        return self.preparing or self.process != "" or self.cleaning is not None

    # -- the driver --

    def tell(self, event: Event) -> bool:
        before = {key: value for key, value in vars(self.life).items() if key != "actions"}
        answer, actions = self.life.step(event, self.now)
        if not answer.ok:
            assert not actions
            assert before == {key: value for key, value in vars(self.life).items() if key != "actions"}
        for action in actions:
            self.perform(action)
        return answer.ok

    def perform(self, action: Action) -> None:
        if action in (PREPARE, LOAD, SPAWN):
            assert not self.at_work, f"two runs at once: {action}"
            assert self.wish is Desired.UP, f"{action} after a stop"
        match action:
            case _ if action == ASK_TURN:
                assert not self.turn_asked
                self.turn_asked = True
            case _ if action == DROP_TURN:
                assert self.turn_asked
                self.turn_asked = False
            case _ if action == PREPARE:
                assert not self.life.closing
                assert self.leftovers != "all", "a run over another one's remains"
                self.preparing, self.leftovers = True, "all"
            case _ if action in (LOAD, SPAWN):
                assert not self.suspending
                self.process, self.unborn, self.shows_up = "loader" if action == LOAD else "bhyve", True, False
            case _ if action in (PRESS, FORCE_POWEROFF, FORCE_RESET):
                assert self.process == "bhyve"
            case _ if action == SUSPEND:
                assert self.process == "bhyve"
                self.suspending = True
            case _ if action == KILL:
                assert self.process
            case _ if action in (CLEAN, CLEAN_ALL):
                assert not self.at_work, "cleaning under a run"
                self.cleaning = action

    # -- people --

    @rule(wish=WISHES)
    def somebody_wishes(self, wish: Any) -> None:
        was = self.life.phase
        if isinstance(wish, Start) and wish.auto and was is not Phase.DOWN:
            return  # the daemon's own wish comes once, when there is no run
        if not self.tell(wish):
            return
        if isinstance(wish, Start | Restart):
            self.wish = Desired.UP
        elif isinstance(wish, Stop | Poweroff):
            self.wish = Desired.DOWN
        assert self.life.desired is self.wish

    @rule(end_in=st.sampled_from([None, -5.0, 3.0, 100.0]), force=st.booleans(), suspend=st.booleans())
    def the_daemon_stops_its_guests(self, end_in: float | None, force: bool, suspend: bool) -> None:
        end_at = None if end_in is None else self.now + end_in
        self.tell(Shutdown(by="rc", end_at=end_at, force=force, suspend=suspend and end_at is not None))

    @rule(closing=st.booleans())
    def a_drain_begins_or_ends(self, closing: bool) -> None:
        self.life.closing = closing
        if closing and self.life.phase in (Phase.WAITING, Phase.BACKOFF):
            self.tell(Shutdown(by="drain"))
        if not closing and self.life.phase is Phase.DOWN and self.wish is Desired.UP:
            self.tell(Start(by="drain", auto=True))

    # -- time --

    @rule(seconds=st.sampled_from([0.1, 3.0, 70.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    @precondition(lambda self: self.life.deadline is not None)
    @rule()
    def the_deadline_comes(self) -> None:
        assert self.life.deadline is not None
        self.now = max(self.now, self.life.deadline)
        self.tell(Tick())

    # -- the host --

    @precondition(lambda self: self.turn_asked)
    @rule()
    def its_turn(self) -> None:
        self.turn_asked = False
        self.tell(Turn())

    @precondition(lambda self: self.preparing)
    @rule(how=st.sampled_from(["loader", "bhyve", "bhyve", "failed", "fatal", "stuck"]))
    def preparing_ends(self, how: str) -> None:
        self.preparing = False
        match how:
            case "loader" | "bhyve":
                self.tell(Prepared(loader=how == "loader"))
            case _:
                self.tell(PrepareFailed("no bridge", fatal=how == "fatal", stuck=how == "stuck"))

    @precondition(lambda self: self.unborn)
    @rule(born=st.sampled_from([True, True, True, False]))
    def a_process_starts(self, born: bool) -> None:
        self.unborn = False
        if not born:
            self.process = ""
            self.tell(SpawnFailed("out of processes"))

    @precondition(lambda self: self.process == "bhyve" and not self.unborn)
    @rule()
    def the_guest_shows_up(self) -> None:
        self.shows_up = True
        self.tell(Up())

    @precondition(lambda self: self.suspending)
    @rule()
    def suspending_fails(self) -> None:
        self.suspending = False
        was, host_ends = (self.life.phase, self.life.suspending), self.life.ending is not None
        self.tell(SuspendFailed("the disk is full"))
        if was == (Phase.STOPPING, True) and host_ends:
            assert self.life.phase in (Phase.STOPPING, Phase.KILLING)  # by what time is left
            assert not self.life.suspending
        elif was == (Phase.STOPPING, True):
            assert self.life.phase is Phase.UP
        else:
            assert self.life.phase is was[0]

    @precondition(lambda self: self.process and not self.unborn)
    @rule(kind=st.sampled_from(ExitKind), uptime_s=st.sampled_from([1.0, 1000.0]))
    def the_process_ends(self, kind: ExitKind, uptime_s: float) -> None:
        was, self.process = self.process, ""
        if was == "loader":
            self.tell(LoaderEnded(None if kind is ExitKind.POWEROFF else end("start-error")))
        else:
            # One for the end of the host keeps the wish: what was up goes on when the host is back.
            suspending, self.suspending = self.life.suspending and self.life.ending is None, False
            self.tell(Ended(end(kind), uptime_s))
            if suspending and kind is ExitKind.SUSPENDED:
                assert self.life.desired is Desired.DOWN, "a guest that was suspended would start by itself"
            self.wish = self.life.desired  # a guest that powers itself off has a say

    @precondition(lambda self: self.cleaning is not None)
    @rule(how=st.sampled_from(["done", "done", "failed", "stuck"]))
    def cleaning_ends(self, how: str) -> None:
        done, self.cleaning = self.cleaning, None
        self.leftovers = "node" if done == CLEAN else ""
        self.tell(Cleaned() if how == "done" else CleanFailed("tap3 is busy", stuck=how == "stuck"))

    # -- the daemon dies, and another one takes over --

    @rule()
    def the_daemon_is_killed(self) -> None:
        old = self.life
        held = old.reason if old.phase is Phase.HELD else ""
        self.life = Lifecycle(self.spec, rng=lambda: 0.5, desired=old.desired, hold=old.hold, book=old.book, held=held)
        self.turn_asked, self.cleaning = False, None
        if self.process:
            self.unborn = False
            stage = Stage.LOADING if self.process == "loader" else Stage.RUNNING
            is_up = self.shows_up and stage is Stage.RUNNING
            self.tell(Found(stage, is_up, suspending=self.suspending))
        elif self.leftovers:
            self.preparing = False
            self.tell(Found(Stage.PREPARING, False))
            self.tell(Interrupted())
        elif self.wish is Desired.UP:
            self.tell(Start(by="autostart", auto=True))

    # -- what holds --

    @rule()
    def everything_settles(self) -> None:
        """A host that does as it is told brings every guest to where it was wished, in a bounded number of steps."""
        for _ in range(60):
            phase = self.life.phase
            if phase in AT_REST or (phase is Phase.UP and self.life.want_up):
                break
            if self.suspending:
                self.the_process_ends(ExitKind.SUSPENDED, 1.0)
            elif phase is Phase.UP:
                self.tell(Shutdown(by="rc"))
            elif self.unborn:
                self.a_process_starts(born=True)
            elif self.turn_asked:
                self.its_turn()
            elif self.preparing:
                self.preparing_ends("bhyve")
            elif self.cleaning is not None:
                self.cleaning_ends("done")
            elif self.process == "loader" or phase in (Phase.STOPPING, Phase.KILLING):
                self.the_process_ends(ExitKind.POWEROFF, 1.0)
            elif self.process:
                self.the_guest_shows_up()
            else:
                self.the_deadline_comes()
        if self.life.phase is Phase.UP:
            assert self.life.want_up
            assert self.wish is Desired.UP
        elif self.life.phase is Phase.DOWN:
            assert self.wish is Desired.DOWN or self.life.closing
        else:
            assert self.life.phase is Phase.HELD

    @invariant()
    def a_deadline_exactly_where_time_counts(self) -> None:
        if hasattr(self, "life"):
            by_a_person = self.life.suspending and self.life.ending is None
            assert (self.life.deadline is not None) == (self.life.phase in TIMED and not by_a_person), self.life.phase

    @invariant()
    def a_suspend_is_waited_for_only_while_it_is_under_way(self) -> None:
        if hasattr(self, "life") and self.life.suspending:
            assert self.life.phase is Phase.STOPPING
            assert self.suspending
            assert self.life.desired is Desired.UP, "it would be stopped if that failed"

    @invariant()
    def never_idle_unless_down_or_held(self) -> None:
        if not hasattr(self, "life"):
            return
        life = self.life
        busy = {
            Phase.WAITING: self.turn_asked,
            Phase.PREPARING: self.preparing,
            Phase.LOADING: self.process == "loader",
            Phase.STARTING: self.process == "bhyve",
            Phase.UP: self.process == "bhyve",
            Phase.STOPPING: self.process == "bhyve",
            Phase.KILLING: bool(self.process),
            Phase.CLEANING: self.cleaning is not None,
            Phase.BACKOFF: life.deadline is not None,
            Phase.DOWN: not self.process,
            Phase.HELD: not self.process or life.undead,
        }
        assert busy[life.phase], f"nothing happens in {life.phase}"

    @invariant()
    def nothing_is_left_behind_a_last_run(self) -> None:
        if hasattr(self, "life") and (
            self.life.phase in (Phase.DOWN, Phase.BACKOFF) or (self.life.phase is Phase.HELD and not self.life.stuck)
        ):
            assert self.leftovers == ""

    @invariant()
    def it_is_always_said_why(self) -> None:
        if hasattr(self, "life"):
            assert isinstance(self.life.reason, str)
            assert self.life.reason or self.life.phase is Phase.DOWN

    @invariant()
    def a_verdict_has_words(self) -> None:
        if hasattr(self, "life") and self.life.phase is Phase.CLEANING:
            assert self.life.verdict is not None
            assert self.life.decision


AnyHistory.TestCase.settings = settings(stateful_step_count=40)
TestAnyHistory = AnyHistory.TestCase
