"""The guests' tap interfaces: chosen, made, put on their bridge, destroyed, through ifconfig(8).

Called by `host.machine`. A tap's number is chosen and written into the guest's ledger before it is made; its group and description
say whose it is. What must not happen, each seen on FreeBSD (contract 5.3, 8.9): a foreign tap is taken over (`create` with more
words succeeds on an existing one, so it is a call of its own); a look-up of /dev/tapN makes one (so nothing here looks there); a
destroy of an open tap hangs for ever (so it is asked for first, and runs under a time limit).

A start costs three processes a tap: create, settings, addm. They cannot be fewer: create stands alone, and addm names the bridge.
"""

import itertools
import os
import re
import socket
from collections.abc import Collection

from bhyved.core.errors import HostError
from bhyved.core.ifconfig import Interface, parse_ifconfig
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Result, ToolError, Tools, said_by

GROUP = "bhyved"  # may not end in a digit (contract 5.3)
FIRST = 1000  # below are the administrator's own taps: rc.conf's cloned_interfaces and the Handbook begin at tap0
_LAST = 0x7FFF  # IF_MAXUNIT of if_clone.c
LIMIT_S = 10.0
_TAKEN = re.compile(r"\bFile exists|already exists")
_FORBIDDEN = re.compile(r"Operation not permitted")
_ALL_BYTES = 4 << 20  # `ifconfig -a` says about 400 bytes of each interface; there may be thousands


class TapExists(HostError):  # noqa: N818 - a fact that the caller acts on: choose another
    """Somebody else made that tap since it was chosen."""


