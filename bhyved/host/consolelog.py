"""The log file of one console: appended to, rotated by size and age, and exact about which bytes of the console it holds.

Every call blocks on the disk: the console hub makes them in a thread. The files are opened by name for each batch, which costs some
microseconds, spares two descriptors a guest, and lets newsyslog(8) rename them without a signal. Nothing is synced: the ring covers
the death of the daemon, and the death of the host costs what the page cache costs.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from bhyved.core import logindex
from bhyved.core.console import LogPolicy, Mark, Output
from bhyved.core.errors import HostError, in_words
from bhyved.core.logindex import Entry, Head
from bhyved.host.durable import write_whole
from bhyved.host.ringfile import file_word

_TAIL_BYTES = 1 << 16  # of an index: holds its last line, whatever is in it


def log_path(directory: Path, name: str, port: str, *, first: bool) -> Path:
    """`NAME.console.log` for the guest's first console, `NAME.console-com2.log` for others: no two guests' names can meet in one."""
    return directory / (f"{name}.console.log" if first else f"{name}.console-{file_word(port)}.log")


def index_path(log: Path) -> Path:
    return log.with_name(log.name.removesuffix(".log") + ".index")


class _Files:
    """The log and its index, open."""

    def __init__(self, log: Path, index: Path, *, create: bool) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self.log = os.open(log, flags | (os.O_CREAT if create else 0), 0o600)
        try:
            self.index = os.open(index, flags | os.O_CREAT, 0o600)
        except OSError:
            os.close(self.log)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.log)
        os.close(self.index)


class _Place(NamedTuple):
    """What the two files say themselves. `offset` None: nothing of the console is in them."""

    ino: int
    size: int
    index_size: int
    offset: int | None
    line_start: bool = True
    began_at: float = 0.0


class ConsoleLog:
    """One log with its index. Not for two threads at once."""

    def __init__(self, path: Path, policy: LogPolicy, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.policy = policy
        self._index = index_path(path)
        self._clock = clock
        self._known = False  # whether what follows is true of the files
        self._ino = self._size = self._index_size = 0
        self._offset: int | None = None
        self._line_start = True
        self._sampled_at = self._began_at = 0.0

    def resume(self) -> int | None:
        """The console's offset at the end of the log, after mending what a kill left half written. None: no such log. Raises HostError."""
        try:
            with _Files(self.path, self._index, create=False) as files:
                self._believe(self._survey(files))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(error) from None
        return self._offset

    def write(self, entries: deque[Output | Mark]) -> None:
        """Append, rotating where it is due, and take out of `entries` what is written. Raises HostError.

        What is left then may be given again, the first entry too: the log knows how much of it it has.
        """
        try:
            while entries:
                if self._is_due(entries[0]):
                    self._rotate()
                with _Files(self.path, self._index, create=True) as files:
                    self._check(files)
                    while self._ino and entries and not self._is_due(entries[0]):
                        self._append(files, entries[0])
                        entries.popleft()
        except OSError as error:
            self._known = False
            raise self._refused(error) from None

    # --- appending -----------------------------------------------------------------------------------------------------------

    def _append(self, files: _Files, entry: Output | Mark) -> None:
        if self._offset is None:
            self._offset = entry.offset
        if entry.offset > self._offset:
            lost, self._offset = entry.offset - self._offset, entry.offset
            self._put_mark(files, Mark(entry.offset, "gap", f"{lost} bytes were not recorded", entry.at, lost), self._offset)
        if isinstance(entry, Mark):
            self._put_mark(files, entry, self._offset)
        else:
            self._put_output(files, entry.data[self._offset - entry.offset :], entry.at, self._offset)

    def _put_mark(self, files: _Files, mark: Mark, offset: int) -> None:
        line = logindex.mark_line(_utc(mark.at), mark.kind, mark.text, line_start=self._line_start)
        self._put_entry(files, Entry(p=self._size, o=offset, t=mark.at, n=len(line), m=mark.kind, x=mark.text, lost=mark.lost))
        self._size += _write_all(files.log, line)
        self._line_start = True

    def _put_output(self, files: _Files, data: bytes | bytearray, at: float, offset: int) -> None:
        if not data:
            return
        if not 0 <= at - self._sampled_at < logindex.SAMPLE_S:
            self._put_entry(files, Entry(p=self._size, o=offset, t=at))
        count, ends_line = len(data), data.endswith(b"\n")
        if self.policy.timestamps:
            data = logindex.stamped(data, f"{_utc(at)} ".encode(), line_start=self._line_start)
        self._size += _write_all(files.log, data)
        self._offset = offset + count
        self._line_start = ends_line

    def _put_entry(self, files: _Files, entry: Entry) -> None:
        self._index_size += _write_all(files.index, logindex.encode(entry))
        self._sampled_at = entry.t
        self._began_at = self._began_at or entry.t

    # --- where things stand --------------------------------------------------------------------------------------------------

    def _believe(self, place: _Place) -> None:
        self._ino, self._size, self._index_size, self._offset, self._line_start, self._began_at = place
        self._sampled_at = 0.0
        self._known = True

    def _check(self, files: _Files) -> None:
        """Make what we know true of the files as they are: others may have renamed, shortened or written to them."""
        stat = os.fstat(files.log)
        if self._known and (stat.st_ino, stat.st_size) == (self._ino, self._size):
            return
        offset = self._offset if self._known else None
        if self._known and stat.st_ino == self._ino and stat.st_size > self._size:
            self._size, self._sampled_at = stat.st_size, 0.0  # somebody's own line: the next entry steps over it
            return
        self._believe(self._survey(files))
        if self._offset is None or offset is not None:
            self._offset = offset

    def _survey(self, files: _Files) -> _Place:
        stat = os.fstat(files.log)
        head = logindex.decode_head(first_line(files.index))
        if head is None or head.ino != stat.st_ino:
            return self._new_index(stat.st_ino, stat.st_size, files)
        entry = _last_entry(files, stat.st_size)
        size = os.fstat(files.log).st_size
        if entry is None:
            return self._new_index(stat.st_ino, size, files)
        start = entry.p + entry.n
        if head.stamped:
            size = _without_half_stamp(files.log, start, size)
        count = len(unstamped_at(files.log, start, size)) if head.stamped else size - start
        line_start = _is_line_start(files.log, size)
        place = _Place(stat.st_ino, size, os.fstat(files.index).st_size, entry.o + count, line_start, _first_time(files.index))
        if head.stamped != self.policy.timestamps:
            # The option was changed: each file is of one kind, so go on in a new one.
            self._rotate()
            return place._replace(ino=0)
        return place

    def _new_index(self, ino: int, size: int, files: _Files) -> _Place:
        os.ftruncate(files.index, 0)
        written = _write_all(files.index, logindex.encode(Head(ino=ino, stamped=self.policy.timestamps)))
        return _Place(ino, size, written, None)

    # --- rotation ------------------------------------------------------------------------------------------------------------

    def _is_due(self, entry: Output | Mark) -> bool:
        """Whether to rotate before `entry`. A mark stays with the output it closes, so that an exit is not alone in a new file."""
        if not self._known or not self._size or (isinstance(entry, Mark) and entry.kind != "boot"):
            return False
        if self.policy.max_bytes and self._size + self._index_size >= self.policy.max_bytes:
            return True
        return bool(self.policy.max_age_s and self._began_at and self._clock() - self._began_at >= self.policy.max_age_s)

    def _rotate(self) -> None:
        """log -> log.0 -> log.1 …; each index follows its log, and says itself to which file it belongs."""
        for path in (self.path, self._index):
            for number in range(self.policy.keep - 1, 0, -1):
                with suppress(FileNotFoundError):
                    os.rename(f"{path}.{number - 1}", f"{path}.{number}")
            with suppress(FileNotFoundError):
                if self.policy.keep:
                    os.rename(path, f"{path}.0")
                else:
                    os.unlink(path)
        self._ino = self._size = self._index_size = 0

    def _refused(self, error: OSError) -> HostError:
        return HostError(f"console log {self.path} cannot be written: {in_words(error)}")


