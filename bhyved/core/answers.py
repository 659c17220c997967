"""What answers look like on the control socket, by method, and the rows of events; those of console.* are in `consolewire`.

docs/protocol.md is written from these; a test compares. Keys are kebab-case, but for rows and events, whose keys are those of
`vmctl list --json`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from bhyved.core.drain import Drain
from bhyved.core.reload import Change
from bhyved.core.snapshots import Snapshot
from bhyved.core.status import Event, Phase, Row, RunRecord

#: The event that stands behind a gap in the numbers.
GAP_EVENT = "gap"


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Answers may grow: a client ignores what it does not know."""


class You(Result, frozen=True, kw_only=True):
    """The caller, as the daemon sees it. `owns`: guests by their `owner`."""

    uid: int
    user: str
    role: str
    owns: tuple[str, ...]


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


def event_row(event: Event) -> dict[str, Any]:
    """An event as the wire shows it: the same keys always, and `data` where there is more to say."""
    row = {"seq": event.seq, "at": event.at, "event": event.event, "vm": event.vm}
    row |= {"phase": event.phase, "reason": event.reason, "by": event.by}
    return row | {"data": event.data} if event.data else row
