"""Whether anybody still works for a guest: its FIFO, and nothing else, tells (contract 8.8).

The writing end goes from the daemon to the keeper and from there to bhyve, and to every host command that changes something of the
guest. When the last copy is closed, however its holders ended, whoever watches gets an end-of-file *event*. It needs no pid, survives
the reuse of one, and is the same for a guest of our own and for one that an earlier daemon started. Used by `host.machine`.
"""

import contextlib
import errno
import os
import select
import stat
from collections.abc import Callable

import trio

from bhyved.core.errors import HostError, in_words

_CHUNK = 4096
#: These say nothing of the FIFO, which may well be there and held.
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Liveness:
    """The FIFO at one path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._is_free = False  # nobody has had it since an end-of-file event, ourselves included

    def open_writer(self) -> int:
        """A copy of the writing end, close-on-exec; the FIFO is made where there is none. Raises HostError."""
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self.path, 0o600)
            # O_RDWR: the writing end alone cannot be opened without a reader (contract 8.8).
            fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"{self.path}: {in_words(error)}") from None
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise HostError(f"{self.path} is no FIFO; remove it", fatal=True)
        self._is_free = False
        return fd

    def watch(self) -> "Watch | None":
        """A reading end that will be told of the end; None: there is no FIFO. Raises HostError where that cannot be known now."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            self._must_be_absent(error)
            return None
        try:
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                raise OSError(0, "is no FIFO")
            # A writer that comes and goes begins a generation that this reader belongs to: without it a reader that came after the
            # last writer would wait for ever (contract 8.8).
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
        except OSError as error:
            os.close(fd)
            self._must_be_absent(error)
            return None
        return Watch(fd, self._freed)

    def _must_be_absent(self, error: OSError) -> None:
        if error.errno in _SCARCE:
            raise HostError(f"it cannot be told whether the guest runs: {self.path}: {in_words(error)}")

    def _freed(self) -> None:
        self._is_free = True

    def is_held(self) -> bool:
        """Whether anybody has the writing end at this moment, ourselves counted. What was written is taken. Raises HostError."""
        watch = self.watch()
        if watch is None:
            return False
        try:
            return watch.is_held()
        finally:
            watch.close()

    async def is_held_still(self, limit_s: float) -> bool:
        """Whether somebody has the writing end and keeps it for `limit_s`. Raises HostError.

        A child that has nothing to do with it may have a copy for a moment: the kernel lets its parent go on before it closes what
        is close-on-exec. Behind an end that we have seen there is nothing to look at: nobody can have got it but from us.
        """
        if self._is_free:
            return False
        watch = self.watch()
        if watch is None:
            return False
        try:
            with trio.move_on_after(limit_s):
                await watch.wait_end(lambda data: None)
                return False
            return True
        finally:
            watch.close()

    def remove(self) -> None:
        """Nobody is to watch it any more."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


class Watch:
    """One reading end. At most one task waits on it."""

    def __init__(self, fd: int, freed: Callable[[], None]) -> None:
        self._fd, self._freed = fd, freed

    def is_held(self) -> bool:
        """Whether the end has not come yet. Returns at once."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while poll.poll(0):
            if self._take() == b"":
                return False
        return True

    async def wait_end(self, heard: Callable[[bytes], None]) -> None:
        """Wait, without limit, until nobody holds the writing end. `heard` gets what is written meanwhile."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            data = self._take()
            if data == b"":
                return
            if data:
                heard(data)

    def _take(self) -> bytes | None:
        """Asked only after an event: then, and only then, an empty read is the end. None: nothing to read now."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return None
        if not data:
            self._freed()
        return data

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
