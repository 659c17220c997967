"""Many guests under their supervisor, in virtual time: order, stop, reload, and what a bug in one of them costs."""

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.config import Loaded, Problem
from bhyved.core.drain import Drain
from bhyved.core.exits import Stage
from bhyved.core.lifecycle import Start
from bhyved.core.spec import DaemonSpec, Hooks, Log, Order, Paths, Ready
from bhyved.core.status import Phase
from bhyved.core.units import Duration
from bhyved.core.values import AbsPath
from bhyved.daemon.ports import Found
from tests.daemon.fakehost import NOON, FakeHost, Life
from tests.daemon.guestkit import guest, lab

FAST = DaemonSpec(start_parallel=100, start_gap=Duration(0))


async def test_guests_start_in_order_of_readiness(autojump_clock: trio.abc.Clock) -> None:
    """A guest with `after` starts when the one before it is ready, not when it is up."""
    db = guest("db1", autostart=True, order=Order(ready=Ready(uptime=Duration(20))))
    web = guest("web1", autostart=True, order=Order(after=("db1",)))
    async with lab(db, web, daemon=FAST) as it:
        await it.phase(Phase.UP, "web1")

        assert it.machine("web1").times("spawn") == pytest.approx([20], abs=0.1)


async def test_a_required_guest_that_is_down_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """The guest waits, saying for whom; it starts when the other is up, and does not stop when that one goes."""
    async with lab(guest("db1"), guest("web1", order=Order(requires=("db1",))), daemon=FAST) as it:
        it.start("web1")
        await trio.testing.wait_all_tasks_blocked()
        assert it.status("web1").phase is Phase.WAITING
        assert it.status("web1").waiting_for == "waiting for db1, which it requires and which is down"
        it.start("db1")
        await it.phase(Phase.UP, "web1")
        it.stop("db1")
        await it.phase(Phase.DOWN, "db1")

        assert it.status("web1").phase is Phase.UP


async def test_the_boot_of_a_host_is_paced_and_nothing_else_is(autojump_clock: trio.abc.Clock) -> None:
    """Automatic first starts keep start-gap and start-parallel; a person's start does not wait for them."""
    guests = [guest(f"vm{n}", autostart=True) for n in range(4)]
    async with lab(*guests, guest("mine")) as it:
        it.start("mine")
        await it.phase(Phase.UP, "vm3")

        assert [it.machine(f"vm{n}").times("spawn")[0] for n in range(4)] == pytest.approx([0, 2, 4, 6], abs=0.1)
        assert it.machine("mine").times("spawn") == pytest.approx([0], abs=0.1)


async def test_all_guests_stop_in_reverse_order(autojump_clock: trio.abc.Clock) -> None:
    """The web server goes before its database; an independent guest does not wait for either."""
    specs = [guest("db1", autostart=True), guest("web1", autostart=True, order=Order(after=("db1",))), guest("lone", autostart=True)]
    async with lab(*specs, daemon=FAST) as it:
        for name in ("db1", "web1", "lone"):
            it.machine(name).lives = [Life(acpi_s=5.0)]
            await it.phase(Phase.UP, name)
        began = it.host.monotonic()
        await it.guests.stop_all(by="SIGTERM").done()

        pressed = {name: it.machine(name).times("press")[0] - began for name in ("db1", "web1", "lone")}
        assert pressed == pytest.approx({"web1": 0, "lone": 0, "db1": 5}, abs=0.1)
        assert it.guests.submit("db1", Start(by="alice")).code == "shutting-down"


async def test_the_hosts_deadline_is_shared_by_a_chain(autojump_clock: trio.abc.Clock) -> None:
    """Two guests in a row that ignore the button are both ended within the 60 s that the host gives."""
    specs = [guest("db1", autostart=True), guest("web1", autostart=True, order=Order(after=("db1",)))]
    async with lab(*specs, daemon=FAST) as it:
        for name in ("db1", "web1"):
            it.machine(name).lives = [Life(acpi_s=None, force_works=False)]
            await it.phase(Phase.UP, name)
        began = it.host.monotonic()
        await it.guests.stop_all(by="SIGTERM", end_at=began + 60).done()

        assert it.host.monotonic() - began <= 60
        assert it.machine("web1").times("press")
        assert it.machine("db1").times("press")
        assert it.machine("db1").times("kill")


