"""Reads a console's log files back: exact bytes with their offsets and times, and the marks between them.

Every call blocks on the disk. Files whose index is missing, or belongs to another file, are not read: they are for people.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bhyved.core import logindex
from bhyved.core.console import Mark, Output, Page
from bhyved.core.errors import HostError, in_words
from bhyved.core.logindex import Entry
from bhyved.host.consolelog import first_line, index_path, unstamped_at

#: How far back `line_offset` looks.
_LINES_BYTES = 1 << 20


class _Range(NamedTuple):
    """A stretch of output in a file."""

    offset: int
    size: int
    start: int
    stop: int
    at: float


class _Segment:
    """One log file, as its index describes it."""

    def __init__(self, path: Path, entries: list[Entry], size: int, *, stamped: bool) -> None:
        self.path = path
        self.entries = entries
        self.stamped = stamped
        self._size = size

    @property
    def start(self) -> int:
        return self.entries[0].o - self.entries[0].lost

    def items(self) -> Iterator[tuple[Entry, _Range]]:
        """Each entry with the output behind it."""
        for number, entry in enumerate(self.entries):
            following = self.entries[number + 1] if number + 1 < len(self.entries) else None
            start, stop = entry.p + entry.n, following.p if following else self._size
            if following is not None:
                # Between two entries somebody may have written a line of his own: the offsets know better than the positions.
                size = max(0, following.o - following.lost - entry.o)
            else:
                size = len(self.read(start, stop)) if self.stamped else stop - start  # of the last one only the file itself tells
            yield entry, _Range(entry.o, size, start, stop, entry.t)

    def read(self, start: int, stop: int) -> bytes:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return unstamped_at(fd, start, stop) if self.stamped else os.pread(fd, stop - start, start)
        finally:
            os.close(fd)


class LogReader:
    """All files of one console's log, as they are at the time of each call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, since: int, limit: int) -> Page:
        """Output and marks from `since` on, at most `limit` bytes of output. Raises HostError."""
        records: list[Output | Mark] = []
        left, at = limit, since
        for segment in self._segments():
            for entry, found in segment.items():
                if entry.m and entry.o >= since:
                    records.append(Mark(entry.o, entry.m, entry.x, entry.t, entry.lost))
                skip = max(0, since - found.offset)
                if skip >= found.size:
                    continue
                data = segment.read(found.start, found.stop)[skip : min(found.size, skip + left)]
                if data:
                    records.append(Output(found.offset + skip, data, found.at))
                    left -= len(data)
                    at = found.offset + skip + len(data)
                if left <= 0:
                    return Page(records, at, more=True)
        return Page(records, at, more=False)

    def boots(self) -> list[int]:
        """The offsets at which runs began, oldest first. Raises HostError."""
        return [entry.o for segment in self._segments() for entry in segment.entries if entry.m == "boot"]

    def offset_at(self, time: float) -> int | None:
        """The offset of the first output at or after a time; None: there is none yet. Raises HostError."""
        return next((entry.o for segment in self._segments() for entry in segment.entries if entry.t >= time), None)

    def line_offset(self, lines: int, end: int) -> int:
        """The offset at which the last `lines` lines before `end` begin, as far back as is looked. Raises HostError."""
        if lines <= 0:
            return end
        page = self.read(max(0, end - _LINES_BYTES), _LINES_BYTES)
        outputs = [record for record in page.records if isinstance(record, Output)]
        last = True
        for output in reversed(outputs):
            place = len(output.data)
            if last and output.data.endswith(b"\n"):
                place -= 1
            last = False
            while (place := output.data.rfind(b"\n", 0, place)) >= 0:
                lines -= 1
                if lines <= 0:
                    return output.offset + place + 1
        return outputs[0].offset if outputs else end

    def _segments(self) -> list[_Segment]:
        """Oldest first."""
        try:
            names = os.listdir(self._path.parent)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(f"console log {self._path} cannot be read: {in_words(error)}") from None
        base = self._path.name
        numbers = sorted((int(name[len(base) + 1 :]) for name in names if _is_old(name, base)), reverse=True)
        paths = [(Path(f"{self._path}.{n}"), Path(f"{index_path(self._path)}.{n}")) for n in numbers]
        segments = (self._segment(log, index) for log, index in [*paths, (self._path, index_path(self._path))])
        return [segment for segment in segments if segment is not None]

    def _segment(self, log: Path, index: Path) -> _Segment | None:
        try:
            stat = os.stat(log)
            with open(index, "rb") as file:
                head = logindex.decode_head(first_line(file.fileno()))
                lines = file.read().split(b"\n")[1:-1]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"console log {log} cannot be read: {in_words(error)}") from None
        if head is None or head.ino != stat.st_ino:
            return None
        entries = [entry for line in lines if (entry := logindex.decode_entry(line)) is not None and entry.p + entry.n <= stat.st_size]
        return _Segment(log, entries, stat.st_size, stamped=head.stamped) if entries else None


def _is_old(name: str, base: str) -> bool:
    return name.startswith(f"{base}.") and name[len(base) + 1 :].isascii() and name[len(base) + 1 :].isdigit()
