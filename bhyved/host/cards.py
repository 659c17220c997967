"""The taps of one run: which it keeps from the run before, which are made, which are given back.

Called by `host.prepare`; `host.tap` knows the single tap. A guest that restarts by itself keeps its taps, since host commands cost
milliseconds, but only what has been seen on its bridge: bhyve opens a tap that does not exist as readily, and the guest is then alone
in the world (contract 5.3). So it is on a tap that is down, as each is when its bhyve has ended.
"""

from collections.abc import Callable, Collection, Mapping

import msgspec

from bhyved.core.errors import HostError
from bhyved.core.slots import network_identities
from bhyved.core.spec import VmSpec
from bhyved.host.ledger import Tap
from bhyved.host.tap import TapExists, Taps

_CHOICES = 10  # so often may somebody else be faster in making the tap that was chosen


class Cards(msgspec.Struct, frozen=True, kw_only=True):
    """The taps of a run, by card."""

    wanted: dict[str, Tap]
    kept: frozenset[str]  # cards whose tap should be there already
    leftover: tuple[Tap, ...]  # of the run before


def plan(spec: VmSpec, before: Mapping[str, Tap], taps: Taps, taken: Callable[[], set[str]]) -> Cards:
    """What the run shall have. `before`: the taps of the run before it; `taken`: those of other guests at this moment. Nothing is made."""
    wanted = {
        identity: Tap(name="", description=f"bhyved {spec.name}/{number}", bridge=card.bridge or "", mtu=card.mtu or 0)
        for number, (identity, card) in enumerate(zip(network_identities(spec), spec.network, strict=True))
        if card.wants_tap
    }
    kept = {
        identity: old
        for identity, tap in wanted.items()
        if (old := before.get(identity)) is not None and msgspec.structs.replace(tap, name=old.name) == old
    }
    new = wanted.keys() - kept.keys()
    names = iter(taps.choose(len(new), {*taken(), *(tap.name for tap in before.values())}) if new else ())
    named = {identity: kept.get(identity) or msgspec.structs.replace(tap, name=next(names)) for identity, tap in wanted.items()}
    return Cards(wanted=named, kept=frozenset(kept), leftover=tuple(tap for identity, tap in before.items() if identity not in kept))


async def make(
    cards: Cards, taps: Taps, *, taken: Callable[[], set[str]], chosen: Callable[[str, Tap], None], pass_fd: int
) -> tuple[str, ...]:
    """Make what is not there, and return the names of all, in order.

    `chosen` writes down a tap that is taken in the place of one that somebody else made meanwhile; `taken` says what other guests
    have at that moment. Raises HostError.
    """
    there = await _on_bridges([cards.wanted[identity] for identity in cards.kept], taps)
    ours = {tap.name for tap in cards.wanted.values()}
    names = []
    for identity, tap in cards.wanted.items():
        if tap.name in there:
            await taps.raise_again(tap.name, pass_fd=pass_fd)
        else:
            if identity in cards.kept:
                await taps.destroy(tap.name, tap.description, pass_fd=pass_fd)
            for attempt in range(_CHOICES):
                if attempt:
                    tap = msgspec.structs.replace(tap, name=taps.choose(1, taken() | ours)[0])
                    ours.add(tap.name)
                    chosen(identity, tap)
                if await _made(tap, taps, pass_fd):
                    break
            else:
                raise HostError(f"somebody else makes taps as fast as they are chosen: {tap.name} was the last of {_CHOICES}")
        names.append(tap.name)
    return tuple(names)


async def _made(tap: Tap, taps: Taps, pass_fd: int) -> bool:
    """False: somebody else has made it since it was chosen."""
    try:
        await taps.create(tap.name, description=tap.description, bridge=tap.bridge or None, mtu=tap.mtu or None, pass_fd=pass_fd)
    except TapExists:
        return False
    return True


async def _on_bridges(kept: Collection[Tap], taps: Taps) -> frozenset[str]:
    """Which taps are where they should be: one look a bridge shows that they exist, too."""
    there: set[str] = set()
    for bridge in sorted({tap.bridge for tap in kept}):
        found = await taps.look(bridge)
        members = found.members if found is not None else ()
        there |= {tap.name for tap in kept if tap.bridge == bridge and tap.name in members}
    return frozenset(there)


async def attach_given(spec: VmSpec, taps: Taps, *, pass_fd: int) -> None:
    """See to the interfaces that the operator made: there, free, up, on their bridge. Raises HostError."""
    for card in spec.network:
        name = card.tap or card.vmnet
        if name is not None:
            await taps.attach(name, card.bridge, pass_fd=pass_fd)
