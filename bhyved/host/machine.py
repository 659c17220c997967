"""One guest's side of the host: satisfies `daemon.ports.Machine`.

A run is a ledger, a keeper and a FIFO, so a run that an earlier daemon began is watched, pressed and cleaned by the same code as one of
our own. What a start takes of the host is `host.prepare`'s, who gets a signal `host.guestprocess`'s. At most one task watches.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import trio

from bhyved.core.errors import HostError, Stuck
from bhyved.core.exits import Outcome, Stage
from bhyved.core.handover import Found, Order, Prepared
from bhyved.core.limits import Limits
from bhyved.core.loader import LoaderCall
from bhyved.core.spec import VmSpec
from bhyved.core.status import Suspension
from bhyved.host import limiting
from bhyved.host.durable import remove
from bhyved.host.guestprocess import GuestProcess
from bhyved.host.hostlock import make_directory
from bhyved.host.keeper import Trace, spawn_keeper
from bhyved.host.ledger import Ledger
from bhyved.host.liveness import Liveness, Watch
from bhyved.host.prepare import Preparation
from bhyved.host.procwait import wait_gone
from bhyved.host.runlog import RunLog
from bhyved.host.site import Site
from bhyved.host.stalesocket import unlink_socket
from bhyved.host.statefiles import StateFiles
from bhyved.host.suspending import SUSPEND_ENDS, Suspending
from bhyved.host.swtpm import Swtpm
from bhyved.host.usage import vcpus
from bhyved.threads import in_thread

_PS_PAUSE_S = 5.0  # until the process table is asked again, when it could not be
_HELD_S = 2.0  # for a process that is just ending; one in the kernel's hands takes longer
_NODE_TELLS = (1, 4)  # statuses whose meaning depends on the node (contract 1.7.6)


class GuestMachine:
    """See `daemon.ports.Machine`."""

    def __init__(self, site: Site, name: str) -> None:
        self._site, self._name = site, name
        self._directory = site.directory(name)
        self._liveness = Liveness(f"{self._directory}/alive")
        self._states = StateFiles(f"{site.db}/suspend/{name}")
        self._traces = {Stage.LOADING: Trace(self._directory, "loader."), Stage.RUNNING: Trace(self._directory)}
        self._process = GuestProcess(name, site.processes)
        self._log = RunLog(f"{site.log}/{name}.bhyve.log")
        self._swtpm = Swtpm(site.tools, site.processes, f"{site.db}/tpm/{name}", f"{self._directory}/tpm.sock")
        self._suspending = Suspending(site, name, self._states, self._log)
        self._loader: LoaderCall | None = None
        self._ignores_term = True
        self._alive: int | None = None  # our copy of the FIFO's writing end, from `prepare` to the spawn
        self._watch: Watch | None = None
        self._saw_end = False  # the last run ended under our eyes: nobody else's bhyve can have come between

    @property
    def _ledger(self) -> Ledger | None:
        return self._site.ledgers.get(self._name)

    # --- a run of an earlier daemon ------------------------------------------------------------------------------------------

    def find(self) -> Found | None:
        """The run an earlier daemon left. A ledger that cannot be read is no reason to lose a guest that lives. Raises HostError."""
        ledger = self._ledger
        watch = self._liveness.watch()
        is_held = watch is not None and watch.is_held()
        if ledger is None and not is_held and not (self._site.ledgers.problem(self._name) and self._process.search() is not None):
            if watch is not None:  # of a start that had got no further
                watch.close()
                self._liveness.remove()
            return None
        self._let_go()
        self._watch = watch
        stage = self._stage_found(is_held=is_held, may_live=is_held or watch is None)
        trace = self._traces.get(stage)
        self._process.begins(stage, trace)
        if self._process.learn() is None and is_held:
            self._process.pid = self._process.search()
        begin = trace.begin() if trace is not None else None
        started, started_at = (begin.monotonic, begin.at) if begin is not None else (None, None)
        found = Found(run="", by="", stage=stage, spec=None, pid=self._process.pid, started=started, started_at=started_at)
        if ledger is None:
            return found
        spec = ledger.started_spec()
        self._ignores_term = spec is None or spec.stop.ignore_early_term
        return msgspec.structs.replace(
            found,
            run=ledger.run,
            by=ledger.by,
            spec=spec,
            taps=tuple(tap.name for tap in ledger.taps.values()),
            vnc=ledger.vnc,
            install=ledger.install,
            resumes=bool(ledger.resume),
            seed=ledger.seed,
            suspending=bool(ledger.suspending) and stage is Stage.RUNNING,
        )

    def _stage_found(self, *, is_held: bool, may_live: bool) -> Stage:
        """How far the run has come, by the files of its keepers."""
        for stage in (Stage.RUNNING, Stage.LOADING):
            trace = self._traces[stage]
            # Blank files and nobody at work: the daemon was killed before it could spawn the keeper.
            if trace.exists() and (is_held or trace.pid() is not None or trace.end() is not None):
                return stage
        return Stage.RUNNING if may_live and self._process.search() is not None else Stage.PREPARING

    # --- a saved state -------------------------------------------------------------------------------------------------------

    def suspended(self) -> Suspension | None:
        """See `daemon.ports.Machine.suspended`."""
        return self._states.shown()

    async def check_suspend(self) -> tuple[str, ...]:
        """See `daemon.ports.Machine.check_suspend`."""
        ledger, spec = self._of_run()
        return await self._suspending.check(spec, install=ledger.install)

    async def suspend(self, by: str) -> str:
        """See `daemon.ports.Machine.suspend`."""
        ledger, spec = self._of_run()
        trace = self._traces[Stage.RUNNING]
        return await self._suspending.attempt(ledger, spec, by, lambda: trace.end() is not None)

    def _of_run(self) -> tuple[Ledger, VmSpec]:
        ledger = self._ledger
        spec = ledger.started_spec() if ledger is not None else None
        if ledger is None or spec is None:
            raise HostError("what its run was started with cannot be read: only a stop and a start can help")
        return ledger, spec

    async def spent(self) -> bool:
        """See `daemon.ports.Machine.spent`."""
        return await in_thread(self._states.spent)

    # --- a start -------------------------------------------------------------------------------------------------------------

    async def prepare(self, order: Order) -> Prepared:
        """See `daemon.ports.Machine.prepare`."""
        problem = self._site.ledgers.problem(self._name)
        if problem is not None and problem.fatal:
            raise problem
        await self._site.crowd.pass_through()
        make_directory(self._directory, 0o700)
        self._let_go()
        await self._refuse_held()
        for trace in self._traces.values():
            trace.remove()
        self._process.is_none()
        self._loader = None
        self._ignores_term = order.spec.stop.ignore_early_term
        self._log.rotate()
        after_own, self._saw_end = self._saw_end and not order.first, False
        self._alive = self._liveness.open_writer()
        preparation = Preparation(self._site, order, self._log, self._swtpm, self._states, self._alive)
        try:
            prepared, self._loader = await preparation.make(after_own=after_own)
        except BaseException:
            self._let_go()
            raise
        return prepared

    async def _refuse_held(self) -> None:
        """Nothing is changed under somebody who still works for the guest. Raises Stuck."""
        if not await self._liveness.is_held_still(_HELD_S):
            return
        words = (self._name, *(tap.name for tap in self._ledger.taps.values())) if self._ledger else (self._name,)
        stuck = {pid: command for pid, command in self._site.tools.stuck.items() if any(word in command for word in words)}
        what = ", ".join(f"`{command}` (pid {pid}), which is stuck in the kernel," for pid, command in stuck.items())
        pid = None
        with contextlib.suppress(HostError):
            pid = await self._process.survivor()
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
        try:
            self._spawn(Stage.RUNNING, (self._site.tools.path("bhyve"), "-k", self._site.conf(self._name), *resume, self._name), consoles)
        except HostError:
            self._states.give_back()
            raise

    def _spawn(self, stage: Stage, argv: Sequence[str], consoles: Sequence[int]) -> None:
        if self._ledger is None:
            raise HostError(f"{self._name} was not prepared")
        trace = self._traces[stage]
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
            keeper = spawn_keeper(
                argv,
                trace,
                alive=alive,
                log=log,
                consoles=consoles,
                env=self._site.tools.env(),
                ignore_term=self._ignores_term,
            )
        self._process.begins(stage, trace, keeper=keeper)

    # --- its end -------------------------------------------------------------------------------------------------------------

    async def watch(self, started: Callable[[int], None]) -> Outcome:
        """See `daemon.ports.Machine.watch`. Cancelled, it leaves everything as it is."""
        told = False

        def look() -> None:
            nonlocal told
            if not told and (pid := self._process.learn()) is not None:
                told = True
                started(pid)

        def hear(data: bytes) -> None:
            self._process.hear(data)
            look()

        look()
        if self._watch is not None:
            await self._watch.wait_end(hear)
            await self._site.crowd.pass_through()
        look()
        seen = await self._outlive_fifo()
        self._process.ends()
        self._saw_end = True
        outcome, ledger = self._outcome(seen), self._ledger
        if ledger is not None and outcome.stage is Stage.RUNNING and (ledger.resume or ledger.suspending):
            outcome = await self._suspending.after(ledger, outcome)
        return outcome

    async def _outlive_fifo(self) -> int | None:
        """Nobody holds the FIFO, and nobody has told of an end: was the FIFO removed, or made anew, under a guest that lives?

        The status of such a guest's end, as a shell would say it, where the system tells it of a process that is not our child.
        """
        trace, seen = self._process.trace, None
        while trace is not None and self._process.status() is None:
            try:
                pid = await self._process.survivor()
            except HostError:  # no processes to be had: until that is known the guest lives
                await trio.sleep(_PS_PAUSE_S)
                continue
            if pid is None:
                break
            seen = await wait_gone(pid, lambda pid=pid: self._process.is_it(pid))  # type: ignore[misc]
        code = None if seen is None else os.waitstatus_to_exitcode(seen)
        return 128 - code if code is not None and code < 0 else code

    def _outcome(self, seen: int | None) -> Outcome:
        stage, trace = self._process.stage, self._process.trace
        end = trace.end() if trace is not None else None
        begin = trace.begin() if trace is not None else None
        told = end.status if end is not None else self._process.status()
        status = seen if told is None else told  # the keeper's word, if there is one
        node_present = None
        suspends = self._ledger is not None and bool(self._ledger.suspending)
        if stage is Stage.RUNNING and status in (*_NODE_TELLS, *(SUSPEND_ENDS if suspends else ())):
            with contextlib.suppress(HostError):
                node_present = self._site.vmm.exists(self._name)
        return Outcome(
            stage=stage,
            status=status,
            pid=self._process.pid,
            stderr=self._log.since(begin.log_from) if begin is not None else "",
            node_present=node_present,
            at=end.at if end is not None else None,
        )

    # --- while it runs -------------------------------------------------------------------------------------------------------

    async def title_is_set(self) -> bool:
        """See `daemon.ports.Machine.title_is_set`."""
        return await self._process.title_is_set()

    async def press(self) -> None:
        """See `daemon.ports.Machine.press`."""
        await self._process.press()

    async def kill(self) -> None:
        """See `daemon.ports.Machine.kill`. What has no pid yet is killed when it has one."""
        await self._process.kill()

    async def force(self, how: str) -> None:
        """See `daemon.ports.Machine.force`."""
        with self._at_work() as alive:
            await self._site.vmm.force(self._name, how, pass_fd=alive)

    async def inject_nmi(self) -> None:
        """See `daemon.ports.Machine.inject_nmi`."""
        with self._at_work() as alive:
            await self._site.vmm.inject_nmi(self._name, pass_fd=alive)

    async def limit(self, limits: Limits | None) -> None:
        """See `daemon.ports.Machine.limit`."""
        pid = self._process.pid
        if pid is None:
            return
        with self._at_work() as alive:
            try:
                await limiting.limit(self._site.tools, pid, limits, pass_fd=alive)
            except HostError:
                if self._traces[Stage.RUNNING].end() is None:  # else its rules went with it
                    raise

    async def vm_exits(self) -> int:
        """See `daemon.ports.Machine.vm_exits`."""
        exits = (await vcpus(self._name, self._site.tools)).exits
        if exits is None:
            raise HostError("bhyvectl does not say whether its processors run")
        return exits

    # --- afterwards ----------------------------------------------------------------------------------------------------------

    async def clean(self, *, final: bool) -> None:
        """See `daemon.ports.Machine.clean`. What an immediate restart keeps is in the ledger, and its `prepare` deals with it."""
        await self._site.crowd.pass_through()
        self._let_go()
        ledger = self._ledger
        if ledger is None and self._process.stage is Stage.PREPARING:
            return  # nothing was taken: the start was refused, or everything has been given back
        await self._refuse_held()
        if ledger is not None and ledger.resume and not self._traces[Stage.RUNNING].is_begun():
            await in_thread(self._states.give_back)  # no bhyve was given it
        for trace in self._traces.values():
            trace.remove()  # this end has been told: a daemon that comes now finds a start that was interrupted
        if ledger is not None and ledger.suspending:
            await in_thread(self._states.give_up)  # nothing, or what has become a saved state
        if ledger is not None and ledger.tpm:
            await self._swtpm.end()
        if final:
            with self._at_work() as alive:
                await self._site.vmm.destroy(self._name, pass_fd=alive)
                await self._site.crowd.pass_through()
                if ledger is not None:  # else it is lost: taps without one are found when a daemon starts
                    await self._give_back(ledger, alive)
            self._liveness.remove()
            self._process.is_none()

    async def _give_back(self, ledger: Ledger, alive: int) -> None:
        site = self._site
        for tap in (*ledger.taps.values(), *ledger.leftover):
            await site.taps.destroy(tap.name, tap.description, pass_fd=alive)
        for path in ledger.sockets:
            unlink_socket(path)
        shutil.rmtree(site.loader_directory(self._name), ignore_errors=True)
        remove(site.conf(self._name))
        site.ledgers.drop(self._name)

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
