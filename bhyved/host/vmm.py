"""VM nodes: which exist, how one is destroyed and how a running one is told to end, through bhyvectl(8).

A node (`/dev/vmm/NAME`) outlives its bhyve and keeps the guest's memory. Called by `host.machine` before every run and after every
final stop. Two things to know: `bhyvectl --destroy` exits 0 even when the kernel refused, so only the absence of the name proves
anything (contract 1.11); and destroying under a live bhyve is a power cut, from which one was seen to run on without a node
(contract 8.10): the caller makes sure that none lives.
"""

import os
import re
from collections.abc import Collection

import trio

from bhyved.core.errors import HostError, in_words
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Result, ToolError, Tools, said_by

DESTROY_LIMIT_S = 30.0  # freeing hundreds of GiB takes seconds; an old kernel may hang (contract 1.9)
FORCE_LIMIT_S = 5.0  # only records the request
#: After a destroy the name can linger (contract 8.10), and devfs tells nobody when it goes: looked for at growing distances, 3 s in all.
LINGER_LOOKS_S = (0.0, 0.001, 0.004, 0.015, 0.05, 0.1, 0.2, 0.4, 0.8, 1.4)
_EALREADY = re.compile(r"^errno = 37$", re.MULTILINE)  # FreeBSD's number, whatever system we are tested on


class Vmm:
    """The VM nodes of this host, those of other managers included: touch only names that are ours."""

    def __init__(self, dev: str, tools: Tools) -> None:
        self._directory = os.path.join(dev, "vmm")
        self._tools = tools

    def exists(self, name: str) -> bool:
        """Whether the node is there."""
        return self.owner(name) is not None

    def owner(self, name: str) -> int | None:
        """The user who made the node (contract 1.13: up to 15.0 that is root); None when it is not there.

        Unlike in /dev itself (contract 4.4, 5.3), nothing is made by looking for it in a directory there.
        """
        path = f"{self._directory}/{name}"
        try:
            return os.lstat(path).st_uid
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError(f"{path}: {in_words(error)}") from None

    async def destroy(self, name: str, *, pass_fd: int | None = None) -> bool:
        """Destroy the node and see it gone; False when there was none. No bhyve of that name may live.

        Raises Stuck when bhyvectl hangs in the kernel, HostError when the node stays.
        """
        if not self.exists(name):
            return False
        said = ""
        for _ in range(2):  # retried once: contract 8.10
            result = await self._control(name, "--destroy", limit_s=DESTROY_LIMIT_S, pass_fd=pass_fd, ok=None)
            said = said_by(result)
            if await self._gone(name):
                return True
        raise HostError(f"{self._directory}/{name} is still there after two `bhyvectl --vm={name} --destroy`{': ' + said if said else ''}")

    async def _gone(self, name: str) -> bool:
        for pause_s in LINGER_LOOKS_S:
            await trio.sleep(pause_s)
            if not self.exists(name):
                return True
        return False

    async def force(self, name: str, how: str, *, pass_fd: int | None = None) -> None:
        """Have the kernel end the run as `poweroff` or `reset`: returns when the request is recorded, not when bhyve has ended.

        Needs running vCPUs; during VNC `wait` it does nothing (contract 1.9). Asking twice is no error. Raises HostError.
        """
        if how not in ("poweroff", "reset"):
            raise ValueError(f"cannot force {how}")
        try:
            await self._control(name, f"--force-{how}", limit_s=FORCE_LIMIT_S, pass_fd=pass_fd)
        except ToolError as error:
            if not _EALREADY.search(error.result.text):
                raise

    async def inject_nmi(self, name: str, *, pass_fd: int | None = None) -> None:
        """A non-maskable interrupt: may panic the guest, which is what one wants of it."""
        await self._control(name, "--inject-nmi", limit_s=FORCE_LIMIT_S, pass_fd=pass_fd)

    async def ended_cleanly(self, name: str) -> bool:
        """Whether every vCPU that ran has been suspended: the guest ended itself, nobody killed it (contract 1.10, 1.11)."""
        active = await self.cpus(name, "active")
        return bool(active) and active == await self.cpus(name, "suspended")

    async def cpus(self, name: str, which: str) -> frozenset[int]:
        """The `active`, `suspended` or `debug` vCPUs of a node. Raises HostError."""
        result = await self._control(name, f"--get-{which}-cpus", limit_s=FORCE_LIMIT_S)
        return parse_cpus(result.text, which)

    async def _control(
        self, name: str, action: str, *, limit_s: float, pass_fd: int | None = None, ok: Collection[int] | None = (0,)
    ) -> Result:
        # one action a call: several would be executed in an order of bhyvectl's own (contract 1.11)
        return await run_tool(self._tools, ("bhyvectl", f"--vm={name}", action), limit_s=limit_s, pass_fd=pass_fd, ok=ok)


def parse_cpus(text: str, which: str) -> frozenset[int]:
    """A cpu set as bhyvectl prints it: `suspended cpus:`, a tab, then ` 0, 1` or ` (none)`. Raises HostError."""
    line = re.search(rf"^{which} cpus:\s*(\(none\)|\d+(?:\s*,\s*\d+)*)\s*$", text, re.MULTILINE)
    if line is None:
        raise HostError(f"bhyvectl said {text.strip()!r} where {which} cpus were asked for")
    return frozenset(int(number) for number in re.findall(r"\d+", line[1]))
