"""Events and run histories on disk: DB/events/*.jsonl and DB/history/NAME.jsonl, a line each, bounded.

`append` and `add_run` never wait, and what they were given survives kill -9: it lies in a mapped file (`host.mappedlines`) until a thread
has written and synced it, WRITE_S after the first line, so that a host crash takes about the last second. With nothing to write nothing
wakes up. A full disk costs what would be on it: `problem` says so, and the newest events stay in memory.
"""

import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import trio

from bhyved.core.answers import GAP_EVENT
from bhyved.core.errors import in_words
from bhyved.core.status import Event, RunRecord
from bhyved.host import durable
from bhyved.host.eventnumber import EventNumber
from bhyved.host.mappedlines import HALF_BYTES, MappedLines
from bhyved.threads import in_thread

KEPT = 4096  # newest events in memory; older ones are read from disk
FILE_BYTES = 1 << 20  # of events; one older file is kept beside it
UNWRITTEN = 4 * KEPT  # a disk that hangs must not cost the memory
WRITE_S = 1.0
HURRY_BYTES = HALF_BYTES // 4  # more than this is written at once
SYNCED = 32  # histories at a time: a crash of everything costs no more than that of the disk each second
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
        self._unsynced: dict[str, None] = {}  # histories, those that wait longest first; the writer's
        self._run_lines: dict[str, int] = {}  # in each history that has been written to; the writer's
        self._stirred, self._pressed = trio.Event(), trio.Event()
        self._writing = trio.Lock()
        for event in self._read(0):
            self._kept.append(event)
        self._lines = MappedLines(f"{db}/events/unwritten", boot)
        self.problem = self._take_up()
        self._number = EventNumber(f"{db}/events/number", boot, max((event.seq for event in self._kept), default=0))
        self.problem = self.problem or self._number.problem or self._lines.problem
        if self._number.gap:
            self.append(GAP_EVENT, reason=self._number.gap)

    def _take_up(self) -> str:
        """Write what a killed daemon had told and not written yet. Why that failed, or ''."""
        written = max((event.seq for event in self._kept), default=0)
        events = [event for event in _decoded(self._lines.found, Event) if event.seq > written]
        runs: dict[str, list[RunRecord]] = {}
        for record in _decoded(self._lines.found, RunRecord):
            runs.setdefault(record.vm, []).append(record)
        for name, records in runs.items():
            had = {record.run for record in self.runs(name, RUNS_KEPT)}
            runs[name] = [record for record in records if record.run not in had]
        self._kept.extend(events)
        problems = self._write(_joined(events), {name: tuple(records) for name, records in runs.items() if records})
        self._lines.begin()
        for name in problems.keys() & runs.keys():
            for record in runs[name]:
                self.add_run(record)
        return next(iter(problems.values()), "")

    # --- events --------------------------------------------------------------------------------------------------------------

    def append(self, event: str, /, **fields: Any) -> Event:
        """Number, stamp and keep one event."""
        told = Event(seq=self._number.take(), at=self._clock(), event=event, **fields)
        self._kept.append(told)
        line = msgspec.json.encode(told) + b"\n"
        self._unwritten.append(line)
        self._put(line)
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
        self._put(msgspec.json.encode(record) + b"\n")

    def runs(self, name: str, last: int) -> list[RunRecord]:
        """The newest `last` runs of a guest, oldest first. Reads a file, of which it decodes the end only."""
        if last <= 0:
            return []
        waiting = self._unwritten_runs.get(name, [])
        lines = _lines(self._path(name))[-2 * last - len(waiting) :]
        # Some of those that wait may have been written by now; and a daemon that was killed between the end of a run and the cleaning up
        # leaves it to be ended again by the next, which knows what followed.
        runs = {record.run: record for record in (*_decoded(lines, RunRecord), *waiting)}
        return list(runs.values())[-last:]

    # --- writing -------------------------------------------------------------------------------------------------------------

    def _put(self, line: bytes) -> None:
        self._stirred.set()
        if self._lines.put(line) > HURRY_BYTES:
            self._pressed.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what happens, until cancelled."""
        task_status.started()
        try:
            while True:
                await self._stirred.wait()
                with trio.move_on_after(WRITE_S):
                    await self._pressed.wait()
                await self.flushed()
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):  # a disk that hangs is left alone
                await self._flush(abandon=True)
                await in_thread(self._number.close, abandon_on_cancel=True)

    async def flushed(self) -> None:
        """Return when all that has happened so far is written, or cannot be."""
        with trio.CancelScope(shield=True):  # two writers at once would mix their lines
            await self._flush(abandon=False)

    async def _flush(self, *, abandon: bool) -> None:
        async with self._writing:
            self._stirred, self._pressed = trio.Event(), trio.Event()
            events = b"".join(self._unwritten)
            runs = {name: tuple(records) for name, records in self._unwritten_runs.items()}
            if not events and not runs and not self._unsynced:
                return
            self._unwritten.clear()
            self._lines.change()
            problems = await in_thread(self._write, events, runs, abandon_on_cancel=abandon)
            self._lines.written()
            for name, records in runs.items():
                self._written(name, records, failed=name in problems)
            if self._unsynced:
                self._stirred.set()
            self.problem = next(iter(problems.values()), self._number.problem or self._lines.problem)

    def _written(self, name: str, records: tuple[RunRecord, ...], *, failed: bool) -> None:
        """Records are on disk, or go there with the next."""
        if failed:
            for record in records:
                self._lines.put(msgspec.json.encode(record) + b"\n")
            return
        left = [record for record in self._unwritten_runs[name] if record not in records]
        self._unwritten_runs[name] = left
        if not left:
            del self._unwritten_runs[name]

    def _write(self, events: bytes, runs: dict[str, tuple[RunRecord, ...]]) -> dict[str, str]:
        """In a thread. What could not be written or synced, by guest ('' for events)."""
        problems = {}
        try:
            if events:
                self._write_events(events)
        except OSError as error:
            problems[""] = f"events are not written to {self._events_path}: {in_words(error)}"
        for name, records in runs.items():
            try:
                self._write_runs(name, records)
            except OSError as error:
                problems[name] = f"the history of {name} is not written to {self._path(name)}: {in_words(error)}"
        try:
            self._sync_histories()
        except OSError as error:
            problems.setdefault("", f"histories in {self._history} are not synced: {in_words(error)}")
        return problems

    def _write_events(self, events: bytes) -> None:
        if _append(self._events_path, events, sync=True) > FILE_BYTES:
            os.replace(self._events_path, f"{self._events_path}.0")

    def _write_runs(self, name: str, records: tuple[RunRecord, ...]) -> None:
        path = self._path(name)
        _append(path, _joined(records), sync=False)
        had = self._run_lines.get(name)
        count = len(_lines(path)) if had is None else had + len(records)
        if count >= 2 * RUNS_KEPT:
            kept = _lines(path)[-RUNS_KEPT:]
            durable.write_new(path, b"".join(line + b"\n" for line in kept))
            count = len(kept)
        self._run_lines[name] = count
        self._unsynced[name] = None

    def _sync_histories(self) -> None:
        names = list(self._unsynced)[:SYNCED]
        for name in names:
            del self._unsynced[name]
            durable.sync_file(self._path(name))
        if names:
            durable.sync_directory(self._history)

    def _path(self, name: str) -> str:
        return f"{self._history}/{name}.jsonl"


def _joined(entries: Iterable[Event | RunRecord]) -> bytes:
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)


def _append(path: str, data: bytes, *, sync: bool) -> int:
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
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    if sync and not size:
        durable.sync_directory(os.path.dirname(path))
    return size + len(data)


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
