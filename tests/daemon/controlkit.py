"""A control socket over guests that a test plays: real sockets and the real board, console hub and event stream behind them."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import trio

from bhyved.core.answers import Reloaded
from bhyved.core.assigned import Target, provisional
from bhyved.core.config import Loaded, Problem
from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.lifecycle import ACCEPTED, ALREADY, NOT_RUNNING, Answer, Poweroff, SetHold, Start, Stop, Wish
from bhyved.core.plan import Plan
from bhyved.core.plan import plan as lay_out
from bhyved.core.reload import Change
from bhyved.core.rights import Peer
from bhyved.core.room import Room
from bhyved.core.spec import Control as ControlSpec
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import Desired, Phase, RunRecord, VmStatus
from bhyved.daemon.board import Board
from bhyved.daemon.console import Consoles
from bhyved.daemon.control import Control
from bhyved.daemon.events import Events
from bhyved.daemon.figuremethods import Views
from bhyved.daemon.freezing import Frozen
from bhyved.daemon.guests import About
from bhyved.daemon.loopwatch import LoopWatch
from bhyved.daemon.metrics import Metrics
from bhyved.daemon.snapshots import Snapshots
from bhyved.host.consoles import HostConsoles
from bhyved.host.controlsocket import listen
from bhyved.host.peer import peer_of
from tests.daemon.fakezfs import FakeDatasets
from tests.daemon.test_events import ListJournal
from tests.daemon.webkit import Figures, facts

#: No test waits for ever for a line that does not come.
LIMIT_S = 30.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class PlayedGuests:
    """Guests that come up and go down at once when they are asked to."""

    def __init__(self, root: Path, *specs: VmSpec, control: ControlSpec = ControlSpec()) -> None:  # noqa: B008 - frozen
        self.specs = {spec.name: spec for spec in specs}
        self.board = Board()
        self.journal = ListJournal()
        self.events = Events(self.journal)
        for name in ("run", "log"):
            (root / name).mkdir(exist_ok=True)
        ports = HostConsoles(run=root / "run", log=root / "log", load_nmdm=self._no_module)
        self.consoles = Consoles(ports, lambda *_: None, lambda: 0.0)
        self.about = About(version="1.2.3", config="/etc/bhyved.toml", boot="b007", pid=os.getpid(), started_at=NOON, started=40.0)
        self.daemon_spec = DaemonSpec(control=control)
        self.target = Target("15", "amd64")
        self.closing = False
        self.drain: Drain | None = None
        self.room = Room()
        self.wishes: list[tuple[str, Wish]] = []
        self.records: list[RunRecord] = []
        self.pending: dict[str, tuple[Change, ...]] = {}
        self.problems: tuple[Problem, ...] = ()
        self.reloads: list[dict[str, Any]] = []
        self.broken = ""  # this guest's driver has a bug
        self.budget_s: float | None = 85.0
        self.figures = Figures()
        self.metrics = Metrics(self.board, self.consoles, self.figures, facts, LoopWatch(), now=self.now)
        self.troubles = {"journal": "", "http": ""}
        self.no_page = ""  # why there is none
        self.datasets = FakeDatasets()
        self.barred: list[str] = []
        self.on_disk = trio.Event()  # what is to be kept
        self.on_disk.set()
        snapshots = Snapshots(self, self.datasets, lambda: None)
        self.views = Views(metrics=self.metrics, new_link=self._new_link, problems=lambda: self.troubles, snapshots=snapshots)
        for spec in specs:
            self.show(spec.name)

    def _new_link(self) -> str:
        if self.no_page:
            raise HostError(self.no_page)
        return "http://127.0.0.1:9747/login?token=x"

    async def _no_module(self) -> None:
        raise HostError("nmdm is not loaded")

    def show(self, name: str, **changes: Any) -> VmStatus:
        """Put a guest's status on the board."""
        spec = self.specs[name]
        old = self.board.get(name) or VmStatus(name=name, since_at=NOON, owner=spec.owner, autostart=spec.autostart)
        return self.board.publish(msgspec.structs.replace(old, **changes))

    def trust(self, group: str | None = None, read_group: str | None = None) -> None:
        """As after a reload."""
        self.daemon_spec = DaemonSpec(control=ControlSpec(group=group, read_group=read_group))

    def set_drain(self, drain: Drain | None, *, by: str) -> None:
        self.drain = drain

    def now(self) -> float:
        return 100.0

    def utc(self) -> datetime:
        return NOON

    def names(self) -> list[str]:
        return sorted(self.specs)

    def spec(self, name: str) -> VmSpec | None:
        return self.specs.get(name)

    def started_spec(self, name: str) -> VmSpec | None:
        status = self.board.get(name)
        return self.specs.get(name) if status is not None and status.phase is Phase.UP else None

    def changes(self, name: str) -> tuple[Change, ...]:
        return self.pending.get(name, ())

    def runs(self, name: str, last: int) -> list[RunRecord]:
        return [record for record in self.records if record.vm == name][-last:]

    def submit(self, name: str, wish: Wish) -> Answer:
        self.wishes.append((name, wish))
        if name == self.broken:
            raise RuntimeError("a bug")
        status = self.board.get(name)
        assert status is not None
        if isinstance(wish, Start):
            if status.phase is Phase.UP:
                return ALREADY
            self.show(name, phase=Phase.UP, desired=Desired.UP, run=f"run-{len(self.wishes)}", by=wish.by, reason="asked for")
        elif isinstance(wish, Stop | Poweroff):
            if status.phase is Phase.DOWN:
                return ALREADY if isinstance(wish, Stop) else NOT_RUNNING
            self.show(name, phase=Phase.DOWN, desired=Desired.DOWN, reason=f"stopped by {wish.by}")
        elif isinstance(wish, SetHold):
            self.show(name, hold=wish.hold)
        return ACCEPTED

    def bar(self, name: str, why: str) -> None:
        self.barred.append(name)

    def unbar(self, name: str) -> None:
        self.barred.remove(name)

    @asynccontextmanager
    async def frozen(self, name: str) -> AsyncIterator[Frozen]:
        yield Frozen()

    async def kept(self, *names: str) -> None:
        await self.on_disk.wait()

    async def drain_kept(self) -> None:
        await self.on_disk.wait()

    async def nmi(self, name: str) -> Answer:
        await trio.lowlevel.checkpoint()
        return ACCEPTED if self.board.get(name).phase is Phase.UP else NOT_RUNNING  # type: ignore[union-attr]

    async def suspend(self, name: str, *, by: str) -> Answer:
        await trio.lowlevel.checkpoint()
        return ACCEPTED if self.board.get(name).phase is Phase.UP else NOT_RUNNING  # type: ignore[union-attr]

    def plan(self, name: str, *, target: Target | None = None, install: bool = False) -> Plan:
        target = target or self.target
        return lay_out(self.specs[name], provisional(self.specs[name], arch=target.arch, install=install), target, f"/run/vm/{name}")

    async def check(self) -> Loaded:
        await trio.lowlevel.checkpoint()
        return Loaded(daemon=self.daemon_spec, vms=self.specs, problems=self.problems)

    async def reload(self, *, plan_only: bool, prune: bool, by: str) -> Reloaded:
        await trio.lowlevel.checkpoint()
        self.reloads.append({"plan_only": plan_only, "prune": prune, "by": by})
        problems = tuple(map(str, self.problems))
        return Reloaded(applied=not plan_only and not problems, added=("new1",), problems=problems)

    async def shutdown_budget_s(self) -> float | None:
        await trio.lowlevel.checkpoint()
        return self.budget_s


