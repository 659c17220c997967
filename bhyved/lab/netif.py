"""The lab's network interfaces: files, one an interface, since taps and bridges of FreeBSD's kind cannot be had without root.

`DIR/lab/tap/NAME.json`, `…/bridge/NAME.json`, and `…/nic/NAME.json` for what the machine came with. A process that has a tap open holds
an flock on its file: the lock goes with the process however that ends, as an open device would. So these files are written in place,
under the lock `net`. Used by the stand-ins of ifconfig and bhyve; contract 5.3 and 5.4 are the rules.

In a lab whose settings say `"network": "real"` each tap and bridge is a real one of Linux's besides (`lab.links`). It changes before its
file does, which then says what there is.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os

from bhyved.lab import state
from bhyved.lab.interface import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.links import Links

KINDS = ("nic", "tap", "bridge")
_LAST_UNIT = 0x7FFF  # IF_MAXUNIT of if_clone.c


class Net:
    """All interfaces of the lab. Whoever changes something holds `Locked(root, "net")`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lab = f"{root}/lab"
        self.is_real: bool = state.settings(root).get("network") == "real"

    def _links(self, kind: str) -> Links | None:
        """Those that are to follow; asked when something changes, as a look needs none. Raises OSError."""
        if not self.is_real or kind not in ("tap", "bridge"):
            return None
        from bhyved.lab.links import Links

        return Links(self._root)

    def names(self) -> list[str]:
        """All interfaces, those of the machine first."""
        return [name for kind in KINDS for name in state.names(f"{self._lab}/{kind}")]

    def find(self, name: str) -> Interface | None:
        """One interface as it is now."""
        for kind in KINDS:
            said = state.read(self.path(kind, name))
            if said is not None:
                return self._now(Interface(kind, name, said))
        return None

    def _now(self, interface: Interface) -> Interface:
        """When the opener is gone, a tap is down and has lost its addresses; group, description and bridge stay (contract 5.3)."""
        if interface.opened_by and not state.is_held(self.path(interface.kind, interface.name)):
            interface.opened_by = 0
            interface.up = False
            interface.addresses = []
        return interface

    def members(self, bridge: str) -> list[Interface]:
        """What is on a bridge."""
        found = (self.find(name) for name in self.names())
        return [interface for interface in found if interface is not None and interface.bridge == bridge]

    def create(self, kind: str, name: str) -> Interface:
        """Raises OSError EEXIST."""
        if self.find(name) is not None:
            raise OSError(errno.EEXIST, "exists")
        links = self._links(kind)
        if links is not None:
            links.create(kind, name)
        ether = ":".join(("58", "9c", "fc", "10", *(f"{byte:02x}" for byte in os.urandom(2))))
        interface = Interface(kind, name, {"groups": [kind], "ether": ether})
        os.makedirs(f"{self._lab}/{kind}", exist_ok=True)
        self.save(interface)
        return interface

    def free_name(self, kind: str) -> str:
        """The name of the next unit, as `ifconfig tap create` takes it."""
        taken = set(self.names())
        return next(f"{kind}{unit}" for unit in range(_LAST_UNIT + 1) if f"{kind}{unit}" not in taken)

    def save(self, interface: Interface) -> None:
        """In place: a lock belongs to the file that was opened, not to its name. Raises OSError.

        With one write, behind which blanks cover what was longer: a process that is killed leaves the old or the new.
        """
        links = self._links(interface.kind)
        if links is not None:
            before = state.read(self.path(interface.kind, interface.name)) or {}
            links.follow(interface, before.get("addresses", []))
        said = {key: value for key, value in vars(interface).items() if key not in ("kind", "name")}
        path = self.path(interface.kind, interface.name)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            state.write(path, said)
            return
        try:
            os.write(fd, json.dumps(said).encode().ljust(os.fstat(fd).st_size))
        finally:
            os.close(fd)

    def rename(self, interface: Interface, name: str) -> None:
        """Raises OSError EEXIST."""
        if self.find(name) is not None:
            raise OSError(errno.EEXIST, "exists")
        links = self._links(interface.kind)
        if links is not None:
            links.rename(interface.name, name)
        members = self.members(interface.name)
        os.rename(self.path(interface.kind, interface.name), self.path(interface.kind, name))
        interface.name = name
        for member in members:
            member.bridge = name
            self.save(member)

    def remove(self, interface: Interface) -> None:
        """Its members, if it is a bridge, are on none afterwards."""
        for member in self.members(interface.name):
            member.bridge = ""
            self.save(member)
        links = self._links(interface.kind)
        if links is not None:
            links.remove(interface.name)
        os.unlink(self.path(interface.kind, interface.name))

    def path(self, kind: str, name: str) -> str:
        return f"{self._lab}/{kind}/{name}.json"


def open_tap(root: str, name: str, *, up: bool = False) -> int:
    """Open /dev/tapN, which makes it if it is not there (contract 5.3): a descriptor that holds it until its last copy is closed.

    Raises OSError EBUSY while somebody has it open. `up` as sysctl net.link.tap.up_on_open would.
    """
    net = Net(root)
    with state.Locked(root, "net"):
        tap = net.find(name) or net.create("tap", name)
        fd = os.open(net.path("tap", name), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise OSError(errno.EBUSY, "open") from None
        tap.opened_by = os.getpid()
        tap.up = tap.up or up
        net.save(tap)
    return fd


def wait_closed(root: str, interface: Interface) -> None:
    """Wait until nobody has the tap open, as its destroy does."""
    fd = os.open(Net(root).path(interface.kind, interface.name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)
