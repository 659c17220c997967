"""The screen of a guest as the host sees it: the VNC port of an fbuf device (contract 3.5).

The port is the stand-in's, whatever the engine: it is bound here, and `wait` waits here. Who draws is the engine's affair.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_SMALLEST = (640, 480)
_LARGEST = {True: (1920, 1200), False: (3840, 2160)}  # on 14; later
_PORT = 5900


class ScreenError(Exception):
    """bhyve cannot have this screen; the text is its own."""

    def __init__(self, text: str, number: int = errno.EINVAL) -> None:
        super().__init__(text)
        self.number = number


class Screen:
    """A listening VNC port, and the one viewer that is let in at a time; the next waits in the backlog."""

    def __init__(self, options: dict[str, str], *, is_14: bool) -> None:
        """Raises ScreenError."""
        _check(options, is_14)
        endpoint = options.get("rfb") or options.get("tcp") or ""
        self._listener = _bound(endpoint, unix=not is_14)
        self._viewer: socket.socket | None = None
        self._is_greeted = False

    def fds(self) -> tuple[int, ...]:
        """Readable when `serve` has something to do."""
        return (self._listener.fileno(),) if self._viewer is None else (self._viewer.fileno(),)

    def wait(self) -> None:
        """Until the first viewer has come."""
        self._listener.setblocking(True)
        self._viewer, _ = self._listener.accept()
        self._listener.setblocking(False)

    def viewer(self) -> socket.socket | None:
        """The viewer that is there, or has just come."""
        if self._viewer is None:
            try:
                self._viewer, _ = self._listener.accept()
            except OSError:
                return None  # it has gone already
            self._is_greeted = False
        return self._viewer

    def serve(self) -> None:
        """For an engine that draws nothing: greet each viewer, hold the line, notice its end."""
        viewer = self.viewer()
        if viewer is None:
            return
        try:
            viewer.setblocking(False)
            if not self._is_greeted:
                viewer.send(b"RFB 003.008\n")
                self._is_greeted = True
            gone = not viewer.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self.release()

    def release(self) -> None:
        """The viewer has gone, or is somebody else's now: the next may come."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def close(self) -> None:
        """No more viewers."""
        self.release()
        self._listener.close()


def _check(options: dict[str, str], is_14: bool) -> None:
    width, height = _pixels(options, "w", 1024), _pixels(options, "h", 768)
    most = _LARGEST[is_14]
    if width > most[0] or height > most[1]:
        raise ScreenError(f"fbuf: max resolution is {most[0]}x{most[1]}")
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        raise ScreenError(f"fbuf: minimum resolution is {_SMALLEST[0]}x{_SMALLEST[1]}")
    vga = options.get("vga", "io")
    if vga == "on":
        raise ScreenError("pci_fbuf: VGA rendering not enabled")
    if vga not in ("io", "off"):
        raise ScreenError(f'fbuf: Invalid vga setting: "{vga}"')


def _pixels(options: dict[str, str], key: str, default: int) -> int:
    text = options.get(key, str(default))
    return int(text) if text.isdecimal() else 0


def _bound(endpoint: str, *, unix: bool) -> socket.socket:
    """`[IP:]PORT`, `[IPv6]:PORT`, `unix:/PATH`."""
    import socket

    if unix and endpoint.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX)
        where: str | tuple[str, int] = endpoint.removeprefix("unix:")
    else:
        where = _address(endpoint)
        listener = socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
    except OSError as error:
        listener.close()
        raise ScreenError(f"bind: {os.strerror(error.errno or 0)}", error.errno or 0) from None
    listener.listen(1)
    listener.setblocking(False)
    return listener


def _address(endpoint: str) -> tuple[str, int]:
    """Without brackets it is cut at the first colon; only a number is a port of the loopback."""
    if endpoint.startswith("["):
        address, _, port = endpoint[1:].partition("]")
        port = port.removeprefix(":")
    else:
        address, colon, port = endpoint.partition(":")
        if not colon:
            address, port = "127.0.0.1", address
    if port and not port.isdecimal():
        raise ScreenError("fbuf: Invalid port")
    return address or "127.0.0.1", int(port or _PORT)
