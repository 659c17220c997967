"""`bhyved lab`: the daemon on a stand-in host in a directory, in the foreground.

    power on (`lab.power`), start the daemon, print `ready socket=… metrics=…`, wait:
      TERM, INT, HUP             to the daemon, which stops the guests; then power off
      the daemon ends by itself  say so and leave everything as it is

Daemon and lab host have sessions of their own, so that ^C reaches only this process, and what is left when one of the three is
killed is taken over by the next `bhyved lab` of the same directory. Called by `cli.daemon`.
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from bhyved.host import hostlock
from bhyved.host.spawn import spawn
from bhyved.lab import layout, links, power, settle
from bhyved.lab.host import HostLock
from bhyved.lab.qemu_machine import QEMU

OK, FAILED, USAGE, CONFIG = 0, 1, 64, 78  # sysexits.h
READY_S = 60.0  # a daemon that takes up hundreds of guests
LEAVE_S = 10.0  # for a daemon that is to leave its guests running
ANSWER_S = 1.0  # of its socket, once it listens
URL_S = 5.0  # between the control socket and the metrics' address
_LOOK_S = 0.02
_PING = b'{"jsonrpc": "2.0", "id": 1, "method": "daemon.info"}\n'
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_HEARD = {*_ENDING, signal.SIGCHLD}
_TAIL_BYTES = 4096
_DAEMON = (sys.executable, "-m", "bhyved")

Daemon = Sequence[str]  # the command, without `-c FILE`


def main(argv: list[str], *, daemon: Daemon = _DAEMON) -> int:
    """Returns the exit status."""
    asked = _parser().parse_args(argv)
    root = Path(os.path.abspath(asked.root))
    unfit = layout.too_long(root)
    if unfit:
        return _complain(f"{unfit} is too long for a socket (103 bytes): choose a shorter --root", USAGE)
    if asked.destroy:
        return _destroy(root)
    if asked.guest == "qemu" and shutil.which(QEMU) is None:
        return _complain(f"--guest qemu needs {QEMU} (Debian: qemu-system-x86)", FAILED)
    unfit = _unfit_network(root, asked.network)
    if unfit:
        return _complain(unfit, FAILED)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # from here on they are waited for
    try:
        kind = {"release": asked.release, "arch": asked.arch, "engine": asked.guest, "network": asked.network}
        layout.make(root, **{key: value for key, value in kind.items() if value})
        if not _become_the_one(root):
            return _complain(f"another `bhyved lab` looks after {root}", FAILED)
        part_with_daemon(root)
        settle.write(root, settle.Wanted(vm_dir=_absolute(asked.vm_dir), config=asked.config, metrics=asked.metrics))
        settle.add_templates(root)
        settle.add_samples(root, layout.engine(root))
        power.on(root)
    except tomllib.TOMLDecodeError as error:
        return _complain(f"{asked.config or root / 'etc' / 'bhyved.toml'}: {error}", CONFIG)
    except (OSError, ValueError) as error:
        return _complain(str(error), FAILED)
    return _Foreground(root, daemon).run()


class _Parser(argparse.ArgumentParser):
    """argparse, with sysexits' word for bad usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"bhyved lab: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bhyved lab",
        description="Run the daemon on a stand-in FreeBSD host in a directory: for trying things out, and for tests. Needs no root,"
        " but for --network real.",
        epilog="On ^C or TERM the guests are stopped, then everything of the lab. If the daemon or this command is killed, the guests"
        " run on, and the same command takes them up again.",
    )
    parser.add_argument("--root", required=True, metavar="DIR", help="the directory; made if it is missing")
    parser.add_argument("--guest", choices=("sim", "qemu"), help="scripted guests (the default) or real ones in QEMU")
    parser.add_argument(
        "--network",
        choices=("simulated", "real"),
        help="taps and bridges that are only shown (the default), or, as root on Linux, real ones in a network namespace of the lab's own",
    )
    parser.add_argument("--vm-dir", metavar="DIR", help="the guests' files; default DIR/etc/vm.d, with two samples if it is empty")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a bhyved.toml to begin with; its [paths] are replaced")
    parser.add_argument(
        "--metrics",
        metavar="ADDR:PORT",
        help="where metrics are served; default 127.0.0.1 and a free port, or DIR/run/metrics.sock where the network is real",
    )
    parser.add_argument("--release", choices=("14", "15", "main"), help="which FreeBSD the host is; default 15")
    parser.add_argument("--arch", choices=("amd64", "arm64"), help="which machine it is; default amd64")
    parser.add_argument("--destroy", action="store_true", help="kill and remove whatever is left of a lab; files in etc, db and log stay")
    return parser


def _unfit_network(root: Path, asked: str | None) -> str:
    """Why there cannot be such a network; empty: there can."""
    now = layout.network(root)
    wanted = asked or now
    if wanted != now and HostLock(root).holder() is not None:
        return (
            f"the network of {root} is {now} since its power-on: end the lab, or --destroy what is left of it, before it becomes {wanted}"
        )
    why = links.unfit() if wanted == "real" else ""
    return why and f"--network real {why}"


def _absolute(path: str | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path))


