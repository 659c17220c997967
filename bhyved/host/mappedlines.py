"""Lines on their way to their files, in a mapped file, so that kill -9 takes none of them.

Two halves: lines go into one while the other is being written to where it belongs; then they change places. Putting a line is a copy and
no system call. Only a daemon of the same boot believes what it finds: the pages of a host that died may be of different moments.
"""

import mmap
import struct

from bhyved.core.errors import in_words
from bhyved.host import mapped

HALF_BYTES = 4 << 20  # five hundred guests that die at once, each with the last lines of its console
_MAGIC = b"bhyvedL1"
_BOOT = struct.Struct("<8s40s")
_CURRENT = 48  # offset of the byte that says which half lines go into
_USED = struct.Struct("<Q")  # bytes of lines in a half
_USED_AT = (56, 64)
_HEAD_BYTES = 4096
_SIZE = _HEAD_BYTES + 2 * HALF_BYTES


class MappedLines:
    """`found`: what an earlier daemon left, oldest first. `problem`: why lines are in memory only, or ''."""

    def __init__(self, path: str, boot: str) -> None:
        """Blocks."""
        self._boot = _BOOT.pack(_MAGIC, boot.encode()[:40])
        self.problem = ""
        self.found: list[bytes] = []
        self._mapping: mmap.mmap | None = None
        try:
            self._mapping, _ = mapped.open_mapping(path, _SIZE)
        except OSError as error:
            self.problem = f"{path} {in_words(error)}: a killed daemon takes its last second of events with it"
        self._current = 0
        self._used = [0, 0]
        if self._mapping is not None and self._mapping[: _BOOT.size] == self._boot:
            older = 1 - self._mapping[_CURRENT] % 2
            self.found = [*_whole_lines(self._mapping, older), *_whole_lines(self._mapping, 1 - older)]

    def begin(self) -> None:
        """What was found is where it belongs."""
        self.found = []
        if self._mapping is not None:
            for half in (0, 1):
                self._note(half, 0)
            self._mapping[_CURRENT] = self._current
            self._mapping[: _BOOT.size] = self._boot  # last: only now are both halves of this boot

    def put(self, line: bytes) -> int:
        """Keep a line, which ends with a newline. Returns how full the half is by now; a line that has no room is not kept."""
        used = self._used[self._current]
        if self._mapping is not None and used + len(line) <= HALF_BYTES:
            place = _HEAD_BYTES + self._current * HALF_BYTES + used
            self._mapping[place : place + len(line)] = line
            self._note(self._current, used + len(line))  # behind the line itself
        return self._used[self._current]

    def change(self) -> None:
        """From now on lines go into the other half, which is empty."""
        assert not self._used[1 - self._current], "the last writer has not come to its end"
        self._current = 1 - self._current
        if self._mapping is not None:
            self._mapping[_CURRENT] = self._current

    def written(self) -> None:
        """What was put before the last `change` is where it belongs."""
        self._note(1 - self._current, 0)

    def _note(self, half: int, used: int) -> None:
        self._used[half] = used
        if self._mapping is not None:
            # In one store, which pack_into is not: a kill finds the old count or the new one.
            self._mapping[_USED_AT[half] : _USED_AT[half] + _USED.size] = _USED.pack(used)


def _whole_lines(mapping: mmap.mmap, half: int) -> list[bytes]:
    """The lines of a half, without their ends."""
    begin = _HEAD_BYTES + half * HALF_BYTES
    (used,) = _USED.unpack_from(mapping, _USED_AT[half])
    return mapping[begin : begin + min(used, HALF_BYTES)].split(b"\n")[:-1]
