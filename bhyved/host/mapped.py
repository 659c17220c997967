"""Small files of ours in memory: what is stored there survives kill -9 without a system call, since the pages are the kernel's.

They reach the disk when the kernel finds time for it; a host crash may take what is newer. Blocking: done once, when the daemon starts.
"""

import mmap
import os
import stat

from bhyved.host import durable

_CHUNK_BYTES = 1 << 20


def open_mapping(path: str, size: int) -> tuple[mmap.mmap, bool]:
    """The file, `size` bytes long, and whether something that is no such file had to step aside. Raises OSError."""
    stepped_aside = _make_room(path, size)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        begin = os.fstat(fd).st_size
        if begin < size:
            try:
                fill(fd, begin, size)
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, begin)  # what is of no use must not be what the disk is full of
                raise
            durable.sync_directory(os.path.dirname(path))
        return mmap.mmap(fd, size), stepped_aside
    finally:
        os.close(fd)


def fill(fd: int, begin: int, size: int) -> None:
    """Zeros, block for block: a hole in a mapped file that cannot be filled later is a SIGBUS. Raises OSError."""
    place = begin
    while place < size:
        place += os.pwrite(fd, bytes(min(_CHUNK_BYTES, size - place)), place)


def _make_room(path: str, size: int) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISREG(found.st_mode) and found.st_size <= size:
        return False
    os.replace(path, f"{path}.bad")
    return True
