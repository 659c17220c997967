"""Brings console output to the log files, in a thread, for all consoles at once.

A disk that is slow or stuck must not hold up the loop, nor a guest. What waits here is bounded and, up to the size of the ring, in the ring
too, where the death of the daemon does not reach it; so nothing is gained by writing at once, and a short wait makes many small
writes one.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from bhyved.core.console import Mark, Output
from bhyved.core.errors import HostError
from bhyved.core.logindex import SAMPLE_S
from bhyved.threads import in_thread

#: How long output may wait for company. A `tail -f` of the log lags this much; a keystroke's echo does not pay for the thread.
FLUSH_S = 0.2
#: Waiting output of one console at which nothing is gained by waiting longer.
URGENT_BYTES = 1 << 18
#: Output that may wait for a log: half a second of a flood that no UART reaches.
PENDING_BYTES = 1 << 22
#: The same while the log cannot be written: then every guest's may wait for a long time.
BROKEN_BYTES = 1 << 18
#: Entries that may wait, marks among them: somebody attaches and detaches in a loop while the disk is stuck.
ENTRIES_MAX = 4096
#: Output is gathered into entries of about this size: a guest that prints byte by byte would cost a hundred times its bytes otherwise.
GATHER_BYTES = 1 << 15
#: Between two attempts at a log that cannot be written. Nothing is tried while the guest is silent.
RETRY_S = 5.0
#: For the last flush when the daemon ends; what is not written then, the next daemon takes from the ring.
LAST_FLUSH_S = 2.0


class Log(Protocol):
    """One console's log: every method blocks on the disk."""

    def resume(self) -> int | None:
        """The offset at the log's end; None: there is no log yet. Raises HostError."""

    def write(self, entries: deque[Output | Mark]) -> None:
        """Append and remove from `entries`; what is left in it after HostError has not been written."""


class Book:
    """What one console has for its log."""

    def __init__(self, log: Log, pump: "LogPump", report: Callable[[str], None]) -> None:
        self.log = log
        self.report = report  # told once of a problem, and once of its end with ""
        self.problem = ""
        self.lost_bytes = 0
        self._pump = pump
        self._waiting: deque[Output | Mark] = deque()
        self._waiting_bytes = 0
        self._retry_at = 0.0

    def add(self, entry: Output | Mark) -> None:
        """Take an entry; never waits. Beyond the bound the oldest output goes: the log will say how much."""
        if isinstance(entry, Output):
            self._waiting_bytes += len(entry.data)
            self._gather(entry)
        else:
            self._waiting.append(entry)
        limit = BROKEN_BYTES if self.problem else PENDING_BYTES
        while self._waiting_bytes > limit or len(self._waiting) > ENTRIES_MAX:
            self._drop_oldest()
        self._pump.dirty(self, urgent=self._waiting_bytes >= URGENT_BYTES)

    def _gather(self, entry: Output) -> None:
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, Output) and _follows(last, entry) and isinstance(last.data, bytearray):
            last.data.extend(entry.data)
            return
        small = len(entry.data) < GATHER_BYTES
        self._waiting.append(entry._replace(data=bytearray(entry.data)) if small else entry)

    def _drop_oldest(self) -> None:
        entry = self._waiting.popleft()
        if isinstance(entry, Output):
            self._waiting_bytes -= len(entry.data)
            self.lost_bytes += len(entry.data)

    def is_due(self, now: float) -> bool:
        return bool(self._waiting) and (not self.problem or now >= self._retry_at)

    def hand_over(self) -> deque[Output | Mark]:
        """Everything that waits, for the thread."""
        batch, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        return batch

    def take_back(self, left: deque[Output | Mark], problem: str, now: float) -> bool:
        """What could not be written waits again. Returns whether `problem` is news."""
        news = bool(problem) != bool(self.problem)
        self.problem = problem
        self._retry_at = now + RETRY_S
        if left:
            left.extend(self._waiting)
            self._waiting = left
            self._waiting_bytes = sum(len(entry.data) for entry in left if isinstance(entry, Output))
            while self._waiting_bytes > BROKEN_BYTES:
                self._drop_oldest()
        return news


class LogPump:
    """The one task that writes logs. Idle while nobody has anything to write."""

    def __init__(self) -> None:
        self._dirty: dict[Book, None] = {}
        self._scope = trio.CancelScope(shield=True)
        self._wake = trio.Event()
        self._urgent = trio.Event()
        self._in_thread = False
        self._flushed = trio.Event()

    def dirty(self, book: Book, *, urgent: bool) -> None:
        self._dirty[book] = None
        self._wake.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Write what comes until `stop`, not until cancelled: then once more what the hubs brought as they ended, within bounds."""
        with self._scope:
            while True:
                await self._wake.wait()
                with trio.move_on_after(FLUSH_S):
                    await self._urgent.wait()
                await self._flush()
        with trio.move_on_after(LAST_FLUSH_S, shield=True):
            await self._flush()

    def stop(self) -> None:
        self._scope.cancel()

    async def flushed(self) -> None:
        """Return when what has been added by now was given to its log: for whoever reads the files next."""
        while self._in_thread or any(book.is_due(trio.current_time()) for book in self._dirty):
            event = self._flushed
            self._wake.set()
            self._urgent.set()
            await event.wait()

    async def _flush(self) -> None:
        if self._in_thread:
            return  # a thread that the cancellation left behind is still at the same files
        self._wake, self._urgent = trio.Event(), trio.Event()
        now = trio.current_time()
        books, self._dirty = list(self._dirty), {}
        batches = [(book, book.hand_over()) for book in books if book.is_due(now)]
        if batches:
            self._in_thread = True
            problems = await in_thread(self._write, batches, abandon_on_cancel=True)
            for (book, left), problem in zip(batches, problems, strict=True):
                if book.take_back(left, problem, trio.current_time()):
                    book.report(problem)
        self._flushed.set()
        self._flushed = trio.Event()

    def _write(self, batches: list[tuple[Book, deque[Output | Mark]]]) -> list[str]:
        problems = []
        try:
            for book, batch in batches:
                try:
                    book.log.write(batch)
                    problems.append("")
                except HostError as error:
                    problems.append(str(error))
        finally:
            self._in_thread = False
        return problems


def _follows(last: Output, entry: Output) -> bool:
    """Whether `entry` may become part of `last`: next to it, at about the same time, and not too much already."""
    return last.offset + len(last.data) == entry.offset and 0 <= entry.at - last.at < SAMPLE_S and len(last.data) < GATHER_BYTES
