"""What breaks around the daemon: full disks, hostile files, tools that hang, processes that are killed, descriptors that run out.

Each test breaks one thing under guests that run, and looks whether they still do, whether the operator is told, and whether all is
well again when the thing is mended.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system.labkit import BHYVED, Connection, LabHost, running, sim
from tests.waiting import until

AGAIN = '[restart]\ncrash-limit = "100 in 1h"\nreboot-limit = "100 in 1h"\nbackoff = "100ms"\nbackoff-max = "200ms"\n'
OFF = "autostart = false\n"
TAP = '[[network]]\nbridge = "bridge0"\n'

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux limits another process's descriptors and mounts a tmpfs like this"
)


@pytest.fixture
def mounts() -> Iterator[Callable[[Path, str], None]]:
    """Mount small file systems; they are taken away at the end."""
    mounted: list[Path] = []

    def mount(path: Path, size: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(path)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)
        shutil.rmtree(path.parent)  # of the lab, which could not remove what was mounted


def fill(directory: Path) -> Path:
    """Take all the room there is."""
    ballast = directory / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    return ballast


def replace_tool(lab: LabHost, name: str, text: str) -> Callable[[], None]:
    """Another program in a tool's place; `REAL` is the tool. Returns what puts it back."""
    path = lab.root / "bin" / name
    real = path.with_name(f"{name}.real")
    path.rename(real)
    path.write_text(f"#!/bin/sh\nREAL={real}\n{text}\n")
    path.chmod(0o755)

    def mend() -> None:
        real.rename(path)

    return mend


# --- disks ------------------------------------------------------------------------------------------------------------------------


@needs_root
@needs_linux
def test_a_full_disk(mounts: Callable[[Path, str], None]) -> None:
    """Guests run, stop, start and reboot; the operator is told; what was wished meanwhile is kept as soon as there is room."""
    lab = LabHost({"still": sim(), "other": sim(), "reboots": sim("boot 0.1s; acpi on; print login: ; sleep 1s; reboot", more=AGAIN)})
    mounts(lab.root / "db", "2m")
    with lab:
        pid = lab.phase("up", "still", "other")["still"]["pid"]
        ballast = fill(lab.root / "db")
        assert lab.ask("stop", "other")["ok"]
        lab.phase("down", "other")
        run = lab.rows()["reboots"]["run"]
        lab.until(lambda rows: rows["reboots"]["phase"] == "up" and rows["reboots"]["run"] != run, "reboots goes on")
        until(lambda: "save-failed" in lab.log())
        assert "no space left on device" in lab.log()
        ballast.unlink()
        until(lambda: json.loads((lab.root / "db/vm/other.json").read_text())["desired"] == "down", limit_s=40)
        lab.kill_daemon()
        lab.start()

        rows = lab.rows()
        assert (rows["still"]["pid"], rows["still"]["phase"]) == (pid, "up")
        assert rows["other"]["phase"] == "down"
        assert "begins without a record" not in lab.log()
        lab.stop()


@needs_root
@needs_linux
def test_no_room_for_a_run(mounts: Callable[[Path, str], None]) -> None:
    """A start that cannot write its ledger fails with the reason and is tried again; the end of a running guest is not lost."""
    guests = {"still": sim(more='[restart]\non-reboot = "stop"\n'), "new": sim(more=OFF + AGAIN)}
    lab = LabHost(guests)
    mounts(lab.root / "run", "1m")
    with lab:
        lab.phase("up", "still")
        ballast = fill(lab.root / "run")
        lab.ask("start", "new")
        rows = lab.until(lambda rows: rows["new"]["restarts"]["start_failure"] > 0, "new fails to start")
        assert "no space left on device" in rows["new"]["reason"] or rows["new"]["phase"] != "backoff"
        lab.call("console.send", name="still", text="reboot\r")
        rows = lab.phase("down", "still")
        assert rows["still"]["last_exit"]["kind"] == "reboot"
        ballast.unlink()
        lab.phase("up", "new")
        lab.stop()


