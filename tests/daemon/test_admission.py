"""Memory admission with many guests under their supervisor, in virtual time."""

from datetime import timedelta

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.drain import Drain
from bhyved.core.exits import Stage
from bhyved.core.lifecycle import Restart, SetHold, Start
from bhyved.core.room import HostMemory
from bhyved.core.spec import DaemonSpec, Order, VmSpec
from bhyved.core.status import Hold, Phase
from bhyved.core.units import Duration, Size
from bhyved.daemon.ports import Found
from tests.daemon.fakehost import NOON, FakeHost, FakeVault, Life
from tests.daemon.guestkit import Lab, guest, lab

G = 1 << 30
FAST = DaemonSpec(start_parallel=100, start_gap=Duration(0), memory_reserve=Size(G))
SIXTEEN = HostMemory(total_bytes=16 * G, wired_bytes=4 * G)


def sized(name: str, size: int, **fields: object) -> VmSpec:
    return guest(name, autostart=True, memory=Size(size * G), **fields)


def host(nursery: trio.Nursery, has: HostMemory = SIXTEEN) -> FakeHost:
    made = FakeHost(nursery)
    made.has = has
    return made


async def waits(it: Lab, name: str) -> str:
    """What the guest waits for, once it waits for memory."""
    with trio.fail_after(3600):
        while not it.status(name).roomless:
            await it.guests.board.wait_newer(it.guests.board.generation)
    return it.status(name).waiting_for


