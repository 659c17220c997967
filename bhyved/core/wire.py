"""What requests and answers look like on the control socket, console.* aside (`consolewire`), and the table of all methods.

docs/protocol.md is written from these; a test compares. Keys are kebab-case, but for rows and events, whose keys are those of
`vmctl list --json`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bhyved.core import consolewire
from bhyved.core.consolewire import Params
from bhyved.core.reload import Change
from bhyved.core.rights import Right
from bhyved.core.snapshots import Snapshot
from bhyved.core.status import Event, Phase, Row, RunRecord

#: Requests may wait for a day, as those for a console's text.
WAIT_MAX_S = consolewire.WAIT_MAX_S
#: Ten years: a hold or a drain that nobody releases is a hold without end.
HOLD_MAX_S = 10 * 366 * 86_400.0

#: Shown in terminals and logs: one line, without control characters.
Remark = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
StopSeconds = Annotated[float, Meta(ge=0, le=86_400)]
HoldSeconds = Annotated[float, Meta(gt=0, le=HOLD_MAX_S)]
Until = Literal["up", "ready", "down", "suspended"]


class NoParams(Params, frozen=True, kw_only=True):
    """Methods that take none."""


class OfGuest(Params, frozen=True, kw_only=True):
    """One guest."""

    name: str


class OfGuests(Params, frozen=True, kw_only=True):
    """Guests by name, or every one that the caller may use."""

    names: tuple[str, ...] = ()
    all: bool = False

    def __post_init__(self) -> None:
        if bool(self.names) == self.all:
            raise ValueError('give names, or "all": true' + (", not both" if self.all else ""))


class ListParams(Params, frozen=True, kw_only=True):
    """`vm.list` and `vm.usage`. Without names: all that the caller may see."""

    names: tuple[str, ...] = ()


class StartParams(OfGuests, frozen=True, kw_only=True):
    """`vm.start`. `cold`: a saved state is thrown away."""

    install: bool = False
    cold: bool = False


class StopParams(OfGuests, frozen=True, kw_only=True):
    """`vm.stop`. `timeout` replaces the guest's own grace."""

    force: bool = False
    timeout: StopSeconds | None = None


class HoldParams(OfGuests, frozen=True, kw_only=True):
    """`vm.hold`."""

    reason: Remark = ""
    for_: HoldSeconds | None = msgspec.field(default=None, name="for")


class WaitParams(OfGuest, frozen=True, kw_only=True):
    """`vm.wait`."""

    until: Until
    after_run: str | None = None
    timeout: Annotated[float, Meta(ge=0, le=WAIT_MAX_S)] | None = None


class WhyParams(OfGuest, frozen=True, kw_only=True):
    """`vm.why`. `runs`: how many of the newest runs come along."""

    runs: Annotated[int, Meta(ge=0, le=100)] = 3


class HistoryParams(OfGuest, frozen=True, kw_only=True):
    """`vm.history`."""

    last: Annotated[int, Meta(ge=1, le=1000)] = 20


class PlanParams(OfGuest, frozen=True, kw_only=True):
    """`vm.plan`. Without release and arch: the host's own."""

    release: Literal["14", "15", "main"] | None = None
    arch: Literal["amd64", "arm64"] | None = None
    install: bool = False


class SnapshotParams(OfGuests, frozen=True, kw_only=True):
    """`vm.snapshot`. Without `snapshot`, it is named after the moment."""

    snapshot: str | None = None


class SnapshotDeleteParams(OfGuest, frozen=True, kw_only=True):
    """`vm.snapshot-delete`. A snapshot that bhyved did not take must be named in full: DATASET@NAME."""

    snapshot: str


class RollbackParams(OfGuest, frozen=True, kw_only=True):
    """`vm.rollback`."""

    snapshot: str
    destroy_newer: bool = False


class ReloadParams(Params, frozen=True, kw_only=True):
    """`config.reload`. `plan`: say what would happen and change nothing. `prune`: stop guests whose file is gone."""

    plan: bool = False
    prune: bool = False


class DrainParams(Params, frozen=True, kw_only=True):
    """`daemon.drain`: stop every guest and start none, or take that back."""

    on: bool
    reason: Remark = ""
    for_: HoldSeconds | None = msgspec.field(default=None, name="for")


