"""What a com port of a guest is connected to: a terminal, standard input and output, or a TCP port (contract 4.1 to 4.3).

A port never blocks its guest and keeps nothing: what the other side does not take at once is lost (contract 4.5).
"""

import errno
import fcntl
import os
import termios
import tty

from bhyved.lab.freebsd import strerror, warn

_CHUNK = 65536


class Port:
    """A tty, or standard input and output: the ends of a line that is always there."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self.sink = sink
        self._cooked: list[int | list[bytes | int]] | None = None
        if os.isatty(source):
            self._cooked = termios.tcgetattr(source)
            _make_raw(source)
        self._ended = False

    def fds(self) -> tuple[int, ...]:
        """Readable when `take` has something. The real bhyve spins when its line has hung up; this one lets go of it (contract 4.2)."""
        return () if self._ended else (self._source,)

    def take(self, fd: int) -> bytes:
        """What the other side typed, if anything."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self._ended = not data
        return data

    def put(self, data: bytes) -> int:
        """How much of it the other side took: the first bytes."""
        try:
            return os.write(self.sink, data)
        except OSError:
            return 0

    def close(self) -> None:
        """Give the line back as it was, where it was not opened for this guest alone."""
        if self._source == 0 and self._cooked is not None:
            termios.tcsetattr(self._source, termios.TCSANOW, self._cooked)


class TcpPort:
    """A TCP server for one client at a time."""

    def __init__(self, address: str, port: int) -> None:
        import socket  # here, because it is slow to import and rarely used

        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.bind((address, port))  # no SO_REUSEADDR: contract 4.3
            self._listener.listen(1)
        except OSError as error:
            warn(f"bind({address}:{port}): {strerror(error.errno)}")
            raise
        self._listener.setblocking(False)
        self._client: socket.socket | None = None

    @property
    def sink(self) -> int:
        """Where the output goes, or -1."""
        return -1 if self._client is None else self._client.fileno()

    def fds(self) -> tuple[int, ...]:
        """The client, if there is one, and then the listener: who has gone makes room first."""
        return (self._listener.fileno(),) if self._client is None else (self._client.fileno(), self._listener.fileno())

    def take(self, fd: int) -> bytes:
        """What the client typed; a new client is let in or turned away."""
        if fd == self._listener.fileno():
            self._accept()
            return b""
        assert self._client is not None
        try:
            data = self._client.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._client.close()
            self._client = None
        return data

    def put(self, data: bytes) -> int:
        """How much of it the client took; nothing, without one."""
        try:
            return 0 if self._client is None else self._client.send(data)
        except OSError:
            return 0

    def close(self) -> None:
        """Hang up."""
        self._listener.close()
        if self._client is not None:
            self._client.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has gone already
        client.setblocking(False)
        if self._client is None:
            self._client = client
            return
        client.send(b"Socket already connected\n\0")
        client.close()


def open_port(backend: str, *, stdio_taken: bool, tcp: bool) -> "Port | TcpPort":
    """The port of a `comN` or `console` value. Raises OSError when bhyve could not have it."""
    if backend == "stdio":
        if stdio_taken:
            raise OSError(errno.EBUSY, "stdio is taken")
        for fd in (0, 1):
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        return Port(0, 1)
    if backend.startswith("tcp") and tcp:
        return TcpPort(*_address(backend))
    fd = os.open(backend, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    if not os.isatty(fd):
        os.close(fd)
        raise OSError(errno.ENOTTY, "not a terminal")
    return Port(fd, fd)


def _address(backend: str) -> tuple[str, int]:
    """`tcp=ADDR:PORT` or `tcp=[ADDR6]:PORT`, numeric."""
    address, _, port = backend.removeprefix("tcp=").rpartition(":")
    if not address or not port.isdecimal():
        warn("Invalid number of parameter")
        raise OSError(errno.EINVAL, "no address and port")
    return address.strip("[]"), int(port)


def _make_raw(fd: int) -> None:
    """Raw, and CLOCAL: a hang-up of the other side does not concern the guest. Unread input stays."""
    tty.setraw(fd, termios.TCSANOW)
    mode = termios.tcgetattr(fd)
    mode[tty.CFLAG] |= termios.CLOCAL | termios.CREAD
    termios.tcsetattr(fd, termios.TCSANOW, mode)
