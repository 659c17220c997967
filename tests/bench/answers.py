"""What the daemon costs at rest and how fast it answers: memory, wake-ups, its own start, adoption, lists and metrics."""

import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.freehost import FreeHost
from tests.bench.lives import quantile, start_s
from tests.bench.peers import PASS, list_s

LIBRARIES = "import trio, structlog, tomli_w, prometheus_client, msgspec, psutil, hypercorn.trio, hypercorn.config"
_VMCTL = Path(sys.executable).with_name("vmctl")
_SETTLE_S = 12.0  # idle threads of the pool end after ten seconds
_MIB = 1 << 20


def own_start(times: int) -> Figure:
    """From the start of the process until its socket answers, in imports of its libraries."""
    imports = statistics.median(list_s((sys.executable, "-c", LIBRARIES), times))
    with FreeHost(1) as host:
        took = []
        for _ in range(times):
            host.kill_daemon()
            took.append(host.start_daemon())
    ratio = statistics.median(took) / imports
    return Figure("daemon start until its socket answers", ratio, "x import", 1.3, also=f"{_ms(statistics.median(took))} / {_ms(imports)}")


def memory(few: int, many: int) -> list[Figure]:
    """PSS of the daemon and its keepers."""
    used = {}
    for count in (few, many):
        with FreeHost(count) as host:
            start_s(host)
            host.wait_phase("up")
            used[count] = sum(process.memory_full_info().pss for process in (host.daemon, *host.keepers())) / _MIB
    further = (used[many] - used[few]) / (many - few)
    return [
        Figure(f"memory with {few} guests", used[few], "MiB", 40, also="PSS, daemon and keepers"),
        Figure("memory of each further guest", further, "MiB", 0.3, also="keeper included"),
    ]


def idle(host: FreeHost, seconds: float) -> Figure:
    """How often the daemon wakes up with nothing to do."""
    host.wait_phase("up")
    time.sleep(_SETTLE_S)
    before = _wakes(host)
    time.sleep(seconds)
    return Figure(
        f"wake-ups in {seconds:g} s, {len(host.names)} guests", _wakes(host) - before, "", 0, also="consoles open, metrics served"
    )


def _wakes(host: FreeHost) -> int:
    tasks = Path(f"/proc/{host.daemon.pid}/task").glob("*/status")
    return sum(int(line.split()[1]) for task in tasks for line in task.read_text().splitlines() if line.startswith("voluntary_ctxt_"))


def adoption(host: FreeHost) -> Figure:
    """kill -9 and a new daemon, until it knows every guest again."""
    pids = {row["name"]: row["pid"] for row in host.call("vm.list")["vms"]}
    host.kill_daemon()
    took = host.start_daemon()
    rows = {row["name"]: row for row in host.call("vm.list")["vms"]}
    assert {name: row["pid"] for name, row in rows.items()} == pids, "a guest was lost"
    assert all(row["phase"] == "up" for row in rows.values()), "a guest is not up"
    return Figure(f"{len(pids)} guests known again after kill -9", took, "s", 1)


def lists(host: FreeHost, times: int, peer: tuple[str, float] | None) -> list[Figure]:
    """`vmctl list` as a process, and its request on an open connection."""
    took = statistics.median(list_s((str(_VMCTL), "list", "--socket", str(host.socket)), times))
    bare = statistics.median(list_s(PASS, times))
    asked = _asked_s(host.socket, 1000)
    rate, count = len(asked) / sum(asked), len(host.names)
    figures = [
        Figure(f"`vmctl list`, {count} guests", took / bare, "x python -c pass", 2, also=f"{_ms(took)} / {_ms(bare)}"),
        Figure(f"`vm.list` on an open connection, {count} guests", quantile(asked, 0.5) * 1e3, "ms", 1, also="read whole, not decoded"),
        Figure("`vm.list`, one client", rate, "a second", 2000, more=True),
    ]
    if peer is not None:
        name, peer_s = peer
        figures.append(Figure(f"{name} for the same, in `vmctl list`s", peer_s / took, "x", 10, more=True, also=_ms(peer_s)))
    return figures


def _asked_s(path: Path, times: int) -> list[float]:
    """From the question until the answer has been read, sorted. To decode it is the client's business, and takes longer."""
    took = []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        for _ in range(times):
            began = time.monotonic()
            client.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "vm.list"}\n')
            while not client.recv(1 << 20).endswith(b"\n"):
                pass
            took.append(time.monotonic() - began)
    return sorted(took)


def scrape(host: FreeHost, times: int) -> list[Figure]:
    """/metrics: how long it takes, and what of it is one piece of the event loop (as it counts itself)."""
    url, before = host.metrics_url(), host.stretches(0.01)
    took = []
    for _ in range(times):
        began = time.monotonic()
        with urllib.request.urlopen(url) as answer:
            answer.read()
        took.append(time.monotonic() - began)
    long = host.stretches(0.01) - before
    count = len(host.names)
    return [
        Figure(f"/metrics, {count} guests, pieces of the loop above 10 ms", long, "", 0, also=f"in {times} scrapes and one more"),
        Figure(f"/metrics, {count} guests, as a whole", statistics.median(took) * 1e3, "ms"),
    ]


def versions() -> str:
    """What was measured with."""
    kernel = subprocess.run(("uname", "-sr"), capture_output=True, text=True, check=True).stdout.strip()
    return f"{kernel}, Python {sys.version.split()[0]}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
