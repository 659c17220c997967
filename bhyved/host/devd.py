"""News of the host by devd(8): network interfaces (IFNET), device nodes and with them zvols (DEVFS), pools (ZFS).

What it says is not looked into: that it says something is the reason to look whether what a guest waits for has come. Used by
`daemon.needs` through `host.freebsd`, and connected only while a guest waits.
"""

import contextlib
import socket

import trio

SOCKET = "devd.seqpacket.pipe"  # in /var/run; a message is a packet
CALM_S = 0.5  # one thing that comes is several messages
_MESSAGE_BYTES = 8192


class HostNews:
    """`daemon.ports.News`. At most one task waits."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock: socket.socket | None = None

    def listen(self) -> bool:
        """From now on nothing is missed; False: there is no devd, or it is not for us to be told."""
        if self._sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.setblocking(False)
            try:
                sock.connect(self._path)
            except OSError:
                sock.close()
                return False
            self._sock = sock
        return True

    async def wait(self) -> None:
        """Return when there is news, or nobody is there any more to tell."""
        sock = self._sock
        if sock is None:
            return
        with contextlib.suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(sock)
            await trio.sleep(CALM_S)
        if sock is self._sock and not _is_there(sock):
            self.close()

    def close(self) -> None:
        """Nobody wants to know any more."""
        if self._sock is not None:
            sock, self._sock = self._sock, None
            trio.lowlevel.notify_closing(sock)
            sock.close()


def _is_there(sock: socket.socket) -> bool:
    """Take all that has been said; whether there may be more."""
    try:
        while sock.recv(_MESSAGE_BYTES):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
