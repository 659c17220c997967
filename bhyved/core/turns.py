"""Who may start now: dependencies by readiness, and how many guests boot at once.

Pure; `daemon.turnstile` asks it whenever something has changed. Ordering (`after`) waits for a guest for as long as that guest is on
its way up (one that waits for memory is not); a requirement (`requires`) waits until it is up and ready, and what is needed of the host
(`needs`) until it is there, however long. Too little memory holds back automatic starts for as long as it lasts, and those behind that
need less pass. Slots and gap are for the boot of a host and the end of a drain, where dozens of guests would read the same disks: they hold
back what starts automatically and is no restart. Neither memory nor pace ever holds back a restart, or a person.
"""

from collections.abc import Mapping

import msgspec

from bhyved.core import needs
from bhyved.core.room import Room, Share, Taken, fits, lacks, shares
from bhyved.core.spec import Order
from bhyved.core.status import Desired, Phase, VmStatus

#: Phases in which a guest that is wished up may still become ready by itself, soon.
_COMING = frozenset(
    {Phase.WAITING, Phase.PREPARING, Phase.LOADING, Phase.STARTING, Phase.UP, Phase.STOPPING, Phase.KILLING, Phase.CLEANING}
)
#: Phases in which a starting guest keeps its host busy.
_BUSY = frozenset({Phase.PREPARING, Phase.LOADING, Phase.STARTING})


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One guest that wants to start. `paced`: an automatic start that is no restart, which takes a slot.

    `asked`: a person wants it, so that memory does not hold it back; `again`: it has its memory already.
    """

    name: str
    order: Order
    paced: bool
    share: Share = Share()
    asked: bool = False
    again: bool = False


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a host boots its guests."""

    parallel: int
    gap_s: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the host: need → why it is missing, or ''; how often that is looked at, and whether the host tells."""

    known: Mapping[str, str] = {}
    period_s: float = 0.0
    told: bool = False


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """What follows now. `look_again`: the monotonic time at which the gap is over; None: only a change matters.

    `needs`: what must be looked at for those who wait for nothing else. `short`: of those who go, whose memory is not there, and why.
    """

    go: tuple[str, ...]
    why: dict[str, str]  # who waits → for what, a sentence
    roomless: frozenset[str] = frozenset()  # of these, who waits for memory
    short: dict[str, str] = {}
    look_again: float | None = None
    needs: frozenset[str] = frozenset()


def may_start(
    queue: tuple[Waiting, ...],
    statuses: Mapping[str, VmStatus],
    pace: Pace,
    *,
    now: float,
    last_paced: float | None,
    paced: frozenset[str],
    seen: Seen = Seen(),  # noqa: B008 - frozen
    room: Room = Room(),  # noqa: B008 - frozen
    barred: Mapping[str, str] = {},
) -> Turns:
    """`queue` in the order in which they asked; `paced` are guests that took a slot and may still be starting.

    `barred`: guests that something is done to which no run may meet → what that is.
    """
    busy = sum(1 for name in paced if name in statuses and statuses[name].phase in _BUSY)
    open_at = now if last_paced is None else last_paced + pace.gap_s
    go: list[str] = []
    why: dict[str, str] = {}
    look_again: float | None = None
    tenants = _Tenants(room, statuses)
    ahead: dict[str, tuple[str, ...]] = {}  # of guests that wait for no other guest: what they need of the host
    # Whoever asked first goes first; at boot all ask at once, and their names decide, so that each boot is the same.
    for waiting in sorted(queue, key=lambda each: (each.paced, each.name if each.paced else "")):
        blocker = barred.get(waiting.name, "") or waits_for(waiting.order, statuses)
        if not blocker:
            blocker = misses(waiting.order, seen)
            ahead[waiting.name] = waiting.order.needs
        if not blocker:
            blocker = tenants.hold_back(waiting)
        if blocker:
            why[waiting.name] = blocker
        elif not waiting.paced:
            go.append(waiting.name)
            tenants.admit(waiting)
        elif busy >= pace.parallel:
            why[waiting.name] = f"waiting for a place: {busy} guests are starting, and start-parallel is {pace.parallel}"
        elif open_at > now:
            why[waiting.name] = "waiting for start-gap after the guest before it"
            look_again = open_at
        else:
            go.append(waiting.name)
            tenants.admit(waiting)
            busy += 1
            open_at = now + pace.gap_s
    needed = frozenset(need for name in ahead.keys() - set(go) for need in ahead[name])
    return Turns(go=tuple(go), why=why, roomless=frozenset(tenants.roomless), short=tenants.short, look_again=look_again, needs=needed)


class _Tenants:
    """Who has memory, while guests are let in one after the other. Nobody is counted before somebody has to be."""

    def __init__(self, room: Room, statuses: Mapping[str, VmStatus]) -> None:
        self._room, self._statuses = room, statuses
        self._having: dict[str, Share] | None = None
        self._taken = Taken()
        self.roomless: set[str] = set()
        self.short: dict[str, str] = {}

    def hold_back(self, waiting: Waiting) -> str:
        """What an automatic start waits for, or ''."""
        if waiting.asked or waiting.again:
            return ""
        lacking = self._lacking(waiting)
        if lacking:
            self.roomless.add(waiting.name)
        return lacking and f"waiting for memory: {lacking}"

    def admit(self, waiting: Waiting) -> None:
        """It goes: what it has, others have not."""
        if waiting.asked and (lacking := self._lacking(waiting)):
            self.short[waiting.name] = lacking
        if self._having is not None and not waiting.again:
            self._having[waiting.name] = waiting.share
            self._taken.add(waiting.share)

    def _lacking(self, waiting: Waiting) -> str:
        if not self._room.is_limited:
            return ""
        if self._having is None:
            self._having = shares(self._statuses)
            for share in self._having.values():
                self._taken.add(share)
        return "" if fits(self._room, waiting.share, self._taken) else lacks(self._room, waiting.share, self._having)


def misses(order: Order, seen: Seen) -> str:
    """What a guest needs of the host and does not find there, or ''."""
    for need in order.needs:
        missing = seen.known.get(need)
        if missing != "":
            return needs.waits_for(need, missing, seen.period_s, told=seen.told)
    return ""


def waits_for(order: Order, statuses: Mapping[str, VmStatus]) -> str:
    """What a guest has to wait for before it may start, or ''."""
    for name in order.requires:
        status = statuses.get(name)
        if status is None:
            return f"waiting for {name}, which it requires and which does not exist"
        if not (status.phase is Phase.UP and status.ready):
            return f"waiting for {name}, which it requires and which is {_state(status)}"
    for name in order.after:
        status = statuses.get(name)
        if status is not None and _is_coming(status):
            return f"waiting for {name}, which comes first and is {_state(status)}"
    return ""


def _is_coming(status: VmStatus) -> bool:
    if status.desired is not Desired.UP or status.phase not in _COMING or status.roomless:
        return False
    return not (status.phase is Phase.UP and (status.ready or status.late))


def _state(status: VmStatus) -> str:
    return "up but not ready yet" if status.phase is Phase.UP else str(status.phase)
