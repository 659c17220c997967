"""The HTTP server: Hypercorn's trio server, one connection at a time, on a socket that we have opened ourselves.

`hypercorn.trio.serve` is not used as it is: it makes the listening socket inheritable, so that every guest would keep the port, it
shields its writes, so that one browser which stops reading would keep the daemon from ending, and it takes any number of connections.
"""

import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from bhyved.core.errors import HostError
from bhyved.daemon.gate import Gate
from bhyved.daemon.site import Site, Sources

_log = structlog.get_logger()

CONNECTIONS = 64
SEND_S = 20.0  # for what the kernel's buffer does not take at once; a reader this slow is gone
IDLE_S = 5.0
HANDSHAKE_S = 10.0


class Listening(Protocol):
    """What `host.listener` opens."""

    sock: socket.socket
    tls: ssl.SSLContext | None
    url: str

    def close(self) -> None: ...


class _Log(Logger):
    """Hypercorn's words in our log: its start-up chatter and its access log nowhere."""

    def __init__(self, config: Config) -> None:
        self.access_log_format = ""
        self.access_logger = self.error_logger = None

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        _log.exception("http request failed", what=message % args if args else message)


class _Stream(trio.abc.HalfCloseableStream):
    """A connection whose writes end, one way or another, in bounded time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._sending = trio.Lock()  # Hypercorn ends a connection while it still sends, when a request breaks off
        self.socket = stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(SEND_S) as scope:
            async with self._sending:
                await self._stream.send_all(data)
        if scope.cancelled_caught:
            self.socket.close()  # Hypercorn would go on listening to it
            raise trio.BrokenResourceError("the client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        async with self._sending:
            await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Http1(TCPServer):
    """HTTP/1.1 only: HTTP/2 has nothing for us, and a half-done upgrade to it would keep its connection for ever."""

    @property
    def protocol(self) -> Any:
        return self._protocol

    @protocol.setter
    def protocol(self, wrapper: ProtocolWrapper) -> None:
        self._protocol = wrapper.protocol  # inside, without what changes to HTTP/2


class Web:
    """The server of `[metrics] listen`."""

    def __init__(
        self, sources: Sources, open_listener: Callable[[], Listening], users: Callable[[], dict[str, str]] | None, names: frozenset[str]
    ) -> None:
        self._sources = sources
        self._open_listener = open_listener
        self._users = users
        self._names = names  # what this host calls itself
        self._gate: Gate | None = None
        self._streams: set[_Stream] = set()
        self.url = ""
        self.problem = ""

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started with the URL. Where one cannot listen, that is logged, and all is over: started with ''."""
        try:
            listener = self._open_listener()
        except HostError as error:
            self.problem = str(error)
            _log.error("no http server", why=self.problem)
            task_status.started("")
            return
        try:
            await self._serve(listener, task_status)
        finally:
            listener.close()

    def new_link(self) -> str:
        """A link that opens the page in a browser, once and within two minutes. Raises HostError."""
        if self._gate is None:
            raise HostError(self.problem or "the http server is about to end")
        if self._gate.is_private:
            raise HostError(
                f"the page is on the UNIX socket {self.url.removeprefix('unix:')}, which needs no link but a program that can reach it"
            )
        return f"{self.url}/login?token={self._gate.new_token()}"

    async def _serve(self, listener: Listening, task_status: trio.TaskStatus[str]) -> None:
        is_private = listener.sock.family == socket.AF_UNIX
        is_tls = listener.tls is not None
        self._gate = Gate(
            is_private=is_private, is_plain_tcp=not is_private and not is_tls, names=self._names, users=self._users, now=trio.current_time
        )
        self.url = listener.url
        listener.sock.setblocking(False)
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener.sock.dup()))
        site = ASGIWrapper(cast(Any, Site(self._sources, self._gate, is_tls=is_tls)))
        handler = partial(self._connection, site, _config(), WorkerContext(None), listener.tls)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(trio.serve_listeners, handler, [accepting], handler_nursery=nursery))
                task_status.started(self.url)
                _log.info("http server", url=self.url)
                try:
                    await trio.sleep_forever()
                finally:
                    for stream in self._streams:
                        stream.socket.close()  # what Hypercorn shields ends with its socket, and only so
        finally:
            self._gate, self.url = None, ""

    async def _connection(
        self, site: Any, config: Config, context: WorkerContext, tls: ssl.SSLContext | None, raw: trio.SocketStream
    ) -> None:
        if len(self._streams) >= CONNECTIONS:
            return  # closed by serve_listeners
        stream = _Stream(raw)
        served: Any = stream if tls is None else trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        self._streams.add(stream)
        try:
            await _Http1(site, config, context, ConnectionState({}), served)
        except* (H2CProtocolRequiredError, H2ProtocolAssumedError):
            pass  # the client insists on HTTP/2
        except* Exception:
            # One client's doing must not end the server, nor what runs beside it.
            _log.exception("http connection failed")
        finally:
            self._streams.discard(stream)


def _config() -> Config:
    config = Config()
    config.logger_class = _Log
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_S
    config.ssl_handshake_timeout = HANDSHAKE_S
    return config
