"""Blocking jobs that come at one moment, done by one thread: to wake a thread costs more than to read a small file."""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from bhyved.threads import in_thread

MOST = 50  # jobs in one go, for which whoever comes meanwhile has to wait

T = TypeVar("T")


class Together(Generic[T]):
    """Does what it is given in order, a crowd at a time."""

    def __init__(self) -> None:
        self._waiting: list[_Job[T]] = []
        self._turn = trio.Lock()

    async def run(self, job: Callable[[], T]) -> T:
        """Return what `job` returns, or raise what it raises. It may be done although its caller was cancelled."""
        mine = _Job(job)
        self._waiting.append(mine)
        async with self._turn:  # first come, first served: it is done, or among the next
            if not mine.done:
                crowd, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                with trio.CancelScope(shield=True):  # others wait for it
                    await in_thread(_do_all, crowd)
        return mine.result()


class _Job(Generic[T]):
    def __init__(self, job: Callable[[], T]) -> None:
        self._job = job
        self.done: list[T | Exception] = []

    def do(self) -> None:
        try:
            self.done.append(self._job())
        except Exception as error:
            self.done.append(error)

    def result(self) -> T:
        (result,) = self.done
        if isinstance(result, Exception):
            raise result
        return result


def _do_all(jobs: list[_Job[T]]) -> None:
    for job in jobs:
        job.do()
