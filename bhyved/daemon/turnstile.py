"""Lets guests start when `core.turns` says so: a queue, looked at again whenever a guest has changed or a gap is over."""

from collections.abc import Callable

import trio

from bhyved.core.spec import Order
from bhyved.core.turns import Pace, Seen, Waiting, may_start
from bhyved.daemon.board import Board
from bhyved.daemon.needs import PERIOD_S, Needs

FEW = 8  # guests that go in one piece: a few milliseconds


class Turnstile:
    """One for all guests. `go` is called when it is a guest's turn, `hold_back` with what it waits for."""

    def __init__(self, board: Board, clock: Callable[[], float], needs: Needs, pace: Pace) -> None:
        self._board, self._clock, self._needs = board, clock, needs
        self.pace = pace
        self._queue: dict[str, Waiting] = {}
        self._paced: set[str] = set()
        self._last_paced: float | None = None
        self._stirred = trio.Event()

    def ask(self, name: str, order: Order, *, paced: bool) -> None:
        """A guest wants to start. Whoever asked first goes first."""
        self._queue[name] = Waiting(name=name, order=order, paced=paced)
        self.stir()

    def drop(self, name: str) -> None:
        """It does not want to any more."""
        if self._queue.pop(name, None) is not None:
            self._stirred.set()  # what it needed may not have to be looked at any more

    def stir(self) -> None:
        """Something has changed that may matter."""
        if self._queue:
            self._stirred.set()

    async def run(self, go: Callable[[str], None], hold_back: Callable[[str, str], None]) -> None:
        """Keep the gate until cancelled."""
        look_again: float | None = None
        while True:
            with trio.move_on_after(float("inf") if look_again is None else max(0.0, look_again - self._clock())):
                await self._stirred.wait()
            self._stirred = trio.Event()
            look_again = await self._look(go, hold_back)

    async def _look(self, go: Callable[[str], None], hold_back: Callable[[str, str], None]) -> float | None:
        now = self._clock()
        turns = may_start(
            tuple(self._queue.values()),
            self._board.statuses,
            self.pace,
            now=now,
            last_paced=self._last_paced,
            paced=frozenset(self._paced),
            seen=Seen(known=self._needs.known, period_s=PERIOD_S),
        )
        self._needs.want(turns.needs)
        for name, why in turns.why.items():
            hold_back(name, why)
        for number, name in enumerate(turns.go, 1):
            waiting = self._queue.pop(name, None)
            if waiting is None:
                continue  # dropped while the ones before it went
            if waiting.paced:
                self._paced.add(name)
                self._last_paced = now
            else:
                self._paced.discard(name)
            go(name)
            if number % FEW == 0:
                await trio.lowlevel.checkpoint()
        return turns.look_again