@needs_root
@needs_linux
def test_a_read_only_state_directory(mounts: Callable[[Path, str], None]) -> None:
    """A daemon that cannot keep anything takes the guests up all the same, and says what it cannot do."""
    lab = LabHost({"still": sim(), "new": sim(more=OFF)})
    mounts(lab.root / "db", "2m")
    with lab:
        pid = lab.phase("up", "still")["still"]["pid"]
        lab.kill_daemon()
        subprocess.run(["mount", "-o", "remount,ro", str(lab.root / "db")], check=True)
        lab.start()
        assert (lab.rows()["still"]["pid"], lab.rows()["still"]["phase"]) == (pid, "up")
        lab.ask("start", "new")
        lab.phase("up", "new")
        until(lambda: "read-only file system" in lab.log())
        lab.stop()


# --- files ------------------------------------------------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] if path.is_file() else b"{"),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "deep": lambda path: path.write_bytes(b"[" * 200_000),
    "null": lambda path: path.write_bytes(b"null\n"),
    "newer": lambda path: path.write_bytes(b'{"version": 999}\n' if path.suffix != ".toml" else b"version = 999\n"),
    "giant": lambda path: os.truncate(path, 1 << 33),
    "link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "dangling": lambda path: (path.unlink(), path.symlink_to("/nonexistent/file")),
    "fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "directory": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_state_files_when_a_daemon_starts(kind: str) -> None:
    """Whatever lies in the place of any state file, the daemon serves, runs go on under their pids, and /etc/passwd is untouched."""
    passwd = Path("/etc/passwd").read_bytes()
    guests = {"still": sim(more=TAP), "other": sim()}
    with running(guests) as lab:
        rows = lab.phase("up", *guests)
        pids = {name: rows[name]["pid"] for name in guests}
        until((lab.root / "db/events/events.jsonl").exists)
        lab.kill_daemon()
        files = ["db/vm/still.json", "db/events/events.jsonl", "db/events/number", "db/good/vm.d/still.toml", "run/vm/still/run.toml"]
        files += ["run/vm/still/pid", "run/vm/still/begin", "run/vm/still/bhyve.conf", "db/drain.json"]
        for file in files:
            path = lab.root / file
            if kind in ("cut", "giant") and not path.is_file():
                path.unlink(missing_ok=True)
                path.touch()
            path.touch()
            HOSTILE[kind](path)
        lab.start()

        assert {name: (row["pid"], row["phase"]) for name, row in lab.rows().items()} == {name: (pids[name], "up") for name in guests}
        for name in guests:
            assert lab.ask("stop", name)["ok"]
        lab.phase("down", *guests)
        assert lab.ask("start", "other")["ok"]
        lab.phase("up", "other")
        assert Path("/etc/passwd").read_bytes() == passwd
        lab.stop()


def test_a_fifo_that_somebody_removed() -> None:
    """The guest is still known, also to the next daemon, and its end is noticed with its status."""
    with running({"web": sim(more='[restart]\non-reboot = "stop"\n'), "db": sim()}) as lab:
        pids = {name: row["pid"] for name, row in lab.phase("up", "web", "db").items()}
        for name in pids:
            (lab.root / f"run/vm/{name}/alive").unlink()
        lab.kill_daemon()
        lab.start()
        assert {name: row["pid"] for name, row in lab.phase("up", "web", "db").items()} == pids
        lab.call("console.send", name="web", text="reboot\r")

        assert lab.phase("down", "web")["web"]["last_exit"]["kind"] == "reboot"
        assert lab.ask("restart", "db")["ok"]
        rows = lab.until(lambda rows: rows["db"]["phase"] == "up" and rows["db"]["pid"] not in (None, pids["db"]), "db again")
        assert lab.bhyves("db") == [rows["db"]["pid"]]
        lab.stop()


# --- processes --------------------------------------------------------------------------------------------------------------------


def keeper_of(pid: int) -> int:
    """The sh that waits for a bhyve."""
    parent = psutil.Process(pid).parent()
    assert parent is not None
    assert parent.cmdline()[1:2] == ["-c"]
    return parent.pid


