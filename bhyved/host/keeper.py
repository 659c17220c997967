"""The keeper: a few lines of sh that start bhyve or a loader, wait for it and write down how it ended.

It has its own session and outlives the daemon; whoever comes after the daemon reads the two files it leaves, a `Trace`. Used by
`host.machine`. The files are filled with blanks before the start, and overwritten in place: where a file has its blocks, a file system
that is full by then cannot swallow the end of a guest. ZFS takes new ones even so, and has none then (dsl_dir_tempreserve_impl); so both
numbers go through the FIFO too, which needs no disk, to a daemon that is there.
"""

import contextlib
import fcntl
import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from bhyved.core.errors import HostError, in_words
from bhyved.host.durable import remove, write_plain
from bhyved.host.spawn import spawn

#: Words: `ignore` or `default` (what the child does with SIGTERM), the file for the pid, the file for the status, the command.
#:
#: Ignored signals stay ignored in the child, across exec; a trap with a command does not (contract 8.8). So the child always ignores
#: SIGPIPE (contract 8.3) and SIGHUP; SIGINT and SIGQUIT sh ignores in it by itself; SIGTERM as asked. The keeper survives them all:
#: until the child is there by a trap that does nothing, then by ignoring it, since a trapped signal would end `wait` early. The dash
#: in the file for the status says that the command may have run.
SCRIPT = """\
trap '' HUP INT QUIT PIPE
if [ "$1" = ignore ]; then trap '' TERM; else trap : TERM; fi
pid=$2 exit=$3
shift 3
umask 077
echo - 1<>"$exit"
"$@" &
trap '' TERM
echo "$!" 1<>"$pid"
echo "pid $!" >&3
wait "$!"
status=$?
echo "exit $status" >&3
echo "$status" 1<>"$exit"
"""
SH = "/bin/sh"
ALIVE = 3  # where the keeper has the FIFO: sh can name descriptors of one digit only
_BLANKS = b" " * 16  # room for any pid and status, with its newline
_DIGITS = 10  # kill(2) takes no number that has so many


class End(NamedTuple):
    """What the keeper wrote when the process had ended: the shell's status (contract 8.8), and when."""

    status: int
    at: datetime


class Begin(NamedTuple):
    """What the daemon wrote when it started the keeper."""

    monotonic: float  # CLOCK_MONOTONIC
    at: datetime
    log_from: int  # where this process begins in NAME.bhyve.log


class Trace:
    """The files of one keeper: `PREFIXpid`, `PREFIXexit`, and of its start `PREFIXbegin`, in the guest's directory."""

    def __init__(self, directory: str, prefix: str = "") -> None:
        self.pid_path = f"{directory}/{prefix}pid"
        self.exit_path = f"{directory}/{prefix}exit"
        self.begin_path = f"{directory}/{prefix}begin"
        self._is_removed = False  # and since then no keeper was there to write

    def allocate(self, monotonic: float, log_from: int) -> None:
        """Make all anew, pid and exit blank. Raises HostError."""
        begin = f"{monotonic:.6f} {log_from}\n".encode()
        if not self._is_removed:
            self.remove()  # new files: the time of an old one is no end of this run
        self._is_removed = False
        for path, content in ((self.begin_path, begin), (self.pid_path, _BLANKS), (self.exit_path, _BLANKS)):
            try:
                write_plain(path, content, os.O_EXCL)
            except OSError as error:
                raise HostError(f"{path}: {in_words(error)}") from None

    def begin(self) -> Begin | None:
        """When it was started; None where that cannot be read."""
        first, _, second = _line(self.begin_path).partition(b" ")
        try:
            begin = Begin(float(first), datetime.fromtimestamp(os.stat(self.begin_path).st_mtime, UTC), int(second))
        except (OSError, ValueError):
            return None
        return begin if math.isfinite(begin.monotonic) else None

    def exists(self) -> bool:
        """Whether a start has got as far as these files."""
        return os.path.lexists(self.exit_path)

    def is_begun(self) -> bool:
        """Whether a keeper has come to life: from then on its child may have run, whatever else is known."""
        return _line(self.exit_path) != b""

    def pid(self) -> int | None:
        """The pid that the keeper wrote; None as long as it has not."""
        return _number(self.pid_path)

    def end(self) -> End | None:
        """How it ended; None as long as nobody has written it down."""
        status = _number(self.exit_path)
        if status is None:
            return None
        try:
            return End(status, datetime.fromtimestamp(os.stat(self.exit_path).st_mtime, UTC))
        except OSError:
            return None

    def remove(self) -> None:
        """Forget it. Only while nobody holds the FIFO: a keeper would write it anew."""
        if not self._is_removed:
            for path in (self.exit_path, self.pid_path, self.begin_path):
                remove(path)
            self._is_removed = True


def _number(path: str) -> int | None:
    line = _line(path)
    return int(line) if line.isdigit() and len(line) < _DIGITS else None


def _line(path: str) -> bytes:
    """The first line of a small file, which is complete only with its newline; b'' where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(fd, 64)
        finally:
            os.close(fd)
    except OSError:
        return b""
    line, newline, _ = text.partition(b"\n")
    return line if newline else b""


def spawn_keeper(
    argv: Sequence[str],
    trace: Trace,
    *,
    alive: int,
    log: int,
    consoles: Sequence[int],
    env: Mapping[str, str],
    ignore_term: bool,
) -> int:
    """Start `argv` under a keeper and return the keeper's pid; the caller reaps it, and closes its own copy of `alive`.

    `alive` becomes the keeper's descriptor 3 and its child's, `log` is where both print, `consoles` are inherited by both. Raises
    HostError.
    """
    words = (SH, "-c", SCRIPT, "keeper", "ignore" if ignore_term else "default", trace.pid_path, trace.exit_path, *argv)
    with contextlib.ExitStack() as copies:
        fds = {1: log, 2: log, ALIVE: alive}
        for fd in consoles:
            if fd == ALIVE:
                fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
                copies.callback(os.close, fd)
            fds[fd] = fd
        try:
            return spawn(words, fds, env, default_signals=False)
        except OSError as error:
            raise HostError(f"{argv[0]} could not be started: {in_words(error)}") from None
