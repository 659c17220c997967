"""The stand-in of ifconfig(8), for taps and bridges: contract 5.3 and 5.4, whose traps it has.

    ifconfig -a | -l | -g GROUP | NAME          print
    ifconfig NAME create                        fails when it is there
    ifconfig NAME create WORD …                 does not: `create` is passed over, and a foreign tap taken over
    ifconfig NAME destroy                       waits for as long as somebody has the tap open

A lab whose settings say `tap_destroy_hangs` has a kernel that never comes back from destroying a tap that was open, as seen (8.9).
With real interfaces (`lab.netif`) what it prints and its exit status are the same.
"""

from __future__ import annotations

import errno
import signal
import sys

from bhyved.lab import state
from bhyved.lab.freebsd import Refusal, strerror
from bhyved.lab.interface import Interface
from bhyved.lab.netif import Net, wait_closed
from bhyved.lab.sysctl import is_jailed, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLONERS = ("tap", "bridge")
_FLAGS = {"UP": 0x1, "BROADCAST": 0x2, "LOOPBACK": 0x8, "RUNNING": 0x40, "SIMPLEX": 0x800, "MULTICAST": 0x8000}
_LEAST_MTU, _MOST_MTU = 72, 65535
_NAME_LENGTH = 15  # IFNAMSIZ is 16 with the final NUL


