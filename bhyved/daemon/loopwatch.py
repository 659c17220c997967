"""How long the event loop was busy without looking at its sockets: whoever wants something waits that long.

An instrument of trio's, so that nothing has to tick for it: `trio.run(…, instruments=[watch])`.
"""

import time
from bisect import bisect_left

from trio.abc import Instrument

#: From what a step should take to what an operator notices.
BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class LoopWatch(Instrument):
    """Counts the stretches between two looks by their length."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0
        self.longest_s = 0.0
        self._since: float | None = None

    def busy_s(self) -> float:
        """For how long the loop has not looked at its sockets."""
        return 0.0 if self._since is None else time.perf_counter() - self._since

    def after_io_wait(self, timeout: float) -> None:
        self._since = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        if self._since is None:
            return
        busy_s = time.perf_counter() - self._since
        self.counts[bisect_left(BOUNDS_S, busy_s)] += 1
        self.total_s += busy_s
        self.longest_s = max(self.longest_s, busy_s)
