"""Lets guests start when `core.turns` says so: a queue, looked at again whenever a guest has changed or a gap is over."""

from collections.abc import Callable

import msgspec
import trio

from bhyved.core.room import Room, Share, lacks, shares
from bhyved.core.spec import Order
from bhyved.core.turns import Pace, Seen, Waiting, may_start
from bhyved.daemon.board import Board
from bhyved.daemon.needs import Needs

FEW = 8  # guests that go in one piece: a few milliseconds

Go = Callable[[str, str], None]  # a guest, and what it lacks of the host's memory: a sentence, or ''
HoldBack = Callable[[str, str, bool], None]  # a guest, what it waits for, and whether that is memory


class Turnstile:
    """One for all guests. `go` is called when it is a guest's turn, `hold_back` with what it waits for.

    `room` is what guests may have of the host's memory; a change of it, as of `pace`, is made known by `stir`.
    """

    def __init__(self, board: Board, clock: Callable[[], float], needs: Needs, pace: Pace) -> None:
        self._board, self._clock, self._needs = board, clock, needs
        self.pace, self.room = pace, Room()
        self._queue: dict[str, Waiting] = {}
        self._barred: dict[str, str] = {}
        self._paced: set[str] = set()
        self._last_paced: float | None = None
        self._stirred = trio.Event()

    def ask(self, waiting: Waiting) -> None:
        """A guest wants to start. Whoever asked first goes first."""
        self._queue[waiting.name] = waiting
        self.stir()

    def change(self, name: str, order: Order, share: Share) -> None:
        """The guest's file says something else now: if it waits, it keeps its place."""
        waiting = self._queue.get(name)
        if waiting is not None:
            self._queue[name] = msgspec.structs.replace(waiting, order=order, share=share)
            self.stir()

    def lacks(self, name: str, share: Share) -> str:
        """Why the host has no memory for this guest, or ''."""
        having = shares(self._board.statuses) if self.room.is_limited else {}
        having.pop(name, None)
        return lacks(self.room, share, having)

    def drop(self, name: str) -> None:
        """It does not want to any more."""
        if self._queue.pop(name, None) is not None:
            self._stirred.set()  # what it needed may not have to be looked at any more

    def bar(self, name: str, why: str) -> None:
        """Let this guest not start until `unbar`: its disks are being worked on."""
        self._barred[name] = why
        self.stir()

    def unbar(self, name: str) -> None:
        """Whoever has waited for that goes on."""
        del self._barred[name]
        self.stir()

    def stir(self) -> None:
        """Something has changed that may matter."""
        if self._queue:
            self._stirred.set()

    async def run(self, go: Go, hold_back: HoldBack) -> None:
        """Keep the gate until cancelled."""
        look_again: float | None = None
        while True:
            with trio.move_on_after(float("inf") if look_again is None else max(0.0, look_again - self._clock())):
                await self._stirred.wait()
            self._stirred = trio.Event()
            look_again = await self._look(go, hold_back)

    async def _look(self, go: Go, hold_back: HoldBack) -> float | None:
        now = self._clock()
        turns = may_start(
            tuple(self._queue.values()),
            self._board.statuses,
            self.pace,
            now=now,
            last_paced=self._last_paced,
            paced=frozenset(self._paced),
            seen=Seen(known=self._needs.known, period_s=self._needs.period_s, told=self._needs.is_told),
            room=self.room,
            barred=self._barred,
        )
        self._needs.want(turns.needs)
        for name, why in turns.why.items():
            hold_back(name, why, name in turns.roomless)
        for number, name in enumerate(turns.go, 1):
            if name in self._barred:
                continue  # while the ones before it went; it was stirred for that
            waiting = self._queue.pop(name, None)
            if waiting is None:
                continue  # dropped while the ones before it went
            if waiting.paced:
                self._paced.add(name)
                self._last_paced = now
            else:
                self._paced.discard(name)
            go(name, turns.short.get(name, ""))
            if number % FEW == 0:
                await trio.lowlevel.checkpoint()
        return turns.look_again
