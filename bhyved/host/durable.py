"""Files that must be whole or not be there: temporary file, fsync, rename, fsync of the directory; and plain ones that go with the host.

Blocking: call it in a thread while the loop runs. Files are made 0600 and a symbolic link in the place of one is replaced, never
followed.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Mapping

from bhyved.core.errors import HostError, in_words

_TEMPORARY = ".new-"
READ_LIMIT_BYTES = 4 << 20  # no state or configuration file of ours comes near


def replace(path: str, data: bytes, mode: int = 0o600) -> None:
    """`path` holds `data`, also after a host crash; until then it holds what it held before. Raises OSError."""
    write_new(path, data, mode)
    sync_directory(os.path.dirname(path))


def replace_all(files: Mapping[str, bytes]) -> dict[str, OSError]:
    """Several files, in one directory sync per directory: what a crowd of writers costs. Returns those that failed."""
    failed: dict[str, OSError] = {}
    for path, data in files.items():
        try:
            write_new(path, data)
        except OSError as error:
            failed[path] = error
    for directory in {os.path.dirname(path) for path in files.keys() - failed.keys()}:
        try:
            sync_directory(directory)
        except OSError as error:
            failed |= {path: error for path in files if os.path.dirname(path) == directory}
    return failed


def write_new(path: str, data: bytes, mode: int = 0o600) -> None:
    """Like `replace`, but the new name itself may still be lost in a host crash."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f"{_TEMPORARY}{name}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # of a writer that was killed
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        write_whole(fd, data)
        os.fchmod(fd, mode)  # whatever the umask is
        os.fsync(fd)
        os.close(fd)
        fd = -1
        os.rename(temporary, path)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_whole(fd: int, data: bytes | bytearray) -> None:
    """All of `data`: a full disk may take a part and say nothing."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def remove(path: str) -> None:
    """Nothing is at `path` any more. Raises HostError where something else than a file of ours is."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EROFS and not os.path.lexists(path):
            return  # which a file system that is read-only says before it looks
        raise HostError(f"{path} cannot be removed: {in_words(error)}") from None


def sync_file(path: str) -> None:
    """Make what was written to a file durable, by whomever and however it was."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make renames and removals in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_plain(path: str, limit: int = READ_LIMIT_BYTES) -> bytes:
    """The content of a regular file of our own. A link, a FIFO, a giant or a directory in its place is an OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "is no regular file", path)
        if found.st_size > limit:
            raise OSError(0, f"has {found.st_size} bytes, more than {limit}", path)
        with open(fd, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(fd)


def write_plain(path: str, data: bytes, how: int, mode: int = 0o600) -> None:
    """A file that need not outlive the host. `how`: os.O_EXCL where there must be none, os.O_TRUNC where there may be. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | how | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)  # whatever the umask is
        write_whole(fd, data)
    finally:
        os.close(fd)


def is_leftover(name: str) -> bool:
    """Whether a directory entry is the temporary file of a writer that was killed."""
    return name.startswith(_TEMPORARY)
