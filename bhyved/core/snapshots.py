"""Snapshots of a guest's disks: their names, what zfs(8) says of them, and what may be rolled back.

A guest's snapshot is one name on every dataset that its disks are on (contract 5.7). What bhyved knows of it is kept in user properties
of the snapshot itself, so that it is made, renamed, sent and destroyed with it. Called by `daemon.snapshots`; `host.zfs` runs the
commands.
"""

import enum
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from bhyved.core import reload
from bhyved.core.exits import ExitKind
from bhyved.core.plan import without_secrets
from bhyved.core.spec import VmSpec, dump, undump
from bhyved.core.status import Phase, VmStatus

PREFIX = "bhyved:"
VM, CONSISTENCY, RUN, BY, CONFIG = (PREFIX + key for key in ("vm", "consistency", "run", "by", "config"))
PROPERTY_BYTES = 8191  # zfsprops(7): a user property has at most 8192, with its end
COLUMNS = ("name", "createtxg", "creation", "used", "userrefs", "clones", VM, CONSISTENCY, BY, CONFIG)
COUNTED = ("name", "creation")

_NAME = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*")
_LISTED = 5  # in one sentence
_NAME_CHARS = 100  # zfs allows 255 for dataset and snapshot together
_DATASET = re.compile(r"[A-Za-z][A-Za-z0-9_.: -]*(/[A-Za-z0-9_.: -]+)*")

#: Ends after which the guest has written down everything itself.
_GOOD_ENDS = frozenset({ExitKind.POWEROFF, ExitKind.HALT, ExitKind.REBOOT})
#: Phases in which no process has the disks open, or will without a turn.
IDLE = frozenset({Phase.DOWN, Phase.HELD, Phase.WAITING, Phase.BACKOFF})


class Consistency(enum.StrEnum):
    """What a guest that is started from the snapshot finds."""

    CLEAN = "clean"  # it had shut itself down
    FROZEN = "frozen"  # its agent had written out its file systems and held them still
    SUSPENDED = "suspended"  # its memory was on disk: only together with that, a guest that goes on
    CRASH = "crash-consistent"  # as after a power cut
    PER_POOL = "per-pool"  # it wrote while the pools were snapshotted one after the other
    UNKNOWN = "unknown"  # not taken by bhyved


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Where disks of a guest are: a volume is one, a file system (which has a mount point) may hold several, and other things."""

    name: str
    mountpoint: str = ""
    disks: tuple[str, ...] = ()

    @property
    def pool(self) -> str:
        return self.name.partition("/")[0]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot, or bookmark, of one dataset, as `zfs list` tells."""

    dataset: str
    name: str
    txg: int
    at_s: int  # unix time
    used_bytes: int = 0
    holds: int = 0
    clones: tuple[str, ...] = ()
    is_bookmark: bool = False
    vm: str = ""
    consistency: str = ""
    by: str = ""
    config: str = ""

    @property
    def full(self) -> str:
        return f"{self.dataset}{'#' if self.is_bookmark else '@'}{self.name}"

    @property
    def tie(self) -> str:
        """Why it cannot be destroyed, or ''."""
        if self.clones:
            return f"{self.full} has the clone {self.clones[0]}"
        return f"{self.full} is held (zfs holds)" if self.holds else ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One name on the datasets of a guest, as `vm.snapshots` shows it. `missing`: datasets that do not have it."""

    name: str
    at_s: int
    consistency: Consistency
    used_bytes: int
    by: str
    own: bool  # bhyved took it, of this guest
    datasets: tuple[str, ...]
    missing: tuple[str, ...]


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """The whole snapshots of a guest, for the metrics. `newest_s`: unix time; None: there is none."""

    count: int
    newest_s: int | None


class Refused(Exception):  # noqa: N818 - what a person is told
    """It is not to be done: a word for programs and a sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


# --- names ------------------------------------------------------------------------------------------------------------------------


def default_name(now: datetime) -> str:
    return now.strftime("bhyved-%Y%m%dT%H%M%SZ")


def name_problem(name: str) -> str:
    """Why a snapshot cannot be called that, or ''."""
    if not _NAME.fullmatch(name):
        return f'"{name}" is no name for a snapshot: letters, digits and _ . : - are allowed, and it begins with no -'
    return "" if len(name) <= _NAME_CHARS else f"the name of a snapshot has at most {_NAME_CHARS} characters"


