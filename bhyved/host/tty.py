"""The host's end of a console: side B of an nmdm pair, or the client of a socket that bhyve listens at.

Both are read and written without blocking and satisfy `daemon.ports.Tty`. The daemon's console hub owns them.
"""

import errno
import os
import socket
import termios
import tty as terminal
from contextlib import suppress

import trio

from bhyved.core.console import ConsoleSpec
from bhyved.core.errors import HostError

#: How long a socket of bhyve's may take to accept. It is on this host.
CONNECT_S = 2.0


class LineMissing(HostError):  # noqa: N818 - a state of the host, not a programming error
    """There is no such line (yet): the module is not loaded, or bhyve does not listen."""


class Line:
    """A descriptor that is a console."""

    def __init__(self, fd: int, what: str) -> None:
        self._fd = fd
        self.what = what

    @property
    def fd(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes | None:
        """None: nothing now. b'': the line is dead, close and open again."""
        try:
            return os.read(self._fd, size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            # EIO after a hang-up, ENXIO when the pair is gone (contract 4.4), ECONNRESET from a socket.
            return b""

    def write(self, data: bytes) -> int:
        """How many bytes the line took. A dead line takes none: its reader is told by `read`."""
        try:
            return os.write(self._fd, data)
        except OSError:
            return 0

    def close(self) -> None:
        """May take about a second: the kernel drains what it holds (contract 4.4). Call it in a thread."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):
                os.close(fd)


def open_tty(path: str) -> Line:
    """Open side B, raw. On FreeBSD the open itself makes the pair (contract 4.4). Raises HostError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LineMissing(f"console line {path} does not exist: is nmdm loaded?") from None
    except OSError as error:
        raise HostError(f"console line {path} could not be opened: {_words(error)}") from None
    try:
        _make_raw(fd)
    except (OSError, termios.error) as error:
        os.close(fd)
        raise HostError(f"console line {path} could not be made raw: {_words(error)}") from None
    return Line(fd, path)


def _make_raw(fd: int) -> None:
    """At once after the open: until then the line echoes what the guest prints back into it (contract 4.4)."""
    mode = termios.tcgetattr(fd)
    mode[terminal.IFLAG] &= ~(
        termios.BRKINT | termios.ICRNL | termios.IGNCR | termios.INLCR | termios.INPCK | termios.ISTRIP | termios.IXON | termios.IXOFF
    )
    mode[terminal.OFLAG] &= ~termios.OPOST
    mode[terminal.LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
    mode[terminal.CFLAG] &= ~(termios.CSIZE | termios.PARENB)
    # CLOCAL: bhyve's coming and going is no hang-up, and nothing is flushed (contract 4.4).
    mode[terminal.CFLAG] |= termios.CS8 | termios.CLOCAL | termios.CREAD
    # The size of the kernel's queues follows the speed: 23,040 bytes at 115200, 1,920 at the default 9600 (contract 4.4).
    mode[terminal.ISPEED] = mode[terminal.OSPEED] = termios.B115200
    mode[terminal.CC][termios.VMIN], mode[terminal.CC][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)


async def open_line(spec: ConsoleSpec) -> Line:
    """Open a console of any kind. Raises LineMissing, HostError."""
    if spec.kind == "nmdm":
        return open_tty(spec.path)
    return await _connect(spec)


async def _connect(spec: ConsoleSpec) -> Line:
    """Become the one client of a virtio-console port (contract 3.2)."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            with trio.fail_after(CONNECT_S):
                await sock.connect(spec.path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise LineMissing(f"console socket {spec.path}: bhyve does not listen there") from None
            raise HostError(f"console socket {spec.path}: {_words(error)}") from None
        except trio.TooSlowError:
            raise HostError(f"console socket {spec.path}: no answer within {CONNECT_S:g} s") from None
        return Line(sock.detach(), spec.path)


def _words(error: OSError | termios.error) -> str:
    text = error.args[1] if len(error.args) > 1 else error.args[0]
    return str(text).lower()
