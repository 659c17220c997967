"""A small host of sh scripts in a directory: bhyve, bhyvectl and ifconfig that do what one test wants, under the real machine."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from bhyved.core.assigned import Target
from bhyved.core.exits import Outcome
from bhyved.core.handover import Order
from bhyved.core.spec import DaemonSpec, VmSpec, undump
from bhyved.core.status import VmRecord
from bhyved.host.facts import HostFacts
from bhyved.host.freebsd import FreeBsdHost
from bhyved.host.hostlock import make_directories, state_directories
from bhyved.host.machine import GuestMachine
from bhyved.host.toolbox import Tools
from tests.host.scripts import Scripts, until, write_ifconfig

BOOT = "0123456789abcdef0123456789abcdef"

#: `test.do` of the guest's options is what it does. It makes its node, as the real one with a bootrom does.
BHYVE = """
for name; do :; done
mkdir -p $DEV/vmm && : >$DEV/vmm/$name
eval "$(sed -n 's/^test.do=//p' "$2")"
"""
BHYVECTL = """
name=${1#--vm=}
[ -e $DEV/vmm/$name ] || { echo "VM:$name is not created."; exit 1; }
[ $2 = --destroy ] && rm $DEV/vmm/$name
exit 0
"""
LOADER = """
for name; do :; done
mkdir -p $DEV/vmm && : >$DEV/vmm/$name
eval "$(cat $HERE/loader.do)"
"""
FOREVER = "exec sleep 1000"


class OneHost:
    """A host, and the daemons that come and go on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = Scripts(root)
        self.run, self.db, self.log, self.dev = (root / name for name in ("run", "db", "log", "dev"))
        self.dev.mkdir()
        make_directories(state_directories(str(self.run), str(self.db), str(self.log)))
        self.interfaces = write_ifconfig(self.scripts, "lan0", "wan0")
        for name, text in (("bhyve", BHYVE), ("bhyvectl", BHYVECTL), ("bhyveload", LOADER), ("grub-bhyve", LOADER)):
            self.scripts.write(name, f"DEV={self.dev} HERE={root}\n{text}")
        firmware = root / "share" / "uefi-firmware"
        firmware.mkdir(parents=True)
        (firmware / "BHYVE_UEFI.fd").write_bytes(b"rom")
        (firmware / "BHYVE_UEFI_VARS.fd").write_bytes(b"template")
        self.disk = root / "disk.img"
        self.disk.touch()

    def daemon(self, boot: str = BOOT) -> FreeBsdHost:
        """A daemon that has just started."""
        paths = {"run": self.run, "db": self.db, "log": self.log, "dev": self.dev}
        spec = DaemonSpec(paths=_paths({key: str(path) for key, path in paths.items()}))
        tools = Tools((str(self.scripts.bin), "/usr/bin", "/bin"))
        return FreeBsdHost(spec, tools, HostFacts(boot=boot, host_id="a-host", target=Target("15", "amd64")))

    def directory(self, name: str = "web") -> Path:
        return self.run / "vm" / name

    def pid(self, name: str = "web") -> int | None:
        text = (self.directory(name) / "pid").read_text()
        return int(text) if text.strip() else None

    def alive_pid(self, name: str = "web") -> int:
        pid = self.pid(name)
        assert pid is not None
        return pid

    def node(self, name: str = "web") -> Path:
        return self.dev / "vmm" / name

    def end_all(self) -> None:
        """No process of a test outlives it."""
        for path in self.run.glob("vm/*/pid"):
            with suppress(ValueError, OSError):
                os.kill(int(path.read_text()), signal.SIGKILL)


def _paths(table: dict[str, str]) -> Any:
    import msgspec

    from bhyved.core.spec import Paths
    from bhyved.core.units import dec_hook

    return msgspec.convert(table, Paths, dec_hook=dec_hook)


def guest(name: str = "web", do: str = FOREVER, **table: Any) -> VmSpec:
    """A guest that does `do`."""
    return undump({"name": name, "bhyve": {"options": {"test.do": do}}, **table})


def order(spec: VmSpec, **more: Any) -> Order:
    """A start of it."""
    return Order(**{"run": "r1", "by": "test", "spec": spec, "record": VmRecord(), **more})


async def start(machine: GuestMachine, spec: VmSpec, **more: Any) -> None:
    """Prepare and start."""
    await machine.prepare(order(spec, **more))
    machine.spawn_bhyve(())


async def end_of(machine: GuestMachine) -> Outcome:
    """Its end, which must be near."""
    with trio.fail_after(20):
        return await machine.watch(lambda pid: None)


async def until_pid(host: OneHost, name: str = "web") -> int:
    """The guest's pid, when it has one and has become what it is told to be."""
    await until(lambda: host.pid(name))
    return host.alive_pid(name)


@contextmanager
def killed(*pids: int) -> Iterator[None]:
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


Claim = Callable[[], object]