async def test_a_guest_waits_until_there_is_room(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """It says for what, once as an event; what needs less passes; it starts by itself when another ends."""
    specs = [sized("a", 4), sized("b", 8), sized("c", 8), sized("d", 3)]
    async with lab(*specs, daemon=FAST, host=host(nursery)) as it:
        await it.phase(Phase.UP, "d")
        assert await waits(it, "c") == "waiting for memory: needs 8G; 0K of 15G are left beside b (8G), a (4G), d (3G)"
        assert it.status("c").phase is Phase.WAITING
        it.stop("a")
        await it.phase(Phase.DOWN, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert it.status("c").waiting_for == "waiting for memory: needs 8G; 4G of 15G are left beside b (8G), d (3G)"
        it.stop("b")
        await it.phase(Phase.UP, "c")

        assert (it.status("c").waiting_for, it.status("c").roomless) == ("", False)
        assert [event.vm for event in it.journal.events if event.event == "waiting-for-memory"] == ["c"]


async def test_who_requires_it_waits_and_who_merely_comes_after_does_not(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """Memory may be short for days."""
    specs = [sized("big", 64), sized("needy", 1, order=Order(requires=("big",))), sized("patient", 1, order=Order(after=("big",)))]
    async with lab(*specs, daemon=FAST, host=host(nursery)) as it:
        await it.phase(Phase.UP, "patient")

        assert "more than this host ever has for guests, which is 15G" in await waits(it, "big")
        assert it.status("needy").waiting_for == "waiting for big, which it requires and which is waiting"
        assert not it.status("needy").roomless


async def test_a_person_does_not_wait_but_is_warned(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """In the answer and as an event, also for a guest that waits already; a start that fits, and a repeated one, say nothing."""
    async with lab(sized("a", 12), sized("b", 8), guest("c", memory=Size(G)), daemon=FAST, host=host(nursery)) as it:
        await it.phase(Phase.UP, "a")
        await waits(it, "b")
        answer = it.start("b")
        assert answer.ok
        assert answer.text == "it starts because somebody asked for it, but memory is short: needs 8G; 3G of 15G are left beside a (12G)"
        await it.phase(Phase.UP, "b")
        warned = [(event.vm, event.reason) for event in it.journal.events if event.event == "warning"]
        assert warned == [("b", answer.text)]
        assert it.start("b").text == ""
        it.stop("b")
        await it.phase(Phase.DOWN, "b")

        assert it.start("c").text == ""


@pytest.mark.parametrize("status", [0, 3], ids=["reboot", "crash"])
async def test_a_restart_is_never_held_back(autojump_clock: trio.abc.Clock, nursery: trio.Nursery, status: int) -> None:
    """Nobody takes the memory of a guest between two runs, and one that a person has crowded out of it comes back all the same."""
    async with lab(sized("a", 8), sized("z", 8), guest("mine", memory=Size(12 * G)), daemon=FAST, host=host(nursery)) as it:
        it.machine("a").lives = [Life(after_s=100.0, status=status), Life()]
        await it.phase(Phase.UP, "a")
        await waits(it, "z")
        it.start("mine")
        await it.phase(Phase.UP, "mine")
        await it.ran(1, "a")
        await it.phase(Phase.UP, "a")

        assert it.machine("a").did.count("spawn") == 2
        assert it.machine("z").did == []


async def test_a_guest_in_back_off_keeps_its_memory(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """One that is held has given it up."""
    async with lab(sized("a", 8), sized("z", 8), daemon=FAST, host=host(nursery)) as it:
        it.machine("a").lives = [Life(after_s=1.0, status=4)]
        await it.phase(Phase.BACKOFF, "a")
        assert it.status("a").room_bytes == 8 * G
        assert it.status("z").phase is Phase.WAITING
        await it.phase(Phase.HELD, "a")
        await it.phase(Phase.UP, "z", within_s=1)


async def test_a_reload_makes_room(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """A smaller guest keeps its place in the queue; a smaller reserve, and overcommit, are looked at as well."""
    async with lab(sized("a", 12), sized("b", 8), sized("c", 4), daemon=FAST, host=host(nursery)) as it:
        await it.phase(Phase.UP, "a")
        await waits(it, "b")
        await waits(it, "c")

        async def put(daemon: DaemonSpec, *specs: VmSpec) -> None:
            vms = {**it.files.loaded.vms, **{spec.name: spec for spec in specs}}
            it.files.loaded = msgspec.structs.replace(it.files.loaded, daemon=daemon, vms=vms)
            await it.guests.reload(plan_only=False, prune=False, by="alice")

        await put(FAST, sized("b", 3))
        await it.phase(Phase.UP, "b", within_s=1)
        assert it.status("c").phase is Phase.WAITING
        await put(msgspec.structs.replace(FAST, overcommit=True))
        await it.phase(Phase.UP, "c", within_s=1)


async def test_what_may_be_wired_is_looked_at_again_by_a_reload(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """As the sentence says."""
    async with lab(sized("a", 5, wired=True), daemon=FAST, host=host(nursery)) as it:
        assert "sysctl vm.max_user_wired=1310720 and vmctl reload" in await waits(it, "a")
        it.host.has = HostMemory(total_bytes=16 * G, wired_bytes=5 * G)
        await it.guests.reload(plan_only=False, prune=False, by="alice")

        await it.phase(Phase.UP, "a", within_s=1)


async def test_the_end_of_a_hold_or_a_drain_is_no_persons_start(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """Whoever has taken the memory meanwhile keeps it."""
    async with lab(sized("a", 8), guest("b", memory=Size(8 * G)), daemon=FAST, host=host(nursery)) as it:
        await it.phase(Phase.UP, "a")
        it.machine("a").lives = [Life(after_s=1.0, status=0), Life()]
        it.guests.submit("a", Restart(by="alice"))
        it.guests.submit("a", SetHold(hold=Hold(by="alice", since_at=NOON, until_at=it.host.utc() + timedelta(minutes=10))))
        await it.phase(Phase.HELD, "a")
        it.start("b")
        await it.phase(Phase.UP, "b")
        assert "needs 8G; 7G of 15G are left beside b (8G)" in await waits(it, "a")
        it.guests.set_drain(Drain(by="alice", since_at=NOON))
        await it.phase(Phase.DOWN, "b")
        it.guests.set_drain(None)
        await it.phase(Phase.UP, "a")

        assert it.status("b").roomless


async def test_runs_of_an_earlier_daemon_have_their_memory(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    """The next daemon counts them before it starts anybody."""
    vault = FakeVault()
    async with lab(sized("z", 12), vault=vault, daemon=FAST, host=host(nursery)) as it:
        await it.phase(Phase.UP, "z")
        again = it.host
        started = it.host.monotonic()
    again.machine("z").found = Found(
        run="r1", by="autostart", stage=Stage.RUNNING, spec=sized("z", 12), pid=4711, started=started, started_at=NOON
    )
    async with lab(sized("a", 8), sized("z", 12), vault=vault, daemon=FAST, host=again) as it:
        assert await waits(it, "a") == "waiting for memory: needs 8G; 3G of 15G are left beside z (12G)"
        assert it.guests.submit("z", Start(by="alice")).text == ""
