"""What the console tests share: a daemon's consoles on a guest's line, and a client that speaks frames."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bhyved.core import frames
from bhyved.core.console import ConsoleSpec, LogPolicy
from bhyved.core.consolewire import AttachParams
from bhyved.core.errors import HostError
from bhyved.core.frames import Gap, Kind, Parser
from bhyved.daemon.attach import open_attach
from bhyved.daemon.console import Consoles
from bhyved.host.consoles import HostConsoles

NOON = 1_764_000_000.0


class Daemon:
    """The consoles of one daemon's life, in the directories that outlive it."""

    def __init__(self, root: Path, line: Path, **options: object) -> None:
        self.told: list[tuple[str, str, Mapping[str, str | int]]] = []
        self.now = NOON
        for name in ("run", "log"):
            (root / name).mkdir(exist_ok=True)
        self.spec = ConsoleSpec(**{"port": "com1", "path": str(line), "log": LogPolicy(), **options})  # type: ignore[arg-type]
        self.ports = HostConsoles(run=root / "run", log=root / "log", load_nmdm=self._no_module)
        self.consoles = Consoles(self.ports, lambda *told: self.told.append(told), lambda: self.now)
        self.consoles.open("web1", [self.spec])
        self.log = root / "log" / "web1.console.log"

    async def _no_module(self) -> None:
        raise HostError("nmdm is not loaded: kldload nmdm")

    @property
    def hub(self):  # type: ignore[no-untyped-def]
        hub = self.consoles.hub("web1")
        assert hub is not None
        return hub

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Daemon"]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.consoles.run)
            with trio.fail_after(5):
                await self.consoles.ready("web1")
            yield self
            nursery.cancel_scope.cancel()


class Client:
    """The other end of a `console.attach`."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self.parser = Parser()
        self.output = b""
        self.gaps: list[Gap] = []
        self.events: list[dict[str, object]] = []
        self.next: int | None = None  # the offset of the next byte, once one was seen
        self.closed = False

    async def read(self) -> bool:
        """Take what comes next; False at the end."""
        data = await self.sock.recv(1 << 16)
        if not data:
            self.closed = True
        for frame in self.parser.feed(data):
            if frame.kind is Kind.DATA:
                offset, output = frames.parse_data(frame.payload)
                assert self.next in (None, offset), f"output at {offset}, expected {self.next}"
                self.output += output
                self.next = offset + len(output)
            elif frame.kind is Kind.GAP:
                gap = frames.parse_gap(frame.payload)
                assert self.next in (None, gap.offset), f"gap at {gap.offset}, expected {self.next}"
                self.gaps.append(gap)
                self.next = gap.offset + gap.size
            else:
                self.events.append(json.loads(frame.payload))
        return not self.closed

    async def until_output(self, text: bytes) -> None:
        while text not in self.output:
            assert await self.read(), f"ended after {self.output!r}"

    async def until_event(self, event: str, **fields: object) -> dict[str, object]:
        wanted = {"event": event, **fields}
        while True:
            for found in self.events:
                if wanted.items() <= found.items():
                    return found
            assert await self.read(), f"ended after {self.events}"

    async def type(self, keys: bytes) -> None:
        await self.sock.send(frames.frame(Kind.INPUT, keys))

    async def ask(self, steal: bool = False) -> None:
        await self.sock.send(frames.frame(Kind.WRITE, b"steal" if steal else b""))


@asynccontextmanager
async def attached(
    daemon: Daemon, who: str = "alice", *, may_write: bool = True, buffer: int = 0, **params: object
) -> AsyncIterator[Client]:
    """A client on a console, until the block is left. `buffer`: the kernel's, for a slow one."""
    ours, theirs = trio.socket.socketpair()
    if buffer:
        theirs.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, buffer)
    session = await open_attach(daemon.consoles, AttachParams(name="web1", **params), who=who, may_write=may_write)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            with ours:
                await session.serve(ours)

        nursery.start_soon(serve)
        client = Client(theirs)
        client.next = session.result.offset
        with theirs:
            yield client
