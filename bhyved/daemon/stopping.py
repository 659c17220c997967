"""Stop many guests in order: those that others depend on last, independent ones together, each within its share of the time."""

from collections.abc import Callable, Mapping

import msgspec
import trio

from bhyved.core import hostend, ladder, order
from bhyved.core.lifecycle import Shutdown
from bhyved.core.spec import VmSpec
from bhyved.daemon.board import Board
from bhyved.daemon.driver import VmDriver


class Stopping:
    """One stop of all guests, from the first button to the last end."""

    def __init__(self, drivers: Mapping[str, VmDriver], board: Board, clock: Callable[[], float], wish: Shutdown) -> None:
        """`wish`: what guests are asked when it is their turn, with the end of all."""
        self._drivers, self._board, self._clock, self._wish = drivers, board, clock, wish
        self._force = self._called_off = False
        self._told: set[str] = set()
        self._over = trio.Event()
        for driver in drivers.values():
            driver.close(wish)

    def force(self) -> None:
        """No more grace: the power of whatever still runs is cut."""
        self._force = True
        for driver in self._drivers.values():
            if not driver.is_over:
                driver.submit(msgspec.structs.replace(self._wish, end_at=None, force=True))

    def call_off(self) -> None:
        """It is taken back: nobody else is asked to stop. A flag, since a task that is woken already runs on before it is cancelled."""
        self._called_off = True

    async def done(self) -> None:
        """Return when no guest runs any more, but those that the kernel will not let go."""
        await self._over.wait()

    async def run(self) -> None:
        """See it through."""
        while not self._called_off:
            generation = self._board.generation
            # A driver that has met a bug does nothing more: its guest is left to the rc script, which presses without it.
            running = frozenset(name for name, driver in self._drivers.items() if not (driver.is_over or driver.broken))
            if not running:
                self._over.set()
                return
            self._tell(running)
            await self._board.wait_newer(generation)

    def _tell(self, running: frozenset[str]) -> None:
        specs: dict[str, VmSpec] = {name: self._drivers[name].started_spec or self._drivers[name].spec for name in running}
        behind = order.behind(specs)
        needs = {name: ladder.needed_s(float(spec.stop.timeout)) for name, spec in specs.items()}
        chains = hostend.chains(behind, needs)
        now = self._clock()
        for name in sorted(running - self._told):
            if not behind.get(name, frozenset()) & running:
                self._told.add(name)
                end_at = hostend.share_end(self._wish.end_at, now, needs[name], chains[name])
                self._drivers[name].submit(msgspec.structs.replace(self._wish, end_at=end_at, force=self._force))
