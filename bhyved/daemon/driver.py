"""One guest's task: takes wishes and facts into its lifecycle, performs the actions, tells what came of it.

`submit` is synchronous and atomic: it steps the machine, starts the actions as tasks and returns the answer. Nothing in the loop waits
for an action; its end comes back as a fact. Cancelling a driver leaves its guest running: the run is a keeper and a FIFO, and the next
daemon takes it up.
"""

import secrets
from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from bhyved.core import lifecycle, policy, reload, tally
from bhyved.core.console import consoles_of
from bhyved.core.errors import HostError, Stuck
from bhyved.core.exits import Exit, ExitKind, Outcome, Stage, classify, classify_loader
from bhyved.core.lifecycle import Answer, Lifecycle
from bhyved.core.spec import VmSpec
from bhyved.core.status import Desired, Phase, VmRecord, VmStatus
from bhyved.core.units import Duration
from bhyved.daemon import run as runs
from bhyved.daemon.around import Around
from bhyved.daemon.ascent import Ascent
from bhyved.daemon.chronicle import Chronicle
from bhyved.daemon.health import HealthWatch
from bhyved.daemon.portrait import Sitting, portray
from bhyved.daemon.ports import Order
from bhyved.daemon.readiness import Questions, agent_port
from bhyved.daemon.run import Run
from bhyved.daemon.saving import Saving
from bhyved.daemon.turnstile import Turnstile

_log = structlog.get_logger()

RESET_S = 10.0  # for a reset that its health probes have asked for
SAVE_S = 5.0  # for a record to get to disk before the end of a run is cleaned up


