"""A small host of sh scripts in a directory: bhyve, bhyvectl and ifconfig that do what one test wants, under the real machine."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from bhyved.core.assigned import Target
from bhyved.core.exits import Outcome
from bhyved.core.handover import Order
from bhyved.core.spec import DaemonSpec, Paths, VmSpec, undump
from bhyved.core.status import VmRecord
from bhyved.core.values import AbsPath
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
do=$(sed -n 's/^test.do=//p' "$2")
mkdir -p $DEV/vmm && : >$DEV/vmm/$name
eval "$do"
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
FOREVER = "read never <>$DEV/never"  # no child that could outlive it


class OneHost:
    """A host, and the daemons that come and go on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = Scripts(root)
        self.run, self.db, self.log, self.dev = (root / name for name in ("run", "db", "log", "dev"))
        self.dev.mkdir()
        os.mkfifo(self.dev / "never")
        make_directories(state_directories(str(self.run), str(self.db), str(self.log)))
        self.interfaces = write_ifconfig(self.scripts, "lan0", "wan0")
        for name, text in (("bhyve", BHYVE), ("bhyvectl", BHYVECTL), ("bhyveload", LOADER), ("grub-bhyve", LOADER)):
            self.scripts.write(name, f"DEV={self.dev} HERE={root}\n{text}")
        # Of this host only: other tests have guests of the same names.
        of_here = f"sed -En '\\|{root}/|s/^ *([0-9]+ +[0-9]+)/\\1 0/p'"  # Linux has no column jid
        self.scripts.write("ps", f"/bin/ps -axww -o pid= -o uid= -o command= | {of_here}")
        firmware = root / "share" / "uefi-firmware"
        firmware.mkdir(parents=True)
        (firmware / "BHYVE_UEFI.fd").write_bytes(b"rom")
        (firmware / "BHYVE_UEFI_VARS.fd").write_bytes(b"template")
        self.disk = root / "disk.img"
        self.disk.touch()

    def daemon(self, boot: str = BOOT) -> FreeBsdHost:
        """A daemon that has just started."""
        run, db, log, dev = (AbsPath(path) for path in (self.run, self.db, self.log, self.dev))
        spec = DaemonSpec(paths=Paths(run=run, db=db, log=log, dev=dev))
        tools = Tools((str(self.scripts.bin), "/usr/bin", "/bin"))
        return FreeBsdHost(spec, tools, HostFacts(boot=boot, host_id="a-host", target=Target("15", "amd64")), lambda: 0.0)

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

    def die(self, machine: GuestMachine) -> None:
        """What a kill -9 of the daemon does to its descriptors. The keepers stay children of this process, which reaps nothing."""
        machine._let_go()

    def end_all(self) -> None:
        """No process of a test outlives it."""
        shown = subprocess.run(["ps", "-axww", "-o", "pid=", "-o", "command="], capture_output=True, text=True, check=True).stdout
        for line in shown.splitlines():
            pid, _, command = line.strip().partition(" ")
            if f"{self.root}/" in command:
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
        deadline = time.monotonic() + 5
        with suppress(ChildProcessError):
            while time.monotonic() < deadline:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.005)


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


async def until_booted(host: OneHost, name: str = "web") -> int:
    """The guest's pid, when its bhyve has made its node: from then on no copy of that shell is seen beside it."""
    await until(host.node(name).exists)
    return await until_pid(host, name)


async def until_pid(host: OneHost, name: str = "web") -> int:
    """The guest's pid, when it has one."""
    await until(lambda: host.pid(name))
    return host.alive_pid(name)