@pytest.mark.parametrize("victims", ["bhyve", "keeper", "both", "keeper then bhyve"])
@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
def test_sigkill(victims: str, watched: bool) -> None:
    """Killed is a crash, an end that nobody wrote down is judged like one; a keeper's death alone ends nothing."""
    with running({"web": sim(more=AGAIN), "db": sim()}) as lab:
        rows = lab.phase("up", "web", "db")
        pid = rows["web"]["pid"]
        keeper = keeper_of(pid)
        if not watched:
            lab.kill_daemon()
        if victims != "bhyve":
            os.kill(keeper, signal.SIGKILL)
        if victims in ("bhyve", "both"):
            os.kill(pid, signal.SIGKILL)
        if not watched:
            lab.start()
        if victims.startswith("keeper"):
            assert lab.rows()["web"]["pid"] == pid
            assert lab.rows()["web"]["phase"] == "up"
        if victims == "keeper":
            lab.call("console.send", name="web", text="reboot\r")
        elif victims == "keeper then bhyve":
            os.kill(pid, signal.SIGKILL)
        lab.until(lambda rows: rows["web"]["phase"] == "up" and rows["web"]["pid"] not in (None, pid), "web again")

        assert [run["kind"] for run in lab.runs("web")] == ["killed" if victims == "bhyve" else "unknown"]
        assert lab.rows()["web"]["restarts"]["crash"] == 1
        assert len(lab.bhyves("web")) == 1
        assert lab.rows()["db"]["pid"] == rows["db"]["pid"]
        lab.stop()


def test_two_daemons_at_once() -> None:
    """The second says who is first and ends; neither the first nor a guest notices."""
    with running({"web": sim()}) as lab:
        pid = lab.phase("up", "web")["web"]["pid"]
        second = subprocess.run([*BHYVED, "-c", f"{lab.root}/etc/bhyved.toml"], capture_output=True, text=True, timeout=60, check=False)
        stop_all = subprocess.run(
            [*BHYVED, "-c", f"{lab.root}/etc/bhyved.toml", "--stop-all"], capture_output=True, text=True, timeout=60, check=False
        )

        for done in (second, stop_all):
            assert done.returncode not in (0, 99)
            assert f"bhyved is already running (pid {lab.daemon_pid})" in done.stderr
        assert lab.rows()["web"]["pid"] == pid
        lab.stop()


def test_daemons_that_start_in_the_same_moment() -> None:
    """Exactly one looks after the guests, each of which it starts once; the others say who is first."""
    guests = [f"web{number}" for number in range(5)]
    with running({name: sim(more=AGAIN + TAP) for name in guests}) as lab:
        rows = lab.phase("up", *guests)
        argv = [*BHYVED, "-c", f"{lab.root}/etc/bhyved.toml"]
        lab.kill_daemon()
        for turn in range(1, 3):
            for name in guests:  # so that each has to be started
                for pid in lab.bhyves(name):
                    os.kill(pid, signal.SIGKILL)
            said = [(lab.root / f"said{number}").open("w+") for number in range(4)]
            daemons = [subprocess.Popen(argv, stdout=file, stderr=file) for file in said]
            until(lambda started=daemons: sum(daemon.poll() is None for daemon in started) == 1)
            until(lambda: answers(lab))
            before = {rows[name]["run"] for name in guests}  # which are up until their ends are seen
            rows = lab.until(lambda rows, old=before: all(is_up_again(rows[name], old) for name in guests), "all up again")

            winner = next(daemon for daemon in daemons if daemon.poll() is None)
            assert lab.daemon_pid == winner.pid
            for daemon, file in zip(daemons, said, strict=True):
                file.seek(0)
                assert daemon is winner or (daemon.returncode == 78 and "bhyved is already running" in file.read())
                file.close()
            assert [len(lab.bhyves(name)) for name in guests] == [1] * len(guests)
            assert [len(lab.runs(name)) for name in guests] == [turn] * len(guests)
            winner.kill()
            winner.wait()
        lab.start()
        lab.stop()
        assert lab.leftovers() == []


def is_up_again(row: dict[str, Any], runs: set[str]) -> bool:
    """In another run than these."""
    return row["phase"] == "up" and row["run"] not in runs


