"""Whether the host has memory for one more guest: how much there is, who has it, and who waits for it.

Pure. `core.turns` asks before an automatic start; `agenda`, `doctor` and `config.check` ask what a boot would find. Counted is what guests
are configured with, not what they have touched: a guest may touch all of it, and then the host swaps or kills one (contract 5.6).
"""

from collections.abc import Iterable, Mapping

import msgspec

from bhyved.core import order
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import Phase, VmStatus
from bhyved.core.units import Size

NEVER = "more than this host"  # in sentences of what no waiting helps
NAMED = 4  # guests by name in a sentence, the largest; the others are counted

#: From its turn on until nothing of a run is left, a guest has its memory: the node keeps it until it is destroyed (contract 1.10).
_HAVING = frozenset({Phase.PREPARING, Phase.LOADING, Phase.STARTING, Phase.UP, Phase.STOPPING, Phase.KILLING, Phase.CLEANING})


class HostMemory(msgspec.Struct, frozen=True, kw_only=True):
    """As the host says; None: it does not, or sets no limit. `wired_bytes`: what may be wired altogether (contract 5.6)."""

    total_bytes: int | None = None
    wired_bytes: int | None = None
    page_bytes: int = 4096


class Share(msgspec.Struct, frozen=True):
    """The memory that one guest has, or asks for."""

    size: int = 0
    wired: bool = False


class Taken(msgspec.Struct):
    """What guests have together."""

    size: int = 0
    wired: int = 0

    def add(self, share: Share) -> None:
        self.size += share.size
        self.wired += share.size if share.wired else 0


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What all guests may have together. `overcommit` does not lift the limit of wired memory: the kernel keeps that one."""

    host: HostMemory = HostMemory()
    reserve_bytes: int = 0
    overcommit: bool = False

    @property
    def limit_bytes(self) -> int | None:
        """None: as much as they like."""
        total = self.host.total_bytes
        return None if total is None or self.overcommit else max(0, total - self.reserve_bytes)

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to ask at all."""
        return self.limit_bytes is not None or self.host.wired_bytes is not None


def room_of(spec: DaemonSpec, host: HostMemory) -> Room:
    """What the main file makes of the host."""
    return Room(host=host, reserve_bytes=int(spec.memory_reserve), overcommit=spec.overcommit)


def share_of(spec: VmSpec) -> Share:
    """What a guest's next run will ask for."""
    return Share(int(spec.memory), spec.wired)


def is_kept(phase: Phase, *, again: bool, stuck: bool) -> bool:
    """Whether a guest's memory is its own. `again`: the present wish has had its turn, so that reboots and crashes lose it nothing."""
    return stuck or phase in _HAVING or (again and phase in (Phase.WAITING, Phase.BACKOFF))


def shares(statuses: Mapping[str, VmStatus]) -> dict[str, Share]:
    """Who has how much."""
    return {name: Share(status.room_bytes, status.room_wired) for name, status in statuses.items() if status.room_bytes}


def taken(statuses: Iterable[VmStatus]) -> Taken:
    """What those that have theirs have together."""
    together = Taken()
    for status in statuses:
        together.add(Share(status.room_bytes, status.room_wired))
    return together


def fits(room: Room, wanted: Share, taken: Taken) -> bool:
    """Whether `lacks` would have nothing to say, without a look at each guest."""
    limit, wired = room.limit_bytes, room.host.wired_bytes
    if limit is not None and taken.size + wanted.size > limit:
        return False
    return not wanted.wired or wired is None or taken.wired + wanted.size <= wired


def lacks(room: Room, wanted: Share, having: Mapping[str, Share]) -> str:
    """Why there is no memory for one more guest, or ''. `having`: those that have theirs, itself not among them."""
    never = impossible(room, wanted)
    if never:
        return never
    if room.limit_bytes is not None:
        short = _short("", wanted.size, room.limit_bytes, {name: share.size for name, share in having.items()})
        if short:
            return short
    if wanted.wired and room.host.wired_bytes is not None:
        wired = {name: share.size for name, share in having.items() if share.wired}
        return _short(" wired", wanted.size, room.host.wired_bytes, wired)
    return ""


def impossible(room: Room, wanted: Share) -> str:
    """Why this host can never have a guest of that size, and what would be right; or ''."""
    limit, wired = room.limit_bytes, room.host.wired_bytes
    if limit is not None and wanted.size > limit:
        of = f"{amount(room.host.total_bytes or 0)} less memory-reserve, which is {Size(room.reserve_bytes)}"
        return (
            f"needs {Size(wanted.size)}, {NEVER} ever has for guests, which is {amount(limit)} ({of}); "
            "give it less memory, or set overcommit = true in bhyved.toml"
        )
    if wanted.wired and wired is not None and wanted.size > wired:
        pages = -(-wanted.size // room.host.page_bytes)
        return (
            f"needs {Size(wanted.size)} wired, {NEVER} lets be wired, which is {amount(wired)}; "
            f"sysctl vm.max_user_wired={pages} and vmctl reload, or give it less memory"
        )
    return ""


def at_boot(specs: Mapping[str, VmSpec], room: Room) -> dict[str, str]:
    """Guests with autostart that a boot of the host would leave waiting, and for what: those that fit start in their order."""
    having: dict[str, Share] = {}
    waiting: dict[str, str] = {}
    for name in order.start_order(specs):
        spec = specs[name]
        if not spec.autostart:
            continue
        behind = [first for first in spec.order.requires if first in waiting]
        why = f"waits for {behind[0]}, which it requires" if behind else lacks(room, share_of(spec), having)
        if why:
            waiting[name] = why
        else:
            having[name] = share_of(spec)
    return waiting


def amount(size: int) -> str:
    """Bytes as one reads them, never more than there are."""
    for unit, suffix in ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M")):
        if size >= unit:
            tenths = size * 10 // unit
            return f"{tenths // 10}{suffix}" if tenths % 10 == 0 or tenths >= 1000 else f"{tenths / 10}{suffix}"
    return str(Size(size >> 10 << 10))


def _short(how: str, wanted: int, limit: int, having: Mapping[str, int]) -> str:
    """Of a guest that fits where there is no other."""
    left = limit - sum(having.values())
    if wanted <= left:
        return ""
    return f"needs {Size(wanted)}{how}; {amount(max(0, left))} of {amount(limit)} are left beside {_names(having)}"


def _names(having: Mapping[str, int]) -> str:
    largest = sorted(having.items(), key=lambda each: (-each[1], each[0]))
    named = [f"{name} ({Size(size)})" for name, size in largest[:NAMED]]
    rest = largest[NAMED:]
    if rest:
        named.append(f"{len(rest)} more ({amount(sum(size for _, size in rest))})")
    return ", ".join(named)
