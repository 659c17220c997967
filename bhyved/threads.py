"""Work in a thread, as soon as the host has one to give.

What would hold up the event loop is done by trio's threads. A host that is short of processes, or of memory for a stack, has none to
give, and Python says so with a RuntimeError that nobody expects: a daemon would end of it. Shortages pass, so that whoever needs a thread
waits for one as for a disk that is busy.
"""

from collections.abc import Callable
from typing import TypeVar

import structlog
import trio

_log = structlog.get_logger()

AGAIN_S = 0.1  # as trio waits when it can let nobody in
NONE = "can't start new thread"  # what CPython says, whatever the reason (_threadmodule.c)

T = TypeVar("T")


async def in_thread(
    work: Callable[..., T], *args: object, abandon_on_cancel: bool = False, limiter: trio.CapacityLimiter | None = None
) -> T:
    """`trio.to_thread.run_sync`, when there is a thread."""
    told = False
    while True:
        try:
            return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
        except RuntimeError as error:
            if str(error) != NONE:
                raise
        if not told:
            _log.warning("no thread can be started", why="the host is short of processes or memory")
            told = True
        await trio.sleep(AGAIN_S)
