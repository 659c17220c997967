"""The directories of the daemon, and the lock that makes it the only one.

Called once at start, before anything else is touched. The directories are root's (or of whoever runs the lab), so that nobody can
plant a link or a FIFO where bhyved writes. The lock is an flock on RUN/bhyved.pid: it goes with its holder however that dies.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Mapping

from bhyved.core.errors import HostError, in_words

PID_FILE = "bhyved.pid"
#: These pass, so whoever has called us is to try again.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_LOOKED_AT_S = 1.0  # so long may somebody look whether it is locked, which takes microseconds


def state_directories(run: str, db: str, log: str) -> dict[str, int]:
    """Every directory that the daemon keeps, with its mode, parents first."""
    private = 0o700
    return {
        run: 0o755,  # the control socket's own mode and the peer's credentials decide who may do what
        f"{run}/vm": private,
        db: private,
        **{f"{db}/{name}": private for name in ("vm", "history", "events", "good", "good/vm.d", "good/template.d", "vars", "cloud-init")},
        log: 0o750,  # wheel may see which there are; they hold whatever was typed and shown, and are 0600
    }


def make_directories(directories: Mapping[str, int]) -> None:
    """Make what is missing and make sure of the rest. Raises HostError, `fatal` unless it may pass by itself."""
    for path, mode in directories.items():
        make_directory(path, mode)


def make_directory(path: str, mode: int) -> None:
    """`path` is a directory of ours that nobody else can write, with exactly `mode`.

    Where those above it are missing they are made 0755, whatever the umask is. Raises HostError, `fatal` unless it may pass by itself.
    """
    above = os.path.dirname(path)
    if not os.path.exists(above):
        make_directory(above, 0o755)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)
        link = os.lstat(path)
        # An administrator may keep /var/db/bhyved elsewhere; only his own (or root's) link leads there.
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
            raise HostError(f"{path} is a symbolic link of uid {link.st_uid}; remove it", fatal=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _own(path, fd, mode)
        finally:
            os.close(fd)
    except OSError as error:
        raise _refused(path, error) from None


def _refused(path: str, error: OSError) -> HostError:
    return HostError(f"{path}: {in_words(error)}", fatal=error.errno not in _PASSING)


def _own(path: str, fd: int, mode: int) -> None:
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise HostError(f"{path} belongs to uid {found.st_uid}; it must belong to uid {os.geteuid()}", fatal=True)
    if stat.S_IMODE(found.st_mode) != mode:
        os.fchmod(fd, mode)


class HostLock:
    """Held by the one daemon of a run directory, until `release` or death."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def take(cls, run: str) -> "HostLock":
        """Lock RUN/bhyved.pid; our pid in it where there is room. Raises HostError, `fatal` when it names a daemon that has it."""
        path = os.path.join(run, PID_FILE)
        try:
            while True:
                # For root alone: whoever can open it can lock it, since flock(2) asks for no right to write.
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
                if cls._lock(path, fd):
                    break
        except OSError as error:
            raise _refused(path, error) from None
        return cls(path, fd)

    @staticmethod
    def _lock(path: str, fd: int) -> bool:
        """False: the file was removed by its holder, who was just going, before we had the lock; a new one is to be made."""
        try:
            os.fchmod(fd, 0o600)
            if not _locked(fd):
                holder = os.read(fd, 32).decode(errors="replace").strip()
                raise HostError(f"bhyved is already running (pid {holder or 'not yet known'}); it holds {path}", fatal=True)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    with contextlib.suppress(OSError):
                        os.ftruncate(fd, 0)
                        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                    return True
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return False

    def release(self) -> None:
        """Remove the pid file and let the next daemon in."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self._fd)


def _locked(fd: int) -> bool:
    """Lock it; False: a daemon has. One that is only looked at, as by `holder`, will be free in a moment: then a shared lock can be had."""
    until = time.monotonic() + _LOOKED_AT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(fd, fcntl.LOCK_UN)
        if time.monotonic() > until:
            return False
        time.sleep(0.005)


def holder(run: str) -> int | None:
    """The pid of the daemon that runs over this directory; None: none does. For rc.d, `--stop-all` and vmctl."""
    path = os.path.join(run, PID_FILE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(fd, 32).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None
