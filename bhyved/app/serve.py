"""The whole life of a daemon, as `cli.daemon` starts it.

What must be right before anything else happens (directories, lock, host facts) is done before the loop, and ends it with one sentence.
"""

import os
import sys
from functools import partial

import trio

from bhyved.app.daemon import Daemon, Life
from bhyved.core.errors import HostError
from bhyved.daemon import log
from bhyved.daemon.loopwatch import LoopWatch
from bhyved.host.facts import read_facts
from bhyved.host.hostlock import HostLock, make_directories, state_directories
from bhyved.host.spawn import seal_inherited
from bhyved.host.toolbox import Tools


def serve(life: Life) -> int:
    """From start to end; the exit status. Raises HostError where it cannot even begin."""
    log.set_up(life.spec.log, is_tty=sys.stderr.isatty())
    seal_inherited()
    os.umask(0o077)
    os.chdir("/")
    paths = life.spec.paths
    make_directories(state_directories(paths.run, paths.db, paths.log))
    lock = HostLock.take(paths.run)
    try:
        tools = Tools(bin=tuple(map(str, paths.bin)))
        loop = LoopWatch()
        return trio.run(partial(Daemon(life, tools, read_facts(tools), loop).run), instruments=[loop])
    except BaseExceptionGroup as group:
        error = _first(group)
        if isinstance(error, HostError):
            raise error from None  # a sentence for the operator, not a traceback
        raise
    finally:
        lock.release()


def _first(error: BaseException) -> BaseException:
    """What nurseries have wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
