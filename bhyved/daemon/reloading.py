"""Puts changed files in force: all of them, or none when there is anything wrong with one."""

from collections.abc import Callable, Iterable

import msgspec
import trio

from bhyved.core import order
from bhyved.core.answers import Reloaded
from bhyved.core.config import Loaded
from bhyved.core.errors import HostError
from bhyved.core.lifecycle import Stop
from bhyved.core.reload import ReloadPlan
from bhyved.core.reload import plan as plan_reload
from bhyved.core.room import room_of
from bhyved.core.spec import DaemonSpec
from bhyved.core.turns import Pace
from bhyved.daemon.around import Around
from bhyved.daemon.ports import Files
from bhyved.daemon.roster import Roster
from bhyved.daemon.turnstile import Turnstile
from bhyved.threads import in_thread

READ_S = 30.0  # hundreds of small files take a fraction of a second


class Reloading:
    """What is in force is `around.spec` and the drivers' specs. `broken`: guests of whose files no version could be used."""

    def __init__(self, around: Around, files: Files, roster: Roster, turnstile: Turnstile, *, broken: Iterable[str]) -> None:
        self.done: Callable[[DaemonSpec], None] = lambda spec: None  # for what the app has made
        self._around, self._files, self._roster, self._turnstile = around, files, roster, turnstile
        self._broken = set(broken)
        self.read_s = READ_S
        self._one = trio.Lock()

    async def check(self) -> Loaded:
        """Read the files as they are now; nothing changes. Raises HostError."""
        with trio.move_on_after(self.read_s):
            return await in_thread(self._files.read, abandon_on_cancel=True)
        raise HostError(f"the configuration, or a file that it names, could not be read within {self.read_s:g} s: is a mount dead?")

    async def measure(self) -> None:
        """How much memory there is for guests. What may be wired changes while the host runs: a reload looks again."""
        self._turnstile.room = room_of(self._around.spec, await self._around.host.memory())

    async def reload(self, *, plan_only: bool, prune: bool, by: str) -> Reloaded:
        """One at a time. With `plan_only` it is only said what would be. Raises HostError."""
        async with self._one:
            loaded = await self.check()
            problems = tuple(map(str, loaded.problems))
            warnings = tuple(map(str, loaded.warnings))
            if problems or loaded.daemon is None:
                self._around.events.tell("reload-refused", reason=f"{len(problems)} problems", by=by)
                return Reloaded(applied=False, problems=problems, warnings=warnings)
            changes = self._changes(loaded, loaded.daemon, prune=prune)
            drivers = self._roster.drivers
            running = tuple(name for name in changes.removed if name in drivers and not drivers[name].is_over)
            if not plan_only:
                await self._apply(loaded, loaded.daemon, changes, prune=prune, by=by)
            return Reloaded(
                applied=not plan_only,
                added=changes.added,
                removed=changes.removed,
                changed=dict(changes.changed),
                daemon=changes.daemon,
                starts=tuple(name for name in changes.added if loaded.vms[name].autostart and not self._roster.is_shut()),
                stops=running if prune else (),
                orphans=() if prune else running,
                warnings=warnings,
            )

    def _changes(self, loaded: Loaded, daemon: DaemonSpec, *, prune: bool) -> ReloadPlan:
        drivers = self._roster.drivers
        now = {name: driver.spec for name, driver in drivers.items() if not driver.orphaned and name not in self._broken}
        changes = plan_reload(now, loaded.vms, (self._around.spec, daemon))
        orphans = [name for name, driver in drivers.items() if driver.orphaned and name not in loaded.vms] if prune else []
        return msgspec.structs.replace(changes, removed=tuple(sorted({*changes.removed, *orphans})))

    async def _apply(self, loaded: Loaded, daemon: DaemonSpec, changes: ReloadPlan, *, prune: bool, by: str) -> None:
        around, roster = self._around, self._roster
        try:
            await in_thread(self._files.accept)
        except HostError as error:
            around.events.tell("warning", reason=f"no good copy of the configuration could be kept: {error}")
        around.spec = live(around.spec, daemon)
        self._turnstile.pace = pace_of(around.spec)
        await self.measure()
        around.hooks.ours, around.hooks.run_as = around.spec.hooks, around.spec.run_as or ""
        self.done(around.spec)
        for name in changes.removed:
            if name not in roster.drivers:
                continue  # an earlier prune has been waiting for its end, which has come meanwhile
            roster.orphan(name, forget=prune)
            if prune and not roster.drivers[name].is_over:
                roster.drivers[name].submit(Stop(by=f"{by}: its file has gone"))
        for name in order.start_order(loaded.vms):  # whoever is waited for is there before those that wait
            spec = loaded.vms[name]
            if name in roster.drivers:
                self._broken.discard(name)
                roster.drivers[name].update(spec)
            else:
                roster.add(spec)
                await roster.drive(name)
        self._turnstile.stir()
        around.events.tell("reloaded", by=by, added=len(changes.added), removed=len(changes.removed), changed=len(changes.changed))


def live(old: DaemonSpec, new: DaemonSpec) -> DaemonSpec:
    """What of a new main file can be in force without a restart of the daemon; `reload --plan` calls the rest refused."""
    return msgspec.structs.replace(
        new,
        paths=old.paths,
        log=msgspec.structs.replace(new.log, to=old.log.to),
        console=msgspec.structs.replace(new.console, ring=old.console.ring),
    )


def pace_of(spec: DaemonSpec) -> Pace:
    """How guests that come together follow each other."""
    return Pace(parallel=spec.start_parallel, gap_s=float(spec.start_gap))
