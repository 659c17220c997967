"""One guest's side of the host: satisfies `daemon.ports.Machine`.

A run is a ledger, a keeper and a FIFO, so a run that an earlier daemon began is watched, pressed and cleaned by the same code as one of
our own. Here are the processes of a run; what a start takes of the host is `host.prepare`'s. At most one task watches; `press`, `kill`
and `title_is_set` may block for a look at the process table and are for threads.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import trio

from bhyved.core.errors import HostError, Stuck
from bhyved.core.exits import Outcome, Stage
from bhyved.core.handover import Found, Order, Prepared
from bhyved.core.loader import LoaderCall
from bhyved.host.hostlock import make_directory
from bhyved.host.keeper import Trace, spawn_keeper
from bhyved.host.ledger import Ledger
from bhyved.host.liveness import Liveness, Watch
from bhyved.host.prepare import Preparation
from bhyved.host.processes import has_title
from bhyved.host.procwait import wait_gone
from bhyved.host.runlog import RunLog
from bhyved.host.site import Site
from bhyved.host.spawn import reap
from bhyved.host.stalesocket import unlink_socket
from bhyved.host.swtpm import Swtpm

_TITLE_AGE_S = 0.05  # guests that come up together share a look
_IDENTITY_AGE_S = 1.0  # a pid does not change hands so fast: pids go round
_PS_PAUSE_S = 5.0  # until the process table is asked again, when it could not be
_NODE_TELLS = (1, 4)  # statuses whose meaning depends on the node (contract 1.7.6)


class GuestMachine:
    """See `daemon.ports.Machine`."""

    def __init__(self, site: Site, name: str) -> None:
        self._site, self._name = site, name
        directory = site.directory(name)
        self._directory, self._conf = directory, site.conf(name)
        self._liveness = Liveness(f"{directory}/alive")
        self._traces = {Stage.LOADING: Trace(directory, "loader."), Stage.RUNNING: Trace(directory)}
        self._log = RunLog(f"{site.log}/{name}.bhyve.log")
        self._swtpm = Swtpm(site.tools, site.processes, f"{site.db}/tpm/{name}", f"{directory}/tpm.sock")
        self._stage = Stage.PREPARING
        self._loader: LoaderCall | None = None
        self._alive: int | None = None  # our copy of the FIFO's writing end, from `prepare` to the spawn
        self._watch: Watch | None = None
        self._keeper: int | None = None  # our child, not yet reaped
        self._pid: int | None = None
        self._is_over = True
        self._kill_asked = False  # before the pid was known
        self._log_from = 0
        self._saw_end = False  # the last run ended under our eyes: nobody else's bhyve can have come between

    @property
    def _ledger(self) -> Ledger | None:
        return self._site.ledgers.get(self._name)

    # --- a run of an earlier daemon ------------------------------------------------------------------------------------------

    def find(self) -> Found | None:
        """The run an earlier daemon left. A ledger that cannot be read is no reason to lose a guest that lives."""
        ledger = self._ledger
        watch = self._liveness.watch()
        is_held = watch is not None and watch.is_held()
        if ledger is None and not is_held and not (self._site.ledgers.problem(self._name) and self._search() is not None):
            if watch is not None:
                watch.close()
            return None
        self._let_go()
        self._watch = watch
        self._stage = self._stage_found(is_held=is_held, may_live=is_held or watch is None)
        self._is_over = False
        self._pid = self._trace_pid() or (self._search(_IDENTITY_AGE_S) if is_held else None)
        self._log_from = ledger.log_from if ledger else self._log.size()
        trace = self._traces.get(self._stage)
        begin = trace.begin() if trace is not None else None
        started, started_at = (begin.monotonic, begin.at) if begin is not None else (None, None)
        found = Found(run="", by="", stage=self._stage, spec=None, pid=self._pid, started=started, started_at=started_at)
        if ledger is None:
            return found
        return msgspec.structs.replace(
            found,
            run=ledger.run,
            by=ledger.by,
            spec=ledger.started_spec(),
            taps=tuple(tap.name for tap in ledger.taps.values()),
            vnc=ledger.vnc,
            install=ledger.install,
        )

    def _stage_found(self, *, is_held: bool, may_live: bool) -> Stage:
        """How far the run has come, by the files of its keepers."""
        for stage in (Stage.RUNNING, Stage.LOADING):
            trace = self._traces[stage]
            # Blank files and nobody at work: the daemon was killed before it could spawn the keeper.
            if trace.exists() and (is_held or trace.pid() is not None or trace.end() is not None):
                return stage
        return Stage.RUNNING if may_live and self._search(_IDENTITY_AGE_S) is not None else Stage.PREPARING

    def _search(self, max_age_s: float = 0.0) -> int | None:
        """The guest's process by what ps shows, where nothing else tells."""
        try:
            return self._site.processes.look(max_age_s).guests.get(self._name)
        except HostError:
            return None

    # --- a start -------------------------------------------------------------------------------------------------------------

    async def prepare(self, order: Order) -> Prepared:
        """See `daemon.ports.Machine.prepare`."""
        problem = self._site.ledgers.problem(self._name)
        if problem is not None and problem.fatal:
            raise problem
        make_directory(self._directory, 0o700)
        self._let_go()
        self._refuse_held()
        for trace in self._traces.values():
            trace.remove()
        self._stage, self._is_over, self._pid, self._loader = Stage.PREPARING, True, None, None
        self._log.rotate()
        self._log_from = self._log.size()
        after_own, self._saw_end = self._saw_end and not order.first, False
        self._alive = self._liveness.open_writer()
        preparation = Preparation(self._site, order, self._log, self._swtpm, self._alive)
        try:
            prepared, self._loader = await preparation.make(after_own=after_own)
        except BaseException:
            self._let_go()
            raise
        return prepared

    def _refuse_held(self) -> None:
        """Nothing is changed under somebody who still works for the guest. Raises Stuck."""
        if not self._liveness.is_held():
            return
        words = (self._name, *(tap.name for tap in self._ledger.taps.values())) if self._ledger else (self._name,)
        stuck = {pid: command for pid, command in self._site.tools.stuck.items() if any(word in command for word in words)}
        what = ", ".join(f"`{command}` (pid {pid}), which is stuck in the kernel," for pid, command in stuck.items())
        pid = self._search()
        if pid is not None:
            what = f"its bhyve (pid {pid})"
        raise Stuck(f"{what or 'a process'} still works for {self._name}: {self._liveness.path} is held open")

    def spawn_loader(self, consoles: Sequence[int]) -> None:
        """See `daemon.ports.Machine.spawn_loader`."""
        if self._loader is None:
            raise HostError(f"{self._name} has no loader, or was not prepared")
        tool, *words = self._loader.argv
        self._spawn(Stage.LOADING, (self._site.tools.path(tool), *words), consoles)

    def spawn_bhyve(self, consoles: Sequence[int]) -> None:
        """See `daemon.ports.Machine.spawn_bhyve`."""
        ledger = self._ledger
        resume = ("-r", ledger.resume) if ledger and ledger.resume else ()
        self._spawn(Stage.RUNNING, (self._site.tools.path("bhyve"), "-k", self._conf, *resume, self._name), consoles)

    def _spawn(self, stage: Stage, argv: Sequence[str], consoles: Sequence[int]) -> None:
        ledger = self._ledger
        if ledger is None:
            raise HostError(f"{self._name} was not prepared")
        trace, spec = self._traces[stage], ledger.started_spec()
        alive, self._alive = self._alive, None
        with contextlib.ExitStack() as ours:
            if alive is None:  # the loader's stage had it
                alive = self._liveness.open_writer()
            ours.callback(os.close, alive)
            log = self._log.open()
            ours.callback(os.close, log)
            self._close_watch()
            self._watch = self._liveness.watch()
            if self._watch is None:
                raise HostError(f"{self._liveness.path} has been removed")
            trace.allocate(time.monotonic(), self._log.size())
            self._keeper = spawn_keeper(
                argv,
                trace,
                alive=alive,
                log=log,
                consoles=consoles,
                env=self._site.tools.env(),
                ignore_term=spec is None or spec.stop.ignore_early_term,
            )
        self._stage, self._is_over, self._pid, self._kill_asked = stage, False, None, False

    # --- its end -------------------------------------------------------------------------------------------------------------

    async def watch(self, started: Callable[[int], None]) -> Outcome:
        """See `daemon.ports.Machine.watch`. Cancelled, it leaves everything as it is."""
        told = False
        heard = b""

        def look() -> None:
            nonlocal told
            self._pid = self._trace_pid() or _told_pid(heard) or self._pid
            if self._pid is not None and not told:
                told = True
                started(self._pid)

        def hear(data: bytes) -> None:
            nonlocal heard
            heard = (heard + data)[-64:]  # a line may come in pieces
            look()
            if self._kill_asked and self._pid is not None and self._keeper_lives():
                self._kill_asked = False
                with contextlib.suppress(HostError):
                    _send(self._pid, signal.SIGKILL)

        look()
        if self._watch is not None:
            await self._watch.wait_end(hear)
        look()
        await self._outlive_fifo()
        self._is_over = self._saw_end = True
        self._reap()
        return self._outcome()

    async def _outlive_fifo(self) -> None:
        """Nobody holds the FIFO, and nobody has written down an end: was the FIFO removed, or made anew, under a guest that lives?"""
        trace = self._traces.get(self._stage)
        while trace is not None and trace.end() is None:
            try:
                seen = await self._site.processes.look_soon()
            except HostError:  # no processes to be had: until that is known the guest lives
                await trio.sleep(_PS_PAUSE_S)
                continue
            pid = self._pid
            if pid is None or not seen.is_guest(pid, self._name):
                pid = seen.guests.get(self._name)
            if pid is None:
                return
            self._pid = pid
            await wait_gone(pid, lambda pid=pid: self._is_guest(pid))  # type: ignore[misc]

    def _is_guest(self, pid: int) -> bool:
        return self._site.processes.look().is_guest(pid, self._name)

    def _reap(self) -> None:
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            with contextlib.suppress(ChildProcessError):
                reap(keeper)

    def _outcome(self) -> Outcome:
        trace = self._traces.get(self._stage)
        end = trace.end() if trace is not None else None
        node_present = None
        if self._stage is Stage.RUNNING and end is not None and end.status in _NODE_TELLS:
            with contextlib.suppress(HostError):
                node_present = self._site.vmm.exists(self._name)
        begin = trace.begin() if trace is not None else None
        return Outcome(
            stage=self._stage,
            status=end.status if end is not None else None,
            pid=self._pid,
            stderr=self._log.since(begin.log_from) if begin is not None else "",
            node_present=node_present,
            at=end.at if end is not None else None,
        )

    def _trace_pid(self) -> int | None:
        trace = self._traces.get(self._stage)
        return trace.pid() if trace is not None else None

    # --- while it runs -------------------------------------------------------------------------------------------------------

    async def title_is_set(self) -> bool:
        """See `daemon.ports.Machine.title_is_set`."""
        if self._pid is None or self._is_over:
            return False
        try:
            seen = await self._site.processes.look_soon(_TITLE_AGE_S)
        except HostError:
            return False
        return self._pid is not None and has_title(seen.commands.get(self._pid, ""), self._name)

    async def press(self) -> None:
        """See `daemon.ports.Machine.press`."""
        await self._signal(signal.SIGTERM)

    async def kill(self) -> None:
        """See `daemon.ports.Machine.kill`. What has no pid yet is killed when it has one."""
        self._kill_asked = not self._is_over
        await self._signal(signal.SIGKILL)

    async def _signal(self, number: signal.Signals) -> None:
        pid = await self._target()
        if pid is not None:
            _send(pid, number)

    async def _target(self) -> int | None:
        """The pid of the loader or of bhyve, if it is certain that it still is: pids are used again (contract 11.4)."""
        trace = self._traces.get(self._stage)
        if self._is_over or trace is None or trace.end() is not None:
            return None
        pid = self._pid or trace.pid()
        if pid is not None and self._keeper_lives():
            return pid  # not reaped yet: it is its keeper's, who writes the end down in the same breath
        for age_s in (_IDENTITY_AGE_S, 0.0):  # what is younger than the last look is not in it
            seen = await self._site.processes.look_soon(age_s)
            found = pid if pid is not None and seen.is_guest(pid, self._name) else seen.guests.get(self._name)
            if found is not None:
                return found
        return None

    def _keeper_lives(self) -> bool:
        keeper = self._keeper
        if keeper is None:
            return False
        try:
            return os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    async def force(self, how: str) -> None:
        """See `daemon.ports.Machine.force`."""
        with self._at_work() as alive:
            await self._site.vmm.force(self._name, how, pass_fd=alive)

    async def inject_nmi(self) -> None:
        """See `daemon.ports.Machine.inject_nmi`."""
        with self._at_work() as alive:
            await self._site.vmm.inject_nmi(self._name, pass_fd=alive)

    def stderr_tail(self, lines: int) -> str:
        """See `daemon.ports.Machine.stderr_tail`."""
        return "\n".join(self._log.since(self._log_from).splitlines()[-lines:]) if lines > 0 else ""

    # --- afterwards ----------------------------------------------------------------------------------------------------------

    async def clean(self, *, final: bool) -> None:
        """See `daemon.ports.Machine.clean`. What an immediate restart keeps is in the ledger, and its `prepare` deals with it."""
        self._let_go()
        ledger = self._ledger
        if ledger is None:
            return  # nothing was taken: the start was refused, or everything has been given back
        self._refuse_held()
        for trace in self._traces.values():
            trace.remove()  # this end has been told: a daemon that comes now finds a start that was interrupted
        if ledger.tpm:
            await self._swtpm.end()
        if final:
            with self._at_work() as alive:
                await self._give_back(ledger, alive)

    async def _give_back(self, ledger: Ledger, alive: int) -> None:
        site = self._site
        await site.vmm.destroy(self._name, pass_fd=alive)
        for tap in (*ledger.taps.values(), *ledger.leftover):
            await site.taps.destroy(tap.name, tap.description, pass_fd=alive)
        for path in ledger.sockets:
            unlink_socket(path)
        shutil.rmtree(site.loader_directory(self._name), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._conf)
        site.ledgers.drop(self._name)
        self._liveness.remove()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[int]:
        """A copy of the FIFO's writing end, for a host command to inherit."""
        alive = self._liveness.open_writer()
        try:
            yield alive
        finally:
            os.close(alive)

    def _let_go(self) -> None:
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None
        self._close_watch()

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except OSError as error:
        raise HostError(f"process {pid} could not be sent {number.name}: {(error.strerror or '').lower()}") from None


def _told_pid(heard: bytes) -> int | None:
    """The N of a whole line `pid N`."""
    for line in heard.split(b"\n")[:-1]:
        word, _, number = line.partition(b" ")
        if word == b"pid" and number.isdigit():
            return int(number)
    return None
