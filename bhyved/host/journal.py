"""Events and run histories on disk: DB/events/*.jsonl and DB/history/NAME.jsonl, a line each, bounded.

Nothing is synced for a line: what a host crash takes is the last seconds of a log. `append` and `add_run` never wait; the lines go to
disk in a thread, WRITE_S after the first of them, and with nothing to write nothing wakes up. A full disk costs what would be on it:
`problem` says so, and the newest events stay in memory.
"""

import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import trio

from bhyved.core.status import Event, RunRecord
from bhyved.host import durable
from bhyved.host.eventnumber import EventNumber

KEPT = 4096  # newest events in memory; older ones are read from disk
FILE_BYTES = 1 << 20  # of events; one older file is kept beside it
UNWRITTEN = 4 * KEPT  # a disk that hangs must not cost the memory
WRITE_S = 1.0
CLOSE_S = 2.0  # for the last lines, when the daemon ends
RUNS_KEPT = 200  # of each guest; the file is cut when it has twice as many
_READ_BYTES = 64 << 20

T = TypeVar("T")


class FileJournal:
    """Satisfies `daemon.ports.Journal`. `problem`: why the disk does not take what happens, or ''."""

    def __init__(self, db: str, boot: str, clock: Callable[[], datetime]) -> None:
        """Blocks: reads what earlier daemons wrote."""
        self._events_path = f"{db}/events/events.jsonl"
        self._history = f"{db}/history"
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._unwritten: deque[bytes] = deque(maxlen=UNWRITTEN)
        self._unwritten_runs: dict[str, list[RunRecord]] = {}
        self._stirred = trio.Event()
        self._writing = trio.Lock()
        for event in self._read(0):
            self._kept.append(event)
        self._number = EventNumber(f"{db}/events/number", boot, max((event.seq for event in self._kept), default=0))
        self.problem = self._number.problem

    # --- events --------------------------------------------------------------------------------------------------------------

    def append(self, event: str, /, **fields: Any) -> Event:
        """Number, stamp and keep one event."""
        told = Event(seq=self._number.take(), at=self._clock(), event=event, **fields)
        self._kept.append(told)
        self._unwritten.append(msgspec.json.encode(told) + b"\n")
        self._stirred.set()
        return told

    def since(self, seq: int) -> list[Event]:
        """Events after `seq` that are still kept, oldest first. Asked for one that memory has no more, it reads the disk."""
        newer: list[Event] = []
        for event in reversed(self._kept):
            if event.seq <= seq:
                return newer[::-1]
            newer.append(event)
        oldest = newer[-1].seq if newer else 0
        older = [event for event in self._read(seq) if event.seq < oldest] if oldest > seq + 1 else []
        return older + newer[::-1]

    def _read(self, seq: int) -> Iterator[Event]:
        """Events after `seq` that are on disk."""
        for path in (f"{self._events_path}.0", self._events_path):
            yield from (event for event in _decoded(_lines(path), Event) if event.seq > seq)

    # --- runs ----------------------------------------------------------------------------------------------------------------

    def add_run(self, record: RunRecord) -> None:
        """One line of a guest's history."""
        waiting = self._unwritten_runs.setdefault(record.vm, [])
        waiting.append(record)
        del waiting[:-RUNS_KEPT]
        self._stirred.set()

    def runs(self, name: str, last: int) -> list[RunRecord]:
        """The newest `last` runs of a guest, oldest first. Reads a file, of which it decodes the end only."""
        if last <= 0:
            return []
        waiting = self._unwritten_runs.get(name, [])
        known = {(record.run, record.ended_at) for record in waiting}  # some of them may have been written by now
        lines = _lines(self._path(name))[-last - len(waiting) :]
        written = [record for record in _decoded(lines, RunRecord) if (record.run, record.ended_at) not in known]
        return [*written, *waiting][-last:]

    # --- writing -------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what happens, until cancelled."""
        task_status.started()
        try:
            while True:
                await self._stirred.wait()
                await trio.sleep(WRITE_S)
                await self.flushed()
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):  # a disk that hangs is left alone
                await self._flush(abandon=True)
                await trio.to_thread.run_sync(self._number.close, abandon_on_cancel=True)

    async def flushed(self) -> None:
        """Return when all that has happened so far is written, or cannot be."""
        with trio.CancelScope(shield=True):  # two writers at once would mix their lines
            await self._flush(abandon=False)

    async def _flush(self, *, abandon: bool) -> None:
        async with self._writing:
            self._stirred = trio.Event()
            events = b"".join(self._unwritten)
            runs = {name: tuple(records) for name, records in self._unwritten_runs.items()}
            if not events and not runs:
                return
            self._unwritten.clear()
            problems = await trio.to_thread.run_sync(self._write, events, runs, abandon_on_cancel=abandon)
            for name in runs.keys() - problems.keys():
                left = [record for record in self._unwritten_runs[name] if record not in runs[name]]
                self._unwritten_runs[name] = left
                if not left:
                    del self._unwritten_runs[name]
            self.problem = next(iter(problems.values()), self._number.problem)

    def _write(self, events: bytes, runs: dict[str, tuple[RunRecord, ...]]) -> dict[str, str]:
        """In a thread. What could not be written, by guest ('' for events)."""
        problems = {}
        try:
            if events:
                self._write_events(events)
        except OSError as error:
            problems[""] = f"events are not written to {self._events_path}: {durable.why(error)}"
        for name, records in runs.items():
            try:
                self._write_runs(self._path(name), records)
            except OSError as error:
                problems[name] = f"the history of {name} is not written to {self._path(name)}: {durable.why(error)}"
        return problems

    def _write_events(self, events: bytes) -> None:
        if _append(self._events_path, events) > FILE_BYTES:
            os.replace(self._events_path, f"{self._events_path}.0")

    def _write_runs(self, path: str, records: tuple[RunRecord, ...]) -> None:
        _append(path, b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        lines = _lines(path)
        if len(lines) >= 2 * RUNS_KEPT:
            durable.write_new(path, b"".join(line + b"\n" for line in lines[-RUNS_KEPT:]))

    def _path(self, name: str) -> str:
        return f"{self._history}/{name}.jsonl"


def _append(path: str, data: bytes) -> int:
    """At the end of the file, on a line of its own, all or nothing. Returns the file's new size."""
    _make_room(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # a torn line must not swallow the next one
        try:
            durable.write_whole(fd, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise
        return size + len(data)
    finally:
        os.close(fd)


def _make_room(path: str) -> None:
    """What is no file of ours, or too large to be read, steps aside."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_size > _READ_BYTES:
        os.replace(path, f"{path}.bad")


def _lines(path: str) -> list[bytes]:
    """The whole lines of a file; a torn one at its end is none. A file that cannot be read has none."""
    try:
        data = durable.read_plain(path, _READ_BYTES)
    except OSError:
        return []
    return [line for line in data.split(b"\n")[:-1] if line]


def _decoded(lines: list[bytes], kind: type[T]) -> Iterator[T]:
    """What can be read of the lines: a broken one, or one of a newer bhyved, costs itself."""
    decoder = msgspec.json.Decoder(kind)
    for line in lines:
        try:
            yield decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
