"""What is typed for a guest, kept in order until its line takes it: a guest that does not read holds nobody up."""

import trio

from bhyved.daemon.ports import Tty

#: Keystrokes that may wait for a guest that does not read: a large paste. The line itself holds 23 KB more (contract 4.4).
INPUT_BYTES = 1 << 16
#: Between two writes to a line that says it is writable and takes nothing.
STUCK_S = 0.05
_CHUNK = 4096


class Keyboard:
    """One console's."""

    def __init__(self) -> None:
        self.taken_bytes = 0
        self._waiting = bytearray()
        self._typing = trio.Event()

    def send(self, line: Tty, data: bytes) -> int:
        """Type `data` behind what waits; how many bytes of it were taken. Never waits."""
        taken = data[: INPUT_BYTES - len(self._waiting)]
        written = 0 if self._waiting else line.write(taken)
        if written < len(taken):
            self._waiting += taken[written:]
            self._typing.set()
        self.taken_bytes += len(taken)
        return len(taken)

    def clear(self) -> None:
        """Nobody is to get what waits."""
        self._waiting.clear()

    async def type(self, line: Tty) -> None:
        """Write what waits, whenever the line takes something."""
        while True:
            await self._typing.wait()
            self._typing = trio.Event()
            while self._waiting:
                await trio.lowlevel.wait_writable(line.fd)
                written = line.write(bytes(self._waiting[:_CHUNK]))
                del self._waiting[:written]
                if not written:
                    await trio.sleep(STUCK_S)
