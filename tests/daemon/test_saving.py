"""What gets to disk of one guest's record, and when."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bhyved.core.drain import Drain
from bhyved.core.lifecycle import SetHold
from bhyved.core.status import Desired, Hold, VmRecord
from bhyved.daemon.saving import LATER_S, SAVE_S, Saving
from tests.daemon.controlkit import NOON
from tests.daemon.fakehost import FakeDrainFile, FakeVault
from tests.daemon.guestkit import guest, lab

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


class HangingVault(FakeVault):
    """Of a disk that hangs: nothing gets there, and nothing is refused."""

    async def save(self, name: str, record: VmRecord) -> None:
        await trio.sleep_forever()


class HangingDrainFile(FakeDrainFile):
    """The same."""

    async def save(self, drain: Drain | None) -> None:
        await trio.sleep_forever()


async def test_a_disk_that_hangs_keeps_no_answer_back(autojump_clock: trio.abc.Clock) -> None:
    """A hold of many guests, a drain and the end of the daemon have one time each; what was asked for is in force all the same."""
    guests = [guest(f"web{number}") for number in range(3)]
    hold, drain = Hold(by="root", since_at=NOON), Drain(by="root", reason="", since_at=NOON, until_at=None)
    async with lab(*guests, vault=HangingVault(), drain_file=HangingDrainFile()) as it:
        names = it.guests.names()
        for name in names:
            assert it.guests.submit(name, SetHold(hold=hold)).ok
        it.guests.set_drain(drain)
        took = []
        for wait in (lambda: it.guests.kept(*names, "forgotten"), it.guests.drain_kept, it.guests.saved):
            began = trio.current_time()
            with trio.fail_after(60):
                await wait()
            took.append(trio.current_time() - began)

        assert took == pytest.approx([SAVE_S] * 3)
        assert [it.status(name).hold for name in names] == [hold] * 3
        assert it.guests.drain == drain
