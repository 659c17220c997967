"""What gets to disk of one guest's record, and when."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bhyved.core.status import Desired, Hold, VmRecord
from bhyved.daemon.saving import LATER_S, Saving
from tests.daemon.controlkit import NOON
from tests.daemon.fakehost import FakeVault

UP, DOWN = VmRecord(desired=Desired.UP), VmRecord(desired=Desired.DOWN)


class Noted(FakeVault):
    """Notes each record and when it came."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[float, VmRecord]] = []

    async def save(self, name: str, record: VmRecord) -> None:
        self.saved.append((round(trio.current_time() - self.began, 3), record))
        await super().save(name, record)

    began = 0.0


@asynccontextmanager
async def saved_by(vault: Noted) -> AsyncIterator[Saving]:
    """A Saving at work, whose first record is on disk."""
    saving = Saving(vault, "web1", lambda event, reason: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saving.run)
        saving.put(UP)
        await saving.done()
        vault.began = trio.current_time()
        vault.saved.clear()
        yield saving
        nursery.cancel_scope.cancel()


def counted(record: VmRecord, forced: int) -> VmRecord:
    return VmRecord(desired=record.desired, hold=record.hold, forced_stops=forced)


async def test_counts_wait_for_each_other(autojump_clock: trio.abc.Clock) -> None:
    """What is counted within a moment is one write, of the newest."""
    vault = Noted()
    async with saved_by(vault) as saving:
        for forced in (1, 2, 3):
            saving.put(counted(UP, forced))
            await trio.sleep(LATER_S / 10)
        await trio.sleep(1)

    assert vault.saved == [(LATER_S, counted(UP, 3))]


@pytest.mark.parametrize("wish", [DOWN, VmRecord(desired=Desired.UP, hold=Hold(by="root", since_at=NOON))])
async def test_a_wish_waits_for_nothing(autojump_clock: trio.abc.Clock, wish: VmRecord) -> None:
    """A wish and a hold are saved at once, and with them what waited."""
    vault = Noted()
    async with saved_by(vault) as saving:
        saving.put(counted(UP, 1))
        await trio.sleep(LATER_S / 2)
        saving.put(counted(wish, 1))
        await trio.sleep(1)

    assert vault.saved == [(LATER_S / 2, counted(wish, 1))]


async def test_nothing_waits_while_somebody_waits_for_it(autojump_clock: trio.abc.Clock) -> None:
    """Whoever needs the record on disk has it there without delay."""
    vault = Noted()
    async with saved_by(vault) as saving:
        saving.put(counted(UP, 1))
        await saving.done()
        at = trio.current_time() - vault.began

    assert at == pytest.approx(0.0)
    assert vault.saved == [(0.0, counted(UP, 1))]


async def test_a_record_that_is_on_disk_is_not_written_again(autojump_clock: trio.abc.Clock) -> None:
    """What changes and changes back costs nothing."""
    vault = Noted()
    async with saved_by(vault) as saving:
        saving.put(counted(UP, 1))
        saving.put(UP)
        await trio.sleep(1)

    assert vault.saved == []
