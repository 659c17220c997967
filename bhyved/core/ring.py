"""What is kept of a console in memory: the first part of the run and the latest bytes, by absolute offset.

A ring lives in a buffer that the caller gives: a mapped file in the daemon, so that kill -9 takes nothing from it, plain memory in
tests and where no file can be had. The first byte ever seen has offset 0; offsets go on across runs and daemon restarts.

    header | first: bytes [run_start, run_start + first_size) | latest: byte n at n % latest_size
"""

import struct
from typing import NamedTuple

MAGIC = b"bhyvring"
VERSION = 1
_FIXED = struct.Struct("=8sIIQ")  # magic, version, sizes of the two parts
_NUMBERS_AT = 24  # of machine words: end, origin, run_start, running
_RUN_AT, _RUN_BYTES = 56, 56
_STREAM_AT, _STREAM_BYTES = 112, 16
HEADER_BYTES = 128
_END, _ORIGIN, _RUN_START, _RUNNING = 0, 1, 2, 3


class Piece(NamedTuple):
    """Bytes of a console and the offset of their first one."""

    offset: int
    data: bytes


def buffer_bytes(first_size: int, latest_size: int) -> int:
    """How large a buffer has to be."""
    return HEADER_BYTES + first_size + latest_size


def found(buffer: bytearray) -> "Ring | None":
    """The ring that lies in a buffer, of whatever sizes it says; None where there is none."""
    if len(buffer) < HEADER_BYTES:
        return None
    _, _, first, latest = _FIXED.unpack_from(buffer, 0)
    if not latest or len(buffer) != buffer_bytes(first, latest):
        return None
    ring = Ring(buffer, first, latest)
    return ring if ring.is_whole() else None


