"""One guest's task: takes wishes and facts into its lifecycle, has the actions performed, tells what came of it.

`submit` is synchronous and atomic: it steps the machine, starts the actions as tasks and returns the answer. Nothing in the loop waits
for an action; its end comes back as a fact. Cancelling a driver leaves its guest running: the run is a keeper and a FIFO, and the next
daemon takes it up.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress

import msgspec
import trio

from bhyved.core import lifecycle, policy, reload, tally
from bhyved.core.errors import HostError
from bhyved.core.exits import Outcome, Stage, classify
from bhyved.core.lifecycle import Answer
from bhyved.core.room import share_of
from bhyved.core.seed import was_set_up
from bhyved.core.spec import VmSpec
from bhyved.core.status import Desired, Hold, Phase, VmRecord, VmStatus
from bhyved.daemon import run as runs
from bhyved.daemon.around import Around
from bhyved.daemon.ascent import Ascent
from bhyved.daemon.deeds import Deeds
from bhyved.daemon.fitness import Fitness
from bhyved.daemon.freezing import Freezing, Frozen
from bhyved.daemon.limiting import Limiting
from bhyved.daemon.ports import Found
from bhyved.daemon.run import Run
from bhyved.daemon.standing import Standing
from bhyved.daemon.turnstile import Turnstile

CHECK_S = 5.0  # of a host that goes down
LOOK_AGAIN_S = 5.0  # where the host could not say whether the guest runs


class VmDriver:
    """One guest, for as long as it is configured. `blocked`: why it must not be started at all; `orphaned`: its file has gone."""

    def __init__(
        self, spec: VmSpec, around: Around, turns: Turnstile, record: VmRecord, *, blocked: str = "", orphaned: bool = False
    ) -> None:
        self.name = spec.name
        self.broken = ""
        self._bug: Exception | None = None  # that `run` ends of
        self._unknown = ""  # why it is not known whether the guest runs
        self._around, self._turns = around, turns
        self._standing = Standing(spec, around, record, blocked=blocked, orphaned=orphaned)
        self._ascent = Ascent(spec.name, self._standing.machine, around.consoles, self._saw_up, self._start)
        self._limiting = Limiting(self._standing, self._start)
        self._deeds = Deeds(self._standing, turns, self._ascent, self._limiting, submit=self.submit, ended=self._ended, start=self._start)
        self._fitness = Fitness(self._standing, turns, self._deeds, submit=self.submit, start=self._start)
        self._freezing = Freezing(self._standing)
        self._life = self._standing.life
        self._stirred = trio.Event()
        self._early: list[lifecycle.Event] | None = []  # wishes that came before the driver had looked around

    # --- what others ask -----------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> VmSpec:
        """As configured."""
        return self._standing.spec

    @property
    def blocked(self) -> str:
        """Why it must not be started at all."""
        return self._standing.blocked

    @property
    def orphaned(self) -> bool:
        """Its file has gone."""
        return self._standing.orphaned

    @property
    def status(self) -> VmStatus:
        """As the board shows it."""
        return self._standing.status

    @property
    def record(self) -> VmRecord:
        """What is kept of the guest on disk."""
        return self._standing.record

    @property
    def started_spec(self) -> VmSpec | None:
        """What the present run was started with."""
        return self._standing.run.spec if self._standing.run is not None else None

    @property
    def changes(self) -> tuple[reload.Change, ...]:
        """Keys whose new value waits for another run."""
        return self._standing.changes

    async def saved(self) -> None:
        """Return when what is kept of the guest is on disk, or has refused to go there."""
        await self._standing.saving.done()

    async def hooks_done(self) -> None:
        """Return when the operator's commands have ended, or their time has."""
        await self._standing.hooks_done()

    @property
    def is_over(self) -> bool:
        """Nothing of the guest runs, or ever will let itself be ended; and that is known."""
        return self._early is None and self._life.phase in (Phase.DOWN, Phase.HELD)

    # --- what others want ----------------------------------------------------------------------------------------------------

    def submit(self, event: lifecycle.Event) -> Answer:
        """A wish or a fact. A bug in the machine costs this guest's automation, nobody else's: `run` raises it, and not this."""
        try:
            return self._submitted(event)
        except Exception as error:
            self._bug = error
            self.fail(error)
            self._stirred.set()
            return Answer(False, "internal-error", self.broken)

    def _submitted(self, event: lifecycle.Event) -> Answer:
        if self.broken:
            return Answer(False, "internal-error", self.broken)
        if self.blocked and isinstance(event, lifecycle.Start | lifecycle.Restart) and not _is_auto(event):
            is_up = isinstance(event, lifecycle.Start) and self._life.phase is Phase.UP
            return lifecycle.ALREADY if is_up else Answer(False, "configuration", self.blocked)
        if self._early is not None and isinstance(event, lifecycle.WISHES):
            self._early.append(event)
            return lifecycle.ACCEPTED
        if self._life.phase is Phase.STARTING and isinstance(event, lifecycle.Stop | lifecycle.Shutdown | lifecycle.Restart):
            # Stopped while it is starting a guest is killed. It may have come up unseen, hours ago: after a VNC `wait`, say.
            self._early = [event]
            self._start(self._look_first)
            return lifecycle.ACCEPTED
        if isinstance(event, lifecycle.Shutdown) and self._is_to_suspend(event):
            self._start(self._suspend_for_host, event)
            return lifecycle.ACCEPTED
        return self._step(event)

    def orphan(self, why: str) -> None:
        """The guest's file has gone: what runs goes on, nothing starts any more."""
        self._standing.orphaned, self._standing.blocked = True, why
        self._publish()

    def update(self, spec: VmSpec) -> None:
        """The file has changed: what can be live is, the rest waits for its run."""
        standing = self._standing
        health_changes, limits_change = spec.health != standing.spec.health, spec.limits != standing.spec.limits
        standing.configure(spec)
        standing.blocked, standing.orphaned = "", False
        if self.broken:
            return  # for whoever starts it again
        if health_changes:
            self._fitness.watch_health()
        if limits_change:
            self._limiting.apply()
        standing.open_consoles()
        standing.compare()
        self._publish()
        self._turns.change(self.name, spec.order, share_of(spec))

    def fail(self, error: BaseException) -> None:
        """A bug of ours: automation of this guest ends, what runs of it runs on."""
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        self.broken = f"internal error: {type(error).__name__}: {error}; its log line has the traceback, and `vmctl start` tries again"
        if self._around.board.get(self.name) is None:
            self._standing.publish()
        self._around.board.publish(msgspec.structs.replace(self.status, phase=Phase.HELD, reason=self.broken))

    def close(self, wish: lifecycle.Shutdown) -> None:
        """All guests are being stopped: from here on nothing starts by itself. Those that do not run are down at once."""
        self._life.closing = True
        if self._life.phase in (Phase.WAITING, Phase.BACKOFF):
            self.submit(msgspec.structs.replace(wish, end_at=None))

    def open_again(self, by: str) -> None:
        """The stop of all guests is taken back: those that are wished up start, when no hold is on them."""
        self._life.closing = False
        if self._early is not None:  # asked to stop, and looked at first
            self._early = [wish for wish in self._early if not isinstance(wish, lifecycle.Shutdown)]
        if self.is_over and self._life.desired is Desired.UP:
            self.submit(lifecycle.Start(by=by, auto=True))

    def set_waiting_for(self, why: str, *, roomless: bool) -> None:
        """What the turnstile holds the guest back for. Memory is told of once: it may take days, and the sentence changes meanwhile."""
        standing = self._standing
        if self.broken or why == standing.waiting_for:
            return
        has_changed = roomless is not standing.roomless
        standing.waiting_for, standing.roomless = why, roomless
        standing.publish()
        if has_changed:
            self._turns.stir()  # those that merely come after it wait no more, or again
            if roomless:
                standing.chronicle.tell("waiting-for-memory", why)

    def look(self) -> None:
        """Somebody asks about a guest that is still starting (VNC `wait`, no console): look once more."""
        if self._life.phase is Phase.STARTING and not self.broken:
            self._start(self._ascent.look)

    async def suspend(self, by: str) -> Answer:
        """Write the guest's state to disk and end its run, if this guest and this bhyve can."""
        if self._life.phase is not Phase.UP:
            was_suspended = self._early is None and self._life.phase is Phase.DOWN and self._standing.suspended is not None
            return lifecycle.ALREADY if was_suspended else self.submit(lifecycle.Suspend(by=by))
        try:
            risks = await self._standing.machine.check_suspend()
        except HostError as error:
            return Answer(False, "cannot-suspend", str(error))
        for risk in risks:
            self._standing.chronicle.tell("warning", risk)
        answer = self.submit(lifecycle.Suspend(by=by))
        return msgspec.structs.replace(answer, text="; ".join(risks)) if answer.ok else answer

    def _is_to_suspend(self, event: lifecycle.Shutdown) -> bool:
        """Only for the end of the host: a daemon that is merely stopped has no deadline, and leaves nobody to wait for."""
        if event.end_at is None or event.force or self.spec.stop.on_host_shutdown != "suspend":
            return False
        return self._life.phase is Phase.UP or self._life.suspending

    async def _suspend_for_host(self, event: lifecycle.Shutdown) -> None:
        why = f"it is not known within {CHECK_S:g} s whether it can be"
        with trio.move_on_after(CHECK_S):
            try:
                for risk in await self._standing.machine.check_suspend():
                    self._standing.chronicle.tell("warning", risk)
                why = ""
            except HostError as error:
                why = str(error)
        if why:
            self._standing.chronicle.tell("suspend-failed", why)
        self._step(msgspec.structs.replace(event, suspend=not why))

    def frozen(self) -> AbstractAsyncContextManager[Frozen]:
        """The guest's file systems, as far as its agent can freeze them."""
        return self._freezing.frozen()

    async def inject_nmi(self) -> Answer:
        """A non-maskable interrupt: for debugging, it may panic the guest."""
        return await self._deeds.inject_nmi()

    # --- the task ------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the guest until cancelled. Started means: whatever an earlier daemon left has been taken up."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._standing.saving.run)
            try:
                found = self._standing.machine.find()
            except HostError as error:
                self._is_unknown(error)
                task_status.started()  # no other guest waits for this one
                task_status, found = trio.TASK_STATUS_IGNORED, await self._find_at_last()
            await self._take_up(found)
            early, self._early = self._early, None
            for wish in early or ():
                self.submit(wish)
            task_status.started()
            while self._bug is None:
                self._stirred = trio.Event()
                await self._until_deadline()
            raise self._bug

    def _start(self, action: Callable[..., Awaitable[None]], *args: object) -> None:
        self._nursery.start_soon(action, *args)

    async def _until_deadline(self) -> None:
        """Sleep until something happens, the lifecycle's time has come, or a hold is over."""
        host, deadline, hold = self._around.host, self._life.deadline, self._life.hold
        waits = [] if deadline is None else [deadline - host.monotonic()]
        if hold is not None and hold.until_at is not None:
            waits.append((hold.until_at - host.utc()).total_seconds())
        with trio.move_on_after(max(0.0, min(waits, default=float("inf")))):
            await self._stirred.wait()
            return
        if deadline is not None and self._life.deadline == deadline and host.monotonic() >= deadline:
            self.submit(lifecycle.Tick())
        elif hold is not None and self._life.hold == hold and hold.until_at is not None and host.utc() >= hold.until_at:
            self.submit(lifecycle.Release(by="the end of the hold", auto=True))

    def _is_unknown(self, error: HostError) -> None:
        """Nothing of the guest is touched as long as nobody can say whether it runs."""
        self._unknown = str(error)
        self._standing.chronicle.tell("warning", self._unknown)
        self._publish()

    def _publish(self) -> None:
        """Show that the file says something else: what is wrong with the guest stays to be seen."""
        if self.broken:
            return
        self._standing.publish()
        if self._unknown:
            self._around.board.publish(msgspec.structs.replace(self.status, phase=Phase.WAITING, reason=self._unknown))

    async def _find_at_last(self) -> Found | None:
        while True:
            await trio.sleep(LOOK_AGAIN_S)
            with suppress(HostError):
                found, self._unknown = self._standing.machine.find(), ""
                return found

    async def _take_up(self, found: Found | None) -> None:
        """The run that an earlier daemon left goes on; without one the wish decides."""
        standing = self._standing
        if found is not None:
            await self._adopt(found)
            return
        standing.open_consoles()
        standing.publish()
        if self._life.phase is Phase.DOWN and self._life.desired is Desired.UP and not self.blocked and self._around.autostart:
            by = "autostart" if standing.wish_unknown else "the daemon's start: it was up"
            self._early = [lifecycle.Start(by=by, auto=True), *(self._early or ())]

    async def _adopt(self, found: Found) -> None:
        standing = self._standing
        now, now_at = self._around.host.monotonic(), self._around.host.utc()
        run = standing.run = runs.adopted(found, standing.spec, now, now_at)
        self._life.by, self._life.install = found.by, found.install
        if standing.has_counted(run) and found.stage is not Stage.PREPARING:
            self._life.verdict = standing.record.verdict  # of a daemon that was killed before it had cleaned up
        if self.blocked and found.spec is not None:  # a guest without a file can reboot all the same
            standing.configure(found.spec)
        starts = [wish for wish in self._early or () if isinstance(wish, lifecycle.Start)]
        if standing.wish_unknown or starts:
            self._life.desired = Desired.UP  # no wish of this boot is known, perhaps lost: what runs was wished to run
            self._early = [wish for wish in self._early or () if wish not in starts]
        standing.open_consoles()
        standing.compare()
        up = found.stage is Stage.RUNNING and await self._ascent.seen()
        hubs = self._around.consoles.hubs(self.name)
        run.was_up, run.console_since = up, hubs[0].ring.run_start if hubs else 0
        self.submit(lifecycle.Found(found.stage, up, suspending=found.suspending))
        self._start(self._deeds.watch)
        if found.stage is Stage.RUNNING:
            self._ascent.begin() if not up else self._fitness.came_up()
            if self._freezing.may_be_left:
                self._start(self._freezing.thaw_left)

    # --- steps ---------------------------------------------------------------------------------------------------------------

    def _step(self, event: lifecycle.Event) -> Answer:
        life, now = self._life, self._around.host.monotonic()
        was, desired, hold, verdict, deadline = life.phase, life.desired, life.hold, life.verdict, life.deadline
        answer, actions = life.step(event, now)
        if life.verdict is not verdict and life.verdict is not None:
            self._standing.record = tally.decided(self._standing.record, life.verdict)
        if (was, desired, hold) != (life.phase, life.desired, life.hold) or actions or not isinstance(event, lifecycle.Tick):
            self._moved(event, was, hold, now)
        for action in actions:
            self._deeds.perform(action)
        if (deadline, hold) != (life.deadline, life.hold):
            self._stirred.set()  # what `_until_deadline` sleeps until
        return answer

    def _moved(self, event: lifecycle.Event, was: Phase, hold: Hold | None, now: float) -> None:
        """The machine has taken an event: one line, one status, one record."""
        standing, life = self._standing, self._life
        if life.phase is not was:
            standing.moved(was, now)
        if life.phase is not Phase.WAITING:
            standing.waiting_for, standing.roomless = "", False
        standing.keep()
        standing.publish()
        standing.chronicle.step(event, was, life, now)
        if isinstance(event, lifecycle.SetHold | lifecycle.Release):
            standing.chronicle.tell_hold(event, hold, life.hold)
        if life.phase is not was:
            self._turns.stir()
            if life.phase is Phase.HELD:
                standing.hook_soon(self._start, "held")
            elif was is Phase.CLEANING and life.phase is Phase.DOWN:
                standing.hook_soon(self._start, "post-stop")

    async def _look_first(self) -> None:
        """Look at the title, then do what was wished meanwhile."""
        await self._ascent.look()
        early, self._early = self._early, None
        for wish in early or ():
            # Each is taken as it stands now: a look was had.
            self._step(wish)

    def _saw_up(self) -> None:
        """The guest has come up while it was starting."""
        if self._life.phase is Phase.STARTING:
            self._step(lifecycle.Up())
            self._fitness.came_up()

    def _ended(self, run: Run, outcome: Outcome) -> None:
        """A bhyve has ended: what that was, and what follows."""
        standing, life = self._standing, self._life
        self._ascent.over()
        self._fitness.over()
        self._deeds.over()
        now, now_at = self._around.host.monotonic(), self._around.host.utc()
        asked = life.is_stopping
        end = classify(outcome, was_up=run.was_up, asked=asked, forced=life.forced)
        last = runs.last_exit(end, outcome, now_at)
        uptime_s = run.uptime_s(now, outcome.at)
        stop_s = None if run.stop_began is None else now - run.stop_began
        self._around.consoles.mark(self.name, "exit", end.text)
        if not standing.has_counted(run):
            standing.record = tally.ended(standing.record, run.id, end, last, stop_s=stop_s, forced=life.forced)
            if standing.spec.order.ready is None and was_set_up(end.kind, forced=life.forced or bool(life.reset_by)):
                standing.set_up(run)
        standing.run = None
        self.submit(lifecycle.Ended(end, uptime_s))
        standing.chronicle.run_ended(run, end, outcome, last, uptime_s, life.decision)
        if end.kind in policy.CRASHES and not asked:
            standing.hook_soon(self._start, "crash")


def _is_auto(event: lifecycle.Start | lifecycle.Restart) -> bool:
    """Whether nobody asked for it."""
    return isinstance(event, lifecycle.Start) and event.auto
