"""Other supervisors, with the same children: the loop in C that does no more than it must, and s6, runit and supervisord."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.bench import native
from tests.bench.reports import PATIENCE_S, Reports

_PAUSE_S = 0.002


class Peer:
    """One supervisor of `count` children. `rests_s`: how long a child must have run to be started again at once."""

    name = ""
    program = ""
    rests_s = 0.0

    def __init__(self, count: int) -> None:
        self.names = [f"g{number:04}" for number in range(count)]
        self.root = Path(tempfile.mkdtemp(prefix="bhb"))
        native.furnish(self.root)
        self.reports = Reports(self.root)
        self.child = self.root / "bin/child"
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()

    @classmethod
    def is_there(cls) -> bool:
        return shutil.which(cls.program) is not None

    def prepare(self) -> None:
        """Write its configuration."""

    def argv(self) -> Sequence[str]:
        raise NotImplementedError

    def start_all(self) -> None:
        with open(self.root / "log", "wb") as log:
            self._process = subprocess.Popen(self.argv(), stdout=log, stderr=log, cwd=self.root, start_new_session=True)

    def stop_all(self) -> None:
        """Returns when it and all children have ended."""
        assert self._process is not None
        self.ask_to_stop()
        self._process.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while any(_lives(pid) for pid in self.reports.pids.values()):
            assert time.monotonic() < deadline, f"{self.name} left children behind"
            time.sleep(_PAUSE_S)

    def ask_to_stop(self) -> None:
        assert self._process is not None
        self._process.terminate()

    def reboot(self, name: str) -> None:
        os.kill(self.reports.pids[name], signal.SIGUSR1)

    def list_argv(self) -> Sequence[str]:
        """Its client, asking for the state of all; empty: it has none."""
        return ()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            for process in (*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
        self.reports.take()
        for pid in self.reports.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.reports.close()
        shutil.rmtree(self.root, ignore_errors=True)


class RawC(Peer):
    """posix_spawn and waitpid."""

    name = "raw-c"
    program = "cc"

    def prepare(self) -> None:
        native.build("loop", self.root / "bin/loop")

    def argv(self) -> Sequence[str]:
        return str(self.root / "bin/loop"), str(len(self.names)), str(self.child)


class S6(Peer):
    """s6-svscan, which has an s6-supervise for each child."""

    name = "s6"
    program = "s6-svscan"
    rests_s = 1.0

    def prepare(self) -> None:
        for name in self.names:
            _script(self.root / "scan" / name / "run", f'#!/bin/sh\nexec "{self.child}" {name}\n')

    def argv(self) -> Sequence[str]:
        return self.program, "-c", str(2 * len(self.names)), str(self.root / "scan")

    def ask_to_stop(self) -> None:
        subprocess.run(["s6-svscanctl", "-t", str(self.root / "scan")], check=True)

    def list_argv(self) -> Sequence[str]:
        return "/bin/sh", "-c", f'for each in "{self.root}"/scan/*; do s6-svstat "$each"; done'


class Runit(Peer):
    """runsvdir, which has a runsv for each child."""

    name = "runit"
    program = "runsvdir"
    rests_s = 1.0

    def prepare(self) -> None:
        for name in self.names:
            _script(self.root / "scan" / name / "run", f'#!/bin/sh\nexec "{self.child}" {name}\n')

    def argv(self) -> Sequence[str]:
        return self.program, str(self.root / "scan")

    def ask_to_stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)  # which has its runsvs end their children

    def list_argv(self) -> Sequence[str]:
        return "/bin/sh", "-c", f'sv status "{self.root}"/scan/*'


class Supervisord(Peer):
    """supervisord."""

    name = "supervisord"
    program = "supervisord"

    def prepare(self) -> None:
        path = self.root / "s.conf"
        path.write_text(
            f"[supervisord]\nnodaemon=true\nminfds=4096\nlogfile={self.root}/s.log\npidfile={self.root}/s.pid\n"
            f"[unix_http_server]\nfile={self.root}/s.sock\n[supervisorctl]\nserverurl=unix://{self.root}/s.sock\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            + "".join(
                f"[program:{name}]\ncommand={self.child} {name}\nautorestart=true\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
                for name in self.names
            )
        )

    def argv(self) -> Sequence[str]:
        return self.program, "-c", str(self.root / "s.conf")

    def list_argv(self) -> Sequence[str]:
        return "supervisorctl", "-c", str(self.root / "s.conf"), "status"


OTHERS: tuple[type[Peer], ...] = (S6, Runit, Supervisord)


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o755)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def list_s(argv: Sequence[str], times: int) -> list[float]:
    """How long a client's process takes."""
    took = []
    for _ in range(times):
        began = time.monotonic()
        subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        took.append(time.monotonic() - began)
    return took


PASS = (sys.executable, "-c", "pass")