def volume_of(path: str, dev: str) -> str:
    """The volume whose device `path` is, or '' where it is no volume's."""
    inside = posixpath.normpath(path).removeprefix(f"{posixpath.normpath(dev)}/zvol/")
    return inside if not inside.startswith("/") and _DATASET.fullmatch(inside) else ""


def disk_paths(spec: VmSpec) -> tuple[str, ...]:
    """The disks that the guest may write: what it only reads does not change."""
    return tuple(dict.fromkeys(str(disk.path) for disk in spec.disk if disk.path is not None and not disk.read_only))


def by_pool(datasets: Iterable[Dataset]) -> list[list[Dataset]]:
    """One `zfs snapshot` is one moment, within a pool."""
    pools: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        pools.setdefault(dataset.pool, []).append(dataset)
    return list(pools.values())


# --- taking one -------------------------------------------------------------------------------------------------------------------


def consistency(status: VmStatus, *, is_frozen: bool, pools: int) -> Consistency:
    """What a snapshot is that is taken while nothing can start the guest, or while it does what `status` says."""
    if status.phase in IDLE and not status.stuck:
        if status.suspended is not None:
            return Consistency.SUSPENDED
        last = status.last_exit
        # Cut power is told apart from a power-off by who asked for it: bhyve ends with 1 either way (contract 1.7.1).
        return Consistency.CLEAN if last is None or (last.kind in _GOOD_ENDS and not last.forced) else Consistency.CRASH
    if is_frozen:
        return Consistency.FROZEN
    return Consistency.CRASH if pools == 1 else Consistency.PER_POOL


def properties(status: VmStatus, spec: VmSpec, how: Consistency, by: str) -> dict[str, str]:
    """What is written down with a snapshot."""
    found = {VM: status.name, CONSISTENCY: how.value, BY: by, CONFIG: config_text(spec)}
    if status.run:
        found[RUN] = status.run
    return {key: value for key, value in found.items() if value}


def config_text(spec: VmSpec) -> str:
    """The guest's configuration without secrets, since any user of the host may read it there; '' when it does not fit."""
    text = msgspec.json.encode(without_secrets(dump(spec))).decode()
    return text if len(text.encode()) <= PROPERTY_BYTES else ""


def config_changes(text: str, spec: VmSpec) -> tuple[str, ...]:
    """Keys that were different when the snapshot was taken. What cannot be read any more is not compared."""
    try:
        then = undump(msgspec.json.decode(text, type=dict))
        now = undump(msgspec.json.decode(msgspec.json.encode(without_secrets(dump(spec))), type=dict))
    except msgspec.MsgspecError:
        return ()
    return tuple(change.key for change in reload.compare(then, now))


# --- looking ----------------------------------------------------------------------------------------------------------------------


def parse(text: str) -> list[Seen]:
    """The lines of `zfs list -Hp -t snapshot,bookmark -o COLUMNS`."""
    return [seen for line in text.split("\n") if (seen := _parse_line(line)) is not None]