class SubscribeParams(Params, frozen=True, kw_only=True):
    """`events.subscribe`. Without `since` and `since-time`: from now on."""

    since: Annotated[int, Meta(ge=0)] | None = None
    since_time: float | None = None
    names: tuple[str, ...] = ()
    follow: bool = True


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Answers may grow: a client ignores what it does not know."""


class You(Result, frozen=True, kw_only=True):
    """The caller, as the daemon sees it. `owns`: guests by their `owner`."""

    uid: int
    user: str
    role: str
    owns: tuple[str, ...]


class Drain(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Every guest is stopped and none is started: by whom, why, and until when (UTC; None: until switched off)."""

    by: str
    reason: str = ""
    since_at: datetime
    until_at: datetime | None = None


class Memory(Result, frozen=True, kw_only=True):
    """The host's memory as automatic starts count it. `guests_bytes`: of those that have theirs. None: not known, or without a limit."""

    total_bytes: int | None
    reserve_bytes: int
    limit_bytes: int | None
    guests_bytes: int
    free_bytes: int | None
    wired_limit_bytes: int | None
    wired_bytes: int
    overcommit: bool


class Info(Result, frozen=True, kw_only=True):
    """`daemon.info`. `guests`: how many the caller may see. `problems`: parts of the daemon that do not do their work, a sentence each.

    `memory`: for who may see every guest. `config`: the main file, which `bhyved -c` may have named.
    """

    version: str
    config: str
    protocol: int = 1
    pid: int
    boot: str
    started_at: datetime
    uptime_s: float
    closing: bool
    drain: Drain | None
    guests: int
    memory: Memory | None
    problems: tuple[str, ...]
    you: You


class Listing(Result, frozen=True, kw_only=True):
    """`vm.list`. `vms` is a list of rows, encoded already."""

    version: int = 1
    vms: msgspec.Raw


class Shown(Result, frozen=True, kw_only=True):
    """`vm.show`. `spec` is what the files say; `started_spec` whether a run has one of its own, which `changes` compares it with."""

    version: int = 1
    vm: Row
    spec: dict[str, Any]
    consoles: list[dict[str, Any]]
    changes: tuple[Change, ...]
    started_spec: bool


class Told(Result, frozen=True, kw_only=True):
    """What one guest answers. `run` is the run that was there when it was asked."""

    name: str
    ok: bool
    code: str
    text: str
    run: str = ""
    phase: Phase | None = None


class Answers(Result, frozen=True, kw_only=True):
    """One answer a guest, in the order of the names."""

    answers: list[Told]


class SnapshotAnswer(Told, frozen=True, kw_only=True):
    """What one guest answers to `vm.snapshot`; the two are empty where none was taken."""

    snapshot: str = ""
    consistency: str = ""


class SnapshotList(Result, frozen=True, kw_only=True):
    """`vm.snapshots`: the datasets of the guest's disks, and their snapshots, oldest first."""

    version: int = 1
    name: str
    datasets: tuple[str, ...]
    snapshots: list[Snapshot]


class Done(Result, frozen=True, kw_only=True):
    """`vm.snapshot-delete`: a sentence."""

    text: str


class RolledBack(Result, frozen=True, kw_only=True):
    """`vm.rollback`: a sentence, and the keys of the guest's configuration that were different when the snapshot was taken."""

    text: str
    config_changes: tuple[str, ...]


class Waited(Result, frozen=True, kw_only=True):
    """`vm.wait`. Neither met nor timed out: it will not come by itself, and `reason` says why."""

    met: bool
    timed_out: bool
    phase: Phase | None  # None: the guest is gone
    ready: bool
    reason: str
    run: str


class Why(Result, frozen=True, kw_only=True):
    """`vm.why`."""

    name: str
    phase: Phase
    sentences: tuple[str, ...]
    runs: list[RunRecord]
    hint: str


class History(Result, frozen=True, kw_only=True):
    """`vm.history`: records, and each as a line for people."""

    runs: list[RunRecord]
    lines: tuple[str, ...]


class Planned(Result, frozen=True, kw_only=True):
    """`vm.plan`. `plan` has the parts of `text` by name."""

    text: str
    warnings: tuple[str, ...]
    objections: tuple[str, ...]
    plan: dict[str, Any]


class Checked(Result, frozen=True, kw_only=True):
    """`config.check`: a line each."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


class Reloaded(Result, frozen=True, kw_only=True):
    """`config.reload`. With problems, it is no result but the error `configuration`."""

    applied: bool
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[Change, ...]] = {}
    daemon: tuple[Change, ...] = ()
    starts: tuple[str, ...] = ()  # new guests that begin to run
    stops: tuple[str, ...] = ()  # guests without a file that are stopped
    orphans: tuple[str, ...] = ()  # guests without a file that go on as they are; the others of `removed` are forgotten
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """One guest in `vm.usage`: counts since its run began, and what it has now; null where nothing runs or nobody can look."""

    name: str
    cpu_s: float | None
    resident_bytes: int | None
    threads: int | None
    received_bytes: int
    sent_bytes: int
    console_bytes: int


class Usages(Result, frozen=True, kw_only=True):
    """`vm.usage`. `at_s`: the daemon's monotonic clock, so that two answers make rates."""

    version: int = 1
    at_s: float
    vms: list[Used]


