"""What no run may meet: snapshots and rollbacks against the lifecycle of a real supervisor, over ZFS as a test plays it."""

from pathlib import Path

import pytest
import trio
import trio.testing

from bhyved.core.config import Loaded
from bhyved.core.devices import Disk
from bhyved.core.errors import HostError
from bhyved.core.lifecycle import SetHold, Start
from bhyved.core.snapshots import CONSISTENCY, VM, Refused
from bhyved.core.spec import VmSpec
from bhyved.core.status import Hold, Phase
from bhyved.core.values import AbsPath
from bhyved.daemon.census import PERIOD_S, Census
from bhyved.daemon.snapshots import UNFINISHED, Snapshots
from tests.daemon.controlkit import served, user
from tests.daemon.fakehost import NOON
from tests.daemon.fakezfs import ZVOLS, FakeDatasets
from tests.daemon.guestkit import Lab, guest, lab


def with_disks(name: str, *volumes: str) -> VmSpec:
    return guest(name, disk=tuple(Disk(path=AbsPath(f"{ZVOLS}{volume}")) for volume in volumes))


WEB = with_disks("web1", "zroot/a", "zroot/b")


def made(it: Lab) -> tuple[Snapshots, FakeDatasets]:
    datasets = FakeDatasets()
    return Snapshots(it.guests, datasets, lambda: None), datasets


def kinds(it: Lab, vm: str = "web1") -> list[str]:
    return [event.event for event in it.journal.events if event.vm == vm and event.event != "phase"]


