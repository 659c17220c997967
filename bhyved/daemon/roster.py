"""Who is looked after: one driver a guest, each a task of its own, from when its guest is known until it is forgotten."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Never

import structlog
import trio

from bhyved.core.errors import HostError
from bhyved.core.lifecycle import Shutdown
from bhyved.core.spec import VmSpec
from bhyved.core.status import Phase, VmRecord
from bhyved.daemon.around import Around
from bhyved.daemon.driver import VmDriver
from bhyved.daemon.turnstile import Turnstile

_log = structlog.get_logger()

ORPHANED = "its configuration file has gone: nothing starts it any more; put the file back, or `vmctl reload --prune` forgets it"


class Roster:
    """The drivers, by the names of their guests. `records`: what is kept of each; `is_shut`: whether nothing starts by itself now."""

    def __init__(self, around: Around, turnstile: Turnstile, records: Mapping[str, VmRecord], is_shut: Callable[[], bool]) -> None:
        self.drivers: dict[str, VmDriver] = {}
        self.is_shut = is_shut
        self._around, self._turnstile, self._records = around, turnstile, dict(records)
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Keep the drivers until cancelled. Started means: each has taken up what an earlier daemon left of its guest."""
        async with trio.open_nursery() as self._nursery:
            # All at once: each has a little to read, and none waits for another.
            async with trio.open_nursery() as taking_up:
                for name in list(self.drivers):
                    taking_up.start_soon(self.drive, name)
            task_status.started()
            await trio.sleep_forever()
        raise AssertionError("a nursery that sleeps for ever has ended")

    def add(self, spec: VmSpec, *, record: VmRecord | None = None, blocked: str = "", orphaned: bool = False) -> VmDriver:
        """A driver for this guest; `drive` has it begin."""
        if record is None:
            record = self._records.get(spec.name, VmRecord())
        driver = VmDriver(spec, self._around, self._turnstile, record, blocked=blocked, orphaned=orphaned)
        if self.is_shut():
            driver.close(Shutdown(by="bhyved"))
        self.drivers[driver.name] = driver
        return driver

    def add_unreadable(self, name: str, why: str, *, orphaned: bool = False) -> None:
        """A guest of whom no file can be read: nothing starts it."""
        self.add(VmSpec(name=name, autostart=False, serial=()), blocked=why, orphaned=orphaned)

    async def drive(self, name: str) -> None:
        """Have a driver begin, and return when it has taken up what there is."""
        assert self._nursery is not None
        await self._nursery.start(self._drive, name)

    async def _drive(self, name: str, *, task_status: trio.TaskStatus[None]) -> None:
        """One driver until it is forgotten. A bug in it costs this guest's automation; the guest itself runs on."""
        driver = self.drivers[name]
        with trio.CancelScope() as scope:
            self._scopes[name] = scope
            started = _Once(task_status)
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(driver.run)
                    started()
            except* Exception as error:  # which may come together with the cancellation of all
                _log.exception("internal error", vm=name)
                driver.fail(error)
                self._around.events.tell("internal-error", vm=name, phase=Phase.HELD, reason=driver.broken)
            started()

    def drive_again(self, name: str) -> VmDriver:
        """Somebody wants something of a guest whose driver met a bug: a fresh one takes its run up."""
        assert self._nursery is not None
        old = self.drivers[name]
        driver = self.add(old.spec, record=old.record, blocked=old.blocked, orphaned=old.orphaned)
        self._nursery.start_soon(self.drive, name)
        return driver

    def orphan(self, name: str, *, forget: bool) -> None:
        """The guest's file has gone. With `forget` so does the guest, when nothing of it runs any more."""
        self.drivers[name].orphan(ORPHANED)
        if forget or self.drivers[name].is_over:
            assert self._nursery is not None
            self._nursery.start_soon(self._forget_when_over, name)

    async def _forget_when_over(self, name: str) -> None:
        driver = self.drivers[name]
        while self.drivers.get(name) is driver and driver.orphaned and not driver.is_over:
            await self._around.board.wait_newer(self._around.board.generation)
        await driver.hooks_done()  # which would be cut short with their driver
        if self.drivers.get(name) is driver and driver.orphaned:
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        self._scopes[name].cancel()
        del self.drivers[name], self._scopes[name]
        self._records.pop(name, None)
        self._around.board.remove(name)
        self._around.consoles.close(name)
        with contextlib.suppress(HostError):
            await self._around.vault.forget(name)
        self._around.events.tell("forgotten", vm=name)


class _Once:
    """Tells an owner once that a task has started, also when it has failed before."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status: trio.TaskStatus[None] | None = task_status

    def __call__(self) -> None:
        if self._task_status is not None:
            self._task_status.started()
            self._task_status = None
