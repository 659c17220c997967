"""Suspend and resume as the daemon sees them, in virtual time."""

import pytest
import trio
import trio.testing

from bhyved.core.exits import ExitKind, Stage
from bhyved.core.spec import Stop as StopSpec
from bhyved.core.status import Desired, Phase, Suspension, VmRecord
from bhyved.daemon.ports import Found
from tests.daemon.fakehost import NOON, FakeHost, FakeVault, Life
from tests.daemon.guestkit import guest, lab

SAVED = Suspension(at=NOON, by="alice", path="/db/suspend/web1/saved")


async def test_a_guest_is_suspended_and_resumed(autojump_clock: object) -> None:
    """Down with its state on disk, then up again from it, which uses it up; the history tells both."""
    async with lab(guest(autostart=True)) as it:
        await it.phase("up")
        answer = await it.guests.suspend("web1", by="alice")
        assert (answer.ok, answer.text) == (True, "virtio-blk is risky")
        assert (it.status().phase, it.status().suspending, it.status().ready) == (Phase.STOPPING, True, False)
        down = await it.phase("down")
        assert (down.desired, down.reason) == (Desired.DOWN, "suspended to disk at /db/suspend/web1/saved")
        assert down.suspended is not None
        assert down.suspended == Suspension(at=down.suspended.at, by="alice", path="/db/suspend/web1/saved")
        assert it.machine().suspends == 0
        assert (down.exits, down.stop_s.total_s) == ({ExitKind.SUSPENDED: 1}, 0.0)
        assert (await it.guests.suspend("web1", by="alice")).code == "already"

        it.start()
        await it.phase("up")
        with trio.fail_after(60):
            while it.status().suspended is not None:
                await it.guests.board.wait_newer(it.guests.board.generation)

    assert it.machine().did[-1] == "spent"
    assert [record.kind for record in it.journal.records] == ["suspended"]
    assert [event.reason for event in it.journal.events if event.event == "resuming"] == [
        f"it goes on from its state of {down.suspended.at:%Y-%m-%d %H:%M:%S} UTC"
    ]


async def test_a_guest_that_cannot_be_suspended_goes_on(autojump_clock: object) -> None:
    """Refused where it is known beforehand, and told where bhyve finds out."""
    async with lab(guest(autostart=True)) as it:
        await it.phase("up")
        it.machine().cannot_suspend = "no release can"
        refused = await it.guests.suspend("web1", by="alice")
        assert (refused.ok, refused.code, refused.text) == (False, "cannot-suspend", "no release can")
        it.machine().cannot_suspend = ""
        it.machine()._life.suspend_fails = "Could not pause devices"
        assert (await it.guests.suspend("web1", by="alice")).ok
        while it.status().phase is Phase.STOPPING:
            await it.guests.board.wait_newer(it.guests.board.generation)

    assert (it.status().phase, it.status().reason) == (Phase.UP, "not suspended: Could not pause devices")
    assert (it.status().desired, it.status().ready) == (Desired.UP, True)
    assert [event.reason for event in it.journal.events if event.event == "suspend-failed"] == ["Could not pause devices"]


SUSPENDS = StopSpec(on_host_shutdown="suspend")


async def test_the_end_of_the_host_suspends_who_wants_that(autojump_clock: object) -> None:
    """One is written to disk, one gets its button; both are up again by themselves after the boot, the one where it was."""
    vault = FakeVault()
    async with lab(guest("web1", autostart=True, stop=SUSPENDS), guest("db1", autostart=True), vault=vault) as it:
        for name in ("web1", "db1"):
            await it.phase("up", name)
        await it.guests.stop_all(by="SIGTERM (reboot of the host)", end_at=it.host.monotonic() + 60).done()
        await it.guests.saved()

        web1, db1 = it.status("web1"), it.status("db1")
        assert (web1.phase, web1.desired, web1.reason) == (Phase.DOWN, Desired.UP, "suspended to disk at /db/suspend/web1/saved")
        assert web1.suspended is not None
        assert web1.suspended.by == "SIGTERM (reboot of the host)"
        assert (db1.phase, db1.suspended, "press" in it.machine("web1").did, "press" in it.machine("db1").did) == (
            Phase.DOWN,
            None,
            False,
            True,
        )
        assert [event.reason for event in it.journal.events if event.event == "warning"] == ["virtio-blk is risky"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cannot_suspend": "no release can"}, "no release can"),
        ({"suspend_fails": "Could not pause devices"}, "Could not pause devices"),
        ({"suspend_s": None}, None),
    ],
)
async def test_who_cannot_be_suspended_in_time_is_stopped(changes: dict[str, object], why: str | None, autojump_clock: object) -> None:
    """By the deadline of the host, whatever the suspend does; why it failed is told where bhyve has said it."""
    async with lab(guest(autostart=True, stop=SUSPENDS)) as it:
        await it.phase("up")
        machine = it.machine()
        for key, value in changes.items():
            setattr(machine if hasattr(machine, key) else machine._life, key, value)
        end_at = it.host.monotonic() + 60
        await it.guests.stop_all(by="SIGTERM (reboot of the host)", end_at=end_at).done()

        assert it.host.monotonic() <= end_at
        assert (it.status().phase, it.status().suspended, "press" in machine.did) == (Phase.DOWN, None, True)
        assert [event.reason for event in it.journal.events if event.event == "suspend-failed"] == ([] if why is None else [why])


