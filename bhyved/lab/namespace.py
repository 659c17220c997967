"""The network namespace of a lab with real interfaces (`bhyved lab --network real`): none of the machine's own network is in it.

It has no name. It lasts for as long as a process of the lab is in it and takes all its interfaces along, so that nothing can be left
behind: daemon, lab host, guests and tools inherit it from the foreground command, which makes it at power-on. DIR/lab/netns says which
it is. A tool that somebody starts from elsewhere goes there by way of the lab host before it touches anything. Linux only.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_OWN = "/proc/self/ns/net"
_LOST = "the lab's network is gone with its host: start the lab again"


def make(root: str) -> None:
    """Go into a new, empty one. Raises OSError where this may not be."""
    _call("unshare", _CLONE_NEWNET)
    with open(_noted(root), "w", encoding="utf-8") as file:
        file.write(os.readlink(_OWN))


def enter(root: str) -> None:
    """Be in the one of this lab's present boot, or raise OSError."""
    try:
        with open(_noted(root), encoding="utf-8") as file:
            wanted = file.read()
        if os.readlink(_OWN) == wanted:
            return
        with open(f"{root}/lab/host.pid", encoding="ascii") as file:
            door = os.open(f"/proc/{file.read().strip()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(errno.ENXIO, _LOST) from None
    try:
        # A pid that somebody else has by now leads to another network: never there.
        if f"net:[{os.fstat(door).st_ino}]" != wanted:
            raise OSError(errno.ENXIO, _LOST)
        _call("setns", door, _CLONE_NEWNET)
    finally:
        os.close(door)


def forget(root: str) -> None:
    """At power-off; the namespace itself goes with its last process."""
    if os.path.exists(_noted(root)):
        os.unlink(_noted(root))


def _noted(root: str) -> str:
    return f"{root}/lab/netns"


def _call(name: str, *words: int) -> None:
    """A call that `os` has from Python 3.12 on only."""
    import ctypes  # three milliseconds, which a tool that is in the right place is spared

    libc: Any = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
