"""bhyved on a host that costs nothing: the real daemon, its real keepers, and guests that are one small process each."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.bench import native
from tests.bench.reports import PATIENCE_S, Reports
from tests.system.labkit import Connection

_MAIN = """
start-parallel = 1000
start-gap = "0s"

[paths]
run = "{root}/run"
db = "{root}/db"
log = "{root}/log"
dev = "{root}/dev"
bin = ["{root}/bin"]

[log]
to = "stderr"

[metrics]
listen = "127.0.0.1:0"
"""
_GUEST = """
memory = "16M"
autostart = false

[boot]
loader = "uefi-csm"

[restart]
reboot-limit = "5 in 100ms"
"""
_PAUSE_S = 0.002
DAEMON = (sys.executable, "-m", "bhyved")


class FreeHost:
    """A host with `count` guests, all with a console. Use as a context manager."""

    name = "bhyved"

    def __init__(self, count: int) -> None:
        self.names = [f"g{number:04}" for number in range(count)]
        self.root = Path(tempfile.mkdtemp(prefix="bhb"))
        self.masters: dict[str, int] = {}  # the guest's end of each console
        self._daemon: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> "FreeHost":
        try:
            self._furnish()
            self.start_daemon()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_daemon()
        if hasattr(self, "reports"):
            self.reports.take()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for fd in self.masters.values():
            os.close(fd)
        if hasattr(self, "reports"):
            self.reports.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _furnish(self) -> None:
        for name in ("etc/vm.d", "run", "db", "log", "dev/vmm", "share/uefi-firmware"):
            (self.root / name).mkdir(parents=True)
        native.furnish(self.root)
        self.reports = Reports(self.root)
        (self.root / "share/uefi-firmware/BHYVE_UEFI_CSM.fd").write_bytes(bytes(4096))
        (self.root / "etc/bhyved.toml").write_text(_MAIN.format(root=self.root))
        for name in self.names:
            (self.root / f"etc/vm.d/{name}.toml").write_text(_GUEST)
            master, slave = os.openpty()
            (self.root / f"dev/nmdm-{name}.1B").symlink_to(os.ttyname(slave))
            os.close(slave)
            os.set_blocking(master, False)
            self.masters[name] = master

    # --- the daemon ----------------------------------------------------------------------------------------------------------

    def start_daemon(self) -> float:
        """Returns when it answers; how long that took."""
        with open(self.root / "log/bhyved.log", "ab") as log:
            began = time.monotonic()
            self._daemon = subprocess.Popen([*DAEMON, "-c", str(self.root / "etc/bhyved.toml")], stdout=log, stderr=log, process_group=0)
        while not self._answers():
            assert self._daemon.poll() is None, self.log()[-4000:]
            assert time.monotonic() - began < PATIENCE_S, self.log()[-4000:]
            time.sleep(_PAUSE_S)
        took_s = time.monotonic() - began
        self._connection = Connection(self.socket, PATIENCE_S)
        return took_s

    def _answers(self) -> bool:
        """It does: the socket of a daemon that was killed can be connected to as long as a child of its last moment has a copy."""
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(PATIENCE_S)
                control.connect(str(self.socket))
                control.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "daemon.info"}\n')
                return control.recv(1) != b""
        except OSError:
            return False

    def kill_daemon(self) -> None:
        """kill -9."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    @property
    def socket(self) -> Path:
        return self.root / "run/control.sock"

    @property
    def daemon(self) -> psutil.Process:
        assert self._daemon is not None
        return psutil.Process(self._daemon.pid)

    def call(self, method: str, **params: Any) -> Any:
        assert self._connection is not None
        return self._connection.call(method, **params)

    def log(self) -> str:
        return (self.root / "log/bhyved.log").read_text(errors="replace")

    def metrics_url(self) -> str:
        path = self.root / "run/metrics.url"
        deadline = time.monotonic() + PATIENCE_S
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        return path.read_text().strip().rstrip("/") + "/metrics"

    def stretches(self, above_s: float) -> int:
        """How often its event loop was busy for longer, by its own count. `above_s` is a bound of the daemon's histogram."""
        text: str = self.call("daemon.metrics")["text"]
        lines = [line for line in text.splitlines() if line.startswith("bhyved_loop_busy_seconds_")]
        counts = {line.split()[0]: float(line.split()[1]) for line in lines}
        return int(counts["bhyved_loop_busy_seconds_count"] - counts[f'bhyved_loop_busy_seconds_bucket{{le="{above_s}"}}'])

    def cpu_s(self) -> float:
        times = self.daemon.cpu_times()
        return float(times.user + times.system)

    # --- its guests ----------------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        self.call("vm.start", names=self.names)

    def wait_phase(self, phase: str) -> None:
        """Until all guests are there, looking again at each event."""
        events = Connection(self.socket, PATIENCE_S)
        try:
            events.call("events.subscribe", follow=True)
            waiting = {row["name"] for row in self.call("vm.list")["vms"] if row["phase"] != phase}
            while waiting:
                event = events.read().get("params", {})
                if event.get("phase") == phase:
                    waiting.discard(event["vm"])
                elif event.get("phase") is not None:
                    waiting.add(event["vm"])
        finally:
            events.close()

    def stop_all(self) -> None:
        """Returns when all are down."""
        self.call("vm.stop", names=self.names)
        self.wait_phase("down")

    def processes(self) -> list[psutil.Process]:
        """Keepers and guests."""
        ours, found = str(self.root), []
        guests = set(self.reports.pids.values()) if hasattr(self, "reports") else set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid in guests or any(ours in word for word in process.cmdline()):
                    found.append(process)
        return [process for process in found if self._daemon is None or process.pid != self._daemon.pid]

    def keepers(self) -> list[psutil.Process]:
        return [process for process in self.processes() if process.name() in ("sh", "dash")]

    def reboot(self, name: str) -> None:
        """The guest ends, as if it had rebooted itself."""
        os.kill(self.reports.pids[name], signal.SIGUSR1)
