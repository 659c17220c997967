"""The whole lab: `bhyved lab` with the real daemon and guests, as a user has it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bhyved.host import hostlock
from bhyved.lab import guest512, power
from bhyved.lab.qemu_machine import QEMU
from tests.waiting import until

_TREE = str(Path(__file__).parents[2])
PATIENCE_S = 60.0


class Whole:
    """`bhyved lab` on one directory, started as often as a test likes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[subprocess.Popen[str]] = []
        self.metrics = ""

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Until it is ready."""
        argv = [sys.executable, "-m", "bhyved", "lab", "--root", str(self.root), *words]
        command = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_TREE)
        self.commands.append(command)
        assert command.stdout is not None
        ready = command.stdout.readline().split()
        assert ready[:2] == ["ready", f"socket={self.root}/run/control.sock"], command.stderr.read() if command.stderr else ""
        self.metrics = ready[2].removeprefix("metrics=")
        return command

    def stop(self) -> None:
        """In order."""
        self.commands[-1].terminate()
        _, said = self.commands[-1].communicate(timeout=PATIENCE_S)
        assert (self.commands[-1].returncode, said) == (0, "")

    def write(self, **guests: str) -> None:
        """Guests of our own in the place of the samples, which take their time."""
        directory = self.root / "etc" / "vm.d"
        directory.mkdir(parents=True)
        for name, text in guests.items():
            (directory / f"{name}.toml").write_text(f'memory = "16M"\n{text}')

    def type(self, name: str, line: str) -> None:
        """On the guest's console, whoever else is there."""
        fd = os.open(self.root / "dev" / f"nmdm-{name}.1B", os.O_WRONLY | os.O_NOCTTY)
        os.write(fd, f"{line}\n".encode())
        os.close(fd)

    def kill_daemon(self) -> None:
        pid = hostlock.holder(str(self.root / "run"))
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.commands[-1].communicate(timeout=PATIENCE_S)
        assert self.commands[-1].returncode == 1

    def guests(self) -> dict[str, dict[str, Any]]:
        """`vm.list` by name."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE_S)
            control.connect(str(self.root / "run" / "control.sock"))
            control.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "vm.list"}\n')
            answer = json.loads(control.makefile().readline())
        return {vm["name"]: vm for vm in answer["result"]["vms"]}

    def are_up(self, *names: str) -> bool:
        return all(self.guests()[name]["phase"] == "up" for name in names)

    def console(self, name: str) -> str:
        log = self.root / "log" / f"{name}.console.log"
        return log.read_text(errors="replace") if log.exists() else ""


@pytest.fixture
def whole() -> Iterator[Whole]:
    with tempfile.TemporaryDirectory(prefix="lab") as directory:
        lab = Whole(Path(directory) / "root")
        yield lab
        argv = [sys.executable, "-m", "bhyved", "lab", "--root", str(lab.root), "--destroy"]
        destroyed = subprocess.run(argv, capture_output=True, text=True, cwd=_TREE, check=False)
        for command in lab.commands:
            command.kill()
            command.communicate()
        assert (destroyed.returncode, destroyed.stdout, destroyed.stderr) == (0, "", "")
        assert list(power.of(lab.root)) == []


def pids(whole: Whole) -> set[int]:
    """The bhyves and keepers of the lab."""
    return {process.pid for process in power.of(whole.root)}


def test_a_new_lab_runs_its_samples(whole: Whole) -> None:
    """Both come up, one after the other, are counted in the metrics, and TERM stops them in order and everything with them."""
    whole.start()

    until(lambda: whole.are_up("db1", "web1"))
    with urllib.request.urlopen(whole.metrics) as answer:
        assert b'vm="web1"' in answer.read()
    until(lambda: "web1 login:" in whole.console("web1"))

    whole.stop()
    assert pids(whole) == set()
    assert not (whole.root / "run" / "control.sock").exists()


def test_guests_outlive_the_daemon(whole: Whole) -> None:
    """kill -9 of the daemon: the same processes run on, and what they print meanwhile is in the console's log of the next daemon."""
    whole.write(web1="")
    whole.start()
    until(lambda: whole.are_up("web1"))
    before = pids(whole)

    whole.kill_daemon()

    assert pids(whole) == before
    whole.type("web1", "while away")
    whole.start()
    assert whole.guests()["web1"]["adopted"]
    assert pids(whole) == before
    until(lambda: "while away" in whole.console("web1"))
    whole.stop()


def test_a_guest_that_ended_meanwhile_is_judged(whole: Whole) -> None:
    """A guest that reboots while no daemon watches is started again by the next one, as a reboot."""
    whole.write(web1="")
    whole.start()
    until(lambda: whole.are_up("web1"))
    whole.kill_daemon()
    whole.type("web1", "reboot")
    until(lambda: not pids(whole))

    whole.start()

    until(lambda: whole.guests()["web1"]["restarts"]["reboot"] >= 1)
    assert whole.guests()["web1"]["last_exit"]["kind"] == "reboot"
    whole.stop()


def test_destroy_after_a_crash_leaves_nothing(whole: Whole) -> None:
    """Daemon killed, guests running: --destroy ends them, and a new lab on the same directory is a new boot with the same guests."""
    whole.write(web1="", db1="")
    whole.start()
    until(lambda: whole.are_up("db1", "web1"))
    whole.kill_daemon()
    argv = [sys.executable, "-m", "bhyved", "lab", "--root", str(whole.root), "--destroy"]

    subprocess.run(argv, cwd=_TREE, check=True)

    assert pids(whole) == set()
    assert not (whole.root / "dev" / "vmm").exists()
    whole.start()
    until(lambda: whole.are_up("db1", "web1"))
    assert not whole.guests()["web1"]["adopted"]
    whole.stop()


def test_taps_are_made_joined_and_destroyed(whole: Whole) -> None:
    """A guest's tap is on its bridge and open while it runs, and gone with it."""
    whole.write(**dict.fromkeys(("web1", "db1"), '[[network]]\nbridge = "bridge0"\n'))
    whole.start()
    until(lambda: whole.are_up("db1", "web1"))

    shown = subprocess.run([whole.root / "bin" / "ifconfig", "-g", "bhyved"], capture_output=True, text=True, check=True).stdout.split()
    bridge = subprocess.run([whole.root / "bin" / "ifconfig", "bridge0"], capture_output=True, text=True, check=True).stdout
    tap = subprocess.run([whole.root / "bin" / "ifconfig", shown[0]], capture_output=True, text=True, check=True).stdout

    assert len(shown) == 2
    assert all(f"member: {name} " in bridge for name in shown)
    assert "Opened by PID" in tap
    whole.stop()
    assert list((whole.root / "lab" / "tap").glob("*.json")) == []


@pytest.mark.guest
def test_real_guests(whole: Whole) -> None:
    """With --guest qemu the samples are real machines: they boot from their disks, and the next boot finds the last stop clean."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (package qemu-system-x86)")
    for boot in ("boot 1 clean", "boot 2 clean"):
        whole.start("--guest", "qemu")
        until(lambda boot=boot: boot in whole.console("web1") and boot in whole.console("db1"))
        whole.stop()
    assert (whole.root / "db" / "disk" / "web1.img").stat().st_size == guest512.DISK_BYTES
