"""One client on the control socket: lines in, lines out, until either side has enough.

Two tasks and one for each request that waits: one reads requests and answers them in order, one sends. `console.attach` and
`console.tail` end that and take the socket over.
"""

import select

import structlog
import trio

from bhyved.core import jsonrpc
from bhyved.core.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, REFUSED, Fault, Lines, LineTooLong, Request
from bhyved.daemon.access import Access
from bhyved.daemon.attach import AttachSession, TailSession
from bhyved.daemon.outbox import Outbox
from bhyved.daemon.requests import Requests
from bhyved.daemon.subscription import Subscription

_log = structlog.get_logger()

RECEIVE_BYTES = 1 << 16
#: Each costs a task. `vmctl` has one.
WAITS_MAX = 64
#: For the last line to a client that is sent off and may not read.
LAST_WORDS_S = 5.0

Session = AttachSession | TailSession


class Connection:
    """A client from the first line to the last. The socket is closed by whoever opened it."""

    def __init__(self, sock: trio.socket.SocketType, caller: Access, requests: Requests) -> None:
        self._sock, self._caller, self._requests = sock, caller, requests
        self._scope = trio.CancelScope()
        self._outbox = Outbox(sock, self._scope.cancel)
        self._waits = 0
        self._waited = trio.Event()

    async def run(self) -> None:
        """Serve until the client has gone, is sent off, or wants no more."""
        with self._scope:
            lines = Lines()
            session = await self._converse(lines)
            if session is not None:
                await session.serve(self._sock, lines.rest())

    async def _converse(self, lines: Lines) -> Session | None:
        session = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            try:
                session = await self._receive(nursery, lines)
                if session is None:
                    await self._finish()
                await self._outbox.drained()
            except OSError:  # the client has gone
                pass
            except LineTooLong as error:
                self._outbox.put(jsonrpc.error(None, Fault(INVALID_REQUEST, "line-too-long", str(error))))
                with trio.move_on_after(LAST_WORDS_S):
                    await self._outbox.drained()
            nursery.cancel_scope.cancel()
        return session

    async def _send(self) -> None:
        try:
            await self._outbox.run()
        except OSError:  # the client has gone; what it waits for is of no use to anybody
            self._scope.cancel()

    async def _receive(self, nursery: trio.Nursery, lines: Lines) -> Session | None:
        """Answer requests until the client stops sending, or one of them takes the connection over."""
        while True:
            while (line := lines.pop()) is not None:
                session = await self._handle(nursery, line)
                if session is not None:
                    return session
                await trio.lowlevel.checkpoint()  # a thousand requests at once are not to hold up everybody else
            data = await self._sock.recv(RECEIVE_BYTES)
            if not data:
                return None
            lines.feed(data)

    async def _handle(self, nursery: trio.Nursery, line: bytes) -> Session | None:
        try:
            request = jsonrpc.parse(line)
        except Fault as fault:
            self._outbox.put(jsonrpc.error(fault.id, fault))
            return None
        try:
            if self._requests.method(request).waits:
                if self._waits >= WAITS_MAX:
                    raise Fault(REFUSED, "too-many-waits", f"{WAITS_MAX} requests of this connection wait already")
                self._waits += 1
                nursery.start_soon(self._wait, request)
                return None
        except Fault as fault:
            self._outbox.put(jsonrpc.error(request.id, fault))
            return None
        return await self._answer(request)

    async def _wait(self, request: Request) -> None:
        try:
            await self._answer(request)
        finally:
            self._waits -= 1
            self._waited.set()

    async def _answer(self, request: Request) -> Session | None:
        try:
            value = await self._requests.answer(self._caller, request)
            if isinstance(value, Session) and self._waits:
                raise Fault(REFUSED, "connection-busy", "other requests of this connection wait: it cannot be taken over")
        except Fault as fault:
            self._outbox.put(jsonrpc.error(request.id, fault))
            return None
        except Exception:
            _log.exception("internal error", method=request.method)
            text = "an internal error of bhyved, which is in its log"
            self._outbox.put(jsonrpc.error(request.id, Fault(INTERNAL_ERROR, "internal-error", text)))
            return None
        if isinstance(value, Session):
            self._outbox.put(jsonrpc.result(request.id, value.result))
            return value
        if isinstance(value, Subscription):
            self._outbox.put(jsonrpc.result(request.id, value.result))
            await value.stream(self._outbox)
            return None
        self._outbox.put(jsonrpc.result(request.id, value))
        return None

    async def _finish(self) -> None:
        """The client sends no more. One that only stopped sending still gets its answers; one that has gone waits for nothing."""
        poll = select.poll()
        poll.register(self._sock.fileno(), 0)
        if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
            self._scope.cancel()
        while self._waits:
            self._waited = trio.Event()
            await self._waited.wait()
