"""What the HTTP tests share: a board of crafted guests, a server on it, and a client that shows every byte."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bhyved.core.console import ConsoleStats
from bhyved.core.daemonfacts import CommandFacts, DaemonFacts
from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.exits import ExitKind
from bhyved.core.room import HostMemory, Room
from bhyved.core.snapshots import Stock
from bhyved.core.spec import Metrics as MetricsSpec
from bhyved.core.status import Desired, Histogram, LastExit, Phase, Restarts, RunRecord, VmStatus
from bhyved.core.usage import Own, Process, Traffic, Usage, Vcpus
from bhyved.daemon.board import Board
from bhyved.daemon.loopwatch import LoopWatch
from bhyved.daemon.metrics import Metrics
from bhyved.daemon.site import Sources
from bhyved.daemon.web import Web
from bhyved.host.listener import Users, open_listener

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
MONOTONIC = 5000.0


def status(name: str, **fields: Any) -> VmStatus:
    """A guest on the board."""
    return VmStatus(**{"name": name, "since_at": NOW - timedelta(minutes=7), "memory_bytes": 2 << 30, "loader": "uefi", **fields})


def up(name: str, **fields: Any) -> VmStatus:
    """A guest that runs well."""
    began = NOW - timedelta(hours=3)
    running = {"phase": Phase.UP, "desired": Desired.UP, "reason": "started by autostart", "pid": 4711, "ready": True, "autostart": True}
    return status(name, **{**running, "started": MONOTONIC - 10800, "started_at": began, "since_at": began, "taps": ("tap0",), **fields})


def ended(kind: ExitKind, code: int | None, minutes: float = 7) -> LastExit:
    return LastExit(kind=kind, status=code, signal=None, at=NOW - timedelta(minutes=minutes))


def run(vm: str, kind: ExitKind, minutes: float, text: str, decision: str = "", **fields: Any) -> RunRecord:
    """A run that ended so long ago."""
    at = NOW - timedelta(minutes=minutes)
    record = {"run": "r", "vm": vm, "by": "autostart", "began_at": at - timedelta(seconds=90), "ended_at": at, "uptime_s": 90.0}
    return RunRecord(**{**record, "kind": kind, "text": text, "decision": decision, **fields})


def crowd() -> list[VmStatus]:
    """One of each kind."""
    crashes = {ExitKind.TRIPLE_FAULT: 4, ExitKind.REBOOT: 1}
    return [
        up(
            "web1",
            restarts=Restarts(reboot=2),
            exits={ExitKind.REBOOT: 2},
            last_exit=ended(ExitKind.REBOOT, 0, 180),
            start_s=Histogram().plus(0.7),
        ),
        up("db1", adopted=True, cpus=8, memory_bytes=64 << 30, config_changed=("memory", "cpus"), ready=False, taps=()),
        status(
            "loop1",
            phase=Phase.BACKOFF,
            desired=Desired.UP,
            reason="the guest crashed (triple fault); next start in 12 s",
            restarts=Restarts(crash=4, reboot=1),
            exits=crashes,
            last_exit=ended(ExitKind.TRIPLE_FAULT, 3, 0.2),
            next_start=MONOTONIC + 12,
            attempts="crash 4 of 5",
            attempts_left=1,
            since_at=NOW - timedelta(seconds=5),
        ),
        status(
            "win11",
            phase=Phase.HELD,
            desired=Desired.UP,
            reason="crashed 5 times in 10m; release it when its disk is repaired",
            restarts=Restarts(crash=5),
            exits={ExitKind.ERROR: 5},
            last_exit=ended(ExitKind.ERROR, 4),
            forced_stops=2,
        ),
        status("spare", reason="stopped by uid 1001", last_exit=ended(ExitKind.POWEROFF, 1, 3000), exits={ExitKind.POWEROFF: 9}),
        up("mail", phase=Phase.STOPPING, reason="pressed the button 2 times; power is cut in 41 s", since_at=NOW - timedelta(seconds=19)),
    ]


RUNS = {
    "loop1": [run("loop1", ExitKind.REBOOT, 700, "the guest rebooted", "start now")]
    + [run("loop1", ExitKind.TRIPLE_FAULT, m, "the guest crashed (triple fault)", "start in 8 s") for m in (130, 62, 3, 2, 0.2)],
    "win11": [run("win11", ExitKind.ERROR, 200 + m, "bhyve met an error", "start in 4 s", hint="the disk is missing") for m in range(5)],
    "web1": [run("web1", ExitKind.REBOOT, m, "the guest rebooted", "start now") for m in (420, 180)],
}


class Figures:
    """Consoles and the host's accounting, from a table."""

    def __init__(self) -> None:
        self.consoles = {
            "web1": (console("com1", offset=48_000, viewers=1),),
            "db1": (console("com1", unlogged_bytes=512, problem="disk full"),),
        }
        self.usage = Usage({"web1": Process(12.5, 1 << 30, 9)}, {"tap0": Traffic(1000, 2000, 10, 20, 3)})
        self.stocks: dict[str, Stock] = {}
        self.asked: list[str] = []
        self.vcpu_error = ""

    def stats(self, name: str) -> tuple[ConsoleStats, ...]:
        return self.consoles.get(name, ())

    def measure(self, pids: Mapping[str, int], taps: object) -> Usage:
        return self.usage

    def own(self) -> Own:
        return Own(1.5, 40 << 20, 30)

    async def vcpus(self, name: str) -> Vcpus:
        self.asked.append(name)
        if self.vcpu_error:
            raise HostError(self.vcpu_error)
        return Vcpus({("0", "vm exits due to external interrupt"): 7}, {"resident": 1 << 28})


