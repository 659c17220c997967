"""Real taps and bridges for the lab's interfaces, made by Linux's ip(8) in the lab's own network namespace.

The files of `lab.netif` stay what ifconfig shows, since Linux has no groups, no `Opened by`, and no taps that go down when they are
closed. What Linux does have follows them: the link itself, its bridge, MTU, addresses, whether it is up, and the description as its alias.
"""

from __future__ import annotations

import errno
import os

from bhyved.lab import namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bhyved.lab.interface import Interface

TUN = "/dev/net/tun"
_PLACES = ("/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip")
_CAPABILITIES = (21, 12)  # CAP_SYS_ADMIN, CAP_NET_ADMIN: linux/capability.h
_ALIAS_BYTES = 255  # IFALIASZ, less its NUL
_SAID_BYTES = 4096


def unfit() -> str:
    """Why this process cannot make real interfaces; empty: it can, as far as one can tell beforehand."""
    if not os.path.exists("/proc/self/ns/net"):
        return "needs Linux, with /proc"
    if os.geteuid() != 0:
        return "needs root, who alone may make interfaces"
    if not _is_capable():
        return "needs a root that may make networks (CAP_SYS_ADMIN and CAP_NET_ADMIN), which this container's may not"
    if _ip() is None:
        return "needs ip(8) (Debian: iproute2)"
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"needs {TUN} ({os.strerror(error.errno or 0).lower()})"
    return ""


def _is_capable() -> bool:
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
    return all(effective >> bit & 1 for bit in _CAPABILITIES)


class Links:
    """The links of one lab. Every method may raise OSError with what ip(8) said."""

    def __init__(self, root: str) -> None:
        namespace.enter(root)

    def create(self, kind: str, name: str) -> None:
        """Make one, down and on no bridge."""
        if kind == "tap":
            _run("tuntap", "add", "dev", name, "mode", "tap")
        else:
            _run("link", "add", "name", name, "type", "bridge")

    def follow(self, now: Interface, addresses_before: Sequence[str]) -> None:
        """Make a link be as its file is to say."""
        alias = os.fsdecode(os.fsencode(now.description)[:_ALIAS_BYTES])
        words = ["mtu", str(now.mtu), "up" if now.up else "down", "alias", alias, "address", now.ether]
        _run("link", "set", "dev", now.name, *words, *(["master", now.bridge] if now.bridge else ["nomaster"]))
        for word, address in [("del", text) for text in addresses_before if text not in now.addresses] + [
            ("add", text) for text in now.addresses if text not in addresses_before
        ]:
            _run("address", word, address, "dev", now.name)

    def rename(self, name: str, other: str) -> None:
        """Which Linux allows a link that is down."""
        _run("link", "set", "dev", name, "down")
        _run("link", "set", "dev", name, "name", other)

    def remove(self, name: str) -> None:
        _run("link", "delete", "dev", name)


def wake_loopback() -> None:
    """A new namespace has one, which is down; the daemon listens there."""
    _run("link", "set", "dev", "lo", "up")


def _run(*words: str) -> None:
    """Run ip(8). subprocess would cost an ifconfig more than this does."""
    program = _ip()
    if program is None:
        raise OSError(errno.ENOENT, "ip(8) is not installed")
    said, theirs = os.pipe()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)]
        pid = os.posix_spawn(program, ["ip", *words], {"LC_ALL": "C"}, file_actions=actions)
    finally:
        os.close(null)
        os.close(theirs)
    with open(said, "rb") as pipe:
        text = pipe.read(_SAID_BYTES).decode(errors="replace")
    if os.waitpid(pid, 0)[1] != 0:
        complaint = " ".join(text.split()) or "it failed without a word"
        raise OSError(errno.EIO, f"ip {' '.join(words)}: {complaint}")


def _ip() -> str | None:
    return next((path for path in _PLACES if os.access(path, os.X_OK)), None)
