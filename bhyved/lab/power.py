"""Power on and off: what begins and ends a boot of the lab. `lab.foreground` calls it, before and after the daemon.

Processes of a lab are found by what they are (a launcher's path, a lock), never by a pid that somebody wrote down once.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bhyved.host.spawn import spawn
from bhyved.lab import layout, links, namespace
from bhyved.lab.host import HostLock
from bhyved.lab.processes import LASTING, Process, processes

READY_S = 20.0  # its imports are the most of it: half a second on an idle machine
END_S = 10.0
_LOOK_S = 0.01


def on(root: Path) -> None:
    """Have a lab host. If there was none, this is a new boot: guests of the one before are gone. Raises OSError, TimeoutError.

    Where the network is real, this process is in the lab's namespace afterwards, and so is whatever it starts.
    """
    lock = HostLock(root)
    is_real = layout.network(root) == "real"
    if lock.holder() is not None:
        if is_real:
            namespace.enter(str(root))
        return
    end_guests(root)
    if is_real:
        namespace.make(str(root))
        links.wake_loopback()
    layout.boot(root)
    ready, inherited = os.pipe()
    log = os.open(root / "log" / "labhost.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        spawn((sys.executable, "-m", "bhyved.lab.host", str(root)), {1: inherited, 2: log}, os.environ)
    finally:
        os.close(inherited)
        os.close(log)
    try:
        if not select.select([ready], [], [], READY_S)[0] or not os.read(ready, 16):
            raise TimeoutError(f"the lab host did not start; see {root}/log/labhost.log")
    finally:
        os.close(ready)


def off(root: Path) -> None:
    """End what is left of the boot, which takes at most END_S for each. Raises TimeoutError."""
    end_guests(root)
    lock = HostLock(root)
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = lock.holder()
        if pid is None:
            break
        _signal(pid, number)
        _wait_until(lambda: lock.holder() is None)
    if lock.holder() is not None:
        raise TimeoutError(f"the lab host (pid {lock.holder()}) does not end")
    namespace.forget(str(root))
    layout.clear(root)


def end_guests(root: Path) -> None:
    """Kill every bhyve and loader of this lab, with its keeper. Raises TimeoutError."""
    deadline = time.monotonic() + END_S
    while left := [process.pid for process in of(root)]:
        for pid in left:
            _signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"these processes of the lab do not end: {', '.join(map(str, left))}")
        time.sleep(_LOOK_S)


def of(root: Path) -> Iterator[Process]:
    """The guests' processes: stand-ins that stay, their keepers, their TPMs."""
    programs = {f"{root}/bin/{name}" for name in LASTING}
    for process in processes():
        argv = process.argv
        name = os.path.basename(argv[0]) if argv else ""
        keeper = argv[1:2] == ["-c"] and not programs.isdisjoint(argv[3:])
        tpm = name == "swtpm" and any(f"path={root}/run/" in word for word in argv)
        if process.uid == os.geteuid() and (process.stand_in in programs or keeper or tpm):
            yield process


def _wait_until(claim: Callable[[], bool]) -> None:
    """For at most END_S; a lock tells nobody when it is let go."""
    deadline = time.monotonic() + END_S
    while not claim() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
