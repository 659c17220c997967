"""kqueue(2) for systems without it, as far as `host.watch` and `host.procwait` use it, after contract 8.1, 8.8 and 8.9.

What it insists on: a filter for a process that is gone is ESRCH; a zombie fires at once; NOTE_EXIT fires once, carries the wait
status and takes its filter with it; deleting a filter that is not there is ENOENT; and, like trio's loop, it breaks when an event
comes that nobody waits for. Of a pipe that nobody reads (sys_pipe.c, pipe_kqfilter; kern_event.c, knlist_cleardel): a filter for
writing is EPIPE, and one that was there already fires once more and is gone.
"""

import errno
import os
import select
from collections.abc import Callable
from dataclasses import dataclass

import trio
from outcome import Value

from bhyved.host.watch import EV_ADD, EV_DELETE, EV_ONESHOT, EVFILT_PROC, EVFILT_READ, EVFILT_WRITE, NOTE_EXIT


@dataclass
class Kevent:
    """One event or change."""

    ident: int
    filter: int
    flags: int
    fflags: int = 0
    data: int = 0


class FakeProcesses:
    """A kernel of processes, and the queue of trio's loop over it."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self.zombies: dict[int, int] = {}
        self.filters: set[tuple[int, int]] = set()
        self._pending: dict[tuple[int, int], Kevent] = {}
        self._waiting: dict[tuple[int, int], trio.lowlevel.Task] = {}

    def control(self, changes: list[Kevent] | None, most: int, /) -> list[Kevent]:
        """Apply changes; events go to trio's loop (`deliver`), never to this caller."""
        assert most == 0
        for change in changes or []:
            assert (change.filter, change.fflags) == (EVFILT_PROC, NOTE_EXIT)
            key = (change.ident, change.filter)
            if change.flags & EV_DELETE:
                if key not in self.filters:
                    raise OSError(errno.ENOENT, "No such file or directory")
                self.filters.remove(key)
                self._pending.pop(key, None)
                continue
            assert change.flags == EV_ADD | EV_ONESHOT
            if change.ident not in self.alive and change.ident not in self.zombies:
                raise ProcessLookupError(errno.ESRCH, "No such process")
            self.filters.add(key)
            if change.ident in self.zombies:
                self._fire(key, self.zombies[change.ident])
        return []

    def end(self, pid: int, status: int) -> None:
        """The process ends."""
        self.alive.remove(pid)
        self.zombies[pid] = status
        if (pid, EVFILT_PROC) in self.filters:
            self._fire((pid, EVFILT_PROC), status)

    def _fire(self, key: tuple[int, int], status: int) -> None:
        self._pending[key] = Kevent(key[0], key[1], EV_ONESHOT, NOTE_EXIT, status)

    def deliver(self) -> None:
        """One round of trio's loop: events to their waiters."""
        for key, event in list(self._pending.items()):
            del self._pending[key]
            self.filters.remove(key)
            trio.lowlevel.reschedule(self._waiting.pop(key), Value(event))

    async def wait_kevent(self, ident: int, filter: int, abort: Callable[[object], trio.lowlevel.Abort]) -> Kevent:
        """trio.lowlevel.wait_kevent."""
        key = (ident, filter)
        self._waiting[key] = trio.lowlevel.current_task()

        def give_up(raise_cancel: object) -> trio.lowlevel.Abort:
            del self._waiting[key]
            return abort(raise_cancel)

        event = await trio.lowlevel.wait_task_rescheduled(give_up)
        assert isinstance(event, Kevent)
        return event


class EpollAsKqueue:
    """A real queue for `KqueueWatch` over real children, on Linux: epoll and a pidfd do the work."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._pidfds: dict[int, int] = {}
        self._filters: dict[int, int] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def control(self, changes: list[Kevent] | None, most: int, timeout: float | None = None, /) -> list[Kevent]:
        for change in changes or []:
            if change.filter == EVFILT_PROC:
                pidfd = os.pidfd_open(change.ident)
                self._pidfds[pidfd] = change.ident
                self._epoll.register(pidfd, select.EPOLLIN)
            elif change.flags & EV_DELETE:
                if change.ident not in self._filters:
                    raise FileNotFoundError(errno.ENOENT, "No such file or directory")
                self._epoll.unregister(change.ident)
                assert self._filters.pop(change.ident) == change.filter
            else:
                if change.filter == EVFILT_WRITE and _is_unread(change.ident):
                    raise BrokenPipeError(errno.EPIPE, "Broken pipe")
                self._filters[change.ident] = change.filter
                self._epoll.register(change.ident, {EVFILT_READ: select.EPOLLIN, EVFILT_WRITE: select.EPOLLOUT}[change.filter])
        if most == 0:
            return []
        assert timeout == 0
        return [self._event(fd) for fd, _ in self._epoll.poll(0, most)]

    def _event(self, fd: int) -> Kevent:
        if fd not in self._pidfds:
            event = Kevent(fd, self._filters[fd], 0)
            if event.filter == EVFILT_WRITE and _is_unread(fd):
                self._epoll.unregister(fd)
                del self._filters[fd]
            return event
        self._epoll.unregister(fd)  # one shot
        return Kevent(self._pidfds[fd], EVFILT_PROC, EV_ONESHOT, NOTE_EXIT)

    def close(self) -> None:
        self._epoll.close()
        for pidfd in self._pidfds:
            os.close(pidfd)


def _is_unread(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
