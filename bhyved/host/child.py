"""Run one short-lived child to its end: what it prints, how it ends, when its time is up.

Used for host commands (`host.tool`) and the operator's commands (`host.commands`), never for a guest. A flood of output is read and
dropped, a child of the child that keeps a pipe open is not waited for, and a child that survives SIGKILL is reported as stuck.
"""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

import trio

from bhyved.core.errors import Stuck
from bhyved.host.spawn import Account, reap, spawn
from bhyved.host.toolbox import Result, Tools, show
from bhyved.host.watch import Watch, open_watch

OUTPUT_BYTES = 1 << 16  # kept of each of stdout and stderr, the first ones
KILL_S = 2.0  # SIGKILL works in microseconds unless the process sleeps uninterruptibly in the kernel
_CHUNK = 1 << 16
_LAST_READS = 4  # after the end: what the pipe still holds, without following a flooding grandchild for ever


async def run_child(
    tools: Tools,
    argv: Sequence[str],
    *,
    limit_s: float,
    env: Mapping[str, str],
    input: bytes = b"",
    pass_fd: int | None = None,
    account: Account | None = None,
    keep: int = OUTPUT_BYTES,
    tail: bytearray | None = None,
) -> Result | None:
    """The child's end, or None when `limit_s` ran out and it was killed with its process group.

    `tail` gets the last `keep` bytes of both outputs as they came, whatever the end. Raises OSError when it cannot be started, Stuck
    when it does not even die. If the caller is cancelled the child is killed.
    """
    tools.reap_stuck()
    with contextlib.ExitStack() as open_ends:
        streams = _Streams(open_ends, input, keep, tail)
        with contextlib.ExitStack() as childs_ends:
            fds = streams.make_pipes(childs_ends)
            if pass_fd is not None:
                fds[pass_fd] = pass_fd
            pid = spawn(argv, fds, env, account=account)
        try:
            watch = open_watch(pid)
            open_ends.callback(watch.close)
            streams.watched_by(watch)
        except OSError:  # no descriptor left: what nobody can watch must not run
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(pid, signal.SIGKILL)
            reap(pid)
            raise
        return await _see_through(tools, argv, pid, streams, limit_s)


async def _see_through(tools: Tools, argv: Sequence[str], pid: int, streams: "_Streams", limit_s: float) -> Result | None:
    try:
        with trio.move_on_after(limit_s):
            await streams.pump()
            return Result(status=os.waitstatus_to_exitcode(reap(pid)), stdout=bytes(streams.stdout), stderr=bytes(streams.stderr))
    except BaseException:
        with contextlib.suppress(Stuck):  # whoever cancels us wants to go on, not to hear of this
            await _kill(tools, argv, pid, streams)
        raise
    await _kill(tools, argv, pid, streams)
    return None


async def _kill(tools: Tools, argv: Sequence[str], pid: int, streams: "_Streams") -> None:
    """End a child and wait for that, a bounded time. Raises Stuck; such a child is reaped when the kernel has let it go."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with trio.move_on_after(KILL_S, shield=True):
        await streams.pump()
        reap(pid)
        return
    tools.stuck[pid] = show(argv)
    raise Stuck(f"`{show(argv)}` (pid {pid}) is stuck in the kernel")


class _Streams:
    """Our ends of a child's standard streams. They live as long as `open_ends`."""

    def __init__(self, open_ends: contextlib.ExitStack, input: bytes, keep: int, tail: bytearray | None) -> None:
        self._open_ends = open_ends
        self._keep = keep
        self._tail = tail
        self._to_write = memoryview(input)
        self._watch: Watch | None = None
        self._stdin: int | None = None
        self._kept: dict[int, bytearray] = {}
        self.stdout = bytearray()
        self.stderr = bytearray()

    def make_pipes(self, childs_ends: contextlib.ExitStack) -> dict[int, int]:
        """Child's number -> descriptor to give it; those close with `childs_ends`."""
        fds: dict[int, int] = {}
        for number, kept in ((1, self.stdout), (2, self.stderr)):
            if number == 2 and self._tail is not None:
                fds[2] = fds[1]  # of two pipes nobody could say what was written first
                continue
            ours, fds[number] = self._pipe(childs_ends)
            self._kept[ours] = kept
        if self._to_write:
            fds[0], self._stdin = os.pipe()
            childs_ends.callback(os.close, fds[0])
            self._open_ends.callback(self._close_stdin)
            os.set_blocking(self._stdin, False)
        return fds

    def _pipe(self, childs_ends: contextlib.ExitStack) -> tuple[int, int]:
        ours, childs = os.pipe()
        self._open_ends.callback(os.close, ours)
        childs_ends.callback(os.close, childs)
        os.set_blocking(ours, False)
        return ours, childs

    def watched_by(self, watch: Watch) -> None:
        self._watch = watch
        for fd in self._kept:
            watch.watch_read(fd)
        if self._stdin is not None:
            try:
                watch.watch_write(self._stdin)
            except BrokenPipeError:  # FreeBSD's sys_pipe.c, pipe_kqfilter: it has closed its stdin, or ended, by now
                self._close_stdin()

    async def pump(self) -> None:
        """Serve the streams until the child has ended."""
        assert self._watch is not None
        while True:
            await trio.lowlevel.wait_readable(self._watch.fileno())
            ready, ended = self._watch.ready()
            for fd in ready:
                if fd == self._stdin:
                    self._write()
                elif fd in self._kept and not self._read(fd):
                    if not ended:  # else all is closed in a moment
                        self._watch.forget(fd)
                    del self._kept[fd]
            if ended:
                self._drain()
                return

    def _drain(self) -> None:
        for fd in self._kept:
            for _ in range(_LAST_READS):
                if not self._read(fd, until_empty=True):
                    break

    def _read(self, fd: int, *, until_empty: bool = False) -> bool:
        """Take one chunk. False at end-of-file, and with `until_empty` also when there is nothing now."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return not until_empty
        kept = self._kept[fd]
        kept += data[: max(0, self._keep - len(kept))]
        if self._tail is not None:
            self._tail += data
            del self._tail[: -self._keep]
        return bool(data)

    def _write(self) -> None:
        assert self._watch is not None
        assert self._stdin is not None
        try:
            self._to_write = self._to_write[os.write(self._stdin, self._to_write) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the child does not want to know more: its right
            self._to_write = memoryview(b"")
        if not self._to_write:
            self._watch.forget(self._stdin)
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None
