"""Guests that wait for facts of their host, in virtual time: looked at while one waits, and only then."""

import pytest
import trio

from bhyved.core.spec import Order
from bhyved.core.status import Phase
from tests.daemon.fakehost import Life
from tests.daemon.guestkit import guest, lab

BRIDGE = Order(needs=("interface:bridge0",))


async def test_a_guest_waits_for_what_it_needs(autojump_clock: trio.abc.Clock) -> None:
    """It says for what, and starts within a period of its coming; then nobody looks any more."""
    async with lab(guest(order=BRIDGE)) as it:
        it.host.absent = {"interface:bridge0"}
        it.start()
        await trio.sleep(62)
        assert it.status().phase is Phase.WAITING
        assert it.status().waiting_for == "waiting for the interface bridge0: it does not exist (looked at every 5s)"
        assert it.host.looks == pytest.approx([5 * n for n in range(13)], abs=0.1)
        it.host.absent = set()
        await it.phase(Phase.UP, within_s=5)
        looks = len(it.host.looks)
        await trio.sleep(3600)

        assert len(it.host.looks) == looks


async def test_what_is_there_costs_one_look_a_start(autojump_clock: trio.abc.Clock) -> None:
    """Also at a restart: it may have gone meanwhile."""
    async with lab(guest(order=BRIDGE)) as it:
        it.machine().lives = [Life(after_s=10.0, status=0), Life()]
        it.start()
        await it.ran(1)
        await it.phase(Phase.UP)

        assert it.host.looks == pytest.approx([0, 10], abs=0.1)
        assert it.machine().times("spawn") == pytest.approx([0, 10], abs=0.1)


async def test_a_guest_that_does_not_want_to_start_any_more_is_not_looked_for(autojump_clock: trio.abc.Clock) -> None:
    """A stop ends the looking."""
    async with lab(guest(order=BRIDGE)) as it:
        it.host.absent = {"interface:bridge0"}
        it.start()
        await trio.sleep(12)
        it.stop()
        await it.phase(Phase.DOWN)
        await trio.sleep(100)

        assert len(it.host.looks) == 3
        assert it.machine().did == []


async def test_nobody_looks_for_guests_without_needs(autojump_clock: trio.abc.Clock) -> None:
    """Idle means idle."""
    async with lab(guest(autostart=True), guest("waits", order=Order(requires=("gone",), needs=("path:/x",)))) as it:
        it.start("waits")
        await it.phase(Phase.UP)
        await trio.sleep(1000)

        assert it.host.looks == []


async def test_each_guest_waits_for_its_own(autojump_clock: trio.abc.Clock) -> None:
    """One that lacks something does not keep another from starting, and a new one is looked at without waiting for the period."""
    async with lab(guest("a", order=BRIDGE), guest("b", order=Order(needs=("pool:zroot",)))) as it:
        it.host.absent = {"interface:bridge0"}
        it.start("a")
        await trio.sleep(2)
        it.start("b")
        await it.phase(Phase.UP, "b", within_s=0.5)

        assert it.status("a").phase is Phase.WAITING


async def test_a_host_that_tells_is_looked_at_when_it_does(autojump_clock: trio.abc.Clock) -> None:
    """And once a minute; a devd that goes is not missed for longer than that; nobody listens when nobody waits."""
    async with lab(guest(order=BRIDGE)) as it:
        it.host.says.is_there, it.host.absent = True, {"interface:bridge0"}
        it.start()
        await trio.sleep(130)
        words = "waiting for the interface bridge0: it does not exist (looked at when the host tells of something new, and every 1m)"
        assert it.status().waiting_for == words
        assert it.host.looks == pytest.approx([0, 60, 120], abs=0.1)
        it.host.says.told.set()
        await trio.sleep(1)
        assert it.host.looks[3:] == pytest.approx([130], abs=0.1)
        it.host.says.is_there = False
        it.host.says.told.set()
        await trio.sleep(22)
        assert it.host.looks[4:] == pytest.approx([131, 136, 141, 146, 151], abs=0.1)
        assert it.status().waiting_for.endswith("(looked at every 5s)")
        it.host.says.is_there, it.host.absent = True, set()
        await it.phase(Phase.UP, within_s=5)
        looks = len(it.host.looks)
        await trio.sleep(3600)

        assert not it.host.says.is_open
        assert len(it.host.looks) == looks


async def test_a_file_that_is_no_device_is_looked_for_all_the_same(autojump_clock: trio.abc.Clock) -> None:
    """devd(8) does not tell of files."""
    async with lab(guest(order=Order(needs=("interface:bridge0", "path:/nfs/disks")))) as it:
        it.host.says.is_there, it.host.absent = True, {"path:/nfs/disks"}
        it.start()
        await trio.sleep(12)

        assert it.host.looks == pytest.approx([0, 5, 10], abs=0.1)
        assert it.status().waiting_for == "waiting for the path /nfs/disks: it does not exist (looked at every 5s)"