class Taps:
    """The tap interfaces of this host, or of this jail: a jail with a network stack of its own sees no others (contract 7)."""

    def __init__(self, tools: Tools, *, dev: str = "/dev", first: int = FIRST) -> None:
        self._tools, self._dev = tools, dev
        self._first = first
        self._foreign: set[str] = set()

    def choose(self, count: int, taken: Collection[str]) -> tuple[str, ...]:
        """Names that no interface has and nobody has `taken`: those in the ledgers of all guests. Nothing is made."""
        used = {name for _, name in socket.if_nameindex()}.union(taken, self._foreign, self._nodes())
        free = (name for number in range(self._first, _LAST + 1) if (name := f"tap{number}") not in used)
        names = tuple(itertools.islice(free, count))
        if len(names) < count:
            raise HostError(f"no tap number is free between {self._first} and {_LAST}")
        return names

    def _nodes(self) -> list[str]:
        """Numbers are the kernel's, whichever network stack their taps are in: of those in others only the nodes are seen (contract 7).

        The directory is listed, nothing in it is looked up. Rules of devfs(8) may hide some: then `create` says that they are taken.
        """
        try:
            return [name for name in os.listdir(self._dev) if name.startswith("tap")]
        except OSError:
            return []

    async def create(self, name: str, *, description: str, bridge: str | None, mtu: int | None = None, pass_fd: int | None = None) -> None:
        """Make one tap, ours by group and description, and put it on `bridge` (None: on none).

        Raises TapExists when the name has been taken since it was chosen; the tap is then somebody else's. Raises HostError when
        a later step fails; the tap is then ours and half made, and is to be destroyed.
        """
        await self._make(name, pass_fd)
        settings = ["description", description, "group", GROUP]
        settings += ["mtu", str(mtu)] if mtu else []  # before addm: a member of another MTU is refused by some releases
        await self._ifconfig(name, *settings, "up", pass_fd=pass_fd)
        if bridge is not None:
            await self._join(name, bridge, pass_fd)

    async def raise_again(self, name: str, *, pass_fd: int | None = None) -> None:
        """Put a tap of ours up again: it went down when the bhyve that had it open ended (contract 5.3). Raises HostError."""
        await self._ifconfig(name, "up", pass_fd=pass_fd)

    async def attach(self, name: str, bridge: str | None, *, pass_fd: int | None = None) -> None:
        """See to an interface that is not ours: there, free, on `bridge` (None: wherever it is), up. Raises HostError."""
        there = await self.look(name)
        if there is None:
            raise HostError(f"{name} does not exist: name it in cloned_interfaces in rc.conf, or give only a bridge and bhyved makes a tap")
        if there.opened_by is not None:
            raise HostError(f"{name} is open by process {there.opened_by}")
        if bridge is not None:
            found = await self.look(bridge)
            if found is None or name not in found.members:
                await self._join(name, bridge, pass_fd)
        if not there.is_up:
            await self._ifconfig(name, "up", pass_fd=pass_fd)

    async def _make(self, name: str, pass_fd: int | None) -> None:
        try:
            await self._ifconfig(name, "create", pass_fd=pass_fd)
        except ToolError as error:
            said = said_by(error.result)
            if _TAKEN.search(said) or await self.look(name) is not None:  # perhaps in another network stack, where we cannot look
                self._foreign.add(name)
                raise TapExists(f"{name} exists already and is not ours") from None
            if _FORBIDDEN.search(said):
                raise HostError(f"{error}: a jail makes interfaces only with vnet in its jail.conf(5)") from None
            raise error from None

    async def _join(self, name: str, bridge: str, pass_fd: int | None) -> None:
        """The exit status proves membership; after a failure only the bridge's own list tells (contract 5.4: texts are not known well)."""
        try:
            await self._ifconfig(bridge, "addm", name, pass_fd=pass_fd)
        except ToolError as error:
            there = await self.look(bridge)
            if there is None:
                remedy = "make it (cloned_interfaces in rc.conf), or name another in network.bridge"
                raise HostError(f'bridge "{bridge}" does not exist: {remedy}') from None
            if name not in there.members:  # it may be: rc.conf's autobridge_interfaces adds taps by pattern
                raise HostError(f'{name} cannot join bridge "{bridge}": {error}') from None

    async def look(self, name: str) -> Interface | None:
        """One interface as it is now, or None. Raises HostError when ifconfig cannot say."""
        result = await self._ifconfig(name, ok=(0, 1))  # 1: there is no such interface
        if result.status == 1:
            return None
        found = parse_ifconfig(result.text).get(name)
        if found is None:
            raise HostError(f"`ifconfig {name}` printed nothing that makes sense: {result.text[:80]!r}")
        return found

    async def destroy(self, name: str, description: str, *, pass_fd: int | None = None) -> bool:
        """Destroy a tap of ours; False when it is gone already. Never while its bhyve lives.

        `description` is the one it was made with: a tap that says otherwise is somebody else's by now and is left alone. Raises
        HostError when a process has it open, Stuck when the kernel does not let ifconfig go.
        """
        tap = await self.look(name)
        if tap is None or not _is_ours(tap, description):
            return False
        if tap.opened_by is not None:
            raise HostError(f"{name} is still open by process {tap.opened_by}")
        try:
            await self._ifconfig(name, "destroy", pass_fd=pass_fd)
        except ToolError:
            if await self.look(name) is not None:
                raise
        return True

    async def ours(self) -> dict[str, Interface]:
        """All taps of our group, to find those that no guest's ledger names."""
        result = await self._ifconfig("-a", keep=_ALL_BYTES)
        return {name: tap for name, tap in parse_ifconfig(result.text).items() if GROUP in tap.groups}

    async def _ifconfig(self, *words: str, pass_fd: int | None = None, ok: Collection[int] | None = (0,), keep: int = 1 << 16) -> Result:
        return await run_tool(self._tools, ("ifconfig", *words), limit_s=LIMIT_S, pass_fd=pass_fd, ok=ok, keep=keep)


def _is_ours(tap: Interface, description: str) -> bool:
    """By group and description, or fresh: made, but the daemon died before it could sign it."""
    signed = GROUP in tap.groups and tap.description == description
    fresh = GROUP not in tap.groups and not tap.description and not tap.addresses and tap.opened_by is None
    return signed or fresh
