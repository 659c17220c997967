"""Lets a crowd of guests through a few at a time.

When hundreds of guests end in one moment, or are started by one wish, each has a millisecond of work that cannot be divided. All tasks
that can run do so before trio looks at its sockets again: without a gate everybody else would wait for half a second. Used by
`host.machine` before each piece of such work.
"""

import trio

_FEW = 4  # a few milliseconds


class Crowd:
    """The gate. Nothing is held while somebody works or waits: one guest that hangs stops no other."""

    def __init__(self) -> None:
        self._gate = trio.Semaphore(_FEW)

    async def pass_through(self) -> None:
        """Return when it is our turn; without a crowd that is at once."""
        async with self._gate:
            await trio.lowlevel.checkpoint()
