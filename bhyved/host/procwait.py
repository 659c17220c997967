"""Wait for the end of a process, in trio's own queue: no thread, no signal handler, no poll.

For a child the wait status comes from waitpid(2). For a process that is not ours FreeBSD still tells it, in the event
(EVFILT_PROC with NOTE_EXIT, contract 8.1); Linux says only that it is gone.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from bhyved.host.spawn import reap
from bhyved.host.watch import EV_ADD, EV_DELETE, EV_ONESHOT, EVFILT_PROC, NOTE_EXIT, MakeEvent

if sys.platform != "linux":
    import select


class ProcQueue(Protocol):
    """The part of `select.kqueue` that is used."""

    def control(self, changes: list[Any] | None, most: int, /) -> list[Any]: ...


WaitKevent = Callable[[int, int, Callable[[Any], trio.lowlevel.Abort]], Awaitable[Any]]


async def wait_note_exit(
    queue: ProcQueue,
    wait_kevent: WaitKevent,
    make: MakeEvent,
    pid: int,
    is_it: Callable[[], bool],
) -> int | None:
    """The wait status of any process; None when it was gone, or another, by the time we listened.

    `is_it` is asked after registering: before that the pid may change hands unseen (contract 8.1).
    """

    def change(flags: int) -> None:
        queue.control([make(pid, filter=EVFILT_PROC, flags=flags, fflags=NOTE_EXIT)], 0)

    def abort(_: object) -> trio.lowlevel.Abort:
        change(EV_DELETE)
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        change(EV_ADD | EV_ONESHOT)
    except ProcessLookupError:
        return None
    if not is_it():
        change(EV_DELETE)  # pending or not: trio must not meet an event that nobody waits for
        return None
    event = await wait_kevent(pid, EVFILT_PROC, abort)
    return int(event.data)


if sys.platform == "linux":

    async def _wait_gone(pid: int, is_it: Callable[[], bool]) -> int | None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            if is_it():
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        return None

else:

    async def _wait_gone(pid: int, is_it: Callable[[], bool]) -> int | None:
        return await wait_note_exit(trio.lowlevel.current_kqueue(), trio.lowlevel.wait_kevent, select.kevent, pid, is_it)


async def wait_pid(pid: int) -> int:
    """Wait for a child, reap it, return its wait status. At most one waiter a pid; cancelled, the child stays to be reaped."""
    await _wait_gone(pid, lambda: True)
    return reap(pid)


async def wait_gone(pid: int, is_it: Callable[[], bool]) -> int | None:
    """Wait until a process that is not our child has ended. Its wait status on FreeBSD; None where nobody can know.

    `is_it` says whether `pid` is still the process that is meant; it is asked once, when nothing can be missed any more.
    """
    return await _wait_gone(pid, is_it)
