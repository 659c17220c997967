"""A drain of the host, in virtual time: it outlives the daemon, ends by itself, and lets nothing start."""

from datetime import timedelta

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.config import Loaded
from bhyved.core.drain import Drain
from bhyved.core.lifecycle import SetHold
from bhyved.core.spec import DaemonSpec, Order
from bhyved.core.status import Hold, Phase
from bhyved.core.units import Duration
from bhyved.daemon.draining import Draining
from tests.daemon.fakehost import NOON, FakeDrainFile, FakeVault, Life
from tests.daemon.guestkit import Lab, guest, lab

FAST = DaemonSpec(start_parallel=100, start_gap=Duration(0))
DRAIN = Drain(by="alice", reason="new disks", since_at=NOON)


async def drained(it: Lab, name: str = "web1") -> None:
    it.guests.set_drain(DRAIN)
    await it.phase(Phase.DOWN, name)
    await it.guests.saved()


async def test_a_drain_outlives_the_daemon(autojump_clock: trio.abc.Clock) -> None:
    """The next daemon starts nothing, says why, and starts what is wished up when the drain is over."""
    vault, file = FakeVault(), FakeDrainFile()
    async with lab(guest(autostart=True), vault=vault, drain_file=file) as it:
        await it.phase(Phase.UP)
        await drained(it)
        assert it.status().reason == "stopped by alice's drain of the host: new disks"
    assert file.drain == DRAIN

    async with lab(guest(autostart=True), vault=vault, drain_file=file) as it:
        await trio.sleep(100)
        assert it.status().phase is Phase.DOWN
        assert it.guests.drain == DRAIN
        assert "alice has drained this host: new disks" in it.start().text
        it.guests.set_drain(None)
        await it.phase(Phase.UP)
        await it.guests.saved()

        assert file.drain is None


async def test_a_drain_that_was_over_before_the_daemon_came(autojump_clock: trio.abc.Clock) -> None:
    """Guests start at once."""
    file = FakeDrainFile(Drain(by="alice", since_at=NOON - timedelta(hours=2), until_at=NOON - timedelta(hours=1)))
    async with lab(guest(autostart=True), drain_file=file) as it:
        await it.phase(Phase.UP, within_s=1)
        await it.guests.saved()

        assert file.drain is None


async def test_the_last_drain_counts(autojump_clock: trio.abc.Clock) -> None:
    """One without an end in place of one with an end does not end with that."""
    async with lab(guest(autostart=True), daemon=FAST) as it:
        await it.phase(Phase.UP)
        it.guests.set_drain(Drain(by="alice", since_at=NOON, until_at=NOON + timedelta(hours=1)))
        it.guests.set_drain(DRAIN)
        await trio.sleep(2 * 3600)
        assert it.status().phase is Phase.DOWN
        it.guests.set_drain(Drain(by="bob", since_at=it.host.utc(), until_at=it.host.utc() + timedelta(minutes=5)))
        await it.phase(Phase.UP, within_s=301)


@pytest.mark.parametrize("stopping", [False, True], ids=["drained", "going down"])
async def test_a_guest_that_a_reload_adds_does_not_start(autojump_clock: trio.abc.Clock, stopping: bool) -> None:
    """Neither while the host is drained nor while it goes down."""
    async with lab(guest("old"), daemon=FAST) as it:
        if stopping:
            it.guests.stop_all(by="SIGTERM")
        else:
            it.guests.set_drain(DRAIN)
        it.files.loaded = Loaded(daemon=FAST, vms={"old": guest("old"), "new": guest("new", autostart=True)})
        await it.guests.reload(plan_only=False, prune=False, by="alice")
        await trio.sleep(100)

        assert it.status("new").phase is Phase.DOWN
        assert it.machine("new").did == []
        it.guests.set_drain(None)
        await trio.sleep(100)
        assert it.status("new").phase is (Phase.DOWN if stopping else Phase.UP)


async def test_the_end_of_a_drain_is_paced_as_a_boot_is(autojump_clock: trio.abc.Clock) -> None:
    """All guests are there to start in one moment, and their disks are the same as at a boot."""
    guests = [guest(f"vm{number}", autostart=True) for number in range(4)]
    async with lab(*guests) as it:
        await it.phase(Phase.UP, "vm3")
        await trio.sleep(100)
        it.guests.set_drain(DRAIN)
        for spec in guests:
            await it.phase(Phase.DOWN, spec.name)
        over = it.host.monotonic()
        it.guests.set_drain(None, by="alice")
        await it.phase(Phase.UP, "vm3")

        starts = [it.machine(spec.name).times("spawn")[-1] - over for spec in guests]
        assert starts == pytest.approx([0, 2, 4, 6], abs=0.1)


