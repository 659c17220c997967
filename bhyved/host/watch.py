"""One descriptor that becomes readable when a child's pipes have something or the child has ended.

`host.child` waits for up to four things of one process at once. A queue of its own (epoll, kqueue), which trio waits on as on any
other descriptor, needs no task and no nursery for each of them. Linux learns of the end through a pidfd, FreeBSD through
EVFILT_PROC (contract 8.1). The caller reaps the child.
"""

import contextlib
import os
import select
import sys
from typing import Any, Protocol

# sys/event.h; FreeBSD and macOS agree. Spelled out so that the kqueue half is tested wherever the tests run.
EVFILT_READ, EVFILT_WRITE, EVFILT_PROC = -1, -2, -5
EV_ADD, EV_DELETE, EV_ONESHOT = 0x1, 0x2, 0x10
NOTE_EXIT = 0x8000_0000


class Watch(Protocol):
    """What `host.child` waits with."""

    def fileno(self) -> int: ...
    def watch_read(self, fd: int) -> None: ...
    def watch_write(self, fd: int) -> None:
        """Raises BrokenPipeError where nobody reads any more; on Linux it is the write that tells."""

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before `fd` is closed."""

    def ready(self) -> tuple[set[int], bool]:
        """Descriptors that would not block, and whether the child has ended. Returns at once."""

    def close(self) -> None: ...


class Queue(Protocol):
    """The part of `select.kqueue` that is used."""

    def control(self, changes: list[Any] | None, most: int, timeout: float | None = None, /) -> list[Any]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class MakeEvent(Protocol):
    """`select.kevent`."""

    def __call__(self, ident: int, *, filter: int, flags: int, fflags: int = 0) -> Any: ...


class KqueueWatch:
    """Watch on FreeBSD."""

    def __init__(self, queue: Queue, make: MakeEvent, pid: int) -> None:
        self._queue = queue
        self._make = make
        self._filters: dict[int, int] = {}
        self._ended = False
        try:
            queue.control([make(pid, filter=EVFILT_PROC, flags=EV_ADD | EV_ONESHOT, fflags=NOTE_EXIT)], 0)
        except ProcessLookupError:
            self._ended = True  # gone before we could ask: its status still waits for us, it is our child

    def fileno(self) -> int:
        return self._queue.fileno()

    def watch_read(self, fd: int) -> None:
        self._add(fd, EVFILT_READ)

    def watch_write(self, fd: int) -> None:
        self._add(fd, EVFILT_WRITE)

    def _add(self, fd: int, kind: int) -> None:
        self._filters[fd] = kind
        self._queue.control([self._make(fd, filter=kind, flags=EV_ADD)], 0)

    def forget(self, fd: int) -> None:
        # A pipe whose reader has gone takes the filter for writing with it, behind a last event: kern_event.c, knlist_cleardel.
        with contextlib.suppress(FileNotFoundError):
            self._queue.control([self._make(fd, filter=self._filters.pop(fd), flags=EV_DELETE)], 0)

    def ready(self) -> tuple[set[int], bool]:
        events = self._queue.control(None, 8, 0)
        self._ended = self._ended or any(event.filter == EVFILT_PROC for event in events)
        return {event.ident for event in events if event.filter != EVFILT_PROC}, self._ended

    def close(self) -> None:
        self._queue.close()


if sys.platform == "linux":

    class EpollWatch:
        """Watch on Linux."""

        def __init__(self, pid: int) -> None:
            self._pidfd = os.pidfd_open(pid)
            self._epoll = select.epoll()
            self._epoll.register(self._pidfd, select.EPOLLIN)
            self._ended = False

        def fileno(self) -> int:
            return self._epoll.fileno()

        def watch_read(self, fd: int) -> None:
            self._epoll.register(fd, select.EPOLLIN)

        def watch_write(self, fd: int) -> None:
            self._epoll.register(fd, select.EPOLLOUT)

        def forget(self, fd: int) -> None:
            self._epoll.unregister(fd)

        def ready(self) -> tuple[set[int], bool]:
            found = {fd for fd, _ in self._epoll.poll(0, 8)}
            if self._pidfd in found:
                found.discard(self._pidfd)
                self._ended = True
            return found, self._ended

        def close(self) -> None:
            self._epoll.close()
            os.close(self._pidfd)

    def open_watch(pid: int) -> Watch:
        """A Watch over the end of `pid`, a child of ours."""
        return EpollWatch(pid)

else:

    def open_watch(pid: int) -> Watch:
        """A Watch over the end of `pid`, a child of ours."""
        return KqueueWatch(select.kqueue(), select.kevent, pid)
