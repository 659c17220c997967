"""Watching and typing over the control socket: what `console.attach` and `console.tail` turn a connection into.

control.py decides who may do what, answers the request with `session.result`, and hands the socket over:

    session = await open_attach(consoles, params, who="alice (uid 1001, pid 4242)", may_write=True)     # raises Refused
    …send the answer…
    await session.serve(sock, leftover)       # until either side leaves; closing the socket is control's business
"""

from contextlib import suppress

import trio

from bhyved.core.consolewire import AttachParams, AttachResult, TailParams, TailResult, Where
from bhyved.core.frames import FrameError, Kind, Parser
from bhyved.daemon.console import Consoles
from bhyved.daemon.hub import ConsoleHub
from bhyved.daemon.viewer import FrameWire, JsonWire, Outlet, Viewer, Wire

RECEIVE_BYTES = 1 << 16
#: A console answers as soon as its history is open: moments after the daemon's start.
OPEN_S = 10.0


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The request cannot be done: a code for programs, a sentence for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


async def find_hub(consoles: Consoles, name: str, port: str) -> ConsoleHub:
    """The hub that is meant, with its history open. Raises Refused."""
    hub = consoles.hub(name, port)
    if hub is None:
        known = ", ".join(hub.port for hub in consoles.hubs(name))
        if known:
            raise Refused("no-console", f'{name} has no console "{port}"; it has {known}')
        raise Refused("no-console", f"{name} has no console that bhyved keeps")
    with trio.move_on_after(OPEN_S) as opening:
        await hub.history()
    if opening.cancelled_caught:
        raise Refused("not-ready", f"the history of {name}'s {hub.port} is not open yet")
    return hub


def offset_of(hub: ConsoleHub, since: Where, lines: int | None = None) -> int:
    """What an operator's word for a place in the output means now."""
    if lines is not None:
        return hub.ring.line_offset(lines) if lines else hub.offset
    if since == "boot":
        return hub.ring.run_start
    if since == "all":
        return hub.ring.earliest
    return hub.offset if since == "end" else since


class AttachSession:
    """One `vmctl console`: frames in both directions."""

    def __init__(self, hub: ConsoleHub, params: AttachParams, who: str, *, may_write: bool) -> None:
        self._hub, self._params, self._who = hub, params, who
        self._may_write = may_write and not params.read_only
        self._lost = False  # the offset is of a stream that is no more
        self._since = offset_of(hub, params.since, params.lines)
        if (params.stream and params.stream != hub.ring.stream) or self._since > hub.offset:
            self._since, self._lost = hub.offset, True
        self.result = AttachResult(
            name=hub.name,
            port=hub.port,
            stream=hub.ring.stream,
            offset=self._since,
            end=hub.offset,
            running=hub.ring.running,
            writer=hub.writer.who if hub.writer else "",
            viewers=tuple(viewer.who for viewer in hub.viewers),
            problem=hub.problem,
        )

    async def serve(self, sock: trio.socket.SocketType, leftover: bytes = b"") -> None:
        """Speak frames until either side leaves. `leftover`: what came behind the request already."""
        outlet = Outlet(sock)
        viewer = Viewer(outlet, FrameWire(), self._who, may_write=self._may_write, since=self._since)
        outlet.add(viewer)
        if self._lost:
            viewer.note({"event": "gap", "text": "the history up to here is of another recording"})
        self._hub.join(viewer, write=self._may_write, steal=self._params.steal)
        try:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await outlet.run()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(send)
                with suppress(OSError, FrameError):
                    await self._receive(sock, viewer, leftover)
                nursery.cancel_scope.cancel()
        finally:
            self._hub.leave(viewer)

    async def _receive(self, sock: trio.socket.SocketType, viewer: Viewer, data: bytes) -> None:
        parser = Parser()
        while True:
            for frame in parser.feed(data):
                if frame.kind is Kind.INPUT:
                    self._type(viewer, frame.payload)
                elif frame.kind is Kind.WRITE:
                    self._hub.claim(viewer, steal=frame.payload == b"steal")
                else:
                    raise FrameError("a client sends input and asks for the keyboard, nothing else")
            data = await sock.recv(RECEIVE_BYTES)
            if not data:
                return

    def _type(self, viewer: Viewer, keys: bytes) -> None:
        if self._hub.writer is None:
            self._hub.claim(viewer, steal=False)
        if self._hub.writer is not viewer:
            writer = self._hub.writer.who if self._hub.writer else ""
            viewer.note({"event": "refused", "why": "busy" if viewer.may_write else "read-only", "writer": writer})
            return
        taken = self._hub.send(keys)
        viewer.typed_bytes += taken
        if taken < len(keys):
            why = "the guest does not read" if self._hub.is_open else "the line is not open"
            viewer.note({"event": "dropped", "size": len(keys) - taken, "why": why})


async def open_attach(consoles: Consoles, params: AttachParams, *, who: str, may_write: bool) -> AttachSession:
    """Prepare `console.attach`. Raises Refused."""
    return AttachSession(await find_hub(consoles, params.name, params.port), params, who, may_write=may_write)


class TailSession:
    """One `vmctl log -f`, perhaps of many guests: notifications out; what comes in is ignored."""

    def __init__(self, hubs: list[ConsoleHub], params: TailParams, who: str) -> None:
        # Where each begins is decided with the answer: what is printed between that and `serve` is the client's too.
        self._hubs = [(hub, offset_of(hub, params.since, params.lines)) for hub in hubs]
        self._params, self._who = params, who
        self.result = TailResult(consoles=tuple((hub.name, hub.port) for hub in hubs))

    async def serve(self, sock: trio.socket.SocketType, leftover: bytes = b"") -> None:
        """Send notifications until the client leaves or the last guest is forgotten."""
        outlet = Outlet(sock)
        joined: list[tuple[ConsoleHub, Viewer]] = []
        try:
            for hub, since in self._hubs:
                wire: Wire = JsonWire(hub.name, hub.port, strip=self._params.strip)
                viewer = Viewer(outlet, wire, self._who, since=since)
                outlet.add(viewer)
                hub.join(viewer, write=False)
                joined.append((hub, viewer))
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await outlet.run()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(send)
                with suppress(OSError):
                    while await sock.recv(RECEIVE_BYTES):
                        pass
                nursery.cancel_scope.cancel()
        finally:
            for hub, viewer in joined:
                hub.leave(viewer)


async def open_tail(consoles: Consoles, params: TailParams, *, who: str) -> TailSession:
    """Prepare `console.tail`; control has put the names that the caller may read into `params`. Raises Refused."""
    hubs = [await find_hub(consoles, name, params.port) for name in params.names if params.port or consoles.hubs(name)]
    if not hubs:
        raise Refused("no-console", "none of these guests has a console that bhyved keeps")
    return TailSession(hubs, params, who)
