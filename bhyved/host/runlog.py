"""NAME.bhyve.log: what bhyve and its loader print, of all runs, one after the other.

bhyve is sandboxed and cannot open its log again (contract 0.3, fact 18), so it is rotated between two runs only. The offset at which a
run began is in its ledger: what bhyve printed in this run decides what its end means.
"""

import os

from bhyved.core.errors import HostError, in_words

ROTATE_BYTES = 1 << 20
TAIL_BYTES = 64 << 10


class RunLog:
    """The log of one guest."""

    def __init__(self, path: str) -> None:
        self.path = path

    def rotate(self) -> None:
        """Begin a new file when the old one is large; one is kept. Only while no bhyve of the guest lives."""
        try:
            if os.lstat(self.path).st_size > ROTATE_BYTES:
                os.rename(self.path, f"{self.path}.0")
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError(f"{self.path}: {in_words(error)}") from None

    def open(self) -> int:
        """For a keeper to print to. Raises HostError."""
        try:
            return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(f"{self.path}: {in_words(error)}") from None

    def size(self) -> int:
        """Where the next run begins."""
        try:
            return os.lstat(self.path).st_size
        except OSError:
            return 0

    def since(self, offset: int) -> str:
        """What was printed since `offset`, at most the last TAIL_BYTES of it; '' where it cannot be read."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return ""
        with open(fd, "rb") as file:
            size = os.fstat(fd).st_size
            start = min(offset, size) if offset <= size else 0  # cut from outside, as newsyslog may: all there is
            file.seek(max(start, size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