def answers(lab: LabHost) -> bool:
    """Whether a daemon serves."""
    try:
        lab.call("daemon.info")
    except (OSError, RuntimeError):  # nobody there, or somebody who has only just come
        return False
    return True


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any guest, and dies of any signal."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("fifo", ["held", "removed"])
def test_a_pid_that_somebody_else_has_by_now(stranger: subprocess.Popen[bytes], fifo: str) -> None:
    """The FIFO tells that a guest lives, or what runs does: its own bhyve is adopted and stopped, whatever pid was written down."""
    with running({"web": sim(), "db": sim(), "other": sim()}) as lab:
        pids = {name: row["pid"] for name, row in lab.phase("up", "web", "db", "other").items()}
        lab.kill_daemon()
        if fifo == "removed":
            for name in ("web", "db"):
                (lab.root / f"run/vm/{name}/alive").unlink()
        write_pid(lab, "web", stranger.pid)
        write_pid(lab, "db", pids["other"])
        lab.start()
        lab.phase("up", "web", "db", "other")
        for verb, name in (("stop", "web"), ("poweroff", "db")):
            assert lab.ask(verb, name)["ok"]
        lab.phase("down", "web", "db")

        assert lab.bhyves("web") == lab.bhyves("db") == []
        assert stranger.poll() is None
        assert (lab.rows()["other"]["pid"], lab.bhyves("other")) == (pids["other"], [pids["other"]])
        lab.stop()
    assert stranger.poll() is None


@pytest.mark.parametrize("fifo", ["free", "removed"])
def test_a_pid_of_a_guest_that_has_ended(stranger: subprocess.Popen[bytes], fifo: str) -> None:
    """Keeper and bhyve were killed while no daemon watched, and their pid is a stranger's: it is nobody's guest, and left alone."""
    with running({"web": sim(more=AGAIN), "db": sim(more=AGAIN), "other": sim()}) as lab:
        pids = {name: row["pid"] for name, row in lab.phase("up", "web", "db", "other").items()}
        lab.kill_daemon()
        for name in ("web", "db"):
            os.kill(keeper_of(pids[name]), signal.SIGKILL)
            os.kill(pids[name], signal.SIGKILL)
            if fifo == "removed":
                (lab.root / f"run/vm/{name}/alive").unlink()
        until(lambda: not psutil.pid_exists(pids["web"]) and not psutil.pid_exists(pids["db"]))
        write_pid(lab, "web", stranger.pid)
        write_pid(lab, "db", pids["other"])
        lab.start()
        rows = lab.until(lambda rows: all(rows[name]["phase"] == "up" and lab.runs(name) for name in ("web", "db")), "they run again")

        assert not {rows[name]["pid"] for name in ("web", "db")} & {stranger.pid, pids["other"], None}
        assert [[run["kind"] for run in lab.runs(name)] for name in ("web", "db", "other")] == [["unknown"], ["unknown"], []]
        assert (rows["other"]["pid"], stranger.poll()) == (pids["other"], None)
        assert [len(lab.bhyves(name)) for name in ("web", "db", "other")] == [1, 1, 1]
        lab.stop()
    assert stranger.poll() is None


def write_pid(lab: LabHost, name: str, pid: int) -> None:
    """As the keeper would have, had the number been given away since."""
    with (lab.root / f"run/vm/{name}/pid").open("r+b") as file:
        file.write(b"%d\n" % pid)


@needs_linux
def test_no_descriptors_are_left() -> None:
    """A start fails with the reason and is tried again, guests that run are looked after, and all is well when there are some again."""
    with running({"still": sim(more=AGAIN), "new": sim(more=OFF + AGAIN)}) as lab:
        lab.phase("up", "still")
        client = Connection(lab.socket)
        client.call("daemon.info")
        before = resource.prlimit(lab.daemon_pid, resource.RLIMIT_NOFILE)
        used = psutil.Process(lab.daemon_pid).num_fds()
        resource.prlimit(lab.daemon_pid, resource.RLIMIT_NOFILE, (used, before[1]))
        client.call("vm.start", names=["new"])
        client.call("events.subscribe", follow=True)
        while True:
            message = client.read().get("params", {})
            if message.get("vm") == "new" and message.get("phase") in ("backoff", "held"):
                break
        assert message["phase"] == "backoff"
        assert "too many open files" in message["reason"]
        resource.prlimit(lab.daemon_pid, resource.RLIMIT_NOFILE, before)
        client.close()

        lab.phase("up", "new", "still")
        assert "internal error" not in lab.log()
        lab.stop()