class Ring:
    """The history of one console. Nothing here fails but a buffer that is too small."""

    def __init__(self, buffer: bytearray | memoryview, first_size: int, latest_size: int) -> None:
        whole = memoryview(buffer).cast("B")
        self._header = whole[:HEADER_BYTES]
        self._first = whole[HEADER_BYTES : HEADER_BYTES + first_size]
        self._latest = whole[HEADER_BYTES + first_size : HEADER_BYTES + first_size + latest_size]
        self._first_size, self._latest_size = first_size, latest_size
        # Eight aligned bytes are stored in one instruction: a kill between two of them never shows half an offset.
        self._numbers = self._header[_NUMBERS_AT : _NUMBERS_AT + 32].cast("Q")
        self._whole = whole

    def begin(self, origin: int, stream: str) -> None:
        """Make the buffer an empty ring whose next byte is `origin`. `stream` tells this count of bytes from any other."""
        _FIXED.pack_into(self._header, 0, MAGIC, VERSION, self._first_size, self._latest_size)
        self._header[_RUN_AT:HEADER_BYTES] = bytes(HEADER_BYTES - _RUN_AT)
        self._put_text(_STREAM_AT, _STREAM_BYTES, stream)
        self._numbers[_END] = self._numbers[_ORIGIN] = self._numbers[_RUN_START] = origin
        self._numbers[_RUNNING] = 0

    def is_whole(self) -> bool:
        """Whether the buffer holds a ring of these sizes that somebody left."""
        magic, version, first, latest = _FIXED.unpack_from(self._header, 0)
        if (magic, version, first, latest) != (MAGIC, VERSION, self._first_size, self._latest_size):
            return False
        return self.origin <= self.run_start <= self.end

    @property
    def end(self) -> int:
        """The offset of the next byte."""
        return self._numbers[_END]

    @property
    def origin(self) -> int:
        """The offset this ring began with: of what came before, at most a log tells."""
        return self._numbers[_ORIGIN]

    @property
    def run_start(self) -> int:
        """The offset at which the present run (or the last one) began."""
        return self._numbers[_RUN_START]

    @property
    def running(self) -> bool:
        """Whether a run began and no end of it was told yet, perhaps by an earlier daemon."""
        return bool(self._numbers[_RUNNING])

    @property
    def run(self) -> str:
        """The id of the present or the last run."""
        return self._text(_RUN_AT, _RUN_BYTES)

    @property
    def stream(self) -> str:
        return self._text(_STREAM_AT, _STREAM_BYTES)

    @property
    def oldest(self) -> int:
        """The offset of the oldest byte from which on nothing is missing."""
        return max(self.origin, self.end - self._latest_size)

    @property
    def earliest(self) -> int:
        """The offset of the oldest byte kept."""
        oldest = self.oldest
        return self.run_start if self.run_start < oldest and self._first_size else oldest

    def start_run(self, run: str) -> None:
        """The first part begins anew here."""
        # The number last: a kill before it leaves the old run's first part as it was.
        self._put_text(_RUN_AT, _RUN_BYTES, run)
        self._numbers[_RUN_START] = self.end
        self._numbers[_RUNNING] = 1

    def end_run(self) -> None:
        """The run is over; what it said stays."""
        self._numbers[_RUNNING] = 0

    def append(self, data: bytes) -> int:
        """Keep `data`; returns its offset."""
        offset = self.end
        free = self.run_start + self._first_size - offset
        if free > 0:
            place, part = self._first_size - free, data[:free]
            self._first[place : place + len(part)] = part
        tail, at = (
            (data, offset) if len(data) <= self._latest_size else (data[-self._latest_size :], offset + len(data) - self._latest_size)
        )
        place = at % self._latest_size
        before_wrap = self._latest_size - place
        if len(tail) <= before_wrap:
            self._latest[place : place + len(tail)] = tail
        else:
            self._latest[place:] = tail[:before_wrap]
            self._latest[: len(tail) - before_wrap] = tail[before_wrap:]
        # After the bytes: a kill in between costs what was read in that instant and never shows bytes that were not there.
        self._numbers[_END] = offset + len(data)
        return offset

    def take_over(self, old: "Ring") -> None:
        """Become what `old`, a ring of other sizes, was, as far as it fits."""
        self.begin(old.oldest, old.stream)
        for piece in old.read(old.oldest):
            before_run = max(0, min(old.run_start - piece.offset, len(piece.data)))
            self.append(piece.data[:before_run])
            self.start_run(old.run)
            self.append(piece.data[before_run:])
        if not old.running:
            self.end_run()

    def read(self, since: int) -> list[Piece]:
        """Everything kept from `since` on, in order. What lies between two pieces, or before the first, is gone."""
        pieces = []
        oldest = self.oldest
        run_start = self.run_start
        if since < oldest and run_start < oldest:
            start, stop = max(since, run_start), min(run_start + self._first_size, oldest)
            if start < stop:
                pieces.append(Piece(start, bytes(self._first[start - run_start : stop - run_start])))
        start = max(since, oldest)
        if start < self.end:
            pieces.append(Piece(start, self._read_latest(start)))
        if len(pieces) == 2 and pieces[0].offset + len(pieces[0].data) == start:
            return [Piece(pieces[0].offset, pieces[0].data + pieces[1].data)]
        return pieces

    def _read_latest(self, start: int) -> bytes:
        size, place = self.end - start, start % self._latest_size
        if place + size <= self._latest_size:
            return bytes(self._latest[place : place + size])
        before_wrap = self._latest_size - place
        return bytes(self._latest[place:]) + bytes(self._latest[: size - before_wrap])

    def line_offset(self, lines: int) -> int:
        """The offset at which the last `lines` lines begin, as far as they are kept without a hole."""
        start = self.oldest
        data = self._read_latest(start)
        place = len(data)
        if data.endswith(b"\n"):
            place -= 1
        for _ in range(lines):
            place = data.rfind(b"\n", 0, place)
            if place < 0:
                return start
        return start + place + 1

    def release(self) -> None:
        """Let go of the buffer, so that a mapping can be closed."""
        for view in (self._numbers, self._header, self._first, self._latest, self._whole):
            view.release()

    def _put_text(self, at: int, size: int, text: str) -> None:
        self._header[at : at + size] = text.encode()[:size].ljust(size, b"\0")

    def _text(self, at: int, size: int) -> str:
        return bytes(self._header[at : at + size]).rstrip(b"\0").decode(errors="replace")
