"""swtpm(8): an emulated TPM, started for each run and ended with it (contract 3.4).

It does not hold the guest's liveness FIFO: it serves the guest and says nothing about it. Whoever finds it by its socket, which is in
the ledger, may end it. Its state, the guest's keys, is in DB/tpm/NAME and stays.
"""

import contextlib
import os
import signal

import trio

from bhyved.core.errors import HostError
from bhyved.host.hostlock import make_directory
from bhyved.host.processes import Processes
from bhyved.host.spawn import has_ended, spawn
from bhyved.host.stalesocket import unlink_socket
from bhyved.host.toolbox import Tools, not_run

_START_S = 10.0  # making the keys of a new TPM takes about a second
_END_S = 2.0
_LOOKS_S = (0.002, 0.005, 0.01, 0.02, 0.05)  # then the last again: it tells nobody when its socket is there


class Swtpm:
    """The TPM of one guest."""

    def __init__(self, tools: Tools, processes: Processes, state: str, socket: str) -> None:
        self.socket = socket
        self._tools, self._processes, self._state = tools, processes, state
        self._pid: int | None = None

    async def start(self, log: int) -> None:
        """Return when it listens. Raises HostError."""
        make_directory(self._state, 0o700)
        unlink_socket(self.socket)
        argv = ["swtpm", "socket", "--tpm2", "--terminate", "--server", f"type=unixio,path={self.socket},mode=0600"]
        # bhyve has no control channel to it, so nobody would tell it to begin.
        argv += ["--tpmstate", f"dir={self._state}", "--flags", "not-need-init"]
        try:
            self._pid = spawn((self._tools.path(argv[0]), *argv[1:]), {1: log, 2: log}, self._tools.env())
        except OSError as error:
            raise HostError(not_run(argv, error)) from None
        with trio.move_on_after(_START_S):
            for look in range(1 << 20):
                if self._listens():
                    return
                if self._reaped():
                    raise HostError("swtpm ended at once; what it said is in the guest's bhyve log")
                await trio.sleep(_LOOKS_S[min(look, len(_LOOKS_S) - 1)])
        await self.end()
        raise HostError(f"swtpm did not listen within {_START_S:g} s")

    async def end(self) -> None:
        """End it, whoever started it, and remove its socket. Raises HostError."""
        pid = self._pid
        if pid is None:
            found = await self._processes.look_soon()
            pid = next((pid for pid, command in found.commands.items() if f"path={self.socket}," in command), None)
        if pid is not None:
            await self._end(pid)
        unlink_socket(self.socket)

    async def _end(self, pid: int) -> None:
        for sent in (signal.SIGTERM, signal.SIGKILL):  # TERM: it finishes what it writes
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
            with trio.move_on_after(_END_S):
                look = 0
                while not self._gone(pid):
                    await trio.sleep(_LOOKS_S[min(look, len(_LOOKS_S) - 1)])
                    look += 1
                return
        raise HostError(f"swtpm (pid {pid}) does not end")

    def _listens(self) -> bool:
        return os.path.exists(self.socket)

    def _gone(self, pid: int) -> bool:
        if pid == self._pid:
            return self._reaped()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _reaped(self) -> bool:
        """Whether our child has ended; no zombie stays."""
        if self._pid is not None and has_ended(self._pid):
            self._pid = None
        return self._pid is None
