"""The traps of tap interfaces (contract 5.3)."""

import contextlib
import os
from collections.abc import AsyncIterator

import trio

from bhyved.core.ifconfig import Interface, parse_ifconfig
from bhyved.core.selfcheck import GUEST, TAP
from bhyved.host.selftest.bench import Bench, Check, Wrong
from bhyved.host.selftest.needs import NotHere


async def _look(bench: Bench) -> Interface | None:
    result = await bench.tool("ifconfig", TAP)
    return parse_ifconfig(result.text).get(TAP) if result.status == 0 else None


@contextlib.asynccontextmanager
async def _own_tap(bench: Bench) -> AsyncIterator[None]:
    """The selftest's tap may be made in here; it is gone afterwards. Raises NotHere when somebody else has one of that name."""
    there = await _look(bench)
    if there is not None and there.description != GUEST:
        raise NotHere(f"there is an interface {TAP} of somebody else's: destroy or rename it")
    if there is not None:
        await bench.tool("ifconfig", TAP, "destroy")
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            if await _look(bench) is not None:
                await bench.tool("ifconfig", TAP, "destroy")


async def _create(bench: Bench) -> None:
    made = await bench.tool("ifconfig", TAP, "create")
    if made.status != 0:
        said = made.stderr.decode(errors="replace").strip()
        if "not permitted" in said:
            raise NotHere(f"{said}: in a jail that takes vnet; run this on the host")
        raise Wrong(f"`ifconfig {TAP} create` failed: {said}")


async def _twice(bench: Bench) -> str:
    async with _own_tap(bench):
        await _create(bench)
        again = await bench.tool("ifconfig", TAP, "create")
        if again.status != 1:
            raise Wrong(f"the second create ended with {again.status}")
        return f"exit status 1, {again.stderr.decode(errors='replace').strip()}"


async def _taken_over(bench: Bench) -> str:
    async with _own_tap(bench):
        await _create(bench)
        more = await bench.tool("ifconfig", TAP, "create", "description", "taken over")
        there = await _look(bench)
        if more.status != 0 or there is None or there.description != "taken over":
            return f"not here: exit status {more.status}, the description is {there.description if there else None!r}"
        return "exit status 0, and the description is the second one's"


async def _signed(bench: Bench) -> str:
    async with _own_tap(bench):
        await _create(bench)
        await bench.tool("ifconfig", TAP, "description", GUEST, "group", "selftest")
        there = await _look(bench)
        gone = await bench.tool("ifconfig", TAP, "destroy")
        if there is None or there.description != GUEST or "selftest" not in there.groups:
            raise Wrong(f"ifconfig shows {there}")
        if gone.status != 0 or await _look(bench) is not None:
            raise Wrong(f"destroy ended with {gone.status}")
        return "both are shown, and destroy takes the tap away"


async def _looked_up(bench: Bench) -> str:
    async with _own_tap(bench):
        with contextlib.suppress(OSError):
            os.stat(f"{bench.dev}/{TAP}")
        return "it makes one" if await _look(bench) is not None else "it makes none here"


CHECKS = {
    "tap interfaces": (
        Check("5.3", "a tap is made once", _twice),
        Check("5.3", "create with more words takes an existing tap over", _taken_over),
        Check("5.3", "a tap keeps its description and group", _signed),
        Check("5.3", "a look at /dev/tapN", _looked_up),
    )
}