def _last_entry(files: _Files, size: int) -> Entry | None:
    """The last entry that the log bears out; what a kill left half written behind it is cut off. None: there is none."""
    while True:
        index_size = os.fstat(files.index).st_size
        base = max(0, index_size - _TAIL_BYTES)
        tail = os.pread(files.index, index_size - base, base)
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            os.ftruncate(files.index, base + whole)
        start = tail.rfind(b"\n", 0, max(0, whole - 1)) + 1
        if base + start == 0:
            return None  # only the head is left
        entry = logindex.decode_entry(tail[start:whole])
        if entry is not None and entry.p + entry.n <= size:
            return entry
        if entry is not None and entry.p < size:
            os.ftruncate(files.log, entry.p)  # half of a mark
            size = entry.p
        os.ftruncate(files.index, base + start)


def _without_half_stamp(log: int, start: int, size: int) -> int:
    """Cut off a stamp that a kill left half written; returns the size of the log then. Every line begins with a whole one."""
    tail = os.pread(log, size - start, start)
    line = tail.rfind(b"\n") + 1
    if (line or _is_line_start(log, start)) and 0 < len(tail) - line < logindex.STAMP_BYTES:
        size = start + line
        os.ftruncate(log, size)
    return size


def first_line(index: int) -> bytes:
    """The head of an open index; b"" when it has none."""
    line, end, _ = os.pread(index, 4096, 0).partition(b"\n")
    return line if end else b""


def _first_time(index: int) -> float:
    lines = os.pread(index, 4096, 0).split(b"\n", 2)
    entry = logindex.decode_entry(lines[1]) if len(lines) > 2 else None
    return entry.t if entry is not None else 0.0


def unstamped_at(log: int, start: int, stop: int) -> bytes:
    """What the guest printed in a stretch of an open log with timestamps."""
    return logindex.unstamped(os.pread(log, stop - start, start), line_start=_is_line_start(log, start))


def _is_line_start(log: int, place: int) -> bool:
    return place == 0 or os.pread(log, 1, place - 1) == b"\n"


def _write_all(fd: int, data: bytes | bytearray) -> int:
    write_whole(fd, data)
    return len(data)


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