class MetricsParams(Params, frozen=True, kw_only=True):
    """`daemon.metrics`. `accept`: as in HTTP, which of the formats; without it, Prometheus's text."""

    accept: Annotated[str, Meta(max_length=1000)] = ""


class MetricsText(Result, frozen=True, kw_only=True):
    """`daemon.metrics`."""

    content_type: str
    text: str


class Link(Result, frozen=True, kw_only=True):
    """`web.link`."""

    url: str


class Drained(Result, frozen=True, kw_only=True):
    """`daemon.drain`. `was`: the drain that this one takes the place of, or that is over now."""

    on: bool
    drain: Drain | None
    was: Drain | None = None


class Subscribed(Result, frozen=True, kw_only=True):
    """`events.subscribe`: the number of the newest event. What has happened by then follows, and `end` if nothing more is asked for."""

    next: int


class Method(msgspec.Struct, frozen=True):
    """What a method takes and who may call it. `of` is what the right is needed over: one guest, each of several, or the host."""

    params: type[Params]
    of: Literal["anybody", "host", "guest", "guests"]
    right: Right | None = None
    changes: bool = False  # something: logged, and told as an event
    waits: bool = False  # later requests of the connection go ahead of its answer


METHODS: dict[str, Method] = {
    "daemon.info": Method(NoParams, "anybody"),
    "vm.list": Method(ListParams, "guests", Right.READ),
    "vm.show": Method(OfGuest, "guest", Right.READ),
    "vm.start": Method(StartParams, "guests", Right.OPERATE, changes=True),
    "vm.stop": Method(StopParams, "guests", Right.OPERATE, changes=True),
    "vm.restart": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.reset": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.poweroff": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.nmi": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.suspend": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.resume": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.hold": Method(HoldParams, "guests", Right.OPERATE, changes=True),
    "vm.release": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.snapshot": Method(SnapshotParams, "guests", Right.OPERATE, changes=True, waits=True),
    "vm.snapshots": Method(OfGuest, "guest", Right.READ, waits=True),
    "vm.snapshot-delete": Method(SnapshotDeleteParams, "guest", Right.OPERATE, changes=True, waits=True),
    "vm.rollback": Method(RollbackParams, "guest", Right.ADMIN, changes=True, waits=True),
    "vm.usage": Method(ListParams, "guests", Right.READ),
    "vm.wait": Method(WaitParams, "guest", Right.READ, waits=True),
    "vm.why": Method(WhyParams, "guest", Right.READ),
    "vm.history": Method(HistoryParams, "guest", Right.READ),
    "vm.plan": Method(PlanParams, "guest", Right.READ),
    "config.check": Method(NoParams, "host", Right.READ),
    "config.reload": Method(ReloadParams, "host", Right.ADMIN, changes=True),
    "daemon.drain": Method(DrainParams, "host", Right.ADMIN, changes=True),
    "daemon.plan-boot": Method(NoParams, "host", Right.READ),
    "daemon.plan-shutdown": Method(NoParams, "host", Right.READ),
    "daemon.metrics": Method(MetricsParams, "host", Right.READ),
    "web.link": Method(NoParams, "host", Right.ADMIN, changes=True),
    "events.subscribe": Method(SubscribeParams, "guests", Right.READ, waits=True),
    "console.attach": Method(consolewire.AttachParams, "guest", Right.CONSOLE_READ),
    "console.tail": Method(consolewire.TailParams, "guests", Right.CONSOLE_READ),
    "console.log": Method(consolewire.LogParams, "guest", Right.CONSOLE_READ),
    "console.wait-for": Method(consolewire.WaitParams, "guest", Right.CONSOLE_READ, waits=True),
    "console.send": Method(consolewire.SendParams, "guest", Right.CONSOLE_WRITE, changes=True),
}


#: The event that stands behind a gap in the numbers.
GAP_EVENT = "gap"


def event_row(event: Event) -> dict[str, Any]:
    """An event as the wire shows it: the same keys always, and `data` where there is more to say."""
    row = {"seq": event.seq, "at": event.at, "event": event.event, "vm": event.vm}
    row |= {"phase": event.phase, "reason": event.reason, "by": event.by}
    return row | {"data": event.data} if event.data else row