class VmDriver:
    """One guest, for as long as it is configured. `blocked`: why it must not be started at all."""

    def __init__(self, spec: VmSpec, around: Around, turns: Turnstile, record: VmRecord, *, blocked: str = "") -> None:
        self.name = spec.name
        self.spec = spec
        self.blocked = blocked
        self.broken = ""
        self.orphaned = False
        self._around, self._turns, self._record = around, turns, record
        self._machine = around.host.machine(spec.name)
        self._run: Run | None = None
        self._changes: tuple[reload.Change, ...] = ()
        self._since, self._since_at = around.host.monotonic(), around.host.utc()
        self._stirred = trio.Event()
        self._chronicle = Chronicle(spec.name, around)
        self._saving = Saving(around.vault, spec.name, self._chronicle.tell)
        self._ascent = Ascent(spec.name, self._machine, around.consoles, self._saw_up)
        self._presses = 0
        self._waiting_for = ""
        self._ill = ""
        self._health = HealthWatch(spec.name, around.consoles, ill=self._fell_ill, well=self._got_well)
        self._early: list[lifecycle.Event] | None = []  # wishes that came before the driver had looked around
        self._knows_how = not blocked  # to start it: else `spec` stands in for a file that nobody can read
        boot = around.host.boot
        wished = record.desired if record.desired is not None and record.desired_boot == boot else None
        autostart = Desired.UP if spec.autostart else Desired.DOWN
        self.life = Lifecycle(
            self._as_stopped(spec),
            rng=around.rng,
            desired=wished or autostart,
            hold=record.hold,
            book=record.book if record.book_boot == boot else type(record.book)(),
            held=record.held if record.book_boot == boot else "",
        )
        self._wish_unknown = wished is None

    # --- what others ask -----------------------------------------------------------------------------------------------------

    @property
    def status(self) -> VmStatus:
        """As the board shows it."""
        status = self._around.board.get(self.name)
        assert status is not None
        return status

    @property
    def record(self) -> VmRecord:
        """What is kept of the guest on disk."""
        return self._record

    @property
    def started_spec(self) -> VmSpec | None:
        """What the present run was started with."""
        return self._run.spec if self._run is not None else None

    @property
    def changes(self) -> tuple[reload.Change, ...]:
        """Keys whose new value waits for another run."""
        return self._changes

    async def saved(self) -> None:
        """Return when what is kept of the guest is on disk, or has refused to go there."""
        await self._saving.done()

    @property
    def is_over(self) -> bool:
        """Nothing of the guest runs, or ever will let itself be ended; and that is known."""
        return self._early is None and self.life.phase in (Phase.DOWN, Phase.HELD)

    def submit(self, event: lifecycle.Event) -> Answer:
        """A wish or a fact. A bug in the machine costs this guest's automation, nobody else's."""
        if self.broken:
            return Answer(False, "internal-error", self.broken)
        if self.blocked and isinstance(event, lifecycle.Start | lifecycle.Restart) and not event_is_auto(event):
            return Answer(False, "configuration", self.blocked)
        if self._early is not None and isinstance(event, lifecycle.WISHES):
            self._early.append(event)
            return lifecycle.ACCEPTED
        if self.life.phase is Phase.STARTING and isinstance(event, lifecycle.Stop | lifecycle.Shutdown | lifecycle.Restart):
            # Stopped while it is starting a guest is killed. It may have come up unseen, hours ago: after a VNC `wait`, say.
            self._early = [event]
            self._start(self._look_first)
            return lifecycle.ACCEPTED
        return self._step(event)

    def _step(self, event: lifecycle.Event) -> Answer:
        was, now = self.life.phase, self._around.host.monotonic()
        desired, hold, verdict = self.life.desired, self.life.hold, self.life.verdict
        answer, actions = self.life.step(event, now)
        if self.life.verdict is not verdict and self.life.verdict is not None:
            self._record = tally.decided(self._record, self.life.verdict)
        if (was, desired, hold) != (self.life.phase, self.life.desired, self.life.hold) or actions or not isinstance(event, lifecycle.Tick):
            self._moved(event, was, now)
        for action in actions:
            self._perform(action)
        self._stirred.set()
        return answer

    def orphan(self, why: str) -> None:
        """The guest's file has gone: what runs goes on, nothing starts any more."""
        self.orphaned, self.blocked = True, why
        self.publish()

    def update(self, spec: VmSpec, *, blocked: str = "") -> None:
        """The file has changed: what can be live is, the rest waits for its run."""
        health_changes = spec.health != self.spec.health
        self.spec, self.life.spec = spec, self._as_stopped(spec)
        self.blocked, self.orphaned, self._knows_how = blocked, False, True
        if health_changes and self._run is not None and self._run.ready:
            self._watch_health(self._run)
        self._open_consoles()
        self._compare()
        self.publish()

    def fail(self, error: BaseException) -> None:
        """A bug of ours: automation of this guest ends, what runs of it runs on."""
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        self.broken = f"internal error: {type(error).__name__}: {error}; its log line has the traceback, and `vmctl start` tries again"
        if self._around.board.get(self.name) is None:
            self.publish()
        self._around.board.publish(msgspec.structs.replace(self.status, phase=Phase.HELD, reason=self.broken))

    def close(self) -> None:
        """All guests are being stopped: from here on nothing starts by itself. Those that do not run are down at once."""
        self.life.closing = True
        if self.life.phase in (Phase.WAITING, Phase.BACKOFF):
            self.submit(lifecycle.Shutdown(by="bhyved"))

    def open_again(self, by: str) -> None:
        """The stop of all guests is taken back: those that are wished up start."""
        self.life.closing = False
        if self.is_over and self.life.desired is Desired.UP and self.life.hold is None:
            self.submit(lifecycle.Start(by=by, auto=True))

    def set_waiting_for(self, why: str) -> None:
        """What the turnstile holds the guest back for."""
        if why != self._waiting_for:
            self._waiting_for = why
            self.publish()

    async def inject_nmi(self) -> Answer:
        """A non-maskable interrupt: for debugging, it may panic the guest."""
        if self.life.phase not in (Phase.UP, Phase.STOPPING):
            return lifecycle.NOT_RUNNING
        try:
            await self._machine.inject_nmi()
        except HostError as error:
            return Answer(False, "host", str(error))
        return lifecycle.ACCEPTED

    # --- the task ------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the guest until cancelled. Started means: whatever an earlier daemon left has been taken up."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._saving.run)
            await self._take_up()
            early, self._early = self._early, None
            for wish in early or ():
                self.submit(wish)
            self.publish()
            task_status.started()
            while True:
                self._stirred = trio.Event()
                await self._until_deadline()

    async def _until_deadline(self) -> None:
        """Sleep until something happens, the lifecycle's time has come, or a hold is over."""
        host, deadline, hold = self._around.host, self.life.deadline, self.life.hold
        waits = [] if deadline is None else [deadline - host.monotonic()]
        if hold is not None and hold.until_at is not None:
            waits.append((hold.until_at - host.utc()).total_seconds())
        with trio.move_on_after(max(0.0, min(waits, default=float("inf")))):
            await self._stirred.wait()
            return
        if deadline is not None and self.life.deadline == deadline and host.monotonic() >= deadline:
            self.submit(lifecycle.Tick())
        elif hold is not None and self.life.hold == hold and hold.until_at is not None and host.utc() >= hold.until_at:
            self.submit(lifecycle.Release(by="the end of the hold"))

    async def _take_up(self) -> None:
        """The run that an earlier daemon left goes on; without one the wish decides."""
        found = self._machine.find()
        if found is None:
            self._open_consoles()
            self.publish()
            if self.life.phase is Phase.DOWN and self.life.desired is Desired.UP and not self.blocked and self._around.autostart:
                by = "autostart" if self._wish_unknown else "the daemon's start: it was up"
                self._early = [lifecycle.Start(by=by, auto=True), *(self._early or ())]
            return
        now, now_at = self._around.host.monotonic(), self._around.host.utc()
        self._run = runs.adopted(found, self.spec, now, now_at)
        self.life.by, self.life.install = found.by, found.install
        if self.blocked and found.spec is not None:  # a guest without a file can reboot all the same
            self.spec, self.life.spec, self._knows_how = found.spec, self._as_stopped(found.spec), True
        starts = [wish for wish in self._early or () if isinstance(wish, lifecycle.Start)]
        if self._wish_unknown or starts:
            self.life.desired = Desired.UP  # no wish of this boot is known, perhaps lost: what runs was wished to run
            self._early = [wish for wish in self._early or () if wish not in starts]
        self._open_consoles()
        self._compare()
        up = found.stage is Stage.RUNNING and await self._ascent.seen()
        hubs = self._around.consoles.hubs(self.name)
        self._run.was_up, self._run.console_since = up, hubs[0].ring.run_start if hubs else 0
        self.submit(lifecycle.Found(found.stage, up))
        self._start(self._watch)
        if found.stage is Stage.RUNNING:
            self._start(self._ascent.watch) if not up else self._came_up()

    # --- actions -------------------------------------------------------------------------------------------------------------

    def _perform(self, action: lifecycle.Action) -> None:
        match action:
            case lifecycle.ASK_TURN:
                self._turns.ask(self.name, self.spec.order, paced=self.life.by == "autostart")
            case lifecycle.DROP_TURN:
                self._turns.drop(self.name)
            case lifecycle.PREPARE:
                self._start(self._prepare)
            case lifecycle.LOAD:
                self._start(self._load)
            case lifecycle.SPAWN:
                self._start(self._spawn)
            case lifecycle.PRESS:
                self._start(self._press)
            case lifecycle.FORCE_POWEROFF:
                self._start(self._force, "poweroff")
            case lifecycle.FORCE_RESET:
                self._start(self._force, "reset")
            case lifecycle.KILL:
                self._start(self._kill)
            case lifecycle.CLEAN:
                self._start(self._clean, False)
            case lifecycle.CLEAN_ALL:
                self._start(self._clean, True)
            case other:
                raise AssertionError(other)

    def _start(self, action: Callable[..., Awaitable[None]], *args: object) -> None:
        self._nursery.start_soon(action, *args)

    async def _prepare(self) -> None:
        if not self._knows_how:
            self.submit(lifecycle.PrepareFailed(self.blocked, fatal=True))
            return
        host = self._around.host
        run = self._run = Run(id=secrets.token_hex(4), by=self.life.by, spec=self.spec, began=host.monotonic(), began_at=host.utc())
        self._presses = 0
        self._open_consoles()
        self._compare()
        try:
            problem = await self._around.hooks.run("pre-start", self.spec.hooks, self.status)
            if problem:
                raise HostError(problem)
            prepared = await self._machine.prepare(self._order(run))
        except Stuck as stuck:
            self.submit(lifecycle.PrepareFailed(str(stuck), stuck=True))
            return
        except HostError as error:
            end = Exit(kind=ExitKind.CONFIG_ERROR if error.fatal else ExitKind.START_ERROR, text=str(error))
            self.submit(lifecycle.PrepareFailed(str(error), fatal=error.fatal))
            self._chronicle.start_failed(run, end, self.life.decision)
            return
        run.taps, run.vnc = prepared.taps, prepared.vnc
        for warning in prepared.warnings:
            self._chronicle.tell("warning", warning)
        self._record = msgspec.structs.replace(self._record, slots=dict(prepared.slots), macs=dict(prepared.macs))
        if self.life.first_run:
            # By now it is, as a rule. A guest that runs and whose record says that it is wished down is stopped by the next daemon.
            with trio.move_on_after(SAVE_S):
                await self._saving.done()
        await self._around.consoles.ready(self.name)
        self._around.consoles.mark(self.name, "boot", f"run {run.id} by {run.by}", run=run.id)
        run.console_since = next(iter(self._around.consoles.settle(self.name).values()), 0)
        self.submit(lifecycle.Prepared(loader=not run.spec.boot.has_bootrom))

    def _order(self, run: Run) -> Order:
        return Order(run=run.id, by=run.by, spec=run.spec, record=self._record, install=self.life.install, first=self.life.first_run)

    async def _load(self) -> None:
        try:
            self._machine.spawn_loader(self._around.consoles.fds(self.name))
        except HostError as error:
            self.submit(lifecycle.SpawnFailed(str(error)))
            return
        await self._watch()

    async def _spawn(self) -> None:
        assert self._run is not None
        self._run.pid = None
        since = self._around.consoles.settle(self.name)
        try:
            self._machine.spawn_bhyve(self._around.consoles.fds(self.name))
        except HostError as error:
            self.submit(lifecycle.SpawnFailed(str(error)))
            return
        self._start(self._ascent.watch, since)
        await self._watch()

    async def _press(self) -> None:
        run, first, self._presses = self._run, not self._presses, self._presses + 1
        if first:
            await self._hook("pre-stop", self.status)
            if self._run is not run:
                return  # it has ended meanwhile, and another may run
        try:
            if self.spec.stop.command is not None:
                await self._stop_command()
            else:
                await self._machine.press()
        except HostError as error:
            self._chronicle.tell("press-failed", str(error))

    async def _stop_command(self) -> None:
        assert self.spec.stop.command is not None
        ran = await self._around.commands.run(
            self.spec.stop.command,
            limit_s=max(1.0, float(self.spec.stop.timeout)),
            env={"BHYVED_VM": self.name},
            run_as=self._around.spec.run_as or "",
        )
        if ran.status != 0:
            how = "did not end in time" if ran.status is None else f"ended with status {ran.status}"
            self._chronicle.tell("press-failed", f"stop.command {how}" + (f": {ran.text}" if ran.text else ""))

    async def _force(self, how: str) -> None:
        try:
            await self._machine.force(how)
        except HostError as error:
            self._chronicle.tell("force-failed", str(error))  # the ladder goes on to SIGKILL

    async def _kill(self) -> None:
        try:
            await self._machine.kill()
        except HostError as error:
            self._chronicle.tell("kill-failed", str(error))

    async def _clean(self, final: bool) -> None:
        if final:
            # First what follows: behind a daemon that is killed, the traces of an end that was told are those of a start to be made good.
            with trio.move_on_after(SAVE_S):
                await self._saving.done()
        try:
            await self._machine.clean(final=final)
        except Stuck as stuck:
            self.submit(lifecycle.CleanFailed(str(stuck), stuck=True))
        except HostError as error:
            self._chronicle.tell("clean-failed", str(error))
            self.submit(lifecycle.CleanFailed(str(error)))
        else:
            self.submit(lifecycle.Cleaned())
        if final and self.life.phase in (Phase.DOWN, Phase.HELD, Phase.BACKOFF):
            self._around.consoles.settle(self.name)

    # --- watching ------------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Wait for the end of the loader or of bhyve, and say what it means."""
        run = self._run
        assert run is not None

        def started(pid: int) -> None:
            run.note_started(pid, self._around.host.monotonic(), self._around.host.utc())
            self.publish()

        outcome = await self._machine.watch(started)
        match outcome.stage:
            case Stage.PREPARING:
                self.submit(lifecycle.Interrupted())
            case Stage.LOADING:
                run.pid, run.started, run.started_at = None, None, None
                end = classify_loader(_loader_name(run.spec), outcome)
                was_loading = self.life.phase is Phase.LOADING
                self.submit(lifecycle.LoaderEnded(end))
                if end is not None and was_loading:
                    self._chronicle.start_failed(run, end, self.life.decision, outcome.stderr)
            case Stage.RUNNING:
                self._ended(run, outcome)

    def _ended(self, run: Run, outcome: Outcome) -> None:
        self._ascent.over()
        self._health.over()
        self._ill = ""
        now, now_at = self._around.host.monotonic(), self._around.host.utc()
        asked = self.life.phase in (Phase.STOPPING, Phase.KILLING)
        end = classify(outcome, was_up=run.was_up, asked=asked)
        last = runs.last_exit(end, outcome, now_at)
        uptime_s = run.uptime_s(now, outcome.at)
        stop_s = None if run.stop_began is None else now - run.stop_began
        self._around.consoles.mark(self.name, "exit", end.text)
        self._record = tally.ended(self._record, end, last, stop_s=stop_s, forced=self.life.forced)
        self._run = None
        self.submit(lifecycle.Ended(end, uptime_s))
        self._chronicle.run_ended(run, end, outcome, last, uptime_s, self.life.decision)
        if end.kind in policy.CRASHES and not asked:
            self._start(self._hook, "crash", self.status)

    def look(self) -> None:
        """Somebody asks about a guest that is still starting (VNC `wait`, no console): look once more."""
        if self.life.phase is Phase.STARTING:
            self._start(self._ascent.look)

    def _as_stopped(self, spec: VmSpec) -> VmSpec:
        """arm64 has no power button (contract 1.8): without a command of its own a guest there gets no grace, its power is cut."""
        if self._around.target.arch != "arm64" or spec.stop.command is not None:
            return spec
        return msgspec.structs.replace(spec, stop=msgspec.structs.replace(spec.stop, timeout=Duration(0)))

    async def _look_first(self) -> None:
        """Look at the title, then do what was wished meanwhile."""
        await self._ascent.look()
        early, self._early = self._early, None
        for wish in early or ():
            # Each is taken as it stands now: a look was had.
            self._step(wish)

    def _saw_up(self) -> None:
        """The guest has come up while it was starting."""
        if self.life.phase is Phase.STARTING:
            self._step(lifecycle.Up())
            self._came_up()

    def _came_up(self) -> None:
        run = self._run
        if run is None:
            return
        run.was_up = True
        self._chronicle.came_up()
        if not run.adopted:
            self._record = tally.started(self._record, self._around.host.monotonic() - run.began)
            self._start(self._hook, "post-start", self.status)
        if self.spec.order.ready is None:
            self._ready(run)
        else:
            self._start(self._wait_ready, run)
        self.publish()

    def _questions(self, run: Run) -> Questions:
        path = agent_path(run.spec, self._around.spec.paths.run)
        return Questions(self.name, self._around.consoles, self._around.commands, self._around.spec.run_as or "", path)

    async def _wait_ready(self, run: Run) -> None:
        ready = self.spec.order.ready
        assert ready is not None
        since = run.console_since
        uptime_s = run.uptime_s(self._around.host.monotonic(), None)
        in_time = await self._questions(run).ready(ready, since, uptime_s)
        if self._run is not run:
            return
        if in_time:
            self._ready(run)
        elif ready.on_timeout == "continue":
            self._chronicle.tell("ready-timeout", f"not ready within {ready.timeout}; guests that wait for it go on")
            self._ready(run)
        else:
            run.late = True
            self.publish()
            self._turns.stir()
            self._chronicle.tell("ready-timeout", f"not ready within {ready.timeout}; guests that require it keep waiting")

    def _ready(self, run: Run) -> None:
        if not run.ready:
            run.ready = True
            self.publish()
            self._turns.stir()
            if self._record.ready_run != run.id:  # else an earlier daemon has told it: nobody is to be told twice
                self._record = msgspec.structs.replace(self._record, ready_run=run.id)
                self._keep()
                self._chronicle.tell("ready")
                self._start(self._hook, "ready", self.status)
            self._watch_health(run)

    # --- health --------------------------------------------------------------------------------------------------------------

    def _watch_health(self, run: Run) -> None:
        """From when the guest is ready until it is asked to end, or ends: as the file says now."""
        self._ill = ""
        if self.spec.health is None:
            self._health.over()
        else:
            self._start(self._health.watch, self.spec.health, self._questions(run))

    async def _fell_ill(self, why: str) -> None:
        run, health = self._run, self.spec.health
        if run is None or health is None or self.life.phase is not Phase.UP:
            return
        self._ill = why
        self.publish()
        self._chronicle.tell("ill", why, action=health.action)
        if health.action == "nmi":
            answer = await self.inject_nmi()
            if not answer.ok:
                self._chronicle.tell("nmi-failed", answer.text)
        elif health.action == "reset":
            self.submit(lifecycle.Reset(by="its health probes", blame=f"reset by its health probes: {why}"))
            await trio.sleep(RESET_S)
            if self._run is run and self.life.phase is Phase.UP:  # a reset needs vCPUs that run (contract 1.9)
                await self._kill()

    def _got_well(self) -> None:
        self._ill = ""
        self.publish()
        self._chronicle.tell("well")

    # --- telling -------------------------------------------------------------------------------------------------------------

    def _moved(self, event: lifecycle.Event, was: Phase, now: float) -> None:
        """The machine has taken an event: one line, one status, one record."""
        life = self.life
        if life.phase is not was:
            self._since, self._since_at = now, self._around.host.utc()
            if life.phase in (Phase.STOPPING, Phase.KILLING) and self._run is not None and self._run.stop_began is None:
                self._run.stop_began = now
            if life.phase in (Phase.DOWN, Phase.WAITING, Phase.BACKOFF) or (life.phase is Phase.HELD and not life.stuck):
                self._run = None
                self._compare()
        self._waiting_for = self._waiting_for if life.phase is Phase.WAITING else ""
        self._keep()
        self.publish()
        self._chronicle.step(event, was, life, now)
        if life.phase is not was:
            self._turns.stir()
            if life.phase is Phase.HELD:
                self._start(self._hook, "held", self.status)
            elif was is Phase.CLEANING and life.phase is Phase.DOWN:
                self._start(self._hook, "post-stop", self.status)

    async def _hook(self, moment: str, status: VmStatus) -> None:
        await self._around.hooks.run(moment, self.spec.hooks, status)

    def publish(self) -> None:
        """Put the guest on the board as it is now."""
        sitting = Sitting(
            life=self.life,
            spec=self.spec,
            run=self._run,
            record=self._record,
            since=self._since,
            since_at=self._since_at,
            now=self._around.host.monotonic(),
            blocked=self.blocked,
            waiting_for=self._waiting_for,
            ill=self._ill,
            changes=self._changes,
            orphaned=self.orphaned,
        )
        self._around.board.publish(portray(sitting))

    def _compare(self) -> None:
        if self._run is None:
            self._changes = ()
        else:
            self._changes = tuple(c for c in reload.compare(self._run.spec, self.spec) if c.effect is not reload.Effect.LIVE)

    def _open_consoles(self) -> None:
        """The hubs of the file; while a run holds the lines, those of the run with what can be live of the file."""
        kept, paths = self._around.spec.console, self._around.spec.paths
        wanted = consoles_of(self.spec, kept, dev=str(paths.dev), run=str(paths.run))
        if self._run is not None:
            held = {(c.port, c.path): c for c in consoles_of(self._run.spec, kept, dev=str(paths.dev), run=str(paths.run))}
            live = {(c.port, c.path): c for c in wanted}
            wanted = tuple(live.get(place, console) for place, console in held.items())
        self._around.consoles.open(self.name, wanted)

    # --- what is kept --------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        life, boot = self.life, self._around.host.boot
        held = life.reason if life.phase is Phase.HELD and not self.blocked else ""
        if life.phase is Phase.CLEANING and isinstance(life.verdict, policy.HoldFor):
            held = life.verdict.reason
        record = msgspec.structs.replace(
            self._record, desired=life.desired, desired_boot=boot, hold=life.hold, book=life.book, book_boot=boot, held=held
        )
        self._record = record
        self._saving.put(record)


def event_is_auto(event: lifecycle.Start | lifecycle.Restart) -> bool:
    """Whether nobody asked for it."""
    return isinstance(event, lifecycle.Start) and event.auto


def agent_path(spec: VmSpec, run: str) -> str:
    """The host's end of the guest agent's port; '' when the guest has none."""
    for number, console in enumerate(spec.virtio_console):
        if console.name == agent_port():
            return str(console.path or f"{run}/vm/{spec.name}/vtcon{number}.sock")
    return ""


def _loader_name(spec: VmSpec) -> str:
    return "grub-bhyve" if spec.boot.loader == "grub" else "bhyveload"
