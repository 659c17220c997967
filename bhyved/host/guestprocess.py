"""The process that a guest is at the moment: its loader or its bhyve, under a keeper; which pid that is, and whether it still is.

Pids are used again (contract 11.4), so no signal is sent on the word of a file alone. Used by `host.machine`.
"""

import contextlib
import os
import signal

from bhyved.core.errors import HostError, in_words
from bhyved.core.exits import Stage
from bhyved.host.keeper import Trace
from bhyved.host.processes import Processes, has_title
from bhyved.host.spawn import reap

_TITLE_AGE_S = 0.05  # guests that come up together share a look
_IDENTITY_AGE_S = 1.0  # a pid does not change hands so fast: pids go round


class GuestProcess:
    """One guest's. `trace` is None while nothing of it has been started."""

    def __init__(self, name: str, processes: Processes) -> None:
        self.stage = Stage.PREPARING
        self.trace: Trace | None = None
        self.pid: int | None = None
        self.is_over = True
        self._name, self._processes = name, processes
        self._keeper: int | None = None  # our child, not yet reaped
        self._kill_asked = False  # before the pid was known
        self._heard = b""
        self._count = 0  # of the processes so far

    def begins(self, stage: Stage, trace: Trace | None, *, keeper: int | None = None) -> None:
        """There is a process, or may be: `keeper` is our child, or it is one that we know already, or a daemon's before us."""
        self.stage, self.trace, self._keeper = stage, trace, self._keeper if keeper is None else keeper
        self.pid, self.is_over, self._kill_asked, self._heard = None, False, False, b""
        self._count += 1

    def is_none(self) -> None:
        """A start is being prepared."""
        self.begins(Stage.PREPARING, None)
        self.is_over = True

    def ends(self) -> None:
        """Nobody holds the FIFO. No zombie stays."""
        self.is_over = True
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            with contextlib.suppress(ChildProcessError):
                reap(keeper)

    # --- the pid -------------------------------------------------------------------------------------------------------------

    def learn(self) -> int | None:
        """The pid, if it can be known by now: the keeper's file is the truth, its line in the FIFO the next best thing."""
        written = self.trace.pid() if self.trace is not None else None
        self.pid = written or next(iter(_told(self._heard, b"pid")), None) or self.pid
        return self.pid

    def status(self) -> int | None:
        """How it ended, as a shell says it, if its keeper has said so: in its file, or else in the FIFO."""
        end = self.trace.end() if self.trace is not None else None
        return end.status if end is not None else next(reversed(_told(self._heard, b"exit")), None)

    def hear(self, data: bytes) -> None:
        """What the keeper wrote into the FIFO; a line may come in pieces. A kill that came too early is done now."""
        self._heard = (self._heard + data)[-64:]
        pid = self.pid or self.learn()
        if self._kill_asked and pid is not None and self._keeper_lives():
            self._kill_asked = False
            with contextlib.suppress(HostError):
                _send(pid, signal.SIGKILL)

    def search(self) -> int | None:
        """The guest's process by what ps shows, where nothing else tells. Blocks."""
        try:
            return self._processes.look(_IDENTITY_AGE_S).guests.get(self._name)
        except HostError:
            return None

    def is_it(self, pid: int) -> bool:
        """Whether `pid` is a process of the guest, now, as far as can be known. Blocks."""
        try:
            return self._processes.look().is_guest(pid, self._name)
        except HostError:
            return False

    async def survivor(self) -> int | None:
        """The guest's process, if one is seen now. Raises HostError."""
        seen = await self._processes.look_soon()
        pid = self.pid if self.pid is not None and seen.is_guest(self.pid, self._name) else seen.guests.get(self._name)
        self.pid = pid or self.pid
        return pid

    # --- while it lives ------------------------------------------------------------------------------------------------------

    async def title_is_set(self) -> bool:
        """Whether bhyve has all its resources (contract 1.6)."""
        if self.pid is None or self.is_over:
            return False
        try:
            seen = await self._processes.look_soon(_TITLE_AGE_S)
        except HostError:
            return False
        return self.pid is not None and has_title(seen.commands.get(self.pid, ""), self._name)

    async def press(self) -> None:
        """SIGTERM, if there is anybody to get it. Raises HostError."""
        pid = await self._target()
        if pid is not None:
            _send(pid, signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL; what has no pid yet gets it when it has one. Raises HostError."""
        self._kill_asked = not self.is_over
        pid = await self._target()
        if pid is not None:
            _send(pid, signal.SIGKILL)

    async def _target(self) -> int | None:
        if self.is_over or self.trace is None or self.status() is not None:
            return None
        pid = self.learn()
        if pid is not None and self._keeper_lives():
            return pid  # not reaped yet: it is its keeper's, who writes the end down in the same breath
        count = self._count
        for age_s in (_IDENTITY_AGE_S, 0.0):  # what is younger than the last look is not in it
            seen = await self._processes.look_soon(age_s)
            if self._count != count:
                return None  # it has ended meanwhile, and what is seen may be the next
            found = pid if pid is not None and seen.is_guest(pid, self._name) else seen.guests.get(self._name)
            if found is not None:
                return found
        return None

    def _keeper_lives(self) -> bool:
        if self._keeper is None:
            return False
        try:
            return os.waitid(os.P_PID, self._keeper, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except OSError as error:
        raise HostError(f"process {pid} could not be sent {number.name}: {in_words(error)}") from None


def _told(heard: bytes, what: bytes) -> list[int]:
    """The N of whole lines such as `pid N`, in their order: bhyve has the FIFO too, and might write more of them."""
    words = (line.partition(b" ") for line in heard.split(b"\n")[:-1])
    return [int(number) for word, _, number in words if word == what and number.isdigit() and len(number) < 10]