def _become_the_one(root: Path) -> bool:
    """One foreground command a lab. The lock goes with this process; one that is just ending is waited for."""
    fd = os.open(root / "lab" / "foreground.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def lock() -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return lock() or _comes_true(lock, LEAVE_S, unless=lambda: hostlock.holder(str(root / "run")) is not None)


def part_with_daemon(root: Path) -> None:
    """A daemon whose foreground command was killed leaves its guests to the one that we start. Raises OSError."""
    run = str(root / "run")
    for number in (signal.SIGUSR1, signal.SIGKILL):
        pid = hostlock.holder(run)
        if pid is None:
            return
        os.kill(pid, number)
        if _comes_true(lambda: hostlock.holder(run) is None, LEAVE_S):
            return
    raise OSError(f"the daemon of this lab (pid {hostlock.holder(run)}) does not end")


def _comes_true(claim: Callable[[], bool], limit_s: float, *, unless: Callable[[], bool] = lambda: False) -> bool:
    """Wait for what sends no event, for a bounded time."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and not unless():
        if claim():
            return True
        time.sleep(_LOOK_S)
    return claim()


def _destroy(root: Path) -> int:
    """Whatever is left, by force."""
    if not (root / "lab").is_dir():
        return OK
    run = str(root / "run")
    pid = hostlock.holder(run)
    try:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            if not _comes_true(lambda: hostlock.holder(run) is None, LEAVE_S):
                return _complain(f"the daemon (pid {pid}) does not end", FAILED)
        power.off(root)
    except OSError as error:
        return _complain(str(error), FAILED)
    return OK


def _complain(sentence: str, status: int) -> int:
    print(f"bhyved lab: {sentence}", file=sys.stderr, flush=True)
    return status


class _Foreground:
    """One daemon, from its start to its end."""

    def __init__(self, root: Path, daemon: Daemon) -> None:
        self._root = root
        self._socket = root / "run" / "control.sock"
        self._url = root / "run" / "metrics.url"
        self._log = root / "log" / "bhyved.log"
        self._log_began = self._log.stat().st_size if self._log.exists() else 0
        self._url.unlink(missing_ok=True)
        self._stopping = False
        self._daemon = daemon
        self._start()

    def _start(self, *words: str) -> None:
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._pid = spawn((*self._daemon, "-c", str(self._root / "etc" / "bhyved.toml"), *words), {1: log, 2: log}, os.environ)
        os.close(log)
        self._ended: int | None = None  # its wait status

    def run(self) -> int:
        if self._becomes_ready():
            sys.stdout.write(f"ready socket={self._socket} metrics={self._metrics()}\n")  # in one piece, buffered or not
            sys.stdout.flush()
        elif not self._stopping and self._ended is None:
            _complain(f"the daemon does not answer after {READY_S:g} s; see {self._log}", FAILED)
            os.kill(self._pid, signal.SIGTERM)
        status = self._wait()
        if self._stopping and status != OK:
            # As the rc script does: it may have been too young to hear the signal, and guests of the one before are still there.
            self._start("--stop-all")
            status = self._wait()
        return self._power_off() if self._stopping and status == OK else self._daemon_ended(status)

    def _wait(self) -> int:
        while self._ended is None:
            self._hear()
        return os.waitstatus_to_exitcode(self._ended)

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._ended is None and not self._stopping:
            if self._answers():
                return True
            self._hear(_LOOK_S)
        return False

    def _answers(self) -> bool:
        """Whether the daemon serves its socket. One of an earlier daemon has nobody behind it."""
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(ANSWER_S)
                control.connect(str(self._socket))
                control.sendall(_PING)
                return control.recv(1) == b"{"
        except OSError:
            return False

    def _metrics(self) -> str:
        """Where metrics are served, as the daemon says; `off` where it cannot or should not."""
        if settle.has_metrics(self._root):
            deadline = time.monotonic() + URL_S
            while time.monotonic() < deadline and self._ended is None and not self._stopping:
                if self._url.exists():
                    url = self._url.read_text(encoding="utf-8").strip()
                    return f"{url.rstrip('/')}/metrics" if url.startswith("http") else url
                self._hear(_LOOK_S)
        return "off"

    def _hear(self, limit_s: float | None = None) -> None:
        """Wait for a signal, and do what it asks."""
        heard = signal.sigwaitinfo(_HEARD) if limit_s is None else signal.sigtimedwait(_HEARD, limit_s)
        if heard is None:
            return
        if heard.si_signo in _ENDING:
            self._stopping = True
            os.kill(self._pid, signal.SIGINT if heard.si_signo == signal.SIGINT else signal.SIGTERM)
        else:
            self._reap()

    def _reap(self) -> None:
        """All children that have ended: the lab host may be one, and signals of several children may come as one."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._ended = status

    def _power_off(self) -> int:
        try:
            power.off(self._root)
        except OSError as error:
            return _complain(str(error), FAILED)
        return OK

    def _daemon_ended(self, status: int) -> int:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        _complain(f"the daemon (pid {self._pid}) {how}; its guests are left as they are", FAILED)
        with self._log.open("rb") as log:
            log.seek(max(self._log_began, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            said = log.read().decode(errors="replace").strip()
        print(said or f"(nothing in {self._log})", file=sys.stderr, flush=True)
        return status if status > 0 else FAILED
