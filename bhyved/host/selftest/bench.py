"""What the checks of the selftest work with: the host's tools, a directory, and guests under a real keeper."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from bhyved.core.assigned import nmdm_path
from bhyved.core.errors import HostError
from bhyved.core.selfcheck import GUEST
from bhyved.core.spec import Paths
from bhyved.host import selfguest
from bhyved.host.keeper import Trace, spawn_keeper
from bhyved.host.liveness import Liveness
from bhyved.host.processes import Processes, has_title
from bhyved.host.selftest.needs import Needs
from bhyved.host.spawn import reap
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Result, Tools
from bhyved.host.tty import Line, open_tty
from bhyved.host.vmm import Vmm
from bhyved.threads import in_thread

ANSWER_S = 10.0  # of a guest that starts, echoes or ends in a tenth of a second on an idle host
AGAIN_S = 2.0  # where a guest has not answered once, the next one is not given as long
NOTHING: Mapping[str, str] = {}
_CHUNK = 4096
_LOOK_S = 0.05  # between looks at ps, which tells nobody of a new title


class Wrong(Exception):  # noqa: N818 - what was seen is not what should be
    """The host does not do what is taken for granted; the sentence says what it did."""


@dataclass(frozen=True)
class Check:
    """One thing that is taken for granted. `try_it` returns what it saw. Raises Wrong, NotHere, HostError."""

    section: str  # of the notes on bhyve's behaviour: the contract
    title: str
    try_it: Callable[["Bench"], Awaitable[str]]


class Patience:
    """For how long an answer is waited for."""

    seconds = ANSWER_S

    def is_out(self) -> None:
        """There was none."""
        self.seconds = AGAIN_S


class Guest:
    """One run of the selftest's guest."""

    def __init__(self, directory: str, line: Line, keeper: int, liveness: Liveness, patience: Patience) -> None:
        self.trace = Trace(directory)
        self._log = f"{directory}/log"
        self._line = line
        self._keeper = keeper
        self._liveness = liveness
        self._patience = patience
        self._ended = False
        self.printed = b""

    async def booted(self) -> "Guest":
        """Wait for its first word."""
        await self._until(lambda: self.printed != b"", "it printed nothing")
        return self

    async def type(self, word: str) -> None:
        """Type a line and wait for its echo, the end of the line included."""
        before = len(self.printed)
        self._line.write(f"{word}\n".encode())
        await self._until(lambda: f"{word}\r\n".encode() in self.printed[before:], f'it did not echo "{word}"')

    def say(self, word: str) -> None:
        """Type a line that ends it."""
        self._line.write(f"{word}\n".encode())

    async def _until(self, claim: Callable[[], bool], complaint: str) -> None:
        limit_s = self._patience.seconds
        with trio.move_on_after(limit_s) as overdue:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_end, nursery.cancel_scope)
                while not claim():
                    await trio.lowlevel.wait_readable(self._line.fd)
                    self.printed += self._line.read(_CHUNK) or b""
                nursery.cancel_scope.cancel()
        if claim():
            return
        if not overdue.cancelled_caught:
            raise Wrong(f"{complaint}, and bhyve has ended with {await self.end()}: {self.said}")
        self._patience.is_out()
        raise Wrong(f"{complaint} within {limit_s:g} s; bhyve runs: {self.said}")

    async def _cancel_at_end(self, scope: trio.CancelScope) -> None:
        """Whoever waits for a guest's word need not wait when bhyve has ended. What it printed last is on the line by then."""
        await self._gone(float("inf"))
        self.printed += self._line.read(_CHUNK) or b""
        scope.cancel()

    @property
    def pid(self) -> int:
        """bhyve's own."""
        pid = self.trace.pid()
        if pid is None:
            raise Wrong(f"its pid was not written down: {self.said}")
        return pid

    @property
    def said(self) -> str:
        """What bhyve has printed, on one line."""
        try:
            with open(self._log, encoding="utf-8", errors="replace") as log:
                return "; ".join(line.strip() for line in log if line.strip()) or "it said nothing"
        except OSError:
            return "it said nothing"

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def _gone(self, limit_s: float) -> bool:
        """Wait until neither keeper nor bhyve is there; False: they were when the time was up."""
        return not await self._liveness.is_held_still(limit_s)

    async def end(self, limit_s: float | None = None) -> int | None:
        """The shell's status of its end; None: it runs on."""
        if not await self._gone(self._patience.seconds if limit_s is None else limit_s):
            if limit_s is None:
                self._patience.is_out()
            return None
        if not self._ended:
            self._ended = True
            reap(self._keeper)
        end = self.trace.end()
        if end is None:
            raise Wrong("its keeper has ended and did not write down how bhyve ended")
        return end.status

    async def close(self) -> None:
        """Nothing of it runs any more."""
        if not self._ended:
            pid = self.trace.pid()
            for victim in (pid, None if pid else self._keeper):
                if victim is not None and await self.end(0.0) is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
            await self.end(ANSWER_S)
        await in_thread(self._line.close)


