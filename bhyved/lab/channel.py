"""A virtio-console port of a guest that has no agent: whoever connects is held, and nobody listens to it (contract 3.2)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_CHUNK = 65536


class Channel:
    """A listening socket and its one client; a second is closed at once."""

    def __init__(self, listener: socket.socket) -> None:
        """`listener` does not block."""
        self._listener = listener
        self._client: socket.socket | None = None

    def fds(self) -> tuple[int, ...]:
        """Readable when `serve` has something to do."""
        return (self._listener.fileno(),) if self._client is None else (self._listener.fileno(), self._client.fileno())

    def serve(self) -> None:
        """Let in, turn away, take what comes; without waiting."""
        self._discard()
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        if self._client is None:
            client.setblocking(False)
            self._client = client
        else:
            client.close()

    def _discard(self) -> None:
        if self._client is None:
            return
        try:
            gone = not self._client.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._client.close()
            self._client = None
