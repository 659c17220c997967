"""What is visible of a guest, and the records that outlive a run.

`VmStatus` is what a driver puts on the board after each step; control, metrics, events and the page only read it. `Row` is the
same thing as the wire shows it at one moment. `VmRecord` is what is kept on disk of a guest, `RunRecord` one line of its history.
Monotonic times are CLOCK_MONOTONIC seconds of the host boot named beside them; `…_at` are UTC, for people.
"""

import enum
from datetime import datetime

import msgspec

from bhyved.core.exits import ExitKind
from bhyved.core.verdict import Verdict


class Phase(enum.StrEnum):
    """Where a guest is, as an operator would say it."""

    DOWN = "down"
    WAITING = "waiting"
    PREPARING = "preparing"
    LOADING = "loading"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    KILLING = "killing"
    CLEANING = "cleaning"
    BACKOFF = "backoff"
    HELD = "held"


#: Phases in which a process of the guest may be alive.
ACTIVE = frozenset({Phase.LOADING, Phase.STARTING, Phase.UP, Phase.STOPPING, Phase.KILLING})


class Desired(enum.StrEnum):
    """What was last wished for a guest."""

    UP = "up"
    DOWN = "down"


def utc_text(at: datetime | None) -> str | None:
    """A time as people read it in events, on the page and in sentences."""
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def frozen_text(by: str, until_at: datetime | None, reason: str) -> str:
    """Of a hold or a drain, behind what it is: by whom, until when, why."""
    until = f" until {utc_text(until_at)}" if until_at is not None else ""
    return f"by {by}{until}" + (f": {reason}" if reason else "")


