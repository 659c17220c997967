"""What a driver does for its guest: each action of the lifecycle, as a task that ends with a fact.

Nothing here decides. Each await has a phase of its own in the lifecycle, so that whatever is wished meanwhile has an answer.
"""

import secrets
from collections.abc import Awaitable, Callable

import msgspec
import trio

from bhyved.core import lifecycle, tally
from bhyved.core.errors import HostError, Stuck
from bhyved.core.exits import Exit, ExitKind, Outcome, Stage, classify_loader
from bhyved.core.lifecycle import Answer
from bhyved.core.spec import VmSpec
from bhyved.core.status import Phase, utc_text
from bhyved.daemon.ascent import Ascent
from bhyved.daemon.limiting import Limiting
from bhyved.daemon.ports import Order
from bhyved.daemon.run import Run
from bhyved.daemon.standing import Standing
from bhyved.daemon.turnstile import Turnstile

Start = Callable[..., None]  # an async function, with its arguments, as a task of the driver


class Deeds:
    """One guest's. `submit` takes the facts, `ended` the end of a bhyve."""

    def __init__(
        self,
        standing: Standing,
        turns: Turnstile,
        ascent: Ascent,
        limiting: Limiting,
        *,
        submit: Callable[[lifecycle.Event], Answer],
        ended: Callable[[Run, Outcome], None],
        start: Start,
    ) -> None:
        self._of, self._turns, self._ascent, self._limiting = standing, turns, ascent, limiting
        self._submit, self._ended, self._start = submit, ended, start
        self._presses = 0
        self._suspend_scope = trio.CancelScope()

    def perform(self, action: lifecycle.Action) -> None:
        """Begin it."""
        of = self._of
        if action is lifecycle.ASK_TURN:
            self._turns.ask(of.waiting())
        elif action is lifecycle.DROP_TURN:
            self._turns.drop(of.name)
        else:
            self._start(self._task(action))

    def _task(self, action: lifecycle.Action) -> Callable[[], Awaitable[None]]:
        match action:
            case lifecycle.PREPARE:
                return self._prepare
            case lifecycle.LOAD:
                return self._load
            case lifecycle.SPAWN:
                return self._spawn
            case lifecycle.PRESS:
                return self._press
            case lifecycle.FORCE_POWEROFF:
                return self._force_poweroff
            case lifecycle.FORCE_RESET:
                return self._force_reset
            case lifecycle.SUSPEND:
                return self._suspend
            case lifecycle.KILL:
                return self.kill
            case lifecycle.CLEAN:
                return self._clean
            case lifecycle.CLEAN_ALL:
                return self._clean_all
            case other:
                raise AssertionError(other)

    # --- a start -------------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        of, host = self._of, self._of.around.host
        if not of.knows_how:
            self._submit(lifecycle.PrepareFailed(of.blocked, fatal=True))
            return
        run = of.run = Run(id=secrets.token_hex(4), by=of.life.by, spec=of.spec, began=host.monotonic(), began_at=host.utc())
        self._presses = 0
        of.open_consoles()
        of.compare()
        try:
            problem = await of.around.hooks.run("pre-start", of.spec.hooks, of.status)
            if problem:
                raise HostError(problem)
            prepared = await of.machine.prepare(self._order(run))
        except Stuck as stuck:
            self._submit(lifecycle.PrepareFailed(str(stuck), stuck=True))
            return
        except HostError as error:
            end = Exit(kind=ExitKind.CONFIG_ERROR if error.fatal else ExitKind.START_ERROR, text=str(error))
            self._submit(lifecycle.PrepareFailed(str(error), fatal=error.fatal))
            of.chronicle.start_failed(run, end, of.life.decision)
            return
        run.taps, run.vnc, run.resumes, run.seed = prepared.taps, prepared.vnc, prepared.resumed is not None, prepared.seed
        if prepared.resumed is not None:
            since = utc_text(prepared.resumed.at)
            of.chronicle.tell("resuming", f"it goes on from its state of {since}", by=run.by, path=prepared.resumed.path)
        else:
            of.suspended = None
        for warning in prepared.warnings:
            of.chronicle.tell("warning", warning)
        of.record = msgspec.structs.replace(of.record, slots=dict(prepared.slots), macs=dict(prepared.macs))
        if of.life.first_run:
            # By now it is, as a rule. A guest that runs and whose record says that it is wished down is stopped by the next daemon.
            await of.kept()
        consoles = of.around.consoles
        await consoles.ready(of.name)
        consoles.mark(of.name, "boot", f"run {run.id} by {run.by}", run=run.id)
        run.console_since = next(iter(consoles.settle(of.name).values()), 0)
        self._submit(lifecycle.Prepared(loader=not run.spec.boot.has_bootrom))

    def _order(self, run: Run) -> Order:
        of, life = self._of, self._of.life
        return Order(run=run.id, by=run.by, spec=run.spec, record=of.record, install=life.install, first=life.first_run, cold=life.cold)

    async def _load(self) -> None:
        of = self._of
        try:
            of.machine.spawn_loader(of.around.consoles.fds(of.name))
        except HostError as error:
            self._submit(lifecycle.SpawnFailed(str(error)))
            return
        await self.watch()

    async def _spawn(self) -> None:
        of = self._of
        assert of.run is not None
        of.run.pid = None
        since = of.around.consoles.settle(of.name)
        try:
            of.machine.spawn_bhyve(of.around.consoles.fds(of.name))
        except HostError as error:
            self._submit(lifecycle.SpawnFailed(str(error)))
            return
        self._ascent.begin(since)
        await self.watch()

    # --- its end -------------------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Wait for the end of the loader or of bhyve, and say what it means."""
        of, run = self._of, self._of.run
        assert run is not None

        def started(pid: int) -> None:
            if run.note_started(pid, of.around.host.monotonic(), of.around.host.utc()):
                of.publish()
            self._limiting.apply()

        outcome = await of.machine.watch(started)
        match outcome.stage:
            case Stage.PREPARING:
                self._submit(lifecycle.Interrupted())
            case Stage.LOADING:
                run.pid, run.started, run.started_at = None, None, None
                end = classify_loader(_loader_name(run.spec), outcome)
                was_loading = of.life.phase is Phase.LOADING
                if end is not None:
                    of.record = tally.failed(of.record, run.id)
                self._submit(lifecycle.LoaderEnded(end))
                if end is not None and was_loading:
                    of.chronicle.start_failed(run, end, of.life.decision, outcome.stderr)
            case Stage.RUNNING:
                self._ended(run, outcome)

    async def _press(self) -> None:
        of = self._of
        run, first, self._presses = of.run, not self._presses, self._presses + 1
        if first:
            await of.hook("pre-stop")
            if of.run is not run:
                return  # it has ended meanwhile, and another may run
        try:
            if of.spec.stop.command is not None:
                await self._stop_command()
            else:
                await of.machine.press()
        except HostError as error:
            of.chronicle.tell("press-failed", str(error))

    async def _stop_command(self) -> None:
        of = self._of
        assert of.spec.stop.command is not None
        ran = await of.around.commands.run(
            of.spec.stop.command,
            limit_s=max(1.0, float(of.spec.stop.timeout)),
            env={"BHYVED_VM": of.name},
            run_as=of.around.spec.run_as or "",
        )
        if ran.status != 0:
            how = "did not end in time" if ran.status is None else f"ended with status {ran.status}"
            of.chronicle.tell("press-failed", f"stop.command {how}" + (f": {ran.text}" if ran.text else ""))

    async def _force_poweroff(self) -> None:
        await self._force("poweroff")

    async def _force_reset(self) -> None:
        await self._force("reset")

    async def _force(self, how: str) -> None:
        try:
            await self._of.machine.force(how)
        except HostError as error:
            self._of.chronicle.tell("force-failed", str(error))  # the ladder goes on to SIGKILL

    async def _suspend(self) -> None:
        of = self._of
        with trio.CancelScope() as self._suspend_scope:
            try:
                why = await of.machine.suspend(of.life.suspending_for)
            except HostError as error:
                why = str(error)
            of.chronicle.tell("suspend-failed", why)
            self._submit(lifecycle.SuspendFailed(why))

    def over(self) -> None:
        """The run has ended: nobody waits for a failure of its suspend any more."""
        self._suspend_scope.cancel()

    async def spent(self, run: Run) -> None:
        """The guest runs on from its saved state."""
        if await self._of.machine.spent() and self._of.run is run:
            self._of.suspended = None
            self._of.publish()
            self._of.chronicle.tell("resumed", "it runs on from its saved state, which is used up", by=run.by)

    async def kill(self) -> None:
        """SIGKILL, whatever comes of it."""
        try:
            await self._of.machine.kill()
        except HostError as error:
            self._of.chronicle.tell("kill-failed", str(error))

    async def inject_nmi(self) -> Answer:
        """A non-maskable interrupt: for debugging, it may panic the guest."""
        if self._of.life.phase not in (Phase.UP, Phase.STOPPING):
            return lifecycle.NOT_RUNNING
        try:
            await self._of.machine.inject_nmi()
        except HostError as error:
            return Answer(False, "host", str(error))
        return lifecycle.ACCEPTED

    async def _clean(self) -> None:
        """Between two runs."""
        await self._cleaned(final=False)

    async def _clean_all(self) -> None:
        # First what follows: behind a daemon that is killed, the traces of an end that was told are those of a start to be made good.
        of = self._of
        await of.kept()
        await self._cleaned(final=True)
        if of.life.phase in (Phase.DOWN, Phase.HELD, Phase.BACKOFF):
            of.around.consoles.settle(of.name)

    async def _cleaned(self, *, final: bool) -> None:
        try:
            await self._of.machine.clean(final=final)
        except Stuck as stuck:
            self._submit(lifecycle.CleanFailed(str(stuck), stuck=True))
        except HostError as error:
            self._of.chronicle.tell("clean-failed", str(error))
            self._submit(lifecycle.CleanFailed(str(error)))
        else:
            self._submit(lifecycle.Cleaned())


def _loader_name(spec: VmSpec) -> str:
    return "grub-bhyve" if spec.boot.loader == "grub" else "bhyveload"