def _parse_line(line: str) -> Seen | None:
    cells = ["" if cell == "-" else cell for cell in line.split("\t")]
    if len(cells) != len(COLUMNS):
        return None
    full, txg, creation, used, holds, clones, vm, how, by, config = cells
    is_bookmark = "@" not in full
    dataset, _, name = full.partition("#" if is_bookmark else "@")
    return Seen(
        dataset=dataset,
        name=name,
        txg=_number(txg),
        at_s=_number(creation),
        used_bytes=_number(used),
        holds=_number(holds),
        clones=tuple(filter(None, clones.split(","))),
        is_bookmark=is_bookmark,
        vm=vm,
        consistency=how,
        by=by,
        config=config,
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def of_guest(vm: str, datasets: Sequence[Dataset], seen: Iterable[Seen]) -> list[Snapshot]:
    """The guest's snapshots, oldest first."""
    names = [dataset.name for dataset in datasets]
    found: dict[str, dict[str, Seen]] = {}
    for each in seen:
        if each.dataset in names and not each.is_bookmark:
            found.setdefault(each.name, {})[each.dataset] = each
    snapshots = [_snapshot(vm, names, name, parts) for name, parts in found.items()]
    return sorted(snapshots, key=lambda snapshot: (snapshot.at_s, snapshot.name))


def _snapshot(vm: str, names: Sequence[str], name: str, parts: Mapping[str, Seen]) -> Snapshot:
    own = all(part.vm == vm for part in parts.values())
    hows = {part.consistency for part in parts.values()}
    known = own and len(hows) == 1 and (how := hows.pop()) in set(Consistency)
    return Snapshot(
        name=name,
        at_s=max(part.at_s for part in parts.values()),
        consistency=Consistency(how) if known else Consistency.UNKNOWN,
        used_bytes=sum(part.used_bytes for part in parts.values()),
        by=next((part.by for part in parts.values()), "") if own else "",
        own=own,
        datasets=tuple(each for each in names if each in parts),
        missing=tuple(each for each in names if each not in parts),
    )


def counted(text: str) -> dict[str, dict[str, int]]:
    """Of `zfs list -Hp -t snapshot -o COUNTED`: dataset → snapshot → unix time."""
    found: dict[str, dict[str, int]] = {}
    for line in text.split("\n"):
        full, _, creation = line.partition("\t")
        dataset, at, name = full.partition("@")
        if at:
            found.setdefault(dataset, {})[name] = _number(creation)
    return found


def stock(datasets: Sequence[str], found: Mapping[str, Mapping[str, int]]) -> Stock:
    """Of a guest on these datasets: whoever took it, a snapshot counts that is on all of them."""
    shared = set.intersection(*(set(found.get(each, {})) for each in datasets)) if datasets else set()
    times = [max(found[each][name] for each in datasets) for name in shared]
    return Stock(count=len(times), newest_s=max(times, default=None))


# --- destroying and rolling back --------------------------------------------------------------------------------------------------


def to_destroy(vm: str, datasets: Sequence[Dataset], seen: Sequence[Seen], wanted: str) -> list[Seen]:
    """What `wanted` means: a snapshot that bhyved took of this guest, by its name, or any one in full. Raises Refused."""
    names = {dataset.name for dataset in datasets}
    parts = [each for each in seen if each.dataset in names and not each.is_bookmark and wanted in (each.name, each.full)]
    if not parts:
        raise Refused("no-such-snapshot", f"{vm} has no snapshot {wanted}")
    for part in parts:
        if part.vm != vm and wanted != part.full:
            who = f"was taken of {part.vm}" if part.vm else "was not taken by bhyved"
            raise Refused("not-ours", f"{part.full} {who}: to destroy it all the same, name it in full")
        if part.tie:
            raise Refused("in-use", part.tie)
    return parts


def to_roll_back(vm: str, datasets: Sequence[Dataset], seen: Sequence[Seen], name: str, *, destroy_newer: bool) -> list[Seen]:
    """The snapshots to go back to, one a dataset. Everything that can be known to fail is said here. Raises Refused."""
    targets = {each.dataset: each for each in seen if each.name == name and not each.is_bookmark}
    lacking = [dataset for dataset in datasets if dataset.name not in targets]
    if len(lacking) == len(datasets):
        raise Refused("no-such-snapshot", f"{vm} has no snapshot {name}")
    if lacking:
        raise Refused("incomplete", f"{lacking[0].name} has no snapshot {name}: only all disks together can be rolled back")
    newer = [each for dataset in datasets for each in seen if each.dataset == dataset.name and each.txg > targets[dataset.name].txg]
    if newer and not destroy_newer:
        text = ", ".join(each.full for each in newer[:_LISTED]) + (f" and {len(newer) - _LISTED} more" if len(newer) > _LISTED else "")
        raise Refused(
            "newer-snapshots", f"{vm} has newer snapshots, which a rollback to {name} would destroy: {text}; --destroy-newer does it"
        )
    for each in newer:
        if each.tie:
            raise Refused("in-use", f"{each.tie}: {vm} cannot be rolled back to before it")
    return [targets[dataset.name] for dataset in datasets]


def stands_in_the_way(dataset: Dataset, others: Mapping[str, str], kept: Iterable[str]) -> str:
    """Why a dataset must not go back, or ''. `others`: disks of other guests in it → those guests; `kept`: directories of bhyved."""
    whole = (
        f"{dataset.name} is a file system, and all that is in it would go back" if dataset.mountpoint else f"{dataset.name} would go back"
    )
    for path, guest in others.items():
        return f"{whole}, also {path} of {guest}: each guest needs datasets of its own for that"
    for path in kept if dataset.mountpoint else ():
        if path == dataset.mountpoint or path.startswith(dataset.mountpoint.rstrip("/") + "/"):
            return f"{whole}, also {path} of bhyved: give the guest a dataset of its own"
    return ""
