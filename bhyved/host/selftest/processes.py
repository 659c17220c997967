"""How ends are learnt and signals inherited: named pipes, foreign processes, sh (contract 8.1, 8.3, 8.8)."""

import os
import signal
import sys

import trio

from bhyved.host.durable import read_plain
from bhyved.host.keeper import SH, Trace, spawn_keeper
from bhyved.host.liveness import Liveness
from bhyved.host.procwait import wait_gone, wait_pid
from bhyved.host.selftest.bench import ANSWER_S, Bench, Check, Wrong
from bhyved.host.spawn import spawn

_STAYS_S = 0.2
_SLEEP = ("/bin/sleep", "60")
_FOREIGN = 7  # how the process that is no child ends


def _holder(bench: Bench, liveness: Liveness) -> int:
    """A process that holds the writing end, and nothing else."""
    alive = liveness.open_writer()
    try:
        return spawn(_SLEEP, {3: alive}, bench.tools.env())
    finally:
        os.close(alive)


async def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    await wait_pid(pid)


async def _told(liveness: Liveness, limit_s: float) -> bool:
    """Whether a watcher that begins now is told of the end in time."""
    watch = liveness.watch()
    if watch is None:
        raise Wrong("the named pipe cannot be watched")
    try:
        with trio.move_on_after(limit_s):
            await watch.wait_end(lambda data: None)
            return True
        return False
    finally:
        watch.close()


async def _pipe_tells(bench: Bench) -> str:
    liveness = Liveness(f"{bench.directory}/pipe-watched")
    pid = _holder(bench, liveness)
    try:
        if await _told(liveness, _STAYS_S):
            raise Wrong("the end was told while a process held it")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_later, pid)
            if not await _told(liveness, ANSWER_S):
                raise Wrong("the end was not told")
    finally:
        await _reaped(pid)
    return "silent while a process holds it, told when that is killed"


async def _kill_later(pid: int) -> None:
    await trio.sleep(_STAYS_S)
    os.kill(pid, signal.SIGKILL)


async def _reaped(pid: int) -> None:
    with trio.CancelScope(shield=True):
        os.kill(pid, signal.SIGKILL)  # a zombie takes it
        await wait_pid(pid)


async def _pipe_tells_late_comers(bench: Bench) -> str:
    liveness = Liveness(f"{bench.directory}/pipe-late")
    await _kill(_holder(bench, liveness))
    if not await _told(liveness, ANSWER_S):
        raise Wrong("a watcher that came afterwards was not told")
    return "told at once"


async def _foreign_end(bench: Bench) -> str:
    path = f"{bench.directory}/foreign"
    script = '(sleep 0.3; exit "$1") & echo "$!" >"$0"'
    parent = spawn((SH, "-c", script, path, str(_FOREIGN)), {}, bench.tools.env())
    await wait_pid(parent)
    pid = int(read_plain(path))
    with trio.move_on_after(ANSWER_S):
        status = await wait_gone(pid, lambda: True)
        if status is None and not sys.platform.startswith("freebsd"):
            return "told; statuses are FreeBSD's"
        if status is None or os.waitstatus_to_exitcode(status) != _FOREIGN:
            raise Wrong(f"told with wait status {status}, not exit status {_FOREIGN}")
        return f"told, with exit status {_FOREIGN}"
    raise Wrong("the end of a process that is no child was not told")


async def _ignored_is_inherited(bench: Bench) -> str:
    script = """trap "" TERM; exec "$0" -c 'kill -TERM "$$"; exit 0'"""
    status = await wait_pid(spawn((SH, "-c", script, SH), {}, bench.tools.env()))
    if status != 0:
        raise Wrong(f"the process died of it: wait status {status:#x}")
    return "SIGTERM did nothing"


async def _keeper_writes(bench: Bench) -> str:
    trace = Trace(bench.directory, "keeper-")
    trace.allocate(0.0, 0)
    liveness = Liveness(f"{bench.directory}/keeper-alive")
    alive, log = liveness.open_writer(), os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        keeper = spawn_keeper(_SLEEP, trace, alive=alive, log=log, consoles=(), env=bench.tools.env(), ignore_term=True)
    finally:
        os.close(alive)
        os.close(log)
    with trio.move_on_after(ANSWER_S):
        while (pid := trace.pid()) is None:  # noqa: ASYNC110 - the keeper writes a file, and nobody can wait for that
            await trio.sleep(0.01)
        os.kill(keeper, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        if await _told(liveness, _STAYS_S):
            raise Wrong("SIGTERM ended keeper or child")
        os.kill(pid, signal.SIGKILL)
        await wait_pid(keeper)
        end = trace.end()
        if end is None or end.status != 128 + signal.SIGKILL:
            raise Wrong(f"it wrote {end}")
        return f"it outlives SIGTERM and writes {end.status} for a killed child"
    raise Wrong("it wrote no pid, or did not end")


CHECKS = {
    "processes": (
        Check("8.8", "a named pipe tells a daemon that watches when its last holder has gone", _pipe_tells),
        Check("8.8", "and one that comes afterwards, when no daemon was there", _pipe_tells_late_comers),
        Check("8.1", "kqueue tells the end of a process that is no child, with its status", _foreign_end),
        Check("8.3", "an ignored SIGTERM is inherited across exec", _ignored_is_inherited),
        Check("8.8", "the keeper writes down how its child ended", _keeper_writes),
    )
}
