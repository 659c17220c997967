"""What checks need of the host before they can say anything about it, and the remedy where it is missing.

Asked for by the checks through `Bench`; each need is looked at once. What a host cannot do is no fault of its bhyve: such checks are
skipped.
"""

import re
from collections.abc import Awaitable, Callable

from bhyved.core.errors import HostError
from bhyved.core.selfcheck import GUEST
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Tools, said_by
from bhyved.host.tty import LineMissing, open_tty
from bhyved.host.vmm import Vmm

_LOAD_S = 30.0
_NO_VIRTUALISATION = (
    "bhyve needs VT-x with EPT, or AMD-V with nested paging: switch it on in the firmware's setup (or, in a virtual machine, in its host)"
    " and look at dmesg"
)
#: Why a node cannot be made that is no fault of bhyvectl's: its words of 15 and later, or the errno of 14 (contract 1.11, 1.13).
_CANNOT_CREATE = (
    (re.compile(r"Device not configured|errno = 6\b"), f"vmm could not be initialised: {_NO_VIRTUALISATION}"),
    (re.compile(r"Operation not permitted|errno = 1\b"), "VMs may not be made here: in a jail that takes allow.vmm; run this on the host"),
    (re.compile(r"Cannot allocate memory|errno = 12\b"), "there are as many VMs as hw.vmm.maxvmms allows: raise that sysctl"),
)


class NotHere(Exception):  # noqa: N818 - why a check says nothing
    """The check cannot be tried on this host; the sentence says what is missing, and what to do about it."""


class Needs:
    """What this host has of it. Each method raises NotHere."""

    def __init__(self, tools: Tools, vmm: Vmm, console: str) -> None:
        self._tools, self._vmm, self._console = tools, vmm, console
        self._known: dict[str, NotHere | None] = {}
        self.kept: str | None = None  # what was said of a node that did not go away

    async def _once(self, need: str, look: Callable[[], Awaitable[None]]) -> None:
        if need not in self._known:
            self._known[need] = None
            try:
                await look()
            except NotHere as missing:
                self._known[need] = missing
            except HostError as error:
                self._known[need] = NotHere(f"not tried, since an earlier check has failed: {error}")
                raise
        known = self._known[need]
        if known is not None:
            raise NotHere(str(known))

    def command(self, name: str) -> None:
        """One of bhyve's own."""
        try:
            self._tools.path(name)
        except HostError as error:
            raise NotHere(f"{error}: it belongs to FreeBSD's base system (package FreeBSD-bhyve)") from None

    async def pc(self) -> None:
        """A host whose guests are PCs."""
        machine = await self._sysctl("hw.machine_arch")
        if machine not in ("amd64", ""):
            raise NotHere(f"this is for amd64, and the host is {machine}: there is nothing to be done about it")

    async def fresh_node(self) -> None:
        """No node of the selftest's name. Raises HostError once: a node that the kernel keeps is not asked for again and again."""
        if self.kept is not None:
            raise NotHere(f"not tried, since a node could not be taken away: {self.kept}")
        try:
            await self._vmm.destroy(GUEST)
        except HostError as error:
            self.kept = str(error)
            raise

    async def pair(self) -> None:
        """nmdm."""
        await self._once("pair", self._look_for_pair)

    async def vmm(self) -> None:
        """Nodes can be made."""
        await self._once("vmm", self._look_for_vmm)

    async def guests(self) -> None:
        """The selftest's guest can run."""
        await self._once("guests", self._look_for_guests)

    async def _look_for_pair(self) -> None:
        try:
            open_tty(self._console).close()
            return
        except LineMissing:
            said = await self._load("nmdm")
        try:
            open_tty(self._console).close()
        except LineMissing:
            loaded = (await run_tool(self._tools, ("kldstat", "-q", "-m", "nmdm"), ok=None)).status == 0
            hidden = "though nmdm is loaded: a jail's devfs.rules(5) have to unhide nmdm-*"
            missing = f"{said or 'and nobody says why'}: kldload nmdm, which a jail leaves to its host"
            raise NotHere(f"there are no null-modem pairs, {hidden if loaded else missing}") from None

    async def _look_for_vmm(self) -> None:
        self.command("bhyvectl")
        if (await run_tool(self._tools, ("kldstat", "-q", "-m", "vmm"), ok=None)).status != 0:
            said = await self._load("vmm")
            if "Operation not permitted" in said:
                raise NotHere(f"{said}: in a jail vmm is for the host to load, before the jail is made")
            if said:
                raise NotHere(f"the kernel module vmm cannot be loaded, {said}: {_NO_VIRTUALISATION}")
        await self.fresh_node()
        made = await run_tool(self._tools, ("bhyvectl", f"--vm={GUEST}", "--create"), ok=None)
        said = f"{made.text}\n{made.stderr.decode(errors='replace')}"
        for text, why in _CANNOT_CREATE:
            if made.status != 0 and text.search(said):
                raise NotHere(why)
        await self.fresh_node()

    async def _look_for_guests(self) -> None:
        self.command("bhyve")
        await self.pc()
        await self.vmm()
        intel = await self._sysctl("hw.vmm.vmx.initialized") == "1"
        if intel and await self._sysctl("hw.vmm.vmx.cap.unrestricted_guest") == "0":
            raise NotHere(
                "this processor has no unrestricted guest, which a guest with a boot ROM needs: bhyveload guests with one vCPU run"
            )

    async def _load(self, module: str) -> str:
        """What kldload says against it; nothing when it is loaded."""
        loaded = await run_tool(self._tools, ("kldload", "-n", module), ok=None, limit_s=_LOAD_S)
        return "" if loaded.status == 0 else said_by(loaded) or "kldload does not say why"

    async def _sysctl(self, name: str) -> str:
        return (await run_tool(self._tools, ("sysctl", "-n", name), ok=None)).text.strip()