async def test_a_reboot_or_crash_while_all_stop_starts_nothing(autojump_clock: trio.abc.Clock) -> None:
    """A guest whose turn to stop has not come, and that reboots meanwhile, stays down."""
    specs = [guest("db1", autostart=True), guest("web1", autostart=True, order=Order(after=("db1",)))]
    async with lab(*specs, daemon=FAST) as it:
        it.machine("db1").lives = [Life(after_s=10.0, status=0)]
        it.machine("web1").lives = [Life(acpi_s=20.0)]
        await it.phase(Phase.UP, "web1")
        await it.guests.stop_all(by="SIGTERM").done()

        assert it.machine("db1").did.count("spawn") == 1
        assert it.machine("web1").did.count("spawn") == 1


async def test_force_skips_the_grace(autojump_clock: trio.abc.Clock) -> None:
    """The second ^C cuts the power of what still runs."""
    async with lab(guest(autostart=True)) as it:
        it.machine().lives = [Life(acpi_s=None)]
        await it.phase(Phase.UP)
        stopping = it.guests.stop_all(by="SIGINT")
        await it.phase(Phase.STOPPING)
        stopping.force()
        began = it.host.monotonic()
        await stopping.done()

        assert it.host.monotonic() - began < 1


async def test_a_bug_in_one_driver_leaves_the_others_alone(autojump_clock: trio.abc.Clock) -> None:
    """The guest is shown as held, with the error; `start` makes a new driver that takes its run up."""
    async with lab(guest("bad", autostart=True), guest("good", autostart=True), daemon=FAST) as it:
        await it.phase(Phase.UP, "good")
        await it.phase(Phase.UP, "bad")
        driver = it.guests._drivers["bad"]
        driver._standing.machine.press = None  # type: ignore[method-assign, assignment]  # a bug of ours
        it.stop("bad")
        status = await it.phase(Phase.HELD, "bad")
        assert status.reason.startswith("internal error: TypeError")
        assert it.status("good").phase is Phase.UP

        del it.machine("bad").press  # type: ignore[misc]
        it.machine("bad").found = Found(run="r1", by="alice", stage=Stage.RUNNING, spec=None, pid=1, started=0.0, started_at=NOON)
        assert it.start("bad").code == "accepted"
        await trio.testing.wait_all_tasks_blocked()
        await it.phase(Phase.UP, "bad")
        assert it.machine("bad").did.count("spawn") == 1


async def test_a_reload_with_problems_changes_nothing(autojump_clock: trio.abc.Clock) -> None:
    """Every problem is reported, no guest is touched."""
    async with lab(guest(memory=guest().memory)) as it:
        it.files.loaded = Loaded(daemon=DaemonSpec(), vms={}, problems=(Problem(file="web1.toml", sentence="no TOML"),))
        result = await it.guests.reload(plan_only=False, prune=True, by="alice")

        assert not result.applied
        assert result.problems == ("web1.toml: no TOML",)
        assert it.guests.names() == ["web1"]
        assert it.files.accepted == 0


async def test_a_reload_adds_changes_and_orphans(autojump_clock: trio.abc.Clock) -> None:
    """A new guest starts if it says so; a running one whose file has gone goes on until it is pruned."""
    async with lab(guest("old", autostart=True), guest("same"), daemon=FAST) as it:
        await it.phase(Phase.UP, "old")
        changed = msgspec.structs.replace(guest("same"), memory=guest().memory.parse("1G"))
        it.files.loaded = Loaded(daemon=FAST, vms={"same": changed, "new": guest("new", autostart=True)})
        plan = await it.guests.reload(plan_only=True, prune=False, by="alice")
        assert (plan.applied, plan.added, plan.removed, list(plan.changed)) == (False, ("new",), ("old",), ["same"])
        assert (plan.starts, plan.stops, plan.orphans) == (("new",), (), ("old",))
        assert it.guests.names() == ["old", "same"]

        await it.guests.reload(plan_only=False, prune=False, by="alice")
        await it.phase(Phase.UP, "new")
        assert it.status("old").orphaned
        assert it.status("old").phase is Phase.UP
        assert it.guests.spec("same") == changed
        assert it.start("old").code == "already"

        pruned = await it.guests.reload(plan_only=False, prune=True, by="alice")
        assert (pruned.removed, pruned.stops, pruned.orphans) == (("old",), ("old",), ())
        while "old" in it.guests.names():
            await it.guests.board.wait_newer(it.guests.board.generation)
        assert it.machine("old").did[-2:] == ["press", "clean all"]


