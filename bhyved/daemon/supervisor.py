"""All guests: one driver each, started when it is their turn, stopped in order, changed by a reload.

Control, metrics and the page see the guests through this object; it decides nothing about a single guest that its driver could.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import msgspec
import trio

from bhyved.core import hostend
from bhyved.core.answers import Reloaded
from bhyved.core.assigned import Target
from bhyved.core.config import Loaded
from bhyved.core.drain import Drain
from bhyved.core.lifecycle import SHUTTING_DOWN, Answer, Poweroff, Restart, Shutdown, Start, Stop, Turn, Wish
from bhyved.core.nextstart import next_start
from bhyved.core.plan import Plan
from bhyved.core.reload import Change
from bhyved.core.room import Room, share_of
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import RunRecord, VmRecord
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
from bhyved.daemon.reloading import Reloading, pace_of
from bhyved.daemon.roster import ORPHANED, Roster
from bhyved.daemon.saving import in_time
from bhyved.daemon.stopping import Stopping
from bhyved.daemon.turnstile import Turnstile

MEMORY_SHORT = "it starts because somebody asked for it, but memory is short"


class Supervisor:
    """Satisfies what `daemon.control` asks of the guests."""

    def __init__(
        self, around: Around, files: Files, about: About, loaded: Loaded, *, broken: Mapping[str, str], records: Mapping[str, VmRecord]
    ) -> None:
        self.about = about
        self._around, self._loaded, self._broken = around, loaded, broken
        self._needs = Needs(around.host)
        self._turnstile = Turnstile(around.board, around.host.monotonic, self._needs, pace_of(around.spec))
        self._stopping: Stopping | None = None
        self._draining = Draining(around.drain_file, around.events, self.utc, began=self._drained, over=self._undrained)
        self._drain_stop: Stopping | None = None  # that a drain has begun
        self._roster = Roster(around, self._turnstile, records, lambda: self.closing or self.drain is not None)
        self._drivers: Mapping[str, VmDriver] = self._roster.drivers
        self._reloading = Reloading(around, files, self._roster, self._turnstile, broken=broken)
        self._nursery: trio.Nursery | None = None

    # --- the task ------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the guests until cancelled. Started means: every run of an earlier daemon has been taken up."""
        for name in self._around.host.ledgers():
            if name not in self._loaded.vms and name not in self._broken:
                self._roster.add_unreadable(name, ORPHANED, orphaned=True)
        for name in sorted({*self._loaded.vms, *self._broken}):
            if name in self._loaded.vms:
                self._roster.add(self._loaded.vms[name])
            else:
                self._roster.add_unreadable(name, self._broken[name])
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            async with trio.open_nursery() as beginning:
                beginning.start_soon(nursery.start, self._roster.run)
                beginning.start_soon(self._reloading.measure)
            nursery.start_soon(self._turnstile.run, self._go, self._hold_back)
            nursery.start_soon(self._needs.run, self._turnstile.stir)
            nursery.start_soon(self._needs.hear)
            self._turnstile.stir()
            nursery.start_soon(self._draining.run)
            if self._draining.drain is not None:
                self._drained(self._draining.drain)  # of an earlier daemon: whatever runs of guests has escaped it
            task_status.started()
            await trio.sleep_forever()

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
    def daemon_spec(self) -> DaemonSpec:
        """As the last reload left it."""
        return self._around.spec

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
            driver = self._roster.drive_again(name)
        driver.look()
        is_new = isinstance(wish, Start) and not wish.auto and not driver.status.room_bytes
        lacking = self._turnstile.lacks(name, share_of(driver.spec)) if is_new else ""
        answer = driver.submit(wish)
        return msgspec.structs.replace(answer, text=f"{MEMORY_SHORT}: {lacking}") if lacking and answer.ok else answer

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

    async def nmi(self, name: str) -> Answer:
        return await self._drivers[name].inject_nmi()

    async def suspend(self, name: str, *, by: str) -> Answer:
        return await self._drivers[name].suspend(by)

    def plan(self, name: str, *, target: Target | None = None, install: bool = False) -> Plan:
        """What the next start would do, with what is remembered of the guest. Raises ConfError, KeyError."""
        driver, around = self._drivers[name], self._around
        return next_start(
            driver.spec,
            driver.record,
            driver.status,
            around.target if target is None else target,
            host_id=around.host_id,
            paths=around.spec.paths,
            install=install,
        )

    async def check(self) -> Loaded:
        """Read the files as they are now; nothing changes."""
        return await self._reloading.check()

    async def reload(self, *, plan_only: bool, prune: bool, by: str) -> Reloaded:
        """Put the files in force, all or nothing."""
        return await self._reloading.reload(plan_only=plan_only, prune=prune, by=by)

    def on_reload(self, tell: Callable[[DaemonSpec], None]) -> None:
        """Have `tell` called with what is in force after each reload."""
        self._reloading.done = tell

    # --- the end -------------------------------------------------------------------------------------------------------------

    def stop_all(self, *, by: str, end_at: float | None = None) -> Stopping:
        """Begin to stop every guest, in reverse order. Asked again, it is the same stop."""
        if self._stopping is None:
            self._around.events.tell("stopping", by=by, reason="all guests are being stopped")
            for name in [name for name, driver in self._drivers.items() if driver.broken]:
                self._roster.drive_again(name)
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
