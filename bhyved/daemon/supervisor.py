"""All guests: one driver each, started when it is their turn, stopped in order, changed by a reload.

Control, metrics and the page see the guests through this object; it decides nothing about a single guest that its driver could.
"""

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import msgspec
import structlog
import trio

from bhyved.core import hostend, macs, order, slots
from bhyved.core.answers import Reloaded
from bhyved.core.assigned import Target, provisional
from bhyved.core.config import Loaded
from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.lifecycle import SHUTTING_DOWN, Answer, Poweroff, Restart, Shutdown, Start, Stop, Turn, Wish
from bhyved.core.plan import Plan
from bhyved.core.plan import plan as lay_out
from bhyved.core.reload import Change, ReloadPlan
from bhyved.core.reload import plan as plan_reload
from bhyved.core.room import Room, room_of, share_of
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import Phase, RunRecord, VmRecord
from bhyved.core.turns import Pace
from bhyved.daemon.around import Around
from bhyved.daemon.board import Board
from bhyved.daemon.console import Consoles
from bhyved.daemon.draining import Draining
from bhyved.daemon.driver import VmDriver
from bhyved.daemon.events import Events
from bhyved.daemon.freezing import Frozen
from bhyved.daemon.guests import About
from bhyved.daemon.needs import Needs
from bhyved.daemon.ports import Files
from bhyved.daemon.saving import in_time
from bhyved.daemon.stopping import Stopping
from bhyved.daemon.turnstile import Turnstile

_log = structlog.get_logger()

MEMORY_SHORT = "it starts because somebody asked for it, but memory is short"
ORPHANED = "its configuration file has gone: nothing starts it any more; put the file back, or `vmctl reload --prune` forgets it"


