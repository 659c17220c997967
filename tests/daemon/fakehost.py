"""A host that exists in memory and in virtual time: what a driver needs of FreeBSD, with the knobs of the domain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import trio

from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.exits import Outcome, Stage
from bhyved.core.limits import Limits
from bhyved.core.room import HostMemory
from bhyved.core.status import Event, RunRecord, Suspension, VmRecord
from bhyved.daemon.ports import Found, Order, Prepared, Ran, Reconciled

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Life:
    """One run of a fake bhyve: what it does by itself, and what it does when it is asked to end."""

    after_s: float | None = None  # ends by itself so long after its start
    status: int = 1
    title_s: float = 0.0
    acpi_s: float | None = 0.0  # how long after a press it is off; None: it ignores the button
    acpi_status: int = 1
    force_works: bool = True
    kill_works: bool = True
    stderr: str = ""
    node: bool = True
    suspend_s: float | None = 5.0  # how long its state takes to be on disk; None: for ever
    suspend_fails: str = ""  # what it says instead, so long after it was asked


@dataclass
class FakeMachine:
    """Satisfies `ports.Machine`. Runs take the next of `lives`, the last one for ever."""

    host: "FakeHost"
    name: str
    lives: list[Life] = field(default_factory=lambda: [Life()])
    found: Found | None = None
    suspension: Suspension | None = None
    cannot_suspend: str = ""
    suspends: int = 0  # under way
    frozen_at: float | None = None  # when its processors ceased to run
    exits_fail: str = ""
    limit_fails: str = ""
    limits: Limits | None = None
    find_fails: list[HostError | None] = field(default_factory=list)
    prepare_fails: list[HostError | None] = field(default_factory=list)
    spawn_fails: list[HostError | None] = field(default_factory=list)
    clean_fails: list[HostError | None] = field(default_factory=list)
    prepare_s: float = 0.0
    seed: str = ""  # the fingerprint of what it attaches
    loader: list[tuple[float, int]] = field(default_factory=list)  # seconds, status
    log: list[tuple[float, str]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    alive: int = 0
    most_alive: int = 0
    _end: trio.Event = field(default_factory=trio.Event)
    _status: int | None = None
    _stage: Stage = Stage.PREPARING
    _life: Life = field(default_factory=Life)
    _started: float = 0.0
    _presses: int = 0
    _saved: bool = False

    def find(self) -> Found | None:
        _raise_next(self.find_fails)
        if self.found is not None:
            self._stage = self.found.stage
            if self._stage is Stage.RUNNING:
                self._begin(self._next_life())
        return self.found

    async def prepare(self, order: Order) -> Prepared:
        self._say("prepare")
        self.orders.append(order)
        await trio.sleep(self.prepare_s)
        _raise_next(self.prepare_fails)
        self._stage = Stage.PREPARING
        if order.cold:
            self.suspension = None
        return Prepared(taps=("tap1000",), resumed=self.suspension, seed=self.seed)

    def spawn_loader(self, consoles: Sequence[int] = ()) -> None:
        self._say("load")
        self._stage = Stage.LOADING
        self._end = trio.Event()
        seconds, status = self.loader.pop(0)
        self.host.later(seconds, lambda: self._finish(status))

    def spawn_bhyve(self, consoles: Sequence[int] = ()) -> None:
        self._say("spawn")
        _raise_next(self.spawn_fails)
        self._stage = Stage.RUNNING
        self._begin(self._next_life())

    def _next_life(self) -> Life:
        return self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]

    def _begin(self, life: Life) -> None:
        self._life, self._end, self._presses, self._saved = life, trio.Event(), 0, False
        self._started = self.host.monotonic()
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        if life.after_s is not None:
            self.host.later(life.after_s, lambda: self._finish(life.status))

    def _finish(self, status: int | None) -> None:
        if not self._end.is_set():
            self._status = status
            if self._stage is Stage.RUNNING:
                self.alive -= 1
            self._end.set()

    async def watch(self, started: Callable[[int], None]) -> Outcome:
        if self._stage is Stage.PREPARING:
            await trio.lowlevel.checkpoint()
            return Outcome(stage=Stage.PREPARING, status=None)
        started(4711)
        stage, life = self._stage, self._life
        await self._end.wait()
        saved = self.suspension.path if self._saved and self.suspension else ""
        at = self.host.utc()
        return Outcome(stage=stage, status=self._status, pid=4711, stderr=life.stderr, node_present=life.node, at=at, saved=saved)

    def suspended(self) -> Suspension | None:
        return self.suspension

    async def check_suspend(self) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        if self.cannot_suspend:
            raise HostError(self.cannot_suspend)
        return ("virtio-blk is risky",)

    async def suspend(self, by: str) -> str:
        self._say("suspend")
        life = self._life
        self.suspends += 1
        try:
            await trio.sleep(float("inf") if life.suspend_s is None else life.suspend_s)
            if life.suspend_fails:
                return life.suspend_fails
            self.suspension = Suspension(at=self.host.utc(), by=by, path=f"/db/suspend/{self.name}/saved")
            self._saved = True
            self._finish(0)
            await trio.sleep_forever()
            raise AssertionError
        finally:
            self.suspends -= 1

    async def spent(self) -> bool:
        self._say("spent")
        await trio.lowlevel.checkpoint()
        was, self.suspension = self.suspension, None
        return was is not None

    async def title_is_set(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.host.monotonic() - self._started >= self._life.title_s

    async def press(self) -> None:
        await trio.lowlevel.checkpoint()
        self._say("press")
        self._presses += 1
        life = self._life
        if life.acpi_s is not None and self._presses == 1:
            self.host.later(life.acpi_s, lambda: self._finish(life.acpi_status))

    async def force(self, how: str) -> None:
        self._say(f"force {how}")
        await trio.lowlevel.checkpoint()
        if self._life.force_works:
            self._finish(1 if how == "poweroff" else 0)

    async def inject_nmi(self) -> None:
        self._say("nmi")
        await trio.lowlevel.checkpoint()

    async def limit(self, limits: Limits | None) -> None:
        await trio.lowlevel.checkpoint()
        if self.limit_fails:
            raise HostError(self.limit_fails)
        self.limits = limits
        self._say(f"limit {limits}")

    async def vm_exits(self) -> int:
        await trio.lowlevel.checkpoint()
        if self.exits_fail:
            raise HostError(self.exits_fail)
        return int((self.host.monotonic() if self.frozen_at is None else self.frozen_at) * 100)

    async def kill(self) -> None:
        await trio.lowlevel.checkpoint()
        self._say("kill")
        if self._life.kill_works:
            self._finish(137)

    async def clean(self, *, final: bool) -> None:
        self._say("clean all" if final else "clean")
        await trio.lowlevel.checkpoint()
        _raise_next(self.clean_fails)

    def _say(self, what: str) -> None:
        self.log.append((round(self.host.monotonic(), 3), what))

    @property
    def did(self) -> list[str]:
        """What was asked of the machine, in order."""
        return [what for _, what in self.log]

    def times(self, what: str) -> list[float]:
        """When something was asked, seconds from the beginning of the test."""
        return [at for at, said in self.log if said == what]


def _raise_next(failures: list[HostError | None]) -> None:
    failure = failures.pop(0) if failures else None
    if failure is not None:
        raise failure


class FakeNews:
    """Satisfies `ports.News`."""

    def __init__(self) -> None:
        self.is_there = self.is_open = False
        self.told = trio.Event()

    def listen(self) -> bool:
        self.is_open = self.is_there
        return self.is_open

    async def wait(self) -> None:
        if self.is_open:
            await self.told.wait()
            self.told = trio.Event()

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.told.set()


class FakeHost:
    """Satisfies `ports.Host`, `ports.Commands`. Its clock begins at 0 and is the loop's."""

    def __init__(self, nursery: trio.Nursery, boot: str = "b1") -> None:
        self.boot = boot
        self.machines: dict[str, FakeMachine] = {}
        self.ran: list[tuple[tuple[str, ...], bytes]] = []
        self.completed: list[tuple[str, ...]] = []
        self.command_status: int | None = 0
        self.commands_end = trio.Event()
        self.commands_end.set()  # a test that puts an unset one here has commands take their time
        self.jumped_s = 0.0  # by how much somebody has set the wall clock
        self.has = HostMemory()
        self.absent: set[str] = set()  # needs
        self.looks: list[float] = []  # when needs were looked at
        self.says = FakeNews()
        self._nursery = nursery
        self._zero = trio.current_time()

    def monotonic(self) -> float:
        return trio.current_time() - self._zero

    def utc(self) -> datetime:
        return NOON + timedelta(seconds=self.monotonic() + self.jumped_s)

    def machine(self, name: str) -> FakeMachine:
        return self.machines.setdefault(name, FakeMachine(self, name))

    def ledgers(self) -> list[str]:
        return [name for name, machine in self.machines.items() if machine.found is not None]

    async def reconcile(self, names: Sequence[str]) -> Reconciled:
        return Reconciled()

    async def shutdown_limits(self) -> tuple[float | None, float | None]:
        return 90.0, 120.0

    async def memory(self) -> HostMemory:
        await trio.lowlevel.checkpoint()
        return self.has

    async def missing(self, needs: Sequence[str]) -> dict[str, str]:
        self.looks.append(round(self.monotonic(), 3))
        await trio.lowlevel.checkpoint()
        return {need: "it does not exist" for need in needs if need in self.absent}

    def news(self) -> FakeNews:
        return self.says

    async def load_modules(self) -> None:
        return

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        async def wait() -> None:
            await trio.sleep(seconds)
            call()

        self._nursery.start_soon(wait)

    async def run(self, argv: Sequence[str], *, limit_s: float, input: bytes = b"", env: Mapping[str, str] = {}, run_as: str = "") -> Ran:
        self.ran.append((tuple(argv), input))
        await trio.lowlevel.checkpoint()
        await self.commands_end.wait()
        self.completed.append(tuple(argv))
        return Ran(status=self.command_status)