def fails_again(row: dict[str, Any]) -> bool:
    """For want of memory, and not for the first time."""
    return row["restarts"]["start_failure"] > 1 and "cannot allocate memory" in row["reason"]


#: What the daemon's interpreter runs first: while a file is there, the host has neither processes nor threads to give.
SHORT_OF_MEMORY = """
import errno, os, subprocess, threading

def scarce(make, error):
    def made(*args, **kwargs):
        if os.path.exists({short!r}):
            raise error
        return make(*args, **kwargs)
    return made

no_process = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
os.posix_spawn = scarce(os.posix_spawn, no_process)
subprocess._fork_exec = scarce(subprocess._fork_exec, no_process)
threading._start_new_thread = scarce(threading._start_new_thread, RuntimeError("can't start new thread"))
"""


def test_no_memory_for_processes_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start fails in words and is tried again, guests go on and their ends are seen, wishes are heard; all is well when there is some."""
    short = tmp_path / "short"
    (tmp_path / "sitecustomize.py").write_text(SHORT_OF_MEMORY.format(short=str(short)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with running({"still": sim(), "reboots": sim(more=AGAIN), "new": sim(more=OFF + AGAIN)}) as lab:
        before = lab.phase("up", "still", "reboots")
        until(lambda: psutil.Process(lab.daemon_pid).num_threads() == 1, limit_s=60)  # those that are idle could do what there is to do
        short.touch()
        assert lab.ask("hold", "still")["ok"]
        assert lab.ask("start", "new")["ok"]
        lab.call("console.send", name="reboots", text="reboot\r")
        rows = lab.until(lambda rows: all(fails_again(rows[name]) for name in ("new", "reboots")), "starts fail in words, again and again")

        assert (rows["still"]["phase"], rows["still"]["pid"]) == ("up", before["still"]["pid"])
        assert rows["reboots"]["last_exit"]["kind"] == "reboot"
        short.unlink()
        rows = lab.phase("up", "new", "reboots")
        assert [len(lab.bhyves(name)) for name in rows] == [1, 1, 1]
        assert "internal error" not in lab.log()
        lab.kill_daemon()
        lab.start()
        assert lab.rows()["still"]["hold"] is not None
        lab.stop()


# --- the host's commands ----------------------------------------------------------------------------------------------------------

TOOL_FAULTS = {
    "hangs": "exec sleep 600",
    "floods": 'exec yes "a line that nobody wants"',
    "dies of a signal": "kill -SEGV $$",
    "fails": "echo no >&2; exit 1",
    "is not there": None,
}


@pytest.mark.parametrize("fault", TOOL_FAULTS)
def test_a_tool_that_does_not_work(fault: str) -> None:
    """A start that needs ifconfig fails in words and in bounded time, is tried again, and works when ifconfig does."""
    with running({"still": sim(more=TAP), "new": sim(more=OFF + AGAIN + TAP)}) as lab:
        pid = lab.phase("up", "still")["still"]["pid"]
        text = TOOL_FAULTS[fault]
        mend = replace_tool(lab, "ifconfig", text or "")
        if text is None:
            (lab.root / "bin/ifconfig").write_text("#!/nonexistent/sh\n")
        lab.ask("start", "new")
        row = lab.until(lambda rows: rows["new"]["restarts"]["start_failure"] or rows["new"]["phase"] in ("held", "up"), "an answer")["new"]
        assert row["phase"] not in ("held", "up"), row
        assert "ifconfig" in row["reason"]
        assert lab.rows()["still"]["pid"] == pid
        mend()
        lab.phase("up", "new")

        lab.stop()
        assert lab.leftovers() == []


def test_a_tap_that_cannot_be_destroyed() -> None:
    """`ifconfig destroy` that blocks is killed; the guest is down, says what was left, and a later start and stop see to it."""
    with running({"web": sim(more=TAP)}) as lab:
        lab.phase("up", "web")
        mend = replace_tool(lab, "ifconfig", 'case "$*" in *destroy*) exec sleep 600;; esac; exec $REAL "$@"')
        lab.ask("stop", "web")
        row = lab.until(lambda rows: rows["web"]["phase"] in ("down", "held"), "web has ended")["web"]
        assert row["phase"] == "down"
        assert "ifconfig tap" in row["reason"]
        assert "destroy` did not end within" in row["reason"]
        mend()
        lab.ask("start", "web")
        lab.phase("up", "web")
        lab.ask("stop", "web")
        lab.phase("down", "web")

        assert lab.leftovers() == []
        lab.stop()


def test_a_node_that_is_not_destroyed() -> None:
    """bhyvectl exits 0 and the node stays: the operator is told, and the next start tries again instead of running over it."""
    with running({"web": sim(more=AGAIN)}) as lab:
        lab.phase("up", "web")
        mend = replace_tool(lab, "bhyvectl", 'case "$*" in *--destroy*) exit 0;; esac; exec $REAL "$@"')
        lab.ask("stop", "web")
        row = lab.until(lambda rows: rows["web"]["phase"] in ("down", "held"), "web has ended")["web"]
        assert "is still there after two `bhyvectl --vm=web --destroy`" in row["reason"]
        lab.ask("start", "web")
        row = lab.until(lambda rows: rows["web"]["restarts"]["start_failure"] or rows["web"]["phase"] == "up", "an answer")["web"]
        assert row["phase"] != "up"
        assert lab.bhyves("web") == []
        mend()

        lab.phase("up", "web")
        lab.stop()
        assert lab.leftovers() == []


def test_a_disk_that_two_guests_want(tmp_path: Path) -> None:
    """The second waits, saying whose it is, and starts by itself when the first has ended."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    text = f'[[disk]]\npath = "{disk}"\n'
    with running({"first": sim(more=text + AGAIN), "second": sim(more=OFF + text + AGAIN)}) as lab:
        lab.phase("up", "first")
        lab.ask("start", "second")
        row = lab.phase("backoff", "second")["second"]
        assert "first" in row["reason"]
        assert str(disk) in row["reason"]
        assert lab.bhyves("second") == []
        lab.ask("stop", "first")

        lab.phase("up", "second")
        lab.stop()