async def test_a_start_waits_for_a_clean_snapshot(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """It says for what, and goes on as soon as the snapshot is taken: what is called clean is."""
    async with lab(WEB) as it:
        snapshots, datasets = made(it)
        datasets.gate = trio.Event()
        nursery.start_soon(lambda: snapshots.take("web1", "one", by="bob"))
        await trio.testing.wait_all_tasks_blocked()
        assert it.start().ok
        await trio.testing.wait_all_tasks_blocked()

        assert it.status().phase is Phase.WAITING
        assert it.status().waiting_for == "waiting for a snapshot of it, one, to be taken"
        assert it.machine().times("spawn") == []
        datasets.gate.set()
        await it.phase(Phase.UP)
        assert {seen.consistency for seen in datasets.taken} == {"clean"}


async def test_a_running_guest_does_not_wait(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """Its snapshot is what a power cut leaves, and its own reboots go on meanwhile."""
    async with lab(WEB) as it:
        snapshots, datasets = made(it)
        it.start()
        await it.phase(Phase.UP)
        datasets.gate = trio.Event()
        nursery.start_soon(lambda: snapshots.take("web1", "one", by="bob"))
        await trio.testing.wait_all_tasks_blocked()
        it.stop()
        await it.phase(Phase.DOWN)
        it.start()
        await it.phase(Phase.UP)
        datasets.gate.set()
        await trio.testing.wait_all_tasks_blocked()

        assert {seen.consistency for seen in datasets.taken} == {"crash-consistent"}
        assert "snapshot" in kinds(it)


async def test_one_thing_at_a_time(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """A second snapshot of the same guest is refused in words, one of another guest is not."""
    async with lab(WEB, with_disks("db1", "zroot/c")) as it:
        snapshots, datasets = made(it)
        datasets.gate = trio.Event()
        nursery.start_soon(lambda: snapshots.take("web1", "one", by="bob"))
        await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(Refused, match="web1 waits for a snapshot of it, one, to be taken: try again") as caught:
            await snapshots.take("web1", "two", by="bob")
        assert caught.value.code == "busy"
        datasets.gate.set()
        await snapshots.take("db1", "two", by="bob")
        await snapshots.take("web1", "two", by="bob")
        with pytest.raises(Refused, match="has a snapshot two already"):
            await snapshots.take("web1", "two", by="bob")


async def test_nothing_starts_while_disks_go_back(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """Neither a person nor automation; meanwhile the guest is held on disk, and afterwards it is not."""
    async with lab(WEB) as it:
        snapshots, datasets = made(it)
        await snapshots.take("web1", "one", by="bob")
        datasets.gate = trio.Event()
        nursery.start_soon(lambda: snapshots.roll_back("web1", "one", destroy_newer=False, by="bob"))
        await trio.testing.wait_all_tasks_blocked()

        hold = it.vault.records["web1"].hold
        assert hold is not None
        assert (hold.by, hold.reason) == ("bob", UNFINISHED)
        it.start()
        await trio.testing.wait_all_tasks_blocked()
        assert it.status().waiting_for == "waiting for its rollback to one"
        datasets.gate.set()
        await it.phase(Phase.UP)
        assert datasets.did == ["rollback zroot/a@one", "rollback zroot/b@one"]
        assert it.status().hold is None
        assert kinds(it).count("rollback") == 1


async def test_a_hold_of_somebody_else_stays(autojump_clock: trio.abc.Clock) -> None:
    """A rollback ends its own hold, and that of an unfinished one before it; not one that a person set."""
    async with lab(WEB) as it:
        snapshots, _ = made(it)
        await snapshots.take("web1", "one", by="bob")
        theirs = Hold(by="alice", reason="disk check", since_at=NOON, until_at=None)
        it.guests.submit("web1", SetHold(hold=theirs))
        await snapshots.roll_back("web1", "one", destroy_newer=False, by="bob")
        assert it.status().hold == theirs

        it.guests.submit("web1", SetHold(hold=Hold(by="bob", reason=UNFINISHED, since_at=NOON, until_at=None)))
        await snapshots.roll_back("web1", "one", destroy_newer=False, by="bob")
        assert it.status().hold is None


async def test_half_a_rollback_is_held(autojump_clock: trio.abc.Clock) -> None:
    """When a later disk cannot go back, the guest is held and it is said which did; when the first cannot, nothing has happened."""
    async with lab(WEB) as it:
        snapshots, datasets = made(it)
        await snapshots.take("web1", "one", by="bob")
        datasets.hindered = {"zroot/a": "dataset is busy"}
        with pytest.raises(HostError, match=r"^dataset is busy$"):
            await snapshots.roll_back("web1", "one", destroy_newer=False, by="bob")
        assert it.status().hold is None

        datasets.hindered = {"zroot/b": "dataset is busy"}
        with pytest.raises(HostError, match="zroot/a went back, zroot/b did not: dataset is busy; web1 is held"):
            await snapshots.roll_back("web1", "one", destroy_newer=False, by="bob")

        hold = it.status().hold
        assert hold is not None
        assert hold.reason == UNFINISHED
        assert "rollback-failed" in kinds(it)


async def test_only_a_guest_that_is_down_goes_back(autojump_clock: trio.abc.Clock) -> None:
    """Otherwise the remedy is said, and its disks are not touched."""
    async with lab(WEB) as it:
        snapshots, datasets = made(it)
        await snapshots.take("web1", "one", by="bob")
        it.start()
        await it.phase(Phase.UP)

        with pytest.raises(Refused, match=r"web1 is up: .*: vmctl stop web1"):
            await snapshots.roll_back("web1", "one", destroy_newer=False, by="bob")
        assert datasets.did == []


async def test_a_disk_that_two_guests_have_does_not_go_back(autojump_clock: trio.abc.Clock) -> None:
    """The other one may run."""
    async with lab(WEB, with_disks("db1", "zroot/b")) as it:
        snapshots, datasets = made(it)
        await snapshots.take("web1", "one", by="bob")

        with pytest.raises(Refused, match="zroot/b would go back, also /dev/zvol/zroot/b of db1"):
            await snapshots.roll_back("web1", "one", destroy_newer=False, by="bob")
        assert datasets.did == []


async def test_a_guest_that_is_reloaded_meanwhile_is_barred_all_the_same(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """The bar belongs to the name."""
    async with lab(WEB) as it:
        snapshots, datasets = made(it)
        datasets.gate = trio.Event()
        nursery.start_soon(lambda: snapshots.take("web1", "one", by="bob"))
        await trio.testing.wait_all_tasks_blocked()
        it.files.loaded = Loaded(daemon=it.around.spec, vms={"web1": with_disks("web1", "zroot/a")})
        await it.guests.reload(plan_only=False, prune=False, by="bob")
        it.start()
        await trio.testing.wait_all_tasks_blocked()

        assert it.status().phase is Phase.WAITING
        datasets.gate.set()
        await it.phase(Phase.UP)


async def test_snapshots_are_counted_for_those_who_ask(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """Nobody asks: nothing is counted. Many ask: once in a period, and again after our own work."""
    datasets = FakeDatasets()
    datasets.add("zroot/a@one", at_s=5, **{VM: "web1", CONSISTENCY: "clean"})
    specs = {"web1": with_disks("web1", "zroot/a"), "files": guest("files", disk=(Disk(path=AbsPath("/x.img")),))}
    census = Census(datasets, lambda: specs, trio.current_time)
    await nursery.start(census.run)
    await trio.sleep(10 * PERIOD_S)
    assert datasets.counts == 0

    for _ in range(10):
        census.stocks()
        await trio.testing.wait_all_tasks_blocked()
    assert datasets.counts == 1
    assert {name: (stock.count, stock.newest_s) for name, stock in census.stocks().items()} == {"web1": (1, 5)}
    census.outdated()
    census.stocks()
    await trio.testing.wait_all_tasks_blocked()
    assert datasets.counts == 2
    await trio.sleep(PERIOD_S)
    census.stocks()
    await trio.testing.wait_all_tasks_blocked()
    assert datasets.counts == 3


async def test_a_scrape_does_not_wait_for_zfs(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """A listing that hangs costs the figures, not the scrape."""
    datasets = FakeDatasets()
    datasets.gate = trio.Event()
    census = Census(datasets, lambda: {"web1": WEB}, trio.current_time)
    await nursery.start(census.run)

    assert census.stocks() == {}
    await trio.testing.wait_all_tasks_blocked()
    assert census.stocks() == {}
    datasets.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert census.stocks()["web1"].count == 0


async def test_who_is_barred_in_the_middle_of_a_crowd_stays(autojump_clock: trio.abc.Clock) -> None:
    """Turns are given a few at a time: one that was worked out before the bar is not given after it."""
    async with lab(*[guest(f"vm{number}") for number in range(3)]) as it:
        submit, given = it.guests.submit, []
        turnstile = it.guests._turnstile
        for number in range(3):
            submit(f"vm{number}", Start(by="bob"))

        def go(name: str, lacking: str) -> None:
            given.append(name)
            if len(given) == 1:
                turnstile.bar("vm2", "busy")

        await turnstile._look(go, lambda *_: None)

        assert given == ["vm0", "vm1"]
        turnstile.unbar("vm2")
        await it.phase(Phase.UP, "vm2")


async def test_an_owner_destroys_what_bhyved_took_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of the host's own tools are not a guest's owner's to destroy."""
    monkeypatch.chdir(tmp_path)
    spec = guest("web1", owner=("alice",), disk=(Disk(path=AbsPath(f"{ZVOLS}zroot/a")),))
    async with served(tmp_path, spec) as daemon:
        daemon.guests.datasets.add("zroot/a@ours", **{VM: "web1"})
        daemon.guests.datasets.add("zroot/a@theirs")
        async with daemon.client(user("alice", 1001)) as client:
            for wanted, code in (("theirs", "not-ours"), ("zroot/a@theirs", "not-permitted"), ("ours", None)):
                await client.ask("vm.snapshot-delete", wanted, name="web1", snapshot=wanted)
                answer = await client.line()
                assert answer.get("error", {}).get("data", {}).get("code") == code

    assert daemon.guests.datasets.did == ["destroy zroot/a@ours"]
