"""What a driver knows of its guest, and the three things done with that: show it, keep it, tell of it.

The state of one guest between two events. `daemon.driver` decides with it, `daemon.deeds` acts on it, `daemon.fitness` watches over
what runs; none of them keeps a second copy of anything here.
"""

from collections.abc import Callable

import msgspec
import trio

from bhyved.core import policy, reload
from bhyved.core.console import consoles_of
from bhyved.core.lifecycle import Lifecycle
from bhyved.core.room import share_of
from bhyved.core.spec import VmSpec
from bhyved.core.status import Desired, Phase, VmRecord, VmStatus
from bhyved.core.turns import Waiting
from bhyved.core.units import Duration
from bhyved.daemon.agent import Agent, agent_path
from bhyved.daemon.around import Around
from bhyved.daemon.chronicle import Chronicle
from bhyved.daemon.portrait import Sitting, portray
from bhyved.daemon.run import Run
from bhyved.daemon.saving import Saving, in_time


class Standing:
    """One guest's. `blocked`: why it must not be started at all; `orphaned`: its file has gone."""

    def __init__(self, spec: VmSpec, around: Around, record: VmRecord, *, blocked: str, orphaned: bool) -> None:
        self.name = spec.name
        self.spec = spec
        self.around, self.record = around, record
        self.machine = around.host.machine(spec.name)
        self.blocked, self.orphaned = blocked, orphaned
        self.knows_how = not blocked  # to start it: else `spec` stands in for a file that nobody can read
        self.run: Run | None = None
        self.changes: tuple[reload.Change, ...] = ()  # keys whose new value waits for another run
        self.since, self.since_at = around.host.monotonic(), around.host.utc()
        self.waiting_for, self.roomless = "", False  # what the turnstile holds it back for, and whether that is memory
        self.ill = ""
        self._hooks, self._hook_ended = 0, trio.Event()
        self.suspended = self.machine.suspended()
        self.chronicle = Chronicle(spec.name, around)
        self.agent = Agent()
        self.saving = Saving(around.vault, spec.name, self.chronicle.tell)
        boot = around.host.boot
        wished = record.desired if record.desired is not None and record.desired_boot == boot else None
        self.wish_unknown = wished is None
        autostart = Desired.UP if spec.autostart else Desired.DOWN
        self.life = Lifecycle(
            self.as_stopped(spec),
            rng=around.rng,
            desired=wished or autostart,
            hold=record.hold,
            book=record.book if record.book_boot == boot else type(record.book)(),
            held=record.held if record.book_boot == boot else "",
        )

    def as_stopped(self, spec: VmSpec) -> VmSpec:
        """arm64 has no power button (contract 1.8): without a command of its own a guest there gets no grace, its power is cut."""
        if self.around.target.arch != "arm64" or spec.stop.command is not None:
            return spec
        return msgspec.structs.replace(spec, stop=msgspec.structs.replace(spec.stop, timeout=Duration(0)))

    def configure(self, spec: VmSpec) -> None:
        """This is what its file says now."""
        self.spec, self.life.spec, self.knows_how = spec, self.as_stopped(spec), True

    def moved(self, was: Phase, now: float) -> None:
        """The lifecycle is in another phase."""
        life = self.life
        self.since, self.since_at = now, self.around.host.utc()
        if life.is_stopping and self.run is not None and self.run.stop_began is None:
            self.run.stop_began = now
        if life.phase in (Phase.DOWN, Phase.WAITING, Phase.BACKOFF) or (life.phase is Phase.HELD and not life.stuck):
            self.run = None
            self.suspended = self.machine.suspended()
            self.compare()

    def publish(self) -> None:
        """Put the guest on the board as it is now."""
        sitting = Sitting(
            life=self.life,
            spec=self.spec,
            run=self.run,
            record=self.record,
            since=self.since,
            since_at=self.since_at,
            now=self.around.host.monotonic(),
            blocked=self.blocked,
            suspended=self.suspended,
            waiting_for=self.waiting_for,
            roomless=self.roomless,
            ill=self.ill,
            changes=self.changes,
            orphaned=self.orphaned,
        )
        self.around.board.publish(portray(sitting))

    def waiting(self) -> Waiting:
        """How it asks for its turn."""
        life, spec = self.life, self.spec
        paced = life.auto and not life.by.startswith("policy")  # many may come with it: a boot, the end of a drain
        return Waiting(name=self.name, order=spec.order, paced=paced, share=share_of(spec), asked=not life.auto, again=life.again)

    @property
    def status(self) -> VmStatus:
        """As the board shows it."""
        status = self.around.board.get(self.name)
        assert status is not None
        return status

    def compare(self) -> None:
        """What of the file waits for another run."""
        if self.run is None:
            self.changes = ()
        else:
            self.changes = tuple(c for c in reload.compare(self.run.spec, self.spec) if c.effect is not reload.Effect.LIVE)

    def open_consoles(self) -> None:
        """The hubs of the file; while a run holds the lines, those of the run with what can be live of the file."""
        kept, paths = self.around.spec.console, self.around.spec.paths
        wanted = consoles_of(self.spec, kept, dev=str(paths.dev), run=str(paths.run))
        if self.run is not None:
            held = {(c.port, c.path): c for c in consoles_of(self.run.spec, kept, dev=str(paths.dev), run=str(paths.run))}
            live = {(c.port, c.path): c for c in wanted}
            wanted = tuple(live.get(place, console) for place, console in held.items())
        self.around.consoles.open(self.name, wanted)

    def keep(self) -> None:
        """Have the guest's record kept on disk as it is now."""
        life, boot = self.life, self.around.host.boot
        held = life.reason if life.phase is Phase.HELD and not self.blocked else ""
        verdict = life.verdict if life.phase is Phase.CLEANING else self.record.verdict
        if life.phase is Phase.CLEANING and isinstance(verdict, policy.HoldFor):
            held = verdict.reason
        self.record = msgspec.structs.replace(
            self.record,
            desired=life.desired,
            desired_boot=boot,
            hold=life.hold,
            book=life.book,
            book_boot=boot,
            held=held,
            verdict=verdict,
        )
        self.saving.put(self.record)

    def has_counted(self, run: Run) -> bool:
        """Whether the end of this run has been counted: by an earlier daemon, or by a driver that has met a bug since."""
        return self.record.counted_run == run.id != ""

    def set_up(self, run: Run) -> None:
        """The guest has applied its seed. While an installer runs it is the installer that has."""
        if run.seed and not self.life.install:
            self.record = msgspec.structs.replace(self.record, seed=run.seed)

    async def kept(self) -> None:
        """Return when that is on disk, or cannot get there in time."""
        await in_time([self.saving.done])

    def agent_path(self, run: Run) -> str:
        """The host's end of the agent's port of a run; '' when it has none."""
        return agent_path(run.spec, str(self.around.spec.paths.run))

    async def hook(self, moment: str) -> None:
        """Run the operator's commands for a moment of the guest's life."""
        self._hooks += 1
        await self._counted_hook(moment, self.status)

    def hook_soon(self, start: Callable[..., None], moment: str) -> None:
        """The same as a task of its own. Nobody waits for it but whoever forgets the guest, or ends the daemon."""
        self._hooks += 1
        start(self._counted_hook, moment, self.status)

    async def _counted_hook(self, moment: str, status: VmStatus) -> None:
        try:
            await self.around.hooks.run(moment, self.spec.hooks, status)
        finally:
            self._hooks -= 1
            self._hook_ended.set()
            self._hook_ended = trio.Event()

    async def hooks_done(self) -> None:
        """Return when no such hook runs any more: each has a time limit."""
        while self._hooks:
            await self._hook_ended.wait()