class Supervisor:
    """Satisfies what `daemon.control` asks of the guests."""

    def __init__(
        self, around: Around, files: Files, about: About, loaded: Loaded, *, broken: Mapping[str, str], records: Mapping[str, VmRecord]
    ) -> None:
        self._around, self._files, self._records = around, files, dict(records)
        self.about = about
        self.on_reload: Callable[[DaemonSpec], None] = lambda spec: None  # for what the app has made
        self._broken = dict(broken)
        self._loaded = loaded
        self.daemon_spec: DaemonSpec = around.spec
        self._drivers: dict[str, VmDriver] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._needs = Needs(around.host)
        self._turnstile = Turnstile(around.board, around.host.monotonic, self._needs, _pace(around.spec))
        self._stopping: Stopping | None = None
        self._draining = Draining(around.drain_file, around.events, self.utc, began=self._drained, over=self._undrained)
        self._drain_stop: Stopping | None = None  # that a drain has begun
        self._nursery: trio.Nursery | None = None
        self._reloading = trio.Lock()

    # --- the task ------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the guests until cancelled. Started means: every run of an earlier daemon has been taken up."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            specs = {**{name: _placeholder(name) for name in self._broken}, **self._loaded.vms}
            for name in self._around.host.ledgers():
                if name not in specs:
                    self._add(_placeholder(name), blocked=ORPHANED, orphaned=True)
            for name in sorted(specs):
                self._add(specs[name], blocked=self._broken.get(name, ""))
            # All at once: each has a little to read, and none waits for another.
            async with trio.open_nursery() as taking_up:
                for name in list(self._drivers):
                    taking_up.start_soon(nursery.start, self._drive, name)
                taking_up.start_soon(self._measure)
            nursery.start_soon(self._turnstile.run, self._go, self._hold_back)
            nursery.start_soon(self._needs.run, self._turnstile.stir)
            nursery.start_soon(self._needs.hear)
            self._turnstile.stir()
            nursery.start_soon(self._draining.run)
            if self._draining.drain is not None:
                self._drained(self._draining.drain)  # of an earlier daemon: whatever runs of guests has escaped it
            task_status.started()
            await trio.sleep_forever()

    def _add(self, spec: VmSpec, *, record: VmRecord | None = None, blocked: str = "", orphaned: bool = False) -> VmDriver:
        if record is None:
            record = self._records.get(spec.name, VmRecord())
        driver = VmDriver(spec, self._around, self._turnstile, record, blocked=blocked, orphaned=orphaned)
        if self.closing or self._draining.drain is not None:
            driver.close(Shutdown(by="bhyved"))
        self._drivers[driver.name] = driver
        return driver

    async def _drive(self, name: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """One driver until it is forgotten. A bug in it costs this guest's automation; the guest itself runs on."""
        driver = self._drivers[name]
        with trio.CancelScope() as scope:
            self._scopes[name] = scope
            started = _Once(task_status)
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(driver.run)
                    started()
            except Exception as error:
                _log.exception("internal error", vm=name)
                driver.fail(error)
                self._around.events.tell("internal-error", vm=name, phase=Phase.HELD, reason=driver.broken)
            started()

    async def _measure(self) -> None:
        """How much memory there is for guests. What may be wired changes while the host runs: a reload looks again."""
        self._turnstile.room = room_of(self.daemon_spec, await self._around.host.memory())

    def _go(self, name: str, lacking: str) -> None:
        driver = self._drivers.get(name)
        if driver is None:
            return
        if lacking:
            self.events.tell("warning", vm=name, reason=f"{MEMORY_SHORT}: {lacking}", by=driver.status.by)
        driver.submit(Turn())

    def _hold_back(self, name: str, why: str, roomless: bool) -> None:
        driver = self._drivers.get(name)
        if driver is not None:
            driver.set_waiting_for(why, roomless=roomless)

    # --- what control asks ---------------------------------------------------------------------------------------------------

    @property
    def board(self) -> Board:
        return self._around.board

    @property
    def consoles(self) -> Consoles:
        return self._around.consoles

    @property
    def events(self) -> Events:
        return self._around.events

    @property
    def closing(self) -> bool:
        """The daemon stops its guests."""
        return self._stopping is not None

    @property
    def target(self) -> Target:
        """This host, for plans."""
        return self._around.target

    @property
    def drain(self) -> Drain | None:
        return self._draining.drain

    def set_drain(self, drain: Drain | None, *, by: str = "") -> None:
        """Stop every guest in order and start none, or take that back (`by` whom): then those that are wished up start."""
        self._draining.set(drain, by)

    async def drain_kept(self) -> None:
        """See `daemon.guests.Guests.drain_kept`."""
        await in_time([self._draining.saved])

    def _drained(self, drain: Drain) -> None:
        if not self.closing:
            assert self._nursery is not None
            why = f"stopped by {drain.by}'s drain of the host" + (f": {drain.reason}" if drain.reason else "")
            self._drain_stop = Stopping(self._drivers, self.board, self.now, Shutdown(by=f"drain by {drain.by}", why=why))
            self._nursery.start_soon(self._drain_stop.run)

    def _undrained(self) -> None:
        if self._drain_stop is not None:  # a guest whose turn to stop has not come must not be stopped whenever those before it are down
            self._drain_stop.call_off()
        if not self.closing:
            for driver in self._drivers.values():
                driver.open_again("the end of the drain")

    async def shutdown_budget_s(self) -> float | None:
        """How long the host would wait for all guests together; None: it does not say."""
        rcshutdown_s, init_s = await self._around.host.shutdown_limits()
        if rcshutdown_s is None and init_s is None:
            return None
        return hostend.budget_s(rcshutdown_s, init_s, float(self.daemon_spec.shutdown.margin))

    @property
    def room(self) -> Room:
        """What guests may have of the host's memory."""
        return self._turnstile.room

    def now(self) -> float:
        return self._around.host.monotonic()

    def utc(self) -> datetime:
        return self._around.host.utc()

    def names(self) -> list[str]:
        return sorted(self._drivers)

    def spec(self, name: str) -> VmSpec | None:
        """As configured."""
        driver = self._drivers.get(name)
        return None if driver is None or driver.orphaned else driver.spec

    def started_spec(self, name: str) -> VmSpec | None:
        """As started, while something of it runs."""
        driver = self._drivers.get(name)
        return None if driver is None else driver.started_spec

    def changes(self, name: str) -> tuple[Change, ...]:
        """Keys whose new value waits for another run."""
        return self._drivers[name].changes

    def runs(self, name: str, last: int) -> list[RunRecord]:
        """The newest runs, oldest first."""
        return self._around.journal.runs(name, last)

    def submit(self, name: str, wish: Wish) -> Answer:
        """Ask one guest. Raises KeyError where there is none."""
        driver = self._drivers[name]
        if self.closing and isinstance(wish, Start | Restart):
            return SHUTTING_DOWN
        if self._draining.refusal is not None and isinstance(wish, Start | Restart):
            return self._draining.refusal
        if driver.broken and isinstance(wish, Start | Restart | Stop | Poweroff):
            driver = self._drive_again(name)
        driver.look()
        is_new = isinstance(wish, Start) and not wish.auto and not driver.status.room_bytes
        lacking = self._turnstile.lacks(name, share_of(driver.spec)) if is_new else ""
        try:
            answer = driver.submit(wish)
            return msgspec.structs.replace(answer, text=f"{MEMORY_SHORT}: {lacking}") if lacking and answer.ok else answer
        except Exception as error:
            _log.exception("internal error", vm=name)
            driver.fail(error)
            self._scopes[name].cancel()
            return Answer(False, "internal-error", driver.broken)

    def bar(self, name: str, why: str) -> None:
        """Let this guest not start, whoever asks, until `unbar`: it waits, and says for what."""
        self._turnstile.bar(name, why)

    def unbar(self, name: str) -> None:
        self._turnstile.unbar(name)

    def frozen(self, name: str) -> AbstractAsyncContextManager[Frozen]:
        """The guest's file systems, as far as its agent can freeze them. Raises KeyError."""
        return self._drivers[name].frozen()

    async def kept(self, *names: str) -> None:
        """See `daemon.guests.Guests.kept`."""
        await in_time(self._drivers[name].saved for name in names if name in self._drivers)

    def _drive_again(self, name: str) -> VmDriver:
        """A person wants something of a guest whose driver met a bug: a fresh one takes its run up."""
        assert self._nursery is not None
        old = self._drivers[name]
        driver = self._add(old.spec, record=old.record, blocked=old.blocked, orphaned=old.orphaned)
        self._nursery.start_soon(self._drive, name)
        return driver

    async def nmi(self, name: str) -> Answer:
        return await self._drivers[name].inject_nmi()

    async def suspend(self, name: str, *, by: str) -> Answer:
        return await self._drivers[name].suspend(by)

    def plan(self, name: str, *, target: Target | None = None, install: bool = False) -> Plan:
        """What the next start would do, with what is remembered of the guest. Raises ConfError, KeyError."""
        driver = self._drivers[name]
        target = self._around.target if target is None else target
        guess = provisional(driver.spec, arch=target.arch, install=install)
        status, record = driver.status, driver.record
        taps = dict(zip(guess.taps, status.taps, strict=False)) if status.taps else guess.taps
        assigned = msgspec.structs.replace(
            guess,
            slots=slots.assign(driver.spec, record.slots, target.arch),
            macs=macs.assign(driver.spec, record.macs, host_id=self._around.host_id),
            taps=taps,
            vnc=status.vnc or guess.vnc,
        )
        notes: tuple[str, ...] = ()
        seed = driver.spec.cloud_init
        if seed is not None:
            is_set_up = seed.when == "first" and bool(record.seed)
            notes = ("cloud-init: the guest has been set up: its seed is attached again when what is in it changes",) if is_set_up else ()
            path = "" if is_set_up else f"{self._around.spec.paths.db}/cloud-init/{name}.iso"
            assigned = msgspec.structs.replace(assigned, seed=path)
        return lay_out(driver.spec, assigned, target, f"{self._around.spec.paths.run}/vm/{name}", notes)

    async def check(self) -> Loaded:
        """Read the files as they are now; nothing changes."""
        return await trio.to_thread.run_sync(self._files.read)

    # --- reload --------------------------------------------------------------------------------------------------------------

    async def reload(self, *, plan_only: bool, prune: bool, by: str) -> Reloaded:
        """Put the files in force, all or nothing. One at a time."""
        async with self._reloading:
            loaded = await self.check()
            problems = tuple(map(str, loaded.problems))
            warnings = tuple(map(str, loaded.warnings))
            if problems or loaded.daemon is None:
                self._around.events.tell("reload-refused", reason=f"{len(problems)} problems", by=by)
                return Reloaded(applied=False, problems=problems, warnings=warnings)
            now = {name: driver.spec for name, driver in self._drivers.items() if not driver.orphaned and name not in self._broken}
            changes = plan_reload(now, loaded.vms, (self.daemon_spec, loaded.daemon))
            orphans = tuple(sorted(name for name, driver in self._drivers.items() if driver.orphaned and name not in loaded.vms))
            changes = msgspec.structs.replace(changes, removed=tuple(sorted({*changes.removed, *(orphans if prune else ())})))
            running = tuple(name for name in changes.removed if name in self._drivers and not self._drivers[name].is_over)
            if not plan_only:
                await self._apply(loaded, changes, prune=prune, by=by)
            return Reloaded(
                applied=not plan_only,
                added=changes.added,
                removed=changes.removed,
                changed=dict(changes.changed),
                daemon=changes.daemon,
                starts=tuple(name for name in changes.added if loaded.vms[name].autostart and not self.closing and self.drain is None),
                stops=running if prune else (),
                orphans=() if prune else running,
                warnings=warnings,
            )

    async def _apply(self, loaded: Loaded, changes: ReloadPlan, *, prune: bool, by: str) -> None:
        assert loaded.daemon is not None
        assert self._nursery is not None
        try:
            await trio.to_thread.run_sync(self._files.accept)
        except HostError as error:
            self._around.events.tell("warning", reason=f"no good copy of the configuration could be kept: {error}")
        self._loaded, self.daemon_spec = loaded, live(self.daemon_spec, loaded.daemon)
        self._around.spec = self.daemon_spec
        self._turnstile.pace = _pace(self.daemon_spec)
        await self._measure()
        self._around.hooks.ours, self._around.hooks.run_as = self.daemon_spec.hooks, self.daemon_spec.run_as or ""
        self.on_reload(self.daemon_spec)
        for name in changes.removed:
            self._remove(name, prune=prune, by=by)
        for name in order.start_order(loaded.vms):  # whoever is waited for is there before those that wait
            spec = loaded.vms[name]
            if name in self._drivers:
                self._broken.pop(name, None)
                self._drivers[name].update(spec)
            else:
                self._add(spec)
                await self._nursery.start(self._drive, name)
        self._turnstile.stir()
        self._around.events.tell("reloaded", by=by, added=len(changes.added), removed=len(changes.removed), changed=len(changes.changed))

    def _remove(self, name: str, *, prune: bool, by: str) -> None:
        assert self._nursery is not None
        driver = self._drivers[name]
        driver.orphan(ORPHANED)
        if prune and not driver.is_over:
            driver.submit(Stop(by=f"{by}: its file has gone"))
        if prune or driver.is_over:
            self._nursery.start_soon(self._forget_when_over, name)

    async def _forget_when_over(self, name: str) -> None:
        driver = self._drivers[name]
        while self._drivers.get(name) is driver and driver.orphaned and not driver.is_over:
            await self._around.board.wait_newer(self._around.board.generation)
        await driver.hooks_done()  # which would be cut short with their driver
        if self._drivers.get(name) is driver and driver.orphaned:
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        self._scopes[name].cancel()
        del self._drivers[name], self._scopes[name]
        self._records.pop(name, None)
        self._around.board.remove(name)
        self._around.consoles.close(name)
        with contextlib.suppress(HostError):
            await self._around.vault.forget(name)
        self._around.events.tell("forgotten", vm=name)

    # --- the end -------------------------------------------------------------------------------------------------------------

    def stop_all(self, *, by: str, end_at: float | None = None) -> Stopping:
        """Begin to stop every guest, in reverse order. Asked again, it is the same stop."""
        if self._stopping is None:
            self._around.events.tell("stopping", by=by, reason="all guests are being stopped")
            for name in [name for name, driver in self._drivers.items() if driver.broken]:
                self._drive_again(name)
            self._stopping = Stopping(self._drivers, self.board, self.now, Shutdown(by=by, end_at=end_at))
            assert self._nursery is not None
            self._nursery.start_soon(self._stopping.run)
        return self._stopping

    async def hooks_done(self) -> None:
        """Return when no hook of any guest runs any more: each has a time limit."""
        for driver in list(self._drivers.values()):
            if not driver.broken:
                await driver.hooks_done()

    async def saved(self) -> None:
        """Return when every guest's record is on disk, and a drain, has refused to go there, or has had its time."""
        await in_time([self._draining.saved, *(driver.saved for driver in self._drivers.values())])


class _Once:
    """Tells an owner once that a task has started, also when it has failed before."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status: trio.TaskStatus[None] | None = task_status

    def __call__(self) -> None:
        if self._task_status is not None:
            self._task_status.started()
            self._task_status = None


def _placeholder(name: str) -> VmSpec:
    """A guest of whom no file can be read: nothing starts it."""
    return VmSpec(name=name, autostart=False, serial=())


def live(old: DaemonSpec, new: DaemonSpec) -> DaemonSpec:
    """What of a new main file can be in force without a restart of the daemon; `reload --plan` calls the rest refused."""
    return msgspec.structs.replace(
        new,
        paths=old.paths,
        log=msgspec.structs.replace(new.log, to=old.log.to),
        console=msgspec.structs.replace(new.console, ring=old.console.ring),
    )


def _pace(spec: DaemonSpec) -> Pace:
    return Pace(parallel=spec.start_parallel, gap_s=float(spec.start_gap))
