"""What the children say of themselves: each writes when it began to run into one FIFO, on the clock of this process."""

import fcntl
import os
import select
import struct
import time
from pathlib import Path

_RECORD = struct.Struct("=QII24s")  # as in native/host.c
_PIPE_BYTES = 1 << 20  # a thousand children that begin at once, and nobody who reads
PATIENCE_S = 120.0


class Reports:
    """One FIFO. `pids` and `began` (seconds, CLOCK_MONOTONIC) are those of the newest child of each name."""

    def __init__(self, root: Path) -> None:
        os.mkfifo(root / "report")
        self._fd = os.open(root / "report", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.pids: dict[str, int] = {}
        self.began: dict[str, float] = {}
        self.count = 0

    def wait(self, count: int, patience_s: float = PATIENCE_S) -> None:
        """Until `count` children altogether have said that they run."""
        deadline = time.monotonic() + patience_s
        while self.count < count:
            left_s = deadline - time.monotonic()
            ready, _, _ = select.select([self._fd], [], [], max(0.0, left_s))
            assert ready, f"{count - self.count} of {count} children did not begin to run within {patience_s:g} s"
            self.take()

    def take(self) -> None:
        """What has come by now."""
        try:
            data = os.read(self._fd, _RECORD.size * 512)
        except BlockingIOError:
            return
        for at_ns, pid, _, name in _RECORD.iter_unpack(data):
            text = name.rstrip(b"\0").decode()
            self.pids[text], self.began[text] = pid, at_ns / 1e9
            self.count += 1

    def close(self) -> None:
        os.close(self._fd)