# --- clients ----------------------------------------------------------------------------------------------------------------------


def test_bad_clients_while_guests_restart() -> None:
    """Silent, deaf, babbling and vanishing ones: a guest that reboots all the time does so as before, and others are answered."""
    with running({"web": sim("boot 0.05s; acpi on; print login: ; sleep 0.2s; reboot", more=AGAIN), "still": sim()}) as lab:
        lab.phase("up", "still")
        clients = []
        for _ in range(60):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].connect(str(lab.socket))
        for number, client in enumerate(clients):
            client.setblocking(False)
            with contextlib.suppress(OSError):
                match number % 4:
                    case 0:  # never reads
                        for _ in range(3):
                            client.send(b'{"jsonrpc": "2.0", "id": 1, "method": "events.subscribe", "params": {"since": 0}}\n' * 50)
                    case 1:
                        client.send(os.urandom(60_000))
                    case 2:
                        client.send(b'{"jsonrpc": "2.0", "id": 1, "method": "vm.wait", "params": {"name": "still", "until": "down"}}\n')
                        client.close()
        run = lab.rows()["web"]["run"]
        for _ in range(5):
            rows = lab.until(lambda rows, run=run: rows["web"]["run"] not in ("", run) and rows["web"]["phase"] == "up", "it reboots")
            run = rows["web"]["run"]
        for client in clients:
            client.close()

        assert {run["kind"] for run in lab.runs("web")} == {"reboot"}
        assert "internal error" not in lab.log()
        lab.stop()


def test_a_socket_that_cannot_be_made() -> None:
    """The daemon ends with one sentence that says what to remove, and no guest notices."""
    with running({"web": sim()}) as lab:
        pid = lab.phase("up", "web")["web"]["pid"]
        lab.kill_daemon()
        lab.socket.unlink()
        lab.socket.write_text("mine\n")
        done = subprocess.run([*BHYVED, "-c", f"{lab.root}/etc/bhyved.toml"], capture_output=True, text=True, timeout=60, check=False)

        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].endswith("a file that is no socket is there; remove it")
        assert lab.bhyves("web") == [pid]
        lab.socket.unlink()
        lab.start()
        assert lab.rows()["web"]["pid"] == pid
        lab.stop()