class PlayedPeers:
    """Everybody who connects is `peer`; the ids of this process if there is none."""

    def __init__(self, peer: Peer | None = None) -> None:
        self.peer = peer
        self.asked = 0

    def peer_of(self, sock: trio.socket.SocketType) -> Peer:
        if self.peer is None:
            return peer_of(sock)
        return msgspec.structs.replace(self.peer, user="", groups=frozenset())

    def named(self, peer: Peer) -> Peer:
        self.asked += 1
        return peer if self.peer is None else self.peer


ROOT = Peer(uid=0, gid=0, pid=1, user="root")


def user(name: str, uid: int = 1001, *groups: str) -> Peer:
    return Peer(uid=uid, gid=uid, pid=4242, user=name, groups=frozenset({name, *groups}))


class Client:
    """A program at the other end, as simple as `nc -U`."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self._buffer = b""
        self._ids: Iterator[int] = iter(range(1, 1_000_000))

    async def send(self, data: bytes) -> None:
        while data:
            data = data[await self.sock.send(data) :]

    async def ask(self, method: str, id: int | str | None = None, /, **params: Any) -> int | str:
        """Send a request without waiting for its answer. `for_` stands for `for`, underlines for dashes."""
        id = next(self._ids) if id is None else id
        named = {key.rstrip("_").replace("_", "-"): value for key, value in params.items()}
        await self.send(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": named}).encode() + b"\n")
        return id

    async def line(self) -> dict[str, Any] | None:
        """The next line; None when the daemon has closed the connection."""
        while b"\n" not in self._buffer:
            try:
                data = await self.sock.recv(1 << 16)
            except ConnectionError:
                return None
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return message

    def rest(self) -> bytes:
        """What came behind the last line."""
        rest, self._buffer = self._buffer, b""
        return rest

    async def call(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Ask and return the result; the test fails when there is none."""
        id = await self.ask(method, **params)
        answer = await self.line()
        assert answer is not None
        assert answer["id"] == id
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    async def fail(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Ask and return the error: `code` the word, `number`, `message`, and what else is in its data."""
        id = await self.ask(method, **params)
        answer = await self.line()
        assert answer is not None
        assert answer["id"] == id
        return error_of(answer)


def error_of(answer: dict[str, Any] | None) -> dict[str, Any]:
    assert answer is not None
    error = answer["error"]
    return {"number": error["code"], "message": error["message"], **error["data"]}


class Served:
    """A running control socket at `path`, which is relative: a test's own directory may be deeper than sockaddr_un is long."""

    path = "control.sock"

    def __init__(self, guests: PlayedGuests, peers: PlayedPeers, control: Control, listener: trio.socket.SocketType) -> None:
        self.guests, self.peers, self.control, self.listener = guests, peers, control, listener

    @asynccontextmanager
    async def client(self, peer: Peer | None = None) -> AsyncIterator[Client]:
        """A client, and everybody who connects from here on, as `peer`."""
        if peer is not None:
            self.peers.peer = peer
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
            await sock.connect(self.path)
            yield Client(sock)


@asynccontextmanager
async def served(root: Path, *specs: VmSpec, euid: int = 0, **options: Any) -> AsyncIterator[Served]:
    """A daemon's control socket in the present directory; everybody is root until a client says otherwise."""
    guests = PlayedGuests(root, *specs, **options)
    peers = PlayedPeers(ROOT)
    listener = trio.socket.from_stdlib_socket(listen(Served.path))
    with listener, trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(guests.consoles.run)
            control = Control(guests, guests.views, peers, euid=euid)
            await nursery.start(control.run, listener)
            yield Served(guests, peers, control, listener)
            nursery.cancel_scope.cancel()


def guest(name: str = "web1", **tables: Any) -> VmSpec:
    return VmSpec(**{"name": name, "autostart": False, "serial": (), **tables})
