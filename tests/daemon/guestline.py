"""A guest's end of a console line: a pty whose other end is where the hub looks for side B."""

import os
import tty
from pathlib import Path

import trio


class GuestLine:
    """Side A. Holds side B open too, as a keeper does, so that it stays raw while no hub has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        path.symlink_to(os.ttyname(self._slave))

    async def say(self, data: bytes) -> None:
        """Print, waiting where the line is full, as no guest does: nothing is lost on this side."""
        view = memoryview(data)
        while view:
            await trio.lowlevel.wait_writable(self._master)
            view = view[os.write(self._master, view) :]

    async def hear(self, size: int) -> bytes:
        """Exactly `size` bytes of what was typed."""
        out = b""
        while len(out) < size:
            await trio.lowlevel.wait_readable(self._master)
            out += os.read(self._master, size - len(out))
        return out

    def waiting(self) -> bytes:
        """What was typed so far, without waiting."""
        try:
            return os.read(self._master, 1 << 20)
        except BlockingIOError:
            return b""

    def die(self) -> None:
        """The pair is gone, as after kldunload or the end of the lab's host."""
        self.path.unlink()
        os.close(self._master)
        os.close(self._slave)

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)
