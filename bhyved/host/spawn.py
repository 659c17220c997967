"""Start a process: own session, only the descriptors it is given, known signal dispositions.

posix_spawn(3) is the fast way: no thread and no copied page tables, where `trio.lowlevel.open_process` costs two to three times the
CPU of a start. Its `setsid` flag is missing on some FreeBSD releases; that is found out at the first spawn and remembered. The other
way, `subprocess.Popen`, is also the only one that can change the user.

A child gets exactly the descriptors in `fds` (child's number -> ours), because Python opens everything close-on-exec and
`seal_inherited` closes the gap for what the daemon itself inherited.
"""

import contextlib
import fcntl
import functools
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# Python ignores both in itself and an ignored disposition survives exec (contract 8.3).
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whom a command runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def spawn(
    argv: Sequence[str],
    fds: Mapping[int, int],
    env: Mapping[str, str],
    *,
    account: Account | None = None,
    default_signals: bool = True,
) -> int:
    """Start `argv` (its first word an absolute path) and return the pid; the caller reaps it. Raises OSError.

    What `fds` does not name of 0, 1 and 2 is /dev/null. Up to two others may get another number than ours, of one digit; then 0 must
    be left out and 1 and 2 be the same file, because on systems without `setsid` sh has to do it (a keeper wants just that). With
    `default_signals=False` the child keeps SIGPIPE ignored, as a keeper and its bhyve need it (contract 8.3).
    """
    moved = [number for number, ours in fds.items() if number > 2 and number != ours]
    if moved and (len(moved) > 2 or max(moved) > 9 or 0 in fds or fds.get(1) != fds.get(2)):
        raise ValueError(f"descriptors cannot be handed on like this everywhere: {fds}")
    with _moved_clear(fds) as clear:
        if account is None and posix_spawn_makes_sessions():
            return _spawn_fast(argv, clear, env, default_signals=default_signals)
        return _spawn_popen(argv, clear, env, account=account, default_signals=default_signals)


@functools.cache
def posix_spawn_makes_sessions() -> bool:
    """Whether this system's posix_spawn knows `setsid`; Python says so before it looks at the (impossible) path."""
    try:
        os.posix_spawn("", ("none",), {}, setsid=True)
    except NotImplementedError:
        return False
    except OSError:
        return True
    raise AssertionError("a program without a name was started")


def _spawn_fast(argv: Sequence[str], fds: Mapping[int, int], env: Mapping[str, str], *, default_signals: bool) -> int:
    # dup2 of a number onto itself clears close-on-exec too: glibc 2.29, and FreeBSD's process_file_actions_entry. The gaps are
    # filled last: what is 0, 1 or 2 here may be wanted there under another number.
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_DUP2, ours, number) for number, ours in fds.items()
    ]
    for number in {0, 1, 2} - fds.keys():
        actions.append((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY, 0))
    return os.posix_spawn(
        argv[0],
        tuple(argv),
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),  # a blocked signal would be inherited too (contract 8.3)
        setsigdef=_PYTHON_IGNORES if default_signals else (),
    )


def _spawn_popen(
    argv: Sequence[str],
    fds: Mapping[int, int],
    env: Mapping[str, str],
    *,
    account: Account | None,
    default_signals: bool,
) -> int:
    # Popen hands descriptors on under their own number only, and sh can name only those of one digit: they travel as 0 and 1, and
    # a sh that becomes the command puts them where they belong.
    stdio = {number: fds.get(number, subprocess.DEVNULL) for number in (0, 1, 2)}
    moved = [(number, ours) for number, ours in fds.items() if number > 2 and number != ours]
    if moved:
        travels = list(zip((0, 1), moved, strict=False))
        stdio |= {slot: ours for slot, (_, ours) in travels}
        words = [f"{number}<&{slot}" for slot, (number, _) in travels] + ["</dev/null", "1>&2"]
        argv = ["/bin/sh", "-c", f'exec "$@" {" ".join(words)}', "sh", *argv]
    with _unblocked():
        child = subprocess.Popen(
            argv,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            pass_fds=[ours for number, ours in fds.items() if number > 2 and number == ours],
            env=env,
            start_new_session=True,
            restore_signals=default_signals,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else account.groups,
        )
    child.returncode = 0  # ours to reap: otherwise Popen's own clean-up would steal the wait status
    return child.pid


@contextlib.contextmanager
def _moved_clear(fds: Mapping[int, int]) -> Iterator[dict[int, int]]:
    """`fds`, with every descriptor that a dup2 would overwrite before it is used copied out of the way."""
    clear = dict(fds)
    copies: list[int] = []
    try:
        for number, ours in fds.items():
            if ours != number and ours in fds:
                copy = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, max(10, *fds))
                copies.append(copy)
                clear[number] = copy
        yield clear
    finally:
        for copy in copies:
            os.close(copy)


@contextlib.contextmanager
def _unblocked() -> Iterator[None]:
    """No signal is blocked: a fork inherits the mask, and exec keeps it (contract 8.3)."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reap(pid: int) -> int:
    """The wait status of a child whose end has been announced: it is a zombie or about to be, this does not wait for long."""
    return os.waitpid(pid, 0)[1]


def has_ended(pid: int) -> bool:
    """Whether a child is there no more; one that has ended is reaped by that."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def seal_inherited(below: int = 256) -> None:
    """Mark what this process inherited beyond 0, 1, 2 close-on-exec, so that no guest holds it. Called once, at start."""
    for number in range(3, below):
        with contextlib.suppress(OSError):
            os.set_inheritable(number, False)