async def test_a_plain_stop_of_the_daemon_suspends_nobody(autojump_clock: object) -> None:
    """Nor does a drain, nor whoever skips the grace: there is no end of the host."""
    async with lab(guest(autostart=True, stop=SUSPENDS)) as it:
        await it.phase("up")
        await it.guests.stop_all(by="SIGTERM").done()

        assert (it.status().suspended, "press" in it.machine().did, "suspend" in it.machine().did) == (None, True, False)


async def test_only_a_guest_that_is_up_is_suspended(autojump_clock: object) -> None:
    """Nothing is asked of the host for any other."""
    async with lab(guest(autostart=False)) as it:
        answer = await it.guests.suspend("web1", by="alice")

    assert (answer.code, it.machine().did) == ("not-running", [])


async def test_a_stop_while_it_is_suspended(autojump_clock: object) -> None:
    """The button is pressed; the failure of the suspend that comes too late changes nothing."""
    life = Life(suspend_s=1.0, suspend_fails="Could not pause devices", acpi_s=5.0)
    async with lab(guest(autostart=True)) as it:
        it.machine().lives = [life]
        it.machine()._life = life
        await it.phase("up")
        await it.guests.suspend("web1", by="alice")
        it.stop()
        down = await it.phase("down")

    assert "press" in it.machine().did
    assert (down.reason, down.desired) == ("stopped by alice", Desired.DOWN)


async def test_a_suspend_is_taken_up_by_the_next_daemon(autojump_clock: object) -> None:
    """It waits for what comes of it, as the one before did."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").found = Found(
            run="r1", by="alice", stage=Stage.RUNNING, spec=guest(), pid=1, started=0.0, started_at=NOON, suspending=True
        )
        async with lab(guest(autostart=True), host=host) as it:
            assert it.status().suspending
            down = await it.phase("down")
        nursery.cancel_scope.cancel()

    assert (down.desired, down.adopted, it.machine().did.count("suspend")) == (Desired.DOWN, False, 1)
    assert down.suspended is not None


async def test_a_resume_is_taken_up_by_the_next_daemon(autojump_clock: object) -> None:
    """Whoever sees the guest up uses its state up."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").suspension = SAVED
        host.machine("web1").found = Found(
            run="r1", by="alice", stage=Stage.RUNNING, spec=guest(), pid=1, started=0.0, started_at=NOON, resumes=True
        )
        async with lab(guest(autostart=True), host=host) as it:
            while it.status().suspended is not None:
                with trio.fail_after(60):
                    await it.guests.board.wait_newer(it.guests.board.generation)
            assert it.status().phase is Phase.UP
        nursery.cancel_scope.cancel()

    assert it.machine().did == ["spent"]


@pytest.mark.parametrize(("autostart", "phase"), [(True, Phase.UP), (False, Phase.DOWN)])
async def test_when_the_host_boots(autojump_clock: object, autostart: bool, phase: Phase) -> None:
    """A guest with autostart goes on where it was, any other stays suspended."""
    async with trio.open_nursery() as nursery:
        host, vault = FakeHost(nursery, boot="b2"), FakeVault()
        vault.records["web1"] = VmRecord(desired=Desired.DOWN, desired_boot="b1")
        host.machine("web1").suspension = SAVED
        async with lab(guest(autostart=autostart), host=host, vault=vault) as it:
            await it.phase(phase)
            assert [order.cold for order in it.machine().orders] == ([False] if autostart else [])
        nursery.cancel_scope.cancel()


async def test_on_the_same_boot_it_stays_suspended_over_the_daemon(autojump_clock: object) -> None:
    """Also with autostart: it was suspended, not forgotten."""
    async with trio.open_nursery() as nursery:
        host, vault = FakeHost(nursery), FakeVault()
        vault.records["web1"] = VmRecord(desired=Desired.DOWN, desired_boot="b1")
        host.machine("web1").suspension = SAVED
        async with lab(guest(autostart=True), host=host, vault=vault) as it:
            await trio.testing.wait_all_tasks_blocked()
            assert (it.status().phase, it.status().suspended) == (Phase.DOWN, SAVED)
        nursery.cancel_scope.cancel()


async def test_a_cold_start_throws_the_state_away(autojump_clock: object) -> None:
    """And says so to the host, also when it is tried again."""
    async with lab(guest(autostart=False)) as it:
        it.machine().suspension = SAVED
        it.start(cold=True)
        up = await it.phase("up")

    assert (it.machine().orders[0].cold, up.suspended) == (True, None)


async def test_a_state_that_cannot_be_restored_holds_the_guest(autojump_clock: object) -> None:
    """One try, and the state is still there."""
    async with lab(guest(autostart=False)) as it:
        it.machine().suspension = SAVED
        it.machine().lives = [Life(after_s=0.0, status=1, title_s=60.0, stderr="Failed to restore VM memory.")]
        it.start()
        held = await it.phase("held")

    assert held.reason.startswith("bhyve could not restore the saved state: its saved state is kept")
    assert held.suspended == SAVED
    assert it.machine().did.count("spawn") == 1
