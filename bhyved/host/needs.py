"""Whether what guests need of the host is there: interfaces, paths, pools. Called by `host.freebsd`."""

import os
from collections.abc import Sequence

import trio

from bhyved.core import needs
from bhyved.core.errors import HostError
from bhyved.host.tap import Taps
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import ToolError, Tools
from bhyved.threads import in_thread

_PATH_S = 5.0  # a stat takes microseconds, but for a dead NFS mount
_POOL_S = 10.0
_GOOD_POOLS = frozenset({"ONLINE", "DEGRADED"})  # DEGRADED has lost redundancy, not data


async def missing(wanted: Sequence[str], taps: Taps, tools: Tools) -> dict[str, str]:
    """Those that are not there, and why, in words. Bounded in time; never raises for what the host says."""
    found = {}
    for need in wanted:
        kind, name = needs.split(need)
        try:
            why = await _LOOKS[kind](name, taps, tools)
        except HostError as error:
            why = str(error)
        if why:
            found[need] = why
    return found


async def _interface(name: str, taps: Taps, tools: Tools) -> str:
    return "" if await taps.look(name) is not None else "it does not exist"


async def _path(path: str, taps: Taps, tools: Tools) -> str:
    with trio.move_on_after(_PATH_S):
        there = await in_thread(os.path.exists, path, abandon_on_cancel=True)
        return "" if there else "it does not exist"
    return f"it did not answer within {_PATH_S:g} s: is a mount dead?"


async def _pool(name: str, taps: Taps, tools: Tools) -> str:
    try:
        result = await run_tool(tools, ("zpool", "list", "-H", "-o", "health", name), limit_s=_POOL_S)
    except ToolError:
        return "it is not imported"
    health = result.text.strip()
    return "" if health in _GOOD_POOLS else f"it is {health.lower() or 'of unknown health'}"


_LOOKS = {needs.INTERFACE: _interface, needs.PATH: _path, needs.POOL: _pool}
