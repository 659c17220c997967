"""Lines on their way to one client. Whoever has something to say puts it here and goes on; only the connection's own task waits.

A client that does not read is cut off once LIMIT_BYTES wait for it. Who could say more than that asks for `room` first.
"""

from collections.abc import Callable

import trio

LIMIT_BYTES = 4 << 20
#: A stream goes on when less than this waits: enough to keep a reading client busy, little for one that does not read.
ROOM_BYTES = 1 << 18
SEND_BYTES = 1 << 18  # a list of 500 guests in one go


class Outbox:
    """The sending half of a connection. `cut` ends the connection at once."""

    def __init__(self, sock: trio.socket.SocketType, cut: Callable[[], None]) -> None:
        self._sock, self._cut = sock, cut
        self._waiting = bytearray()
        self._filled = trio.Event()
        self._sent = trio.Event()

    def put(self, line: bytes) -> None:
        """Send in time. What waits already decides: one long answer to a client that reads is always possible."""
        if len(self._waiting) > LIMIT_BYTES:
            self._cut()
            return
        self._waiting += line
        self._filled.set()

    async def room(self) -> None:
        """Wait until little waits."""
        await self._until(ROOM_BYTES)

    async def drained(self) -> None:
        """Wait until the kernel has everything."""
        await self._until(0)

    async def _until(self, size: int) -> None:
        await trio.lowlevel.checkpoint()
        while len(self._waiting) > size:
            await self._sent.wait()

    async def run(self) -> None:
        """Send until cancelled. Raises OSError when the client has gone."""
        while True:
            await self._filled.wait()
            while self._waiting:
                sent = await self._sock.send(self._waiting[:SEND_BYTES])
                del self._waiting[:sent]  # from the front: CPython moves a pointer
                self._stir()
            self._filled = trio.Event()

    def _stir(self) -> None:
        sent, self._sent = self._sent, trio.Event()
        sent.set()
