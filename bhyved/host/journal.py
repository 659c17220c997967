"""Events and run histories on disk: DB/events/*.jsonl and DB/history/NAME.jsonl, a line each, bounded.

Nothing is synced: what a host crash takes is the last second of a log. `append` and `add_run` never wait; the lines go to disk in a
thread, at most WRITE_S after the first of them. A torn last line is dropped; numbers go on behind a reserve then, so that none that a
client has seen is given twice.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import trio

from bhyved.core.status import Event, RunRecord
from bhyved.host import durable

KEPT = 4096  # events for whoever follows; those of earlier daemons come from disk, once
FILE_BYTES = 1 << 20  # of events; one older file is kept beside it
WRITE_S = 1.0
RUNS_KEPT = 200  # of each guest; the file is cut when it has twice as many
GAP = 1000  # numbers skipped when the end of the file was torn: more than WRITE_S of events
_RUNS_BYTES = 64 << 20

T = TypeVar("T")


class FileJournal:
    """Satisfies `daemon.ports.Journal`. `problem`: why the disk does not take what happens, or ''."""

    def __init__(self, db: str, clock: Callable[[], datetime]) -> None:
        self._events_path = f"{db}/events/events.jsonl"
        self._history = f"{db}/history"
        self._clock = clock
        self.problem = ""
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._unwritten: list[bytes] = []
        self._runs: dict[str, list[RunRecord]] = {}
        self._new_runs: dict[str, list[RunRecord]] = {}
        self._stirred = trio.Event()
        self._written = trio.Event()
        self._busy = False
        self._seq = self._load()

    def _load(self) -> int:
        """The newest events of earlier daemons, and the highest number that may have been given."""
        last, torn = 0, False
        for path in (f"{self._events_path}.0", self._events_path):
            lines, torn = _lines(path, 4 * FILE_BYTES)
            for event in _decoded(lines, Event):
                last = max(last, event.seq)
                self._kept.append(event)
        return last + GAP if torn else last

    def append(self, event: str, /, **fields: Any) -> Event:
        """Number, stamp and keep one event."""
        self._seq += 1
        told = Event(seq=self._seq, at=self._clock(), event=event, **fields)
        self._kept.append(told)
        self._unwritten.append(msgspec.json.encode(told) + b"\n")
        self._stirred.set()
        return told

    def since(self, seq: int) -> list[Event]:
        """Events after `seq` that are still in memory, oldest first."""
        return [event for event in self._kept if event.seq > seq]

    def add_run(self, record: RunRecord) -> None:
        """One line of a guest's history."""
        self.runs(record.vm, 1)  # before the new one is among them
        self._runs[record.vm] = [*self._runs[record.vm], record][-RUNS_KEPT:]
        self._new_runs.setdefault(record.vm, []).append(record)
        self._stirred.set()

    def runs(self, name: str, last: int) -> list[RunRecord]:
        """The newest `last` runs of a guest, oldest first. The first question about a guest reads its file."""
        if name not in self._runs:
            lines, _ = _lines(self._path(name), _RUNS_BYTES)
            self._runs[name] = list(_decoded(lines, RunRecord))[-RUNS_KEPT:]
        return self._runs[name][-last:] if last > 0 else []

    def forget(self, name: str) -> None:
        """The guest is no longer configured: its history stays on disk, for when it comes back."""
        self._runs.pop(name, None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what happens, until cancelled."""
        task_status.started()
        while True:
            await self._stirred.wait()
            await trio.sleep(WRITE_S)
            await self.flushed()

    async def flushed(self) -> None:
        """Return when all that has happened is written, or cannot be."""
        while self._busy:
            await self._written.wait()
        self._stirred = trio.Event()
        events, self._unwritten = self._unwritten, []
        runs, self._new_runs = self._new_runs, {}
        if not events and not runs:
            return
        self._busy = True
        try:
            with trio.CancelScope(shield=True):
                self.problem = await trio.to_thread.run_sync(self._write, events, runs)
        finally:
            self._busy = False
            written, self._written = self._written, trio.Event()
            written.set()

    def _write(self, events: list[bytes], runs: dict[str, list[RunRecord]]) -> str:
        """In a thread. What the disk does not take is gone from it, not from memory."""
        try:
            if events:
                _append(self._events_path, b"".join(events))
                if os.path.getsize(self._events_path) > FILE_BYTES:
                    os.replace(self._events_path, f"{self._events_path}.0")
            for name, records in runs.items():
                self._write_runs(name, records)
        except OSError as error:
            return f"events and history cannot be written: {durable.why(error)}"
        return ""

    def _write_runs(self, name: str, records: list[RunRecord]) -> None:
        path = self._path(name)
        _append(path, b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        lines, _ = _lines(path, _RUNS_BYTES)
        if len(lines) >= 2 * RUNS_KEPT:
            durable.write_new(path, b"".join(line + b"\n" for line in lines[-RUNS_KEPT:]))

    def _path(self, name: str) -> str:
        return f"{self._history}/{name}.jsonl"


def _append(path: str, data: bytes) -> None:
    """At the end of the file, behind a line's end: a torn line must not swallow the next one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data
        durable.write_whole(fd, data)
    finally:
        os.close(fd)


def _lines(path: str, limit: int) -> tuple[list[bytes], bool]:
    """The whole lines of a file, and whether its end is torn. A file that cannot be read has none."""
    try:
        data = durable.read_plain(path, limit)
    except FileNotFoundError:
        return [], False
    except OSError:
        return [], True
    lines = data.split(b"\n")
    return [line for line in lines[:-1] if line], bool(lines[-1])


def _decoded(lines: list[bytes], kind: type[T]) -> Iterator[T]:
    """What can be read of the lines: a broken one, or one of a newer bhyved, costs itself."""
    decoder = msgspec.json.Decoder(kind)
    for line in lines:
        try:
            yield decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
