"""Keeps what a guest's bhyve may use of the host at what its `[limits]` say, from its first moment on and over reloads.

A run is given its rules as soon as it has a pid, and so is one that an earlier daemon began, which may have been killed before that.
A limit that cannot be had does not end a guest that runs: it is told, and shown wherever the guest is.
"""

from collections.abc import Awaitable, Callable

import msgspec
import trio

from bhyved.core.errors import HostError
from bhyved.core.status import Phase
from bhyved.daemon.standing import Standing


class Limiting:
    """One guest's."""

    def __init__(self, standing: Standing, start: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._of, self._start = standing, start
        self._turn = trio.Lock()  # two at once would each add what it does not see yet

    def apply(self) -> None:
        """There is a process, or the file says something else. Where there are no limits and have been none, nothing is run."""
        of, run = self._of, self._of.run
        if run is None or run.pid is None or of.life.phase is Phase.LOADING:
            return
        if of.spec.limits is not None or of.record.limited_run == run.id:
            self._start(self._limit)

    async def _limit(self) -> None:
        of, run = self._of, self._of.run
        async with self._turn:
            limits = of.spec.limits
            if run is None or of.run is not run:
                return  # its rules went with it
            if limits is not None and of.record.limited_run != run.id:
                # First: who comes after a kill takes away what the file does not say any more.
                of.record = msgspec.structs.replace(of.record, limited_run=run.id)
                of.keep()
            try:
                await of.machine.limit(limits)
                why = ""
            except HostError as error:
                why = str(error)
            if of.run is not run:
                return
            if why:
                of.chronicle.tell("limits-failed", why)
            else:
                of.chronicle.tell("limited", "no limits" if limits is None else str(limits))
            run.unlimited = why
            of.publish()