def facts(**fields: Any) -> DaemonFacts:
    """A daemon that is well."""
    usual: dict[str, Any] = {
        "version": "1.0",
        "started_at": NOW - timedelta(days=2),
        "adopted": 3,
        "events": {"phase": 40, "reload": 1},
        "commands": {"ifconfig": CommandFacts(durations=Histogram().plus(0.01).plus(0.2), failures=1)},
        "room": Room(host=HostMemory(total_bytes=16 << 30, wired_bytes=4 << 30), reserve_bytes=1 << 30),
        "shutdown_budget_s": 85.0,
        "shutdown_needed_s": 70.0,
        "problems": {"journal": "", "records": ""},
    }
    return DaemonFacts(**{**usual, **fields})


class Server:
    """A web server on a board, and what a test can turn."""

    def __init__(self, *guests: VmStatus, **spec: Any) -> None:
        self.board = Board()
        for guest in guests:
            self.board.publish(guest)
        self.figures = Figures()
        self.facts = facts()
        self.now = NOW
        self.drain: Drain | None = None
        self.lines: list[tuple[str, str]] = [("com1", "FreeBSD/amd64 (web1) (ttyu0)\n\nlogin: ")]
        self.runs = RUNS
        self.spec = MetricsSpec(**{"listen": "127.0.0.1:0", **spec})
        self.metrics = Metrics(
            self.board,
            self.figures,
            self.figures,
            lambda: self.facts,
            LoopWatch(),
            now=lambda: MONOTONIC,
            stocks=lambda: self.figures.stocks,
        )
        sources = Sources(
            board=self.board,
            scrape=self.metrics.scrape,
            not_ready=lambda: self.facts.not_ready,
            drain=lambda: self.drain,
            why=self.why,
            runs=lambda name, last: self.runs.get(name, [])[-last:],
            consoles=lambda name, lines: self.lines,
            utc=lambda: self.now,
            host="vmhost",
            began="d1",
        )
        users = Users(str(self.spec.basic_auth_file)).hashes if self.spec.basic_auth_file is not None else None
        self.web = Web(sources, partial(open_listener, self.spec), users, frozenset({"vmhost.example.org"}))
        self.url = ""

    def why(self, name: str) -> list[str]:
        found = self.board.get(name)
        assert found is not None
        return [f"{name} is {found.phase}: {found.reason}"]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(10):
                self.url = await nursery.start(self.web.run)
            yield self
            nursery.cancel_scope.cancel()

    async def connect(self) -> trio.abc.Stream:
        if self.url.startswith("unix:"):
            return await trio.open_unix_socket(self.url.removeprefix("unix:"))
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def get(self, path: str, *, method: str = "GET", host: str | None = None, **headers: str) -> "Reply":
        """One request on a connection of its own."""
        with trio.fail_after(20):
            stream = await self.connect()
            async with stream:
                head = {"host": host if host is not None else f"127.0.0.1:{self.port}" if "://" in self.url else "x", "connection": "close"}
                head |= {name.replace("_", "-"): value for name, value in headers.items()}
                lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
                await stream.send_all(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
                data = b"".join([part async for part in stream])
        return Reply(data)


class Reply:
    """A whole answer."""

    def __init__(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.text = (_unchunked(body) if self.headers.get("transfer-encoding") == "chunked" else body).decode()


def _unchunked(body: bytes) -> bytes:
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text, body = text + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return text


def console(port: str, **fields: Any) -> ConsoleStats:
    quiet = {"open": True, "problem": "", "offset": 0, "output_bytes": 0, "input_bytes": 0, "dropped_bytes": 0, "unlogged_bytes": 0}
    return ConsoleStats(**{"port": port, **quiet, "viewers": 0, "writer": "", **fields})


def password_file(path: Path, hashed: str, mode: int = 0o600) -> Path:
    path.write_text(f"# who may look\nalice:{hashed}\n")
    path.chmod(mode)
    return path
