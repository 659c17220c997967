"""A whole installation as a test uses it: `bhyved lab` with its daemon and guests, asked through the control socket."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from bhyved.lab import state

PATIENCE_S = 60.0  # a loaded machine, not a slow daemon
ENDING_S = 5.0  # for a host command that the daemon was killed over
QUICK = """
start-parallel = 100
start-gap = "0s"
"""

Row = dict[str, Any]


class Connection:
    """One client of the control socket: requests, and notifications where it has subscribed."""

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(patience_s)
        try:
            self._sock.connect(str(path))
        except OSError:
            self._sock.close()
            raise
        self._buffer = b""
        self._number = 0

    def call(self, method: str, **params: Any) -> Any:
        """The result. Raises RuntimeError with the sentence of an error."""
        self._number += 1
        names = {key.rstrip("_").replace("_", "-"): value for key, value in params.items()}
        self._sock.sendall(json.dumps({"jsonrpc": "2.0", "id": self._number, "method": method, "params": names}).encode() + b"\n")
        while True:
            message = self.read()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return message["result"]

    def read(self) -> dict[str, Any]:
        """The next message. Raises OSError when the daemon has gone or says nothing for too long."""
        while b"\n" not in self._buffer:
            data = self._sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the daemon has closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._sock.close()


class LabHost:
    """One lab in a directory of its own. Use as a context manager: whatever happens, nothing of it is left."""

    def __init__(self, guests: Mapping[str, str], *, daemon: str = QUICK, engine: str = "sim", options: tuple[str, ...] = ()) -> None:
        """`guests`: name → the text of its file."""
        self.root = Path(tempfile.mkdtemp(prefix="bhl"))  # short: a socket's path has 103 bytes
        self.engine, self.options = engine, options
        (self.root / "etc/vm.d").mkdir(parents=True)
        for name, text in guests.items():
            self.write(name, text)
        self._config = daemon
        self.metrics = ""
        self._foreground: subprocess.Popen[bytes] | None = None

    def write(self, name: str, text: str) -> None:
        """A guest's file."""
        (self.root / f"etc/vm.d/{name}.toml").write_text(text)

    def settle(self, **news: object) -> None:
        """Make it another kind of host in some respect: `freebsd.Settings`."""
        (self.root / "lab").mkdir(exist_ok=True)
        state.write(f"{self.root}/lab/settings.json", {**state.settings(str(self.root)), **news})

    def __enter__(self) -> "LabHost":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._foreground is not None and self._foreground.poll() is None:
            self._foreground.kill()
            self._foreground.wait()
        self._close_stdout()
        subprocess.run([*BHYVED, "lab", "--root", str(self.root), "--destroy"], check=False, capture_output=True, timeout=PATIENCE_S)
        _, left = psutil.wait_procs(self.processes(), timeout=ENDING_S)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.root, ignore_errors=True)
        assert not left, f"the lab left processes behind: {left}"

    # --- its life ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or take over. Returns when the daemon serves."""
        argv = [*BHYVED, "lab", "--root", str(self.root), "--guest", self.engine, "--metrics", "127.0.0.1:0", *self.options]
        if self._config:
            config = self.root / "extra.toml"
            config.write_text(self._config)
            argv += ["--config", str(config)]
        self._foreground = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._foreground.stdout is not None
        said = b""
        deadline = time.monotonic() + PATIENCE_S
        while not said.startswith(b"ready") or not said.endswith(b"\n"):
            ready, _, _ = select.select([self._foreground.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._foreground.stdout.fileno(), 4096) if ready else b""
            assert data, f"no lab: {said.decode()}\n{self.log()[-4000:]}"
            said += data
        self.metrics = said.decode().split("metrics=")[1].split()[0]

    def kill_daemon(self) -> None:
        """kill -9 of the daemon; the foreground command ends, lab host and guests stay."""
        self._end_daemon(signal.SIGKILL)

    def leave_guests(self) -> None:
        """USR1: the daemon ends in order, and all else is as after kill -9."""
        self._end_daemon(signal.SIGUSR1)

    def _end_daemon(self, number: int) -> None:
        assert self._foreground is not None
        os.kill(self.daemon_pid, number)
        assert self._foreground.wait(PATIENCE_S) != 0
        self._close_stdout()

    def terminate(self) -> None:
        """TERM: guests stop in order, then everything of the lab ends."""
        assert self._foreground is not None
        self._foreground.send_signal(signal.SIGTERM)

    def ended(self) -> None:
        """Wait for the end that `terminate` began."""
        assert self._foreground is not None
        said = self._foreground.communicate(timeout=PATIENCE_S)[0]
        assert self._foreground.returncode == 0, said.decode()

    def stop(self) -> None:
        """Stop the guests and end the lab."""
        self.terminate()
        self.ended()

    def _close_stdout(self) -> None:
        if self._foreground is not None and self._foreground.stdout is not None:
            self._foreground.stdout.close()

    # --- asking it -----------------------------------------------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        return self.root / "run/control.sock"

    @property
    def daemon_pid(self) -> int:
        return int((self.root / "run/bhyved.pid").read_text())

    @property
    def foreground_pid(self) -> int:
        assert self._foreground is not None
        return self._foreground.pid

    def call(self, method: str, **params: Any) -> Any:
        """One request on a connection of its own."""
        connection = Connection(self.socket)
        try:
            return connection.call(method, **params)
        finally:
            connection.close()

    def vmctl(self, *words: str, status: int = 0) -> str:
        """What vmctl prints, both streams; with which status it is to end."""
        argv = [sys.executable, "-m", "bhyved.cli.ctl", *words]
        env = {**os.environ, "BHYVED_SOCKET": str(self.socket)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def rows(self) -> dict[str, Row]:
        """vm.list by name."""
        return {row["name"]: row for row in self.call("vm.list")["vms"]}

    def ask(self, verb: str, *names: str, **params: Any) -> Row:
        """A wish to some guests; the first answer."""
        answer: Row = self.call(f"vm.{verb}", names=list(names), **params)["answers"][0]
        return answer

    def until(self, condition: Callable[[dict[str, Row]], bool], what: str, patience_s: float = PATIENCE_S) -> dict[str, Row]:
        """Wait for a condition over all guests, looking again at each event."""
        connection = Connection(self.socket, patience_s)
        deadline = time.monotonic() + patience_s
        try:
            connection.call("events.subscribe", follow=True)
            while True:
                rows = self.rows()
                if condition(rows):
                    return rows
                assert time.monotonic() < deadline, f"not within {patience_s} s: {what}; {summary(rows)}\n{self.log()[-4000:]}"
                connection.read()
        except TimeoutError:
            raise AssertionError(f"nothing happened for {patience_s} s: {what}; {summary(self.rows())}\n{self.log()[-4000:]}") from None
        finally:
            connection.close()

    def phase(self, phase: str, *names: str, patience_s: float = PATIENCE_S) -> dict[str, Row]:
        """Wait until guests are in a phase."""
        return self.until(lambda rows: all(rows[name]["phase"] == phase for name in names), f"{', '.join(names)} {phase}", patience_s)

    def runs(self, name: str) -> list[Row]:
        """The guest's history, oldest first."""
        runs: list[Row] = self.call("vm.history", name=name, last=200)["runs"]
        return runs

    # --- looking from outside ------------------------------------------------------------------------------------------------

    def log(self) -> str:
        """The daemon's own log."""
        path = self.root / "log/bhyved.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def console(self, name: str) -> str:
        """What the guest's first console has logged."""
        path = self.root / f"log/{name}.console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Every process that was started for this lab, but the foreground command."""
        ours = os.fsencode(self.root)
        found = []
        for process in psutil.process_iter():
            if process.pid == os.getpid() or (self._foreground is not None and process.pid == self._foreground.pid):
                continue
            with contextlib.suppress(psutil.Error):
                if any(ours in os.fsencode(word) for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def bhyves(self, name: str) -> list[int]:
        """The pids of the guest's bhyve processes."""
        conf = f"{self.root}/run/vm/{name}/bhyve.conf"
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if conf in words and not any(os.path.basename(word) in ("sh", "dash") for word in words[:1]):
                    found.append(process.pid)
        return found

    def leftovers(self) -> list[str]:
        """Nodes and taps that nobody has taken back."""
        vmm, taps = self.root / "dev/vmm", self.root / "lab/tap"
        nodes = [f"node {path.name}" for path in vmm.iterdir()] if vmm.exists() else []
        return nodes + ([f"tap {path.stem}" for path in taps.glob("*.json")] if taps.exists() else [])


BHYVED = (sys.executable, "-m", "bhyved")


def summary(rows: Mapping[str, Row]) -> str:
    return ", ".join(f"{name} {row['phase']} ({row['reason']})" for name, row in rows.items())


@contextlib.contextmanager
def running(guests: Mapping[str, str], **options: Any) -> Iterator[LabHost]:
    """A lab that serves."""
    with LabHost(guests, **options) as lab:
        yield lab


def sim(script: str = "", *, more: str = "", boot: str = "uefi-csm") -> str:
    """A guest's file: a firmware that needs no variables, a script, and what else is wanted."""
    options = f'\n[bhyve]\noptions = {{ "lab.script" = "{script}" }}\n' if script else ""
    return f'memory = "16M"\n{more}\n[boot]\nloader = "{boot}"\n{options}'
