"""How FreeBSD's programs end with a complaint, in FreeBSD's words, and which FreeBSD the lab plays.

For the stand-ins of bhyve and its companions. They start as often as guests do, so none of these modules imports anything that costs
more than a few milliseconds (dataclasses, typing, pathlib, contextlib and socket do).
"""

import errno
import os
import sys

from bhyved.lab import state

EX_USAGE, EX_OSERR = 64, 71  # sysexits(3)
BHYVE_ERROR = 4  # contract 1.7.1

# Where FreeBSD's words for an errno differ from those of the system below (lib/libc/gen/errlst.c).
_WORDS = {errno.EBUSY: "Device busy", errno.ENXIO: "Device not configured", errno.EOPNOTSUPP: "Operation not supported"}
# Where its numbers differ, as `errno = N` and shell statuses show them (sys/sys/errno.h).
_NUMBERS = {errno.EALREADY: 37, errno.EADDRINUSE: 48, errno.ECONNREFUSED: 61}


class Refusal(Exception):  # noqa: N818 - what a program does, not a fault of ours
    """The program ends with `status`; `text` goes to stderr first, as it stands, if there is any."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def strerror(number: int | None) -> str:
    """strerror(3), of FreeBSD."""
    return _WORDS.get(number or 0) or os.strerror(number or 0)


def number(local: int | None) -> int:
    """FreeBSD's number of an errno of this system."""
    return _NUMBERS.get(local or 0, local or 0)


def errx(status: int, text: str, program: str = "bhyve") -> Refusal:
    """As errx(3): the program's name before the text."""
    return Refusal(status, f"{program}: {text}")


def err(status: int, text: str, cause: OSError, program: str = "bhyve") -> Refusal:
    """As err(3): what the system said behind it."""
    return Refusal(status, f"{program}: {text}: {strerror(cause.errno)}")


def warn(text: str, end: str = "\n") -> None:
    """A line on stderr."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


class Settings:
    """What kind of host the lab is, by `lab/settings.json`. What is not said there is FreeBSD 15 on amd64 with sim guests."""

    def __init__(self, root: str) -> None:
        said = state.settings(root)
        sysctl = said.get("sysctl", {})
        self.release = str(said.get("release", "15"))
        self.arch: str = said.get("arch", "amd64")
        self.engine: str = said.get("engine", "sim")
        self.network: str = said.get("network", "simulated")
        self.snapshots: bool = said.get("snapshots", False)  # a WITH_BHYVE_SNAPSHOT build: contract 6.1
        self.ppt: list[str] = said.get("ppt", [])  # devices reserved for guests, as 2/0/0
        self.max_cpus: int = sysctl.get("hw.vmm.maxcpu", said.get("maxcpu", 16))
        self.memory_bytes: int | None = said.get("physmem")
        self.unrestricted_guest: bool = said.get("unrestricted_guest", True)
        vms: int = sysctl.get("hw.vmm.maxvmms", said.get("maxvmms", 4 * (os.cpu_count() or 1)))
        self.max_vms = vms if self.release == "main" else None  # contract 1.13

    @property
    def is_amd64(self) -> bool:
        """PCs have LPC devices, a power button and loaders."""
        return self.arch == "amd64"

    @property
    def is_14(self) -> bool:
        """The older spellings and texts."""
        return self.release == "14"
