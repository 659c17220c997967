"""An end that two daemons have seen, in virtual time: the first was killed when it had counted it, and before it had cleaned up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bhyved.core.boot import Boot
from bhyved.core.exits import ExitKind, Stage
from bhyved.core.lifecycle import Poweroff
from bhyved.core.spec import Restart, Stop, VmSpec
from bhyved.core.status import Book, Desired, Phase, Restarts
from bhyved.core.units import Duration, Limit
from bhyved.daemon.ports import Found
from tests.daemon.fakehost import NOON, FakeHost, FakeVault, Life
from tests.daemon.guestkit import Lab, guest, lab

OFTEN = Restart(reboot_limit=Limit(2, Duration(600)), crash_limit=Limit(2, Duration(600)), backoff=Duration(8))


async def never_clean(*, final: bool) -> None:
    await trio.sleep_forever()


async def cleaning(it: Lab) -> None:
    """Until the first daemon is in the middle of its cleaning up, and what it has decided is on disk."""
    it.machine().clean = never_clean  # type: ignore[method-assign]
    await it.phase(Phase.CLEANING)
    await trio.sleep(1)


@asynccontextmanager
async def next_daemon(spec: VmSpec, vault: FakeVault, host: FakeHost, run: str, stage: Stage, *lives: Life) -> AsyncIterator[Lab]:
    """On the same boot: it finds the traces of a run that has ended."""
    async with trio.open_nursery() as nursery:
        after = FakeHost(nursery)
        after._zero = host._zero
        machine = after.machine("web1")
        machine.found = Found(run=run, by="alice", stage=stage, spec=spec, pid=4711, started=host.monotonic() - 20, started_at=NOON)
        machine.lives = [*lives, Life()]
        async with lab(spec, vault=vault, host=after) as it:
            yield it
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("status", "kind", "restarts"),
    [(0, ExitKind.REBOOT, Restarts(reboot=2)), (4, ExitKind.ERROR, Restarts(crash=2))],
)
async def test_an_end_counts_once(status: int, kind: ExitKind, restarts: Restarts, autojump_clock: trio.abc.Clock) -> None:
    """Against the limit and in the record; and what was decided follows, at the time that was decided."""
    vault, spec = FakeVault(), guest(restart=OFTEN)
    async with lab(spec, vault=vault) as it:
        it.machine().lives = [Life(after_s=30.0, status=status)]
        it.start()
        await it.ran(1)
        await it.phase(Phase.UP)
        run = it.status().run
        await cleaning(it)
        counted = vault.records["web1"]
    async with next_daemon(spec, vault, it.host, run, Stage.RUNNING, Life(after_s=0.0, status=status)) as it:
        await it.ran(1)
        await it.phase(Phase.BACKOFF)
        assert it.status().next_start is not None
        assert counted.verdict is not None
        assert it.status().next_start == counted.verdict.at  # type: ignore[union-attr]
        assert "2 of 2" in it.journal.records[0].decision
        await it.phase(Phase.UP)
        await trio.testing.wait_all_tasks_blocked()

        record = vault.records["web1"]
        assert (record.exits, record.restarts) == ({kind: 2}, restarts)
        assert len(record.book.reboots + record.book.crashes) == 2
        assert it.machine().did == ["clean all", "prepare", "spawn"]


async def test_an_end_that_is_not_on_disk_counts_with_the_next_daemon(autojump_clock: trio.abc.Clock) -> None:
    """The first had seen it, and was killed before its record was written."""
    vault, spec = FakeVault(), guest(restart=OFTEN)
    async with lab(spec, vault=vault) as it:
        it.machine().lives = [Life(after_s=30.0, status=4)]
        it.start()
        await it.phase(Phase.UP)
        run = it.status().run
        await trio.sleep(1)
        vault.fails = True
        await cleaning(it)
    vault.fails = False
    async with next_daemon(spec, vault, it.host, run, Stage.RUNNING, Life(after_s=0.0, status=4)) as it:
        await it.phase(Phase.BACKOFF)
        await trio.sleep(1)

        record = vault.records["web1"]
        assert (record.exits, record.restarts) == ({ExitKind.ERROR: 1}, Restarts(crash=1))
        assert len(record.book.crashes) == 1


async def test_a_guest_over_its_limit_is_held_by_the_next_daemon_for_the_same_reason(autojump_clock: trio.abc.Clock) -> None:
    """And not for one crash more than it had."""
    vault, spec = FakeVault(), guest(restart=OFTEN)
    async with lab(spec, vault=vault) as it:
        it.machine().lives = [Life(after_s=1.0, status=4)]
        it.start()
        await it.ran(2)
        await it.phase(Phase.UP)
        run = it.status().run
        await cleaning(it)
        reason = it.status().reason
    async with next_daemon(spec, vault, it.host, run, Stage.RUNNING, Life(after_s=0.0, status=4)) as it:
        assert (await it.phase(Phase.HELD)).reason == reason
        await trio.testing.wait_all_tasks_blocked()

        assert vault.records["web1"].exits == {ExitKind.ERROR: 3}
        assert len(vault.records["web1"].book.crashes) == 3


async def test_a_loader_that_failed_counts_once(autojump_clock: trio.abc.Clock) -> None:
    """A failed start has its back-off doubled by the next failure, not by the next daemon."""
    vault, spec = FakeVault(), guest(restart=OFTEN, boot=Boot(loader="bhyveload"))
    async with lab(spec, vault=vault) as it:
        it.machine().loader = [(1.0, 1)]
        it.start()
        await it.phase(Phase.LOADING)
        run = it.status().run
        await cleaning(it)
    async with next_daemon(spec, vault, it.host, run, Stage.LOADING) as it:
        it.machine()._finish(1)
        await it.phase(Phase.BACKOFF)
        await trio.sleep(1)

        record = vault.records["web1"]
        assert (record.book, record.restarts) == (Book(failures=1), Restarts(start_failure=1))


async def test_a_forced_stop_counts_once(autojump_clock: trio.abc.Clock) -> None:
    """The next daemon does not know that the power was cut: the record does."""
    vault, spec = FakeVault(), guest(stop=Stop(timeout=Duration(5)))
    async with lab(spec, vault=vault) as it:
        it.machine().lives = [Life(acpi_s=None)]
        it.start()
        await it.phase(Phase.UP)
        run = it.status().run
        it.guests.submit("web1", Poweroff(by="alice"))
        await cleaning(it)
    async with next_daemon(spec, vault, it.host, run, Stage.RUNNING, Life(after_s=0.0, status=1)) as it:
        await it.phase(Phase.DOWN)
        await trio.testing.wait_all_tasks_blocked()

        record = vault.records["web1"]
        assert (record.desired, record.exits, record.forced_stops) == (Desired.DOWN, {ExitKind.POWEROFF: 1}, 1)
        assert record.last_exit is not None
        assert record.last_exit.forced
