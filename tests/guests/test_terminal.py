"""A person at a real terminal and a real guest: typing goes on over reboots of the guest and the death of the daemon."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ctl.tmux import Pane, needs_tmux, terminal
from tests.guests import linux
from tests.guests.shell import PATIENCE_S, guest
from tests.ports import free_port
from tests.system.labkit import LabHost, running, sim

VMCTL = (sys.executable, "-m", "bhyved.cli.ctl")


@contextmanager
def person(lab: LabHost, *words: str) -> Iterator[Pane]:
    """vmctl in a terminal."""
    with terminal(*VMCTL, *words, env={"BHYVED_SOCKET": str(lab.socket)}, height=50) as pane:
        yield pane


def in_order(text: str, *words: str) -> bool:
    """Whether the words come one after the other."""
    at = 0
    for word in words:
        at = text.find(word, at)
        if at < 0:
            return False
        at += len(word)
    return True


def until_recorded(lab: LabHost, word: str) -> str:
    """The console's log, when it has the word: bytes go to disk within a second."""
    deadline = time.monotonic() + PATIENCE_S
    while word not in (text := lab.console("web1")):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return text


def replace_daemon(lab: LabHost, pane: Pane) -> None:
    lab.kill_daemon()
    pane.until("bhyved has gone", all=True)
    lab.start()
    pane.until("bhyved is back", all=True)


@needs_tmux
@pytest.mark.guest
def test_a_day_at_a_boot_sector() -> None:
    """Type, reset, lose the daemon, type on, leave: the screen shows each byte once, and the log has the same."""
    with running({"web1": sim()}, engine="qemu") as lab, person(lab, "console", "web1", "--since", "boot") as pane:
        pane.until("boot 1 clean\n> ")
        pane.type("uname\r")
        pane.until("^> uname\n> ")
        pane.type("r")
        pane.until("boot 2 clean\n> ")
        replace_daemon(lab, pane)
        pane.type("go on\r")
        pane.until("go on\n> ")
        pane.type("\r~.")
        assert pane.ended() == 0
        shown, log = pane.screen(all=True), until_recorded(lab, "go on")

    for text in (shown, log):
        assert in_order(text, "boot 1 clean", "> uname", "> r", "boot 2 clean", "go on")
        assert [text.count(word) for word in ("uname", "boot 2 clean", "go on")] == [1, 1, 1]


@needs_tmux
@pytest.mark.guest
def test_a_day_at_a_linux_guest() -> None:
    """Log in, run a command, lose the daemon under a running command, reboot from the shell, log in again."""
    kernel = linux.direct()
    with running({"web1": guest(kernel)}, engine="qemu") as lab, person(lab, "console", "web1", "--since", "boot") as pane:
        lab.ask("start", "web1")
        pane.until("login: *$", patience_s=PATIENCE_S)
        pane.type("root\r")
        pane.until("# *$", patience_s=PATIENCE_S)
        pane.type("echo one-$((40+2))\r")
        pane.until("^one-42")
        pane.type("for n in 1 2 3 4 5 6 7 8; do echo line-$n; usleep 250000; done; echo two-$((40+3))\r")
        pane.until("^line-2")
        replace_daemon(lab, pane)
        pane.until("^two-43", patience_s=PATIENCE_S)
        pane.type("reboot -f\r")
        pane.until("web1 is down: the guest rebooted", patience_s=PATIENCE_S)
        pane.until("(?s)web1 starts.*login: *$", patience_s=PATIENCE_S)
        pane.type("root\r")
        pane.until("(?s)web1 starts.*# *$", patience_s=PATIENCE_S)
        pane.type("echo three-$((40+4))\r")
        pane.until("^three-44")
        pane.type("\r~.")
        assert pane.ended() == 0
        shown, log = pane.screen(all=True), until_recorded(lab, "three-44")
        lab.ask("poweroff", "web1")
        lab.phase("down", "web1", patience_s=PATIENCE_S)

    lines = [f"line-{number}" for number in range(1, 9)]
    for text in (shown, log):
        assert in_order(text, "login:", "one-42", *lines, "two-43", "login:", "three-44")


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def conserver(configuration: str, directory: Path) -> Iterator[int]:
    """A real conserver; the port that its clients use."""
    port = free_port()
    config, passwords = directory / "conserver.cf", directory / "conserver.passwd"
    config.write_text(f"{configuration}access * {{ trusted 127.0.0.1; allowed 127.0.0.1; }}\n")
    passwords.write_text("*any*:\n")
    argv = ["conserver", "-C", str(config), "-P", str(passwords), "-p", str(port), "-M", "127.0.0.1", "-b", str(port + 1), "-u"]
    with (directory / "conserver.log").open("wb") as log:
        child = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_open(port):
            assert time.monotonic() < deadline, (directory / "conserver.log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        child.terminate()  # its children follow
        child.wait()


@needs_tmux
@pytest.mark.skipif(shutil.which("conserver") is None or shutil.which("console") is None, reason="conserver is not installed")
def test_conserver_records_and_types(tmp_path: Path) -> None:
    """With the generated configuration: its client types into the guest, its log and ours have what the guest answered."""
    offered = sim(more='[[serial]]\nport = "com1"\nsocket = true\n')
    with running({"web1": offered}) as lab:
        lab.phase("up", "web1")
        told = subprocess.run(
            [*VMCTL, "console", "--conserver-cf", "--socket", str(lab.socket)], capture_output=True, text=True, check=True
        ).stdout
        log = tmp_path / "web1.log"
        logged = told.replace("rw *; }", f"rw *; logfile {log}; }}")
        assert logged != told
        with conserver(logged, tmp_path) as port, terminal("console", "-M", "127.0.0.1", "-p", str(port), "-l", "root", "web1") as pane:
            pane.until("for help")
            pane.type("needle\r")
            pane.until("^needle$")
            until_recorded(lab, "needle")
            deadline = time.monotonic() + PATIENCE_S
            while not (log.exists() and "needle" in log.read_text(errors="replace")):
                assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
                time.sleep(0.1)  # conserver tells nobody
