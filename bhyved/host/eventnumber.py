"""The number of the newest event, kept so that no number is ever given twice on a host.

`host.journal` writes its lines up to a second late, so the lines alone do not tell which numbers clients have seen when a daemon is
killed. The number itself lies in a mapped file: giving one is a copy and no system call, and it survives kill -9. The death of the host
may take the page with it; on another boot, unless the daemon had ended in order, numbers go on behind a gap.
"""

import mmap
import os
import struct

from bhyved.host import durable

GAP = 10_000  # more events than a page may be late (the syncer's half minute)
_STATE = struct.Struct("<8sQ?40s")  # magic, number, ended in order, boot
_MAGIC = b"bhyvedE1"


class EventNumber:
    """Counts up from what earlier daemons gave. `problem`: why the number is in memory only, or ''."""

    def __init__(self, path: str, boot: str, written: int) -> None:
        """`written`: the highest number in the journal's lines. Blocks."""
        self._boot = boot.encode()[:40]
        self._mapping: mmap.mmap | None = None
        self.problem = ""
        try:
            had = _find(path)
            self._mapping = _map(path)
        except OSError as error:
            had, self.problem = b"", f"{path} {durable.why(error)}: numbers of events go on behind a gap after the next start"
        self.last = self._begin(had, written)
        self._note(in_order=False)
        self._sync()

    def _begin(self, had: bytes, written: int) -> int:
        if len(had) != _STATE.size or not had.startswith(_MAGIC):
            return written + GAP if written or had or self.problem else 0
        _, number, in_order, boot = _STATE.unpack(had)
        same_boot = boot.rstrip(b"\0") == self._boot
        if same_boot or (in_order and number >= written):
            return max(int(number), written)
        return max(int(number), written) + GAP

    def take(self) -> int:
        """The next number."""
        self.last += 1
        self._note(in_order=False)
        return self.last

    def close(self) -> None:
        """The daemon ends in order. Blocks until that is on disk."""
        self._note(in_order=True)
        self._sync()
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None

    def _note(self, *, in_order: bool) -> None:
        if self._mapping is not None:
            _STATE.pack_into(self._mapping, 0, _MAGIC, self.last, in_order, self._boot)

    def _sync(self) -> None:
        if self._mapping is not None:
            self._mapping.flush()


def _find(path: str) -> bytes:
    """What is in the file. Whatever is no state of ours makes room."""
    try:
        return durable.read_plain(path, _STATE.size)
    except FileNotFoundError:
        return b""
    except OSError:
        os.replace(path, f"{path}.bad")
        return b"?"


def _map(path: str) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        short = _STATE.size - os.fstat(fd).st_size
        if short > 0:
            os.pwrite(fd, bytes(short), _STATE.size - short)  # a hole that cannot be filled later is a SIGBUS
            os.fsync(fd)
            durable.sync_directory(os.path.dirname(path))
        return mmap.mmap(fd, _STATE.size)
    finally:
        os.close(fd)