async def test_a_guest_without_a_readable_file_is_shown_and_not_started(autojump_clock: trio.abc.Clock) -> None:
    """It is held with the reason; a run of it that an earlier daemon began is taken up all the same."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("runs").found = Found(
            run="r1", by="autostart", stage=Stage.RUNNING, spec=guest("runs"), pid=1, started=0.0, started_at=NOON
        )
        broken = {"down": "down.toml: no TOML", "runs": "runs.toml: no TOML"}
        async with lab(host=host, broken=broken) as it:
            down, runs = it.status("down"), it.status("runs")

            assert (down.phase, down.reason) == (Phase.HELD, "down.toml: no TOML")
            assert it.start("down").code == "configuration"
            assert runs.phase is Phase.UP
        nursery.cancel_scope.cancel()


async def test_a_drain_stops_in_order_and_its_end_starts_again(autojump_clock: trio.abc.Clock) -> None:
    """While a host is drained nothing starts, not even for a person; afterwards every wish holds as before."""
    async with lab(guest("web1", autostart=True), guest("db1"), daemon=FAST) as it:
        await it.phase(Phase.UP, "web1")
        until = NOON.replace(hour=14)
        it.guests.set_drain(Drain(by="alice", reason="new disks", since_at=it.host.utc(), until_at=until))
        await it.phase(Phase.DOWN, "web1")
        answer = it.start("db1")
        assert answer.code == "draining"
        assert "new disks" in answer.text
        await it.phase(Phase.UP, "web1", within_s=8000)

        assert it.host.utc() >= until
        assert it.status("db1").phase is Phase.DOWN
        assert it.start("db1").ok


async def test_a_reload_puts_in_force_what_can_be_and_no_more(autojump_clock: trio.abc.Clock) -> None:
    """Pace, hooks and log level change at once; paths and listeners need a new daemon, and the plan says so."""
    async with lab(guest(), daemon=FAST) as it:
        told: list[DaemonSpec] = []
        it.guests.on_reload(told.append)
        new = DaemonSpec(
            paths=Paths(run=AbsPath("/elsewhere")), start_parallel=7, log=Log(level="debug"), hooks=Hooks(crash=("/bin/page-me",))
        )
        it.files.loaded = Loaded(daemon=new, vms={"web1": guest()})
        result = await it.guests.reload(plan_only=False, prune=False, by="alice")

        assert {change.key: str(change.effect) for change in result.daemon}["paths.run"] == "refused"
        assert told == [it.guests.daemon_spec]
        assert it.guests.daemon_spec.paths == FAST.paths
        assert (it.guests.daemon_spec.start_parallel, it.guests.daemon_spec.log.level) == (7, "debug")
        assert it.around.hooks.ours.crash == ("/bin/page-me",)


@pytest.mark.parametrize("runs", [True, False], ids=["stopped by it", "stopped just before"])
async def test_a_guest_is_forgotten_when_its_hooks_have_ended(autojump_clock: trio.abc.Clock, runs: bool) -> None:
    """The commands after its stop release what it had of the host, a lease or a volume: they are not cut short."""
    async with lab(guest(hooks=Hooks(post_stop=("/bin/release",))), daemon=FAST) as it:
        it.host.commands_end = trio.Event()
        it.start()
        await it.phase(Phase.UP)
        if not runs:
            it.stop()
            await it.phase(Phase.DOWN)
        it.files.loaded = Loaded(daemon=FAST, vms={})
        await it.guests.reload(plan_only=False, prune=True, by="alice")
        await trio.sleep(10)
        assert it.guests.names() == ["web1"]
        it.host.commands_end.set()
        await trio.testing.wait_all_tasks_blocked()

        assert it.guests.names() == []
        assert it.host.completed == [("/bin/release",)]
        assert [event.event for event in it.journal.events][-2:] == ["hook", "forgotten"]


async def test_a_file_that_comes_back_while_its_hooks_run_keeps_its_guest(autojump_clock: trio.abc.Clock) -> None:
    """It is the same guest, not a new one."""
    spec = guest(hooks=Hooks(post_stop=("/bin/release",)))
    async with lab(spec, daemon=FAST) as it:
        it.host.commands_end = trio.Event()
        it.start()
        await it.phase(Phase.UP)
        for vms in ({}, {"web1": spec}):
            it.files.loaded = Loaded(daemon=FAST, vms=vms)
            await it.guests.reload(plan_only=False, prune=True, by="alice")
            await trio.testing.wait_all_tasks_blocked()
        it.host.commands_end.set()
        await trio.testing.wait_all_tasks_blocked()

        assert it.status().phase is Phase.DOWN
        assert not it.status().orphaned
        assert "forgotten" not in [event.event for event in it.journal.events]
