"""Who watches a console: a bounded backlog for each, and an outlet for the connection that several may share.

The hub hands output over in plain synchronous code and never waits. While a connection takes what it is given, output goes straight to
its socket: no task is switched between the guest's byte and the viewer's. When it does not, the viewer lags, and loses what exceeds
its bound.
"""

import json
import os
from collections.abc import Mapping
from typing import Protocol

import trio

from bhyved.core import frames
from bhyved.core.ansi import decode, plain
from bhyved.core.backlog import LAG_BYTES, Backlog, Note
from bhyved.core.frames import Gap

#: Output put into one frame or notification: what one read of a console gives at most.
CHUNK_BYTES = 1 << 16
#: Kernel buffer of a viewer's socket. FreeBSD's default for local sockets is 8 KiB, a system call for each eighth of a read.
SEND_BUFFER_BYTES = 1 << 18


class Wire(Protocol):
    """How output, gaps and events look on a connection."""

    def data(self, offset: int, data: bytes) -> tuple[bytes, ...]: ...

    def gap(self, gap: Gap) -> bytes: ...

    def note(self, event: bytes) -> bytes: ...


class FrameWire:
    """core.frames: what `vmctl console` speaks."""

    def data(self, offset: int, data: bytes) -> tuple[bytes, ...]:
        return frames.data_header(offset, len(data)), data

    def gap(self, gap: Gap) -> bytes:
        return frames.gap(gap)

    def note(self, event: bytes) -> bytes:
        return frames.frame(frames.Kind.EVENT, event)


class RawWire:
    """Nothing but the guest's bytes, as conserver, socat and minicom want them. A gap cannot be told."""

    def data(self, offset: int, data: bytes) -> tuple[bytes, ...]:
        return (data,)

    def gap(self, gap: Gap) -> bytes:
        return b""

    def note(self, event: bytes) -> bytes:
        return b""


class JsonWire:
    """Notifications of JSON-RPC, one a line, for `console.tail`."""

    def __init__(self, name: str, port: str, *, strip: bool) -> None:
        self._console = {"name": name, "port": port}
        self._clean = plain if strip else str

    def data(self, offset: int, data: bytes) -> tuple[bytes, ...]:
        return (self._line("output", {"offset": offset, "size": len(data), "text": self._clean(decode(data))}),)

    def gap(self, gap: Gap) -> bytes:
        return self._line("gap", {"offset": gap.offset, "size": gap.size, "why": gap.why})

    def note(self, event: bytes) -> bytes:
        return self._line("event", json.loads(event))

    def _line(self, what: str, params: Mapping[str, object]) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "method": f"console.{what}", "params": {**self._console, **params}}).encode() + b"\n"


class Viewer:
    """One connection's view of one console."""

    def __init__(self, outlet: "Outlet", wire: Wire, who: str, *, may_write: bool = False, since: int = 0, lag: int = LAG_BYTES) -> None:
        self.who = who
        self.may_write = may_write  # has the right, whether or not the keyboard is its own now
        self.sent_bytes = 0
        self.typed_bytes = 0
        self.backlog = Backlog(since, lag)
        self._outlet = outlet
        self._wire = wire

    def output(self, offset: int, data: bytes, why: str = "not kept") -> None:
        """Guest output, in order of offset."""
        if not self.backlog and offset == self.backlog.next_offset and self._outlet.is_free:
            self.backlog.sent(len(data))
            self.sent_bytes += len(data)
            self._outlet.put(self._wire.data(offset, data))
            return
        self.backlog.data(offset, data, why)
        self._outlet.stir()

    def note(self, event: Mapping[str, object]) -> None:
        """Something happened to the guest, the line or another viewer."""
        self.backlog.note(json.dumps(event).encode())
        self._outlet.stir()

    def close(self) -> None:
        """Nothing more will come: the connection ends when it has been sent what waits."""
        self._outlet.finish()

    def take(self) -> bytes:
        """The next piece for the connection, encoded; empty when nothing waits."""
        while (item := self.backlog.take(CHUNK_BYTES)) is not None:
            if isinstance(item, Note):
                encoded = self._wire.note(item.event)
            elif isinstance(item, Gap):
                encoded = self._wire.gap(item)
            else:
                self.sent_bytes += len(item.data)
                encoded = b"".join(self._wire.data(item.offset, item.data))
            if encoded:
                return encoded
        return b""


class Outlet:
    """The sending half of a connection, shared by its viewers. Nobody else may write to the socket while it runs."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._rest = b""
        self._viewers: list[Viewer] = []
        self._stirred = trio.Event()
        self._finished = False
        self._dead = False
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    @property
    def is_free(self) -> bool:
        """Whether what is put goes out now."""
        return not self._rest and not self._dead

    def add(self, viewer: Viewer) -> None:
        self._viewers.append(viewer)

    def stir(self) -> None:
        self._stirred.set()

    def finish(self) -> None:
        self._finished = True
        self._stirred.set()

    def put(self, parts: tuple[bytes, ...]) -> None:
        """Send now what the socket takes, the rest from `run`. Only while free."""
        try:
            sent = os.writev(self._fd, parts)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # the client has gone; `run` ends the connection
            self._dead = True
            self._stirred.set()
            return
        whole = sum(map(len, parts))
        if sent < whole:
            self._rest = b"".join(parts)[sent:]
            self._stirred.set()

    async def run(self) -> None:
        """Send what waits until the client has gone, or `finish` was called and nothing waits."""
        while not self._dead:
            await self._stirred.wait()
            self._stirred = trio.Event()
            while not self._dead and (self._rest or self._next()):
                await trio.lowlevel.wait_writable(self._sock)
                rest, self._rest = self._rest, b""
                self.put((rest,))
            if self._finished:
                return

    def _next(self) -> bool:
        """Take the next piece, each viewer in turn."""
        for number, viewer in enumerate(self._viewers):
            encoded = viewer.take()
            if encoded:
                self._rest = encoded
                self._viewers = self._viewers[number + 1 :] + self._viewers[: number + 1]
                return True
        return False