def main(root: str, argv: list[str]) -> int:
    try:
        _ifconfig(root, argv)
    except Refusal as refusal:
        if refusal.text:
            print(refusal.text, file=sys.stderr)
        return refusal.status
    except OSError as error:  # of real interfaces: what Linux would not do
        print(f"ifconfig: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _ifconfig(root: str, argv: list[str]) -> None:
    if not argv or argv == ["-a"]:
        with state.Locked(root, "net"):
            net = Net(root)
            print("".join(shown(net, interface) for name in net.names() if (interface := net.find(name))), end="")
        return
    if argv[0] in ("-l", "-g"):
        _list(root, argv)
        return
    if argv[0].startswith("-"):
        raise Refusal(1, f"ifconfig: {argv[0]}: the lab's ifconfig does not know this option")
    name, words = argv[0], argv[1:]
    if words == ["destroy"]:
        _destroy(root, name)
        return
    with state.Locked(root, "net"):
        net = Net(root)
        interface = _created(root, net, name, words) if words[:1] == ["create"] else net.find(name)
        if interface is None:
            raise _absent(name)
        if not words:
            print(shown(net, interface), end="")
        else:
            _Settings(root, net, interface).apply(words[1:] if words[0] == "create" else words)


def _list(root: str, argv: list[str]) -> None:
    with state.Locked(root, "net"):
        net = Net(root)
        if argv[0] == "-l":
            print(" ".join(net.names()))
            return
        if len(argv) < 2:
            raise _usage()
        for name in net.names():
            interface = net.find(name)
            if interface is not None and argv[1] in interface.groups:
                print(name)


def _created(root: str, net: Net, name: str, words: list[str]) -> Interface:
    """The interface that `create` is about, made or (with more words) found."""
    kind = name.rstrip("0123456789")
    settings = state.settings(root)
    if is_jailed(settings) and not variables(settings)["security.jail.vnet"]:
        raise Refusal(1, f"ifconfig: SIOCIFCREATE2 ({name}): {strerror(errno.EPERM)}")
    if name in CLONERS:
        name = net.free_name(name)
        print(name)
        return net.create(kind, name)
    found = net.find(name)
    if found is not None:
        if len(words) == 1:
            raise Refusal(1, f"ifconfig: interface {name} already exists")
        return found
    if kind not in CLONERS or len(name) > _NAME_LENGTH:
        raise Refusal(1, f"ifconfig: SIOCIFCREATE2 ({name}): {strerror(errno.EINVAL)}")
    return net.create(kind, name)


def _destroy(root: str, name: str) -> None:
    net = Net(root)
    with state.Locked(root, "net"):
        interface = net.find(name)
    if interface is None:
        raise _absent(name)
    if interface.kind not in CLONERS:
        raise Refusal(1, f"ifconfig: SIOCIFDESTROY: {strerror(errno.EINVAL)}")
    if interface.opened_by and state.settings(root).get("tap_destroy_hangs"):
        while True:
            signal.pause()
    wait_closed(root, interface)
    with state.Locked(root, "net"):
        if net.find(name) is None:
            raise _absent(name)
        net.remove(interface)


class _Settings:
    """The words after the name, each with its parameters, in the order in which they stand."""

    def __init__(self, root: str, net: Net, interface: Interface) -> None:
        self._root = root
        self._net = net
        self._it = interface

    def apply(self, words: list[str]) -> None:
        """Raises Refusal at the first that cannot be done; those before it are done."""
        rest = list(words)
        while rest:
            word = rest.pop(0)
            wanted, action = self._known().get(word, (0, None))
            if action is None:
                raise Refusal(1, f"ifconfig: {word}: bad value")
            if len(rest) < wanted:
                raise _usage()
            given, rest = rest[:wanted], rest[wanted:]
            action(*given)
            self._net.save(self._it)

    def _known(self) -> dict[str, tuple[int, Callable[..., None]]]:
        return {
            "description": (1, lambda text: self._set("description", text)),
            "descr": (1, lambda text: self._set("description", text)),
            "-description": (0, lambda: self._set("description", "")),
            "up": (0, lambda: self._set("up", True)),
            "down": (0, lambda: self._set("up", False)),
            "ether": (1, lambda text: self._set("ether", text)),
            "mtu": (1, self._mtu),
            "group": (1, self._group),
            "-group": (1, self._ungroup),
            "name": (1, self._name),
            "inet": (1, self._inet),
            "addm": (1, self._addm),
            "deletem": (1, self._deletem),
            **dict.fromkeys(("stp", "-stp", "private", "-private", "edge", "-edge"), (1, self._member)),
        }

    def _set(self, key: str, value: object) -> None:
        setattr(self._it, key, value)

    def _mtu(self, text: str) -> None:
        if not text.isdigit() or not _LEAST_MTU <= int(text) <= _MOST_MTU:
            raise Refusal(1, f"ifconfig: ioctl SIOCSIFMTU (set mtu): {strerror(errno.EINVAL)}")
        self._it.mtu = int(text)

    def _group(self, text: str) -> None:
        if text[-1:].isdigit() or not text:
            raise Refusal(1, "ifconfig: setifgroup: group names may not end in a digit")
        if text in self._it.groups:
            raise Refusal(1, f"ifconfig:  SIOCAIFGROUP: {strerror(errno.EEXIST)}")
        self._it.groups.append(text)

    def _ungroup(self, text: str) -> None:
        if text not in self._it.groups:
            raise Refusal(1, f"ifconfig:  SIOCDIFGROUP: {strerror(errno.ENOENT)}")
        self._it.groups.remove(text)

    def _name(self, text: str) -> None:
        try:
            self._net.rename(self._it, text)
        except OSError as error:
            raise Refusal(1, f"ifconfig: ioctl SIOCSIFNAME (set name): {strerror(error.errno)}") from None

    def _inet(self, text: str) -> None:
        self._it.addresses.append(text)
        self._it.up = True

    def _addm(self, text: str) -> None:
        member = self._net.find(text) if self._it.kind == "bridge" else None
        if member is None or member.kind == "bridge":
            number = errno.EINVAL if member or self._it.kind != "bridge" else errno.ENOENT
            raise Refusal(1, f"ifconfig: BRDGADD {text}: {strerror(number)}")
        if member.bridge:
            number = errno.EEXIST if member.bridge == self._it.name else errno.EBUSY
            raise Refusal(1, f"ifconfig: BRDGADD {text}: {strerror(number)}")
        if member.addresses and not self._members_may_have_addresses():
            raise Refusal(1, f"ifconfig: BRDGADD {text}: {strerror(errno.EINVAL)}")
        if self._net.is_real and member.kind == "nic":  # the machine's own card stays out of it
            raise Refusal(1, f"ifconfig: BRDGADD {text}: {strerror(errno.EOPNOTSUPP)}")
        others = self._net.members(self._it.name)
        if not others:
            self._it.mtu = member.mtu  # the first member sets the bridge's
        elif member.mtu != self._it.mtu:
            raise Refusal(1, f"ifconfig: BRDGADD {text}: {strerror(errno.EINVAL)}")
        member.bridge = self._it.name
        self._net.save(member)

    def _members_may_have_addresses(self) -> bool:
        settings = state.settings(self._root)
        return settings.get("release") == "14" or settings.get("sysctl", {}).get("net.link.bridge.member_ifaddrs") == 1

    def _deletem(self, text: str) -> None:
        self._member(text)
        member = self._net.find(text)
        assert member is not None
        member.bridge = ""
        self._net.save(member)

    def _member(self, text: str) -> None:
        """Settings of a member that make no difference here."""
        member = self._net.find(text)
        if member is None or member.bridge != self._it.name:
            raise Refusal(1, f"ifconfig: BRDGDEL {text}: {strerror(errno.ENOENT)}")


def shown(net: Net, it: Interface) -> str:
    """What ifconfig prints of one interface."""
    running = it.kind != "tap" or bool(it.opened_by)
    words = [*(["UP"] if it.up else []), "BROADCAST", *(["RUNNING"] if running else []), "SIMPLEX", "MULTICAST"]
    if it.name == "lo0":
        words = ["UP", "LOOPBACK", "RUNNING", "MULTICAST"]
    flags = sum(_FLAGS[word] for word in words)
    lines = [f"{it.name}: flags={flags:x}<{','.join(words)}> metric 0 mtu {it.mtu}"]
    lines += [f"\tdescription: {it.description}"] if it.description else []
    lines += [f"\tether {it.ether}"] if it.ether else []
    lines += [f"\tinet {address}" for address in it.addresses]
    if it.kind == "bridge":
        lines.append("\tid 00:00:00:00:00:00 priority 32768 hellotime 2 fwddelay 15")
        for number, member in enumerate(net.members(it.name), 5):
            lines.append(f"\tmember: {member.name} flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>")
            lines.append(f"\t        ifmaxaddr 0 port {number} priority 128 path cost 2000000")
    lines += [f"\tgroups: {' '.join(it.groups)}"] if it.groups else []
    if it.kind == "tap":
        lines.append("\tmedia: Ethernet 1000baseT <full-duplex>")
        lines.append(f"\tstatus: {'active' if it.opened_by else 'no carrier'}")
    lines += [f"\tOpened by PID {it.opened_by}"] if it.opened_by else []
    return "\n".join(lines) + "\n"


def _absent(name: str) -> Refusal:
    return Refusal(1, f"ifconfig: interface {name} does not exist")


def _usage() -> Refusal:
    return Refusal(1, "usage: ifconfig [-a | -l | -g groupname | interface [create | destroy | parameters]]")