class Hold(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Automation frozen for a guest: by whom, why, and until when (UTC; None: until released)."""

    by: str
    reason: str = ""
    since_at: datetime
    until_at: datetime | None = None


class Restarts(msgspec.Struct, frozen=True):
    """Automatic restarts by cause, counted since the guest was first seen on this host."""

    reboot: int = 0
    crash: int = 0
    start_failure: int = 0


class LastExit(msgspec.Struct, frozen=True, kw_only=True):
    """How the last run ended. `status` is bhyve's, None where a signal ended it or nobody wrote it down."""

    kind: ExitKind
    status: int | None
    signal: int | None
    at: datetime
    text: str = ""
    hint: str = ""
    forced: bool = False  # its power was cut, whatever it ended with


class Suspension(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's state on disk, which its next start resumes: since when, by whose wish, and where its files are.

    `doubtful`: a resume of it was cut short. The guest may have written to its disks since, so nothing resumes it by itself.
    """

    at: datetime
    by: str
    path: str
    doubtful: bool = False


class Book(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What counts against the limits: monotonic times of reboots and crashes, and failed starts in a row.

    Times mean something only on the boot they were written on; `host` drops them on another.
    """

    reboots: tuple[float, ...] = ()
    crashes: tuple[float, ...] = ()
    failures: int = 0


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Durations by upper bound in seconds, cumulative only when exported; `counts` has one more place than BOUNDS (+Inf)."""

    counts: tuple[int, ...] = (0,) * 12
    total_s: float = 0.0

    def plus(self, seconds: float) -> "Histogram":
        place = next((i for i, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))
        counts = tuple(n + (i == place) for i, n in enumerate(self.counts))
        return Histogram(counts=counts, total_s=self.total_s + seconds)


#: Start and stop durations run from a sim guest's 50 ms to a slow shutdown's minutes.
BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class VmRecord(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What must survive a host crash of one guest. A `version` above VERSION is refused, not guessed at."""

    version: int = 1
    desired: Desired | None = None
    desired_boot: str = ""  # the boot the wish was made on: on another, autostart decides
    hold: Hold | None = None
    book: Book = Book()
    book_boot: str = ""  # also of `held`
    held: str = ""  # why policy has held the guest: it stays so for the next daemon on the same boot
    counted_run: str = ""  # the run whose end was counted last: it is counted once, whoever ends it again
    verdict: Verdict | None = None  # what was decided to follow that end, or a start that failed since
    restarts: Restarts = Restarts()
    exits: dict[ExitKind, int] = {}
    forced_stops: int = 0
    start_s: Histogram = Histogram()
    stop_s: Histogram = Histogram()
    last_exit: LastExit | None = None
    slots: dict[str, str] = {}
    macs: dict[str, str] = {}
    console_bytes: int = 0
    ready_run: str = ""  # the run whose readiness has been told
    seed: str = ""  # the fingerprint of the cloud-init seed that the guest has been set up with
    frozen_run: str = ""  # the run whose file systems may be frozen
    limited_run: str = ""  # the run whose bhyve may have rules of rctl(8)


RECORD_VERSION = 1


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="kebab"):
    """One run, from the request to what policy made of its end: what `vmctl why` and `history` print."""

    version: int = 1
    run: str
    vm: str
    by: str
    began_at: datetime
    ended_at: datetime
    uptime_s: float
    kind: ExitKind
    text: str
    status: int | None = None
    signal: int | None = None
    hint: str = ""
    decision: str
    adopted: bool = False
    config_hash: str = ""
    stderr: str = ""  # last lines of bhyve's output
    console: str = ""  # last lines of com1, escape sequences stripped


class VmStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All that others may know of one guest at one moment. `generation` grows with each change."""

    name: str
    generation: int = 0
    phase: Phase = Phase.DOWN
    since: float = 0.0  # monotonic, entry into the phase
    since_at: datetime
    reason: str = ""
    desired: Desired = Desired.DOWN
    hold: Hold | None = None
    pid: int | None = None
    run: str = ""
    by: str = ""  # who or what asked for this run
    started: float | None = None  # monotonic start of bhyve
    started_at: datetime | None = None
    ready: bool = False
    late: bool = False  # up, and its time to become ready is over
    unready: str = ""  # why it is up, and not ready yet
    adopted: bool = False
    restarts: Restarts = Restarts()
    exits: dict[ExitKind, int] = {}
    last_exit: LastExit | None = None
    next_start: float | None = None  # monotonic
    attempts: str = ""  # "crash 4 of 5", "failed start 7", or ""
    attempts_left: int | None = None
    config_changed: tuple[str, ...] = ()  # keys whose new value waits for a restart
    forced_stops: int = 0
    start_s: Histogram = Histogram()
    stop_s: Histogram = Histogram()
    owner: tuple[str, ...] = ()
    autostart: bool = False
    loader: str = ""
    cpus: int = 1
    memory_bytes: int = 0
    serials: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    vnc: str = ""
    disks: tuple[str, ...] = ()
    suspended: Suspension | None = None
    suspending: bool = False  # its state is being written to disk
    waiting_for: str = ""
    roomless: bool = False  # what it waits for is memory
    room_bytes: int = 0  # memory of the host that is its own now
    room_wired: bool = False
    ill: str = ""  # why its health probes take it as ill
    unlimited: str = ""  # why its `[limits]` do not hold
    orphaned: bool = False  # its file has gone; it goes on until it is pruned
    stuck: bool = False  # the kernel does not let its process or node go


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One guest in `vm.list`: a `VmStatus` seen at one moment, durations instead of monotonic times."""

    name: str
    phase: Phase
    reason: str
    desired: Desired
    pid: int | None
    uptime_s: float | None
    ready: bool
    adopted: bool
    restarts: Restarts
    last_exit: LastExit | None
    next_start_in_s: float | None
    config_changed: bool
    hold: Hold | None
    phase_s: float
    since_at: datetime
    autostart: bool
    cpus: int
    memory_bytes: int
    attempts: str
    forced_stops: int
    run: str
    taps: tuple[str, ...]
    vnc: str
    serials: tuple[str, ...]
    suspended: Suspension | None
    waiting_for: str
    unready: str
    ill: str
    unlimited: str
    orphaned: bool


def row(status: VmStatus, now: float) -> Row:
    """What the wire says of a guest at `now` (monotonic)."""
    return Row(
        name=status.name,
        phase=status.phase,
        reason=status.reason,
        desired=status.desired,
        pid=status.pid,
        uptime_s=None if status.started is None else round(max(0.0, now - status.started), 3),
        ready=status.ready,
        adopted=status.adopted,
        restarts=status.restarts,
        last_exit=status.last_exit,
        next_start_in_s=None if status.next_start is None else round(max(0.0, status.next_start - now), 3),
        config_changed=bool(status.config_changed),
        hold=status.hold,
        phase_s=round(max(0.0, now - status.since), 3),
        since_at=status.since_at,
        autostart=status.autostart,
        cpus=status.cpus,
        memory_bytes=status.memory_bytes,
        attempts=status.attempts,
        forced_stops=status.forced_stops,
        run=status.run,
        taps=status.taps,
        vnc=status.vnc,
        serials=status.serials,
        suspended=status.suspended,
        waiting_for=status.waiting_for,
        unready=status.unready,
        ill=status.ill,
        unlimited=status.unlimited,
        orphaned=status.orphaned,
    )


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened, as `events.subscribe` streams it. `seq` grows by one and is never used twice on a host."""

    seq: int
    at: datetime
    event: str
    vm: str = ""
    phase: Phase | None = None
    reason: str = ""
    by: str = ""
    data: dict[str, str | int | float | bool | None] = {}