class Bench:
    """The host under test."""

    def __init__(self, paths: Paths, tools: Tools, directory: str) -> None:
        self.tools = tools
        self.dev = str(paths.dev)
        self.vmm = Vmm(self.dev, tools)
        self.processes = Processes(tools)
        self.directory = directory
        self.needs = Needs(tools, self.vmm, self.side_b)
        self._runs = 0
        self._patience = Patience()

    @property
    def side_a(self) -> str:
        """bhyve's end of the console."""
        return nmdm_path(GUEST, "com1", self.dev)

    @property
    def side_b(self) -> str:
        """Ours."""
        return f"{self.side_a[:-1]}B"

    async def tool(self, *argv: str) -> Result:
        """One host command, whatever its status."""
        return await run_tool(self.tools, argv, ok=None)

    @contextlib.asynccontextmanager
    async def guest(self, variables: Mapping[str, str] = NOTHING, *, ignore_term: bool = True, fresh: bool = True) -> AsyncIterator[Guest]:
        """The guest, started, with `variables` over its own; an empty value leaves one out. `fresh`: on a new node. Raises NotHere."""
        await self.needs.guests()
        await self.needs.pair()
        if fresh:
            await self.needs.fresh_node()
        guest = self._start(variables, ignore_term=ignore_term)
        try:
            yield guest
        finally:
            with trio.CancelScope(shield=True):
                await guest.close()

    def _start(self, variables: Mapping[str, str], *, ignore_term: bool) -> Guest:
        self._runs += 1
        directory = f"{self.directory}/{self._runs}"
        os.mkdir(directory, 0o700)
        conf = f"{directory}/bhyve.conf"
        with open(conf, "w", encoding="utf-8") as file:
            file.write("".join(f"{name}={value}\n" for name, value in self._tree(variables).items() if value))
        liveness = Liveness(f"{directory}/alive")
        trace = Trace(directory)
        trace.allocate(0.0, 0)
        line = open_tty(self.side_b)
        with contextlib.ExitStack() as ours:
            alive = liveness.open_writer()
            ours.callback(os.close, alive)
            log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            ours.callback(os.close, log)
            argv = (self.tools.path("bhyve"), "-k", conf, GUEST)
            keeper = spawn_keeper(argv, trace, alive=alive, log=log, consoles=(), env=self.tools.env(), ignore_term=ignore_term)
        return Guest(directory, line, keeper, liveness, self._patience)

    def _tree(self, variables: Mapping[str, str]) -> dict[str, str]:
        rom = str(selfguest.ROM)
        tree = {"cpus": "1", "memory.size": "16M", "acpi_tables": "true", "x86.vmexit_on_hlt": "true", "bootrom": rom, "lpc.bootrom": rom}
        tree |= {"pci.0.0.0.device": "hostbridge", "pci.0.31.0.device": "lpc", "lpc.com1.path": self.side_a}
        return {**tree, **variables}

    async def titled(self, guest: Guest) -> bool:
        """Whether ps shows the guest's name as its title, within a moment."""
        with trio.move_on_after(self._patience.seconds):
            while await guest.end(_LOOK_S) is None:
                seen = await self.processes.look_soon()
                if has_title(seen.commands.get(guest.pid, ""), GUEST):
                    return True
            return False
        self._patience.is_out()
        return False

    async def clear(self) -> str:
        """Take the selftest's node away. Raises HostError."""
        if GUEST in (await self.processes.look_soon()).guests:
            raise HostError(f"a bhyve of the guest {GUEST} still runs")
        if self.needs.kept is not None and self.vmm.exists(GUEST):
            raise HostError(self.needs.kept)
        await self.vmm.destroy(GUEST)
        return "no process, no node"