class FakeVault:
    """Satisfies `ports.Vault`."""

    def __init__(self) -> None:
        self.records: dict[str, VmRecord] = {}
        self.fails = False

    def load(self) -> dict[str, VmRecord]:
        return dict(self.records)

    async def save(self, name: str, record: VmRecord) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise HostError("db/vm/web1: no space left on device")
        self.records[name] = record

    async def forget(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.records.pop(name, None)


class FakeDrainFile:
    """Satisfies `ports.DrainFile`."""

    def __init__(self, drain: Drain | None = None) -> None:
        self.drain = drain
        self.fails = False

    def load(self) -> Drain | None:
        return self.drain

    async def save(self, drain: Drain | None) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise HostError("db/drain.json: no space left on device")
        self.drain = drain


class FakeJournal:
    """Satisfies `ports.Journal`."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.events: list[Event] = []
        self.records: list[RunRecord] = []
        self._clock = clock

    def append(self, event: str, /, **fields: object) -> Event:
        told = Event(seq=len(self.events) + 1, at=self._clock(), event=event, **fields)  # type: ignore[arg-type]
        self.events.append(told)
        return told

    def add_run(self, record: RunRecord) -> None:
        self.records.append(record)

    def runs(self, name: str, last: int) -> list[RunRecord]:
        return [record for record in self.records if record.vm == name][-last:]

    def since(self, seq: int) -> list[Event]:
        return [event for event in self.events if event.seq > seq]
