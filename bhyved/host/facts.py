"""What kind of FreeBSD this is, asked of sysctl(8) once when the daemon starts (contract 5.2, 8.2)."""

import re
from dataclasses import dataclass
from typing import Literal

from bhyved.core.assigned import Target
from bhyved.core.errors import HostError
from bhyved.core.room import HostMemory
from bhyved.host.toolbox import Tools

_BOOT_ID_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """The host as it is until the next boot."""

    boot: str  # kern.boot_id, hex
    host_id: str  # kern.hostuuid; '' where there is none
    target: Target


def read_facts(tools: Tools) -> HostFacts:
    """Ask the host. Blocks; for before the loop. Raises HostError, `fatal`."""
    try:
        # An opaque value of 16 bytes: `-n` would print nothing useful (contract 8.2).
        boot = tools.ask(("sysctl", "-b", "kern.boot_id")).stdout
        target = Target(_release(_text(tools, "kern.osreldate")), _arch(_text(tools, "hw.machine_arch")))
    except HostError as error:
        raise HostError(str(error), fatal=True) from None
    if len(boot) != _BOOT_ID_BYTES:
        raise HostError(f"kern.boot_id has {len(boot)} bytes and not {_BOOT_ID_BYTES}: FreeBSD before 13.2?", fatal=True)
    host_id = tools.ask(("sysctl", "-n", "kern.hostuuid"), ok=None)
    return HostFacts(boot=boot.hex(), host_id=host_id.text.strip() if host_id.status == 0 else "", target=target)


#: With their names: one that a kernel lacks must not be taken for another. `vm.max_user_wired` is in pages, -1 for no limit (contract 5.6).
MEMORY_VARIABLES = ("hw.physmem", "hw.pagesize", "vm.max_user_wired")
_NUMBER = re.compile(r"^([\w.]+): +([0-9]{1,18}) *$", re.MULTILINE)


def parse_memory(text: str) -> HostMemory:
    """What sysctl(8) says of MEMORY_VARIABLES."""
    told = {name: int(value) for name, value in _NUMBER.findall(text)}
    page_bytes, pages = told.get("hw.pagesize", 4096), told.get("vm.max_user_wired")
    return HostMemory(total_bytes=told.get("hw.physmem"), wired_bytes=None if pages is None else pages * page_bytes, page_bytes=page_bytes)


def _text(tools: Tools, name: str) -> str:
    return tools.ask(("sysctl", "-n", name)).text.strip()


def _release(osreldate: str) -> Literal["14", "15", "main"]:
    """`__FreeBSD_version`: 1402000 is 14.2. Anything newer than we know behaves like main."""
    if not osreldate.isdigit():
        raise HostError(f"kern.osreldate is {osreldate!r}, which is no number")
    major = int(osreldate) // 100_000
    return "14" if major <= 14 else "15" if major == 15 else "main"


def _arch(machine: str) -> Literal["amd64", "arm64"]:
    match machine:
        case "amd64":
            return "amd64"
        case "aarch64":
            return "arm64"
        case other:
            raise HostError(f"hw.machine_arch is {other!r}, and bhyved knows bhyve on amd64 and aarch64 only")
