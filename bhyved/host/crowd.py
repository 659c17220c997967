"""Lets a crowd of guests through as fast as the event loop allows, and no faster.

When hundreds of guests end in one moment, or are started by one wish, each has a millisecond of work that cannot be divided. All tasks
that can run do so before trio looks at its sockets again: without a gate everybody else would wait for half a second. Used by
`host.machine` before each piece of such work.
"""

from collections.abc import Callable

import trio

SLICE_S = 0.002  # of work between two looks at the sockets, and then one piece more


class Crowd:
    """The gate. `busy_s`: how long the loop has not looked at its sockets. Nothing is held while somebody works or hangs."""

    def __init__(self, busy_s: Callable[[], float]) -> None:
        self._busy_s = busy_s
        self._gate = trio.Lock()

    async def pass_through(self) -> None:
        """Return when it is our turn, in the order of coming. Without a crowd that is at once, without a checkpoint."""
        if self._busy_s() < SLICE_S and not self._gate.locked():
            return
        async with self._gate:
            while self._busy_s() >= SLICE_S:
                await trio.lowlevel.checkpoint()
