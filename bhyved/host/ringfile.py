"""A console's ring in a file: what the daemon has read survives its kill -9, to the byte.

The file is mapped, so that keeping bytes is a copy and no system call. It lies under /var/run: it need not outlive the host, and is never
synced.
"""

import mmap
import os
import re
import sys
from pathlib import Path

from bhyved.core.errors import HostError, in_words
from bhyved.core.ring import Ring, buffer_bytes, found
from bhyved.host import mapped

_LARGEST_BYTES = 1 << 28  # of a ring that is taken over; a file that is larger is none of ours
# Keep the pages out of the syncer's way: FreeBSD's sys/mman.h. Python knows no name for it.
_MAP_NOSYNC = 0x0800 if sys.platform.startswith("freebsd") else 0


class RingFile:
    """One mapped ring. `found`: it holds what an earlier daemon left."""

    def __init__(self, ring: Ring, mapping: mmap.mmap | None, *, found: bool, problem: str = "") -> None:
        self.ring = ring
        self.found = found
        self.problem = problem
        self._mapping = mapping

    def close(self) -> None:
        """Unmap. The file stays for the next daemon."""
        self.ring.release()
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None


class RingFiles:
    """The rings of all consoles, one file each in a directory of their own (0700: what a guest prints is its owner's business)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, name: str, port: str) -> Path:
        # A guest's name holds no "@".
        return self._directory / f"{name}@{file_word(port)}.ring"

    def open(self, name: str, port: str, first_size: int, latest_size: int) -> RingFile:
        """Find or make the ring of a console. Where no file can be had it lives in memory, and `problem` says why."""
        size = buffer_bytes(first_size, latest_size)
        path = self._path(name, port)
        try:
            mapping, other = self._map(path, size)
        except OSError as error:
            ring = Ring(bytearray(size), first_size, latest_size)
            reason = in_words(error)
            return RingFile(ring, None, found=False, problem=f"console history is kept in memory only: {path}: {reason}")
        ring = Ring(memoryview(mapping), first_size, latest_size)
        if other is not None:
            ring.take_over(other)
        return RingFile(ring, mapping, found=ring.is_whole())

    def _map(self, path: Path, size: int) -> tuple[mmap.mmap, Ring | None]:
        """The mapping, and what was in the file if it was a ring of another size."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            other = None
            had = os.fstat(fd).st_size
            if had != size:
                other = found(bytearray(os.pread(fd, min(had, _LARGEST_BYTES), 0)))
                os.ftruncate(fd, 0)
                mapped.fill(fd, 0, size)
            return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | _MAP_NOSYNC), other
        finally:
            os.close(fd)

    def remove(self, name: str, port: str) -> None:
        """The guest is no longer configured. Raises HostError."""
        try:
            self._path(name, port).unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{self._path(name, port)}: {in_words(error)}") from None


def file_word(port: str) -> str:
    """A port's name as part of a file's: virtio-console ports may be called anything."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", port)