async def test_a_guest_on_hold_starts_when_both_are_over(autojump_clock: trio.abc.Clock) -> None:
    """It is not forgotten, whichever ends last."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        await drained(it)
        until_at = it.host.utc() + timedelta(hours=1)
        it.guests.submit("web1", SetHold(hold=Hold(by="bob", reason="disk check", since_at=it.host.utc(), until_at=until_at)))
        it.guests.set_drain(None, by="alice")
        assert it.status().phase is Phase.HELD
        assert "disk check" in it.status().reason
        await it.phase(Phase.UP)

        assert it.host.utc() >= until_at
        held = [(told.event, told.reason, told.by, told.data) for told in it.journal.events if told.event.startswith("hold")]
        assert held == [
            ("hold", "disk check", "bob", {"until": f"{until_at:%Y-%m-%d %H:%M:%S} UTC"}),
            ("hold-over", "", "the end of the hold", {}),
        ]


async def test_a_drain_that_cannot_be_kept_holds_all_the_same(autojump_clock: trio.abc.Clock) -> None:
    """The operator is told once, and it is kept when the disk has room again."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        it.drain_file.fails = True
        await drained(it)
        await trio.sleep(200)
        warnings = [event.reason for event in it.journal.events if event.event == "warning"]
        assert warnings == ["the next daemon will not know of this change of the drain: db/drain.json: no space left on device"]
        it.drain_file.fails = False
        await trio.sleep(30)

        assert it.drain_file.drain == DRAIN


async def test_an_answer_waits_for_the_disk_also_when_it_has_refused_before(autojump_clock: trio.abc.Clock) -> None:
    """What it took or refused last was another drain."""
    async with lab(guest()) as it:
        it.drain_file.fails = True
        it.guests.set_drain(DRAIN)
        await it.guests.drain_kept()
        assert it.drain_file.drain is None
        it.drain_file.fails = False
        it.guests.set_drain(msgspec.structs.replace(DRAIN, reason="another"))
        await it.guests.drain_kept()

        assert it.drain_file.drain is not None
        assert it.drain_file.drain.reason == "another"


async def test_a_drain_in_place_of_another_begins_no_second_stop(autojump_clock: trio.abc.Clock) -> None:
    """Its reason and its end are told and kept; the stop under way goes on as it was, and what is over is over once."""
    begun: list[Drain] = []
    ends: list[None] = []
    file = FakeDrainFile()
    async with lab() as it, trio.open_nursery() as nursery:
        draining = Draining(file, it.around.events, it.host.utc, began=begun.append, over=lambda: ends.append(None))
        nursery.start_soon(draining.run)
        later = Drain(by="bob", reason="new boards too", since_at=NOON, until_at=NOON + timedelta(hours=1))
        draining.set(DRAIN)
        draining.set(later)
        await draining.saved()
        assert (begun, ends, draining.drain, file.drain) == ([DRAIN], [], later, later)
        assert draining.refusal is not None
        assert draining.refusal.text.startswith("bob has drained this host: new boards too")
        await trio.sleep(3601)
        await draining.saved()
        draining.set(None, by="carol")

        assert (len(begun), len(ends), draining.drain, file.drain) == (1, 1, None, None)
        assert [(event.event, event.by) for event in it.journal.events] == [
            ("drain", "alice"),
            ("drain", "bob"),
            ("drain-over", "the end of its time"),
        ]
        assert [event.data for event in it.journal.events[:2]] == [{"until": None}, {"until": f"{later.until_at:%Y-%m-%d %H:%M:%S} UTC"}]
        nursery.cancel_scope.cancel()


async def test_a_drain_that_is_over_before_its_stop_is_stops_nobody_else(autojump_clock: trio.abc.Clock) -> None:
    """A guest whose turn to stop has not come runs on; one that was being stopped comes back."""
    specs = [guest("db1", autostart=True), guest("web1", autostart=True, order=Order(after=("db1",)))]
    async with lab(*specs, daemon=FAST) as it:
        it.machine("web1").lives = [Life(acpi_s=20.0), Life()]
        await it.phase(Phase.UP, "web1")
        it.guests.set_drain(DRAIN)
        await it.phase(Phase.STOPPING, "web1")
        it.guests.set_drain(None)
        await trio.sleep(100)
        assert (it.status("db1").phase, it.status("web1").phase) == (Phase.UP, Phase.UP)
        it.stop("web1")
        await it.phase(Phase.DOWN, "web1")
        await trio.sleep(100)

        assert it.status("db1").phase is Phase.UP
        assert it.machine("db1").did.count("press") == 0


async def test_a_drain_that_is_taken_back_at_once_stops_nobody(autojump_clock: trio.abc.Clock) -> None:
    """Not even the first."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        it.guests.set_drain(DRAIN)
        it.guests.set_drain(None)
        await trio.sleep(100)

        assert it.status().phase is Phase.UP
        assert it.machine().did.count("press") == 0


async def test_a_drain_that_follows_on_a_drain_stops_all_of_them(autojump_clock: trio.abc.Clock) -> None:
    """On, off and on again within a moment is on."""
    async with lab(guest("db1", autostart=True), guest("web1", autostart=True, order=Order(after=("db1",))), daemon=FAST) as it:
        it.machine("web1").lives = [Life(acpi_s=20.0)]
        await it.phase(Phase.UP, "web1")
        it.guests.set_drain(DRAIN)
        await it.phase(Phase.STOPPING, "web1")
        it.guests.set_drain(None)
        it.guests.set_drain(DRAIN)
        await it.phase(Phase.DOWN, "web1")
        await it.phase(Phase.DOWN, "db1")
        await trio.sleep(100)

        assert (it.status("db1").phase, it.status("web1").phase) == (Phase.DOWN, Phase.DOWN)
