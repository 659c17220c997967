"""The number of the newest event, kept so that no number is ever given twice on a host.

The lines of `host.journal` alone do not tell which numbers clients have seen when the host dies. The number itself lies in a mapped
file: giving one is a copy and no system call, and it survives kill -9. The death of the host may take the page with it; on another boot,
unless the daemon had ended in order, numbers go on behind a gap.
"""

import contextlib
import mmap
import struct

from bhyved.core.errors import in_words
from bhyved.host import mapped

GAP = 10_000  # more events than a page may be late (the syncer's half minute)
_STATE = struct.Struct("<8sQ?40s")  # magic, number, ended in order, boot
_PACKED, _NUMBER = struct.Struct("<Q"), slice(8, 16)
_MAGIC = b"bhyvedE1"


class EventNumber:
    """Counts up from what earlier daemons gave.

    `problem`: why the number is in memory only, or ''. `gap`: why numbers go on behind a gap, or ''.
    """

    def __init__(self, path: str, boot: str, written: int) -> None:
        """`written`: the highest number in the journal's lines. Blocks."""
        self._boot = boot.encode()[:40]
        self._mapping: mmap.mmap | None = None
        self.problem = self.gap = ""
        had, stepped_aside = b"", False
        try:
            self._mapping, stepped_aside = mapped.open_mapping(path, _STATE.size)
            had = self._mapping[:]
        except OSError as error:
            self.problem = f"{path} {in_words(error)}: numbers of events go on behind a gap after the next start"
        self.last = written
        if had.startswith(_MAGIC):
            self._go_on(had, written)
        elif written or stepped_aside or any(had) or self.problem:
            self.gap = f"{path} cannot be read: which numbers had been given is not known"
        if self.gap:
            self.last += GAP
        self._note(in_order=False)

    def _go_on(self, had: bytes, written: int) -> None:
        _, number, in_order, boot = _STATE.unpack(had)
        if boot.rstrip(b"\0") != self._boot and not (in_order and number >= written):
            self.gap = "the host went down before bhyved had ended: what was told in its last seconds may be missing"
        self.last = max(int(number), written)

    def take(self) -> int:
        """The next number."""
        self.last += 1
        if self._mapping is not None:
            self._mapping[_NUMBER] = _PACKED.pack(self.last)  # in one store: a kill finds the old number or the new one
        return self.last

    def close(self) -> None:
        """The daemon ends in order. Blocks until that is on disk."""
        self._note(in_order=True)
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None

    def _note(self, *, in_order: bool) -> None:
        if self._mapping is not None:
            self._mapping[:] = _STATE.pack(_MAGIC, self.last, in_order, self._boot)
            # A full ZFS pool takes no page (vm_mmap.c, kern_msync: EIO). It stays dirty, and the kernel tries again.
            with contextlib.suppress(OSError):
                self._mapping.flush()
