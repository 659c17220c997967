"""What comes at an odd moment, in virtual time: a late hook, a file that has gone, a reload in a drain, a kill between two steps."""

import threading
from collections.abc import Mapping, Sequence

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.boot import Boot
from bhyved.core.config import Loaded
from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.exits import Outcome, Stage
from bhyved.core.lifecycle import Event, Poweroff, Restart, SetHold, Shutdown, Start, Stop, Turn
from bhyved.core.room import HostMemory
from bhyved.core.spec import DaemonSpec, Health, Hooks, Order, Ready, VmSpec
from bhyved.core.spec import Restart as RestartSpec
from bhyved.core.spec import Stop as StopSpec
from bhyved.core.status import Desired, Hold, Phase, VmRecord
from bhyved.core.units import Duration, Limit
from bhyved.core.values import GuestName, Pattern, Text
from bhyved.daemon import reloading
from bhyved.daemon.ascent import Ascent
from bhyved.daemon.ports import Found, Ran
from bhyved.daemon.saving import Saving
from tests.daemon.fakehost import NOON, FakeHost, FakeVault, Life
from tests.daemon.guestkit import Lab, guest, lab

FAST = DaemonSpec(start_parallel=100, start_gap=Duration(0))


def found(spec: VmSpec | None = None, *, stage: Stage = Stage.RUNNING) -> Found:
    """A run that an earlier daemon began."""
    return Found(run="r1", by="alice", stage=stage, spec=spec, pid=1, started=-100.0, started_at=NOON)


def drained(it: Lab) -> Drain:
    return Drain(by="alice", reason="new disks", since_at=it.host.utc(), until_at=None)


async def test_a_slow_pre_stop_hook_presses_nobody_elses_button(autojump_clock: trio.abc.Clock) -> None:
    """The run that the hook was for has been forced off and the next one is up when it ends: that one is left alone."""
    spec = guest(hooks=Hooks(pre_stop=(Text("/slow"),), timeout=Duration(30)), stop=StopSpec(timeout=Duration(5), presses=(Duration(0),)))
    async with lab(spec) as it:

        async def slow(*_: object, **__: object) -> Ran:
            await trio.sleep(20)
            return Ran(status=0)

        it.host.run = slow  # type: ignore[method-assign]
        it.start()
        await it.phase(Phase.UP)
        it.guests.submit("web1", Restart(by="alice"))
        await it.ran(1)
        await it.phase(Phase.UP)
        await trio.sleep(60)

        assert it.machine().did.count("force poweroff") == 1
        assert "press" not in it.machine().did
        assert it.status().phase is Phase.UP


@pytest.mark.parametrize("broken", [{}, {"web1": "web1.toml: no TOML"}])
async def test_a_guest_without_a_file_reboots_into_what_it_was_started_with(broken: dict[str, str], autojump_clock: trio.abc.Clock) -> None:
    """Its file has gone, or cannot be read, and the daemon was restarted since: the record of its run has all that a reboot needs."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        spec = guest(memory=guest().memory.parse("3G"), stop=StopSpec(timeout=Duration(7)))
        host.machine("web1").found = found(spec)
        host.machine("web1").lives = [Life(after_s=30.0, status=0), Life(acpi_s=None)]
        async with lab(host=host, broken=broken) as it:
            await it.ran(1)
            await it.phase(Phase.UP)
            assert [order.spec for order in it.machine().orders] == [spec]

            it.stop()
            began = it.host.monotonic()
            await it.phase(Phase.HELD)
            assert it.host.monotonic() - began == pytest.approx(7, abs=0.1)
            assert it.start().code == "configuration"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("run", "count"), [("r1", 1), ("r0", 2)])
async def test_an_end_is_told_once(run: str, count: int, autojump_clock: trio.abc.Clock) -> None:
    """A daemon that was killed between its word and the cleaning up leaves the run to be ended again: it is not told again."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").found = found(guest())
        host.machine("web1").lives = [Life(after_s=30.0, status=1)]
        async with lab(guest(), host=host) as it:
            it.around.events.tell("ended", vm="web1", reason="the guest powered off", run=run)  # which lay on the disk
            await it.ran(1)
            await it.phase(Phase.DOWN)

            assert [record.run for record in it.journal.records] == ["r1"]
            assert len([event for event in it.journal.events if event.event == "ended"]) == count
        nursery.cancel_scope.cancel()


async def test_a_guest_of_whom_nothing_can_be_read_is_held_when_it_ends(autojump_clock: trio.abc.Clock) -> None:
    """Neither file nor record: it is not started as something else, with the memory and the disks of nobody."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").found = found(None)
        host.machine("web1").lives = [Life(after_s=30.0, status=0)]
        async with lab(host=host, broken={"web1": "web1.toml: no TOML"}) as it:
            status = await it.phase(Phase.HELD)

            assert status.reason.startswith("web1.toml: no TOML")
            assert it.machine().orders == []
        nursery.cancel_scope.cancel()


async def test_all_stop_although_one_driver_has_met_a_bug(autojump_clock: trio.abc.Clock) -> None:
    """A fresh driver takes the guest up and stops it; nobody waits for ever."""
    async with lab(guest("bad", autostart=True), guest("good", autostart=True), daemon=FAST) as it:
        await it.phase(Phase.UP, "good")
        await it.phase(Phase.UP, "bad")
        it.machine("bad").press = None  # type: ignore[method-assign, assignment]  # a bug of ours
        it.stop("bad")
        await it.phase(Phase.HELD, "bad")
        del it.machine("bad").press
        it.machine("bad").found = found(guest("bad"))
        with trio.fail_after(100):
            await it.guests.stop_all(by="SIGTERM").done()

        assert it.status("bad").phase is Phase.DOWN
        assert it.machine("bad").did[-2:] == ["press", "clean all"]


async def test_a_bug_that_comes_again_does_not_hold_up_the_end(autojump_clock: trio.abc.Clock) -> None:
    """What bhyved cannot stop is left to the rc script, which presses without it."""
    async with lab(guest("bad", autostart=True), guest("good", autostart=True), daemon=FAST) as it:
        await it.phase(Phase.UP, "good")
        await it.phase(Phase.UP, "bad")
        it.machine("bad").press = None  # type: ignore[method-assign, assignment]  # a bug of ours
        with trio.fail_after(100):
            await it.guests.stop_all(by="SIGTERM").done()

        assert it.status("good").phase is Phase.DOWN
        assert it.status("bad").reason.startswith("internal error")


async def test_a_reload_starts_nothing_on_a_drained_host(autojump_clock: trio.abc.Clock) -> None:
    """A new guest that starts by itself does so when the drain is over."""
    async with lab(guest("old"), daemon=FAST) as it:
        it.guests.set_drain(drained(it))
        it.files.loaded = Loaded(daemon=FAST, vms={"old": guest("old"), "new": guest("new", autostart=True)})
        done = await it.guests.reload(plan_only=False, prune=False, by="alice")
        await trio.testing.wait_all_tasks_blocked()
        assert (done.added, done.starts) == (("new",), ())
        assert it.machine("new").did == []

        it.guests.set_drain(None)
        await it.phase(Phase.UP, "new")


async def test_a_reload_starts_nothing_while_all_stop(autojump_clock: trio.abc.Clock) -> None:
    """Not even for the moment that it would take to stop it again."""
    async with lab(guest("old", autostart=True), daemon=FAST) as it:
        it.machine("old").lives = [Life(acpi_s=20.0)]
        await it.phase(Phase.UP, "old")
        stopping = it.guests.stop_all(by="SIGTERM")
        it.files.loaded = Loaded(daemon=FAST, vms={"old": guest("old"), "new": guest("new", autostart=True)})
        await it.guests.reload(plan_only=False, prune=False, by="alice")
        await stopping.done()

        assert it.machine("new").did == []


async def test_guests_of_one_reload_start_in_order(autojump_clock: trio.abc.Clock) -> None:
    """As at the boot of the host, also where the one that comes first has the later name."""
    async with lab(daemon=FAST) as it:
        first = guest("zdb", autostart=True, order=Order(ready=Ready(uptime=Duration(20))))
        it.files.loaded = Loaded(
            daemon=FAST, vms={"app": guest("app", autostart=True, order=Order(after=(GuestName("zdb"),))), "zdb": first}
        )
        await it.guests.reload(plan_only=False, prune=False, by="alice")
        await it.phase(Phase.UP, "app")

        assert it.machine("app").times("spawn") == pytest.approx([20], abs=0.1)


async def test_a_reload_while_a_start_is_prepared_is_for_the_next_one(autojump_clock: trio.abc.Clock) -> None:
    """The host was prepared for a loader: it runs, whatever the file says by now."""
    spec = guest(boot=Boot(loader="bhyveload"))
    async with lab(spec) as it:
        it.machine().prepare_s = 5.0
        it.machine().loader = [(1.0, 0)]
        it.start()
        await it.phase(Phase.PREPARING)
        await trio.sleep(1)  # of the five that it takes
        it.guests._drivers["web1"].update(msgspec.structs.replace(spec, boot=Boot(loader="uefi")))
        await it.phase(Phase.UP)

        assert it.machine().did == ["prepare", "load", "spawn"]


async def test_an_end_is_on_disk_before_its_traces_go(autojump_clock: trio.abc.Clock) -> None:
    """A daemon that is killed in between finds a start that was interrupted; only the record knows that it must not be made good."""
    vault = FakeVault()
    async with lab(guest(), vault=vault) as it:
        desired = []
        clean, save = it.machine().clean, vault.save

        async def cleaned(*, final: bool) -> None:
            desired.append(vault.records["web1"].desired)
            await clean(final=final)

        async def slowly(name: str, record: VmRecord) -> None:
            await trio.sleep(0.5)
            await save(name, record)

        it.machine().clean = cleaned  # type: ignore[method-assign]
        vault.save = slowly  # type: ignore[method-assign]
        it.machine().lives = [Life(after_s=10.0, status=1)]
        it.start()
        await it.phase(Phase.UP)
        await it.phase(Phase.DOWN)

        assert desired == [Desired.DOWN]


async def test_a_disk_that_does_not_answer_holds_up_no_end(autojump_clock: trio.abc.Clock) -> None:
    """The record has a while to get there, and no more."""
    vault = FakeVault()
    async with lab(guest(), vault=vault) as it:

        async def never(name: str, record: VmRecord) -> None:
            await trio.sleep_forever()

        vault.save = never  # type: ignore[method-assign]
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN, within_s=10)


async def test_a_hold_by_policy_outlives_a_kill_during_the_cleaning(autojump_clock: trio.abc.Clock) -> None:
    """The traces of the last crash are gone, the guest was not held yet: the next daemon finishes that, and starts nothing."""
    vault = FakeVault()
    spec = guest(restart=RestartSpec(crash_limit=Limit(1, Duration(600))))
    async with lab(spec, vault=vault) as it:
        it.machine().lives = [Life(after_s=1.0, status=4)]
        it.start()
        await it.ran(1)
        await it.phase(Phase.UP)

        async def stuck(*, final: bool) -> None:
            await trio.sleep_forever()

        it.machine().clean = stuck  # type: ignore[method-assign]
        await it.ran(2)
        await trio.testing.wait_all_tasks_blocked()
        assert it.status().phase is Phase.CLEANING
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").found = found(spec, stage=Stage.PREPARING)
        async with lab(spec, vault=vault, host=host) as it:
            status = await it.phase(Phase.HELD)

            assert "over its crash-limit" in status.reason
            assert it.machine().did == ["clean all"]
        nursery.cancel_scope.cancel()


async def test_a_held_guest_with_something_left_behind_stays_held(autojump_clock: trio.abc.Clock) -> None:
    """Its tap could not be destroyed, so its ledger is still there: for the next daemon that is no start to be made good."""
    vault = FakeVault()
    spec = guest(restart=RestartSpec(crash_limit=Limit(0, Duration(600))))
    async with lab(spec, vault=vault) as it:
        it.machine().lives = [Life(after_s=1.0, status=4)]
        it.machine().clean_fails = [HostError("tap1000 is still open by process 7")]
        it.start()
        reason = (await it.phase(Phase.HELD)).reason
        await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").found = found(spec, stage=Stage.PREPARING)
        async with lab(spec, vault=vault, host=host) as it:
            status = await it.phase(Phase.HELD)
            await trio.testing.wait_all_tasks_blocked()

            assert status.reason == reason
            assert it.machine().did == ["clean all"]
            assert it.start().ok
            await it.phase(Phase.UP)
        nursery.cancel_scope.cancel()


async def test_a_bug_in_the_first_look_costs_one_guest(autojump_clock: trio.abc.Clock) -> None:
    """It is shown as held with the error; the others are driven, and stop in order."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("bad").find = None  # type: ignore[method-assign, assignment]  # a bug of ours
        async with lab(guest("bad"), guest("good", autostart=True), daemon=FAST, host=host) as it:
            await it.phase(Phase.UP, "good")
            assert it.status("bad").reason.startswith("internal error: TypeError")
            with trio.fail_after(100):
                await it.guests.stop_all(by="SIGTERM").done()
        nursery.cancel_scope.cancel()


async def test_a_host_command_of_a_dead_daemon_does_not_hold_up_the_end(autojump_clock: trio.abc.Clock) -> None:
    """`ifconfig destroy` can hang for ever: its guest is held when a minute is over, and cleaned up should it end after all."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        machine = host.machine("web1")
        machine.found = found(guest(), stage=Stage.PREPARING)
        over = trio.Event()

        async def watch(started: object) -> Outcome:
            await over.wait()
            return Outcome(stage=Stage.PREPARING, status=None)

        machine.watch = watch  # type: ignore[method-assign]
        async with lab(guest(autostart=True), host=host) as it:
            stopping = it.guests.stop_all(by="SIGTERM")
            with trio.fail_after(100):
                await stopping.done()
            assert it.status().phase is Phase.HELD
            assert "an earlier daemon" in it.status().reason
            assert machine.did == []

            over.set()
            await it.phase(Phase.CLEANING)
            await it.phase(Phase.HELD)
            assert machine.did == ["clean all"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("runs", [True, False])
async def test_a_guest_of_whom_nobody_knows_whether_it_runs(runs: bool, autojump_clock: trio.abc.Clock) -> None:
    """No descriptors when the daemon starts: nothing is done to it until there are some, then it is taken up, or started; others are not
    kept waiting, and what was wished meanwhile follows."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        machine = host.machine("web1")
        machine.found = found(guest()) if runs else None
        machine_said = "it cannot be told whether the guest runs: alive: too many open files"
        machine.find_fails = [HostError(machine_said)] * 3
        async with lab(guest(autostart=True), guest("db1", autostart=True), host=host) as it:
            await it.phase(Phase.UP, "db1")
            assert (it.status().phase, it.status().reason) == (Phase.WAITING, machine_said)
            assert machine.did == []
            assert it.start().ok
            began = trio.current_time()
            await it.phase(Phase.UP)

            assert trio.current_time() - began < 20
            assert machine.did == ([] if runs else ["prepare", "spawn"])
            assert machine.most_alive == 1
            assert [event.reason for event in it.journal.events if event.event == "warning"] == [machine_said]
        nursery.cancel_scope.cancel()


async def test_a_login_prompt_of_the_run_before_makes_nobody_ready(autojump_clock: trio.abc.Clock) -> None:
    """Also where the first console that bhyved keeps is not com1."""
    spec = guest(order=Order(ready=Ready(console=Pattern("login:"))))
    async with lab(spec) as it:
        asked: list[int] = []

        class Hub:
            port = "com2"

            async def wait_for(self, pattern: object, since: int) -> int:
                asked.append(since)
                return since

        it.consoles.settle = lambda name: {"com2": 512}  # type: ignore[method-assign]
        it.consoles.hubs = lambda name: [Hub()]  # type: ignore[method-assign]
        it.machine().lives = [Life(title_s=0.0)]
        it.start()
        await it.phase(Phase.UP)
        await trio.testing.wait_all_tasks_blocked()

        assert asked == [512]


async def test_a_guest_that_never_becomes_ready_is_required_in_vain_and_followed_all_the_same(
    autojump_clock: trio.abc.Clock,
) -> None:
    """With on-timeout = "fail", two minutes are all that a guest which merely comes after it waits."""
    deaf = guest("db", autostart=True, order=Order(ready=Ready(console=Pattern("login:"), on_timeout="fail")))
    after = guest("after", autostart=True, order=Order(after=(GuestName("db"),)))
    needs = guest("needs", autostart=True, order=Order(requires=(GuestName("db"),)))
    async with lab(deaf, after, needs, daemon=FAST) as it:
        await it.phase(Phase.UP, "after")

        assert it.machine("after").times("spawn") == pytest.approx([120], abs=0.1)
        assert it.status("needs").phase is Phase.WAITING
        assert it.status("db").phase is Phase.UP


async def test_a_run_that_ends_before_it_is_watched_brings_the_next_one_up_no_sooner(autojump_clock: trio.abc.Clock) -> None:
    """What bhyve had printed was of that run, and its end may be heard before anybody has begun to wait for a guest that is up."""
    ups: list[float] = []
    async with lab(guest()) as it:
        it.consoles.first_byte = first_byte_at_once  # type: ignore[method-assign]
        ascent = Ascent("web1", it.machine(), it.around.consoles, lambda: ups.append(0.0), it.guests._nursery.start_soon)  # type: ignore[union-attr]
        ascent.begin({})
        ascent.over()
        await trio.sleep(100)

        assert ups == []


async def first_byte_at_once(name: str, since: Mapping[str, int]) -> None:
    await trio.lowlevel.checkpoint()


async def test_everybody_who_waits_for_a_record_is_told(autojump_clock: trio.abc.Clock) -> None:
    """The end of a run and the end of the daemon may wait for the same one."""

    class Slow(FakeVault):
        async def save(self, name: str, record: VmRecord) -> None:
            await trio.sleep(1)
            await super().save(name, record)

    saving = Saving(Slow(), "web1", lambda event, reason: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saving.run)
        saving.put(VmRecord())
        with trio.fail_after(10):
            async with trio.open_nursery() as waiting:
                waiting.start_soon(saving.done)
                waiting.start_soon(saving.done)
        nursery.cancel_scope.cancel()


async def test_a_wish_is_on_disk_before_its_guest_runs(autojump_clock: trio.abc.Clock) -> None:
    """Else a daemon that is killed just then leaves a guest that runs and is wished down: the next one would stop it."""
    vault = FakeVault()
    async with lab(guest(), vault=vault) as it:
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)
        save, spawn = vault.save, it.machine().spawn_bhyve
        desired = []

        async def slowly(name: str, record: VmRecord) -> None:
            await trio.sleep(0.5)
            await save(name, record)

        def spawned(consoles: Sequence[int] = ()) -> None:
            desired.append(vault.records["web1"].desired)
            spawn(consoles)

        vault.save = slowly  # type: ignore[method-assign]
        it.machine().spawn_bhyve = spawned  # type: ignore[method-assign]
        it.start()
        await it.phase(Phase.UP)

        assert desired == [Desired.UP]


async def test_a_guest_that_was_forgotten_and_comes_back_is_new(autojump_clock: trio.abc.Clock) -> None:
    """What was wished of it before it was pruned is of no concern any more."""
    vault = FakeVault()
    async with lab(guest(autostart=True), vault=vault) as it:
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)
        await trio.testing.wait_all_tasks_blocked()
    async with lab(guest(autostart=True), vault=vault, daemon=FAST) as it:
        await trio.testing.wait_all_tasks_blocked()
        assert it.status().phase is Phase.DOWN
        it.files.loaded = Loaded(daemon=FAST, vms={})
        await it.guests.reload(plan_only=False, prune=True, by="alice")
        while it.guests.names():
            await it.guests.board.wait_newer(it.guests.board.generation)
        it.files.loaded = Loaded(daemon=FAST, vms={"web1": guest(autostart=True)})
        await it.guests.reload(plan_only=False, prune=False, by="alice")

        await it.phase(Phase.UP)


async def test_power_can_be_cut_behind_a_bug(autojump_clock: trio.abc.Clock) -> None:
    """A fresh driver takes the guest up and does it."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        it.machine().press = None  # type: ignore[method-assign, assignment]  # a bug of ours
        it.stop()
        await it.phase(Phase.HELD)
        del it.machine().press
        it.machine().found = found(guest())
        assert it.guests.submit("web1", Poweroff(by="alice")).ok
        await trio.testing.wait_all_tasks_blocked()
        await it.phase(Phase.DOWN)

        assert "force poweroff" in it.machine().did
        assert it.machine().did[-1] == "clean all"


async def test_a_guest_may_be_forgotten_while_it_is_pruned_again(autojump_clock: trio.abc.Clock) -> None:
    """The second reload has counted it among those to go, and is in force as a whole when it has gone by itself."""
    async with lab(guest(autostart=True), daemon=FAST) as it:
        it.machine().lives = [Life(acpi_s=5.0)]
        await it.phase(Phase.UP)
        it.files.loaded = Loaded(daemon=FAST, vms={})
        await it.guests.reload(plan_only=False, prune=True, by="alice")
        it.files.loaded = Loaded(daemon=FAST, vms={"new1": guest("new1", autostart=True)})

        async def slowly() -> HostMemory:
            await trio.sleep(20)
            return HostMemory()

        it.host.memory = slowly  # type: ignore[method-assign]
        done = await it.guests.reload(plan_only=False, prune=True, by="alice")

        assert done.removed == ("web1",)
        assert it.guests.names() == ["new1"]
        await it.phase(Phase.UP, "new1")


@pytest.mark.parametrize("moment", ["its turn", "the stop of all", "a drain", "the end of a drain", "a prune"])
async def test_a_bug_in_a_guests_life_costs_that_guest_alone(moment: str, autojump_clock: trio.abc.Clock) -> None:
    """Whoever meets it on behalf of many goes on with the others."""
    specs = guest("bad"), guest("good", autostart=True)
    async with lab(*specs, daemon=FAST) as it:
        await it.phase(Phase.UP, "good")
        life = it.guests._drivers["bad"]._life
        if moment != "its turn":
            it.start("bad")
            await it.phase(Phase.UP, "bad")
        if moment == "the end of a drain":
            it.guests.set_drain(drained(it))
            await it.phase(Phase.DOWN, "bad")
            await it.phase(Phase.DOWN, "good")
        step = life.step

        def fail(event: Event, now: float) -> object:
            if isinstance(event, (Turn, Shutdown, Stop)) or (isinstance(event, Start) and event.auto):
                raise RuntimeError("a bug")
            return step(event, now)

        life.step = fail  # type: ignore[method-assign, assignment]
        match moment:
            case "its turn":
                it.start("bad")
            case "the stop of all":
                with trio.fail_after(100):
                    await it.guests.stop_all(by="SIGTERM").done()
            case "a drain":
                it.guests.set_drain(drained(it))
            case "the end of a drain":
                it.guests.set_drain(None)
            case "a prune":
                it.files.loaded = Loaded(daemon=FAST, vms={"good": specs[1], "new": guest("new", autostart=True)})
                await it.guests.reload(plan_only=False, prune=True, by="alice")
                await it.phase(Phase.UP, "new")

        await it.phase(Phase.DOWN if moment in ("the stop of all", "a drain") else Phase.UP, "good")
        await trio.testing.wait_all_tasks_blocked()
        assert it.status("bad").reason.startswith("internal error: RuntimeError: a bug")
        assert [event.vm for event in it.journal.events if event.event == "internal-error"] == ["bad"]


async def test_a_bug_in_the_daemons_last_moment_is_not_its_end(autojump_clock: trio.abc.Clock) -> None:
    """Cancelled, it ends as it was told to, with the status of that."""
    async with lab(guest("bad")) as it:

        def fail(event: Event, now: float) -> object:
            raise RuntimeError("a bug")

        it.guests._drivers["bad"]._life.step = fail  # type: ignore[method-assign, assignment]
        assert it.start("bad").code == "internal-error"


async def test_nobody_asks_whether_a_guest_is_ready_that_has_ended(autojump_clock: trio.abc.Clock) -> None:
    """Nor whether its next run is, on behalf of the one before."""
    spec = guest(order=Order(ready=Ready(command=(Text("/bin/ask"),))))
    async with lab(spec) as it:
        it.host.command_status = 1
        it.machine().lives = [Life(after_s=5.5, status=1)]
        it.start()
        await it.phase(Phase.UP)
        await it.phase(Phase.DOWN)
        asked = len(it.host.ran)
        await trio.sleep(60)

        assert asked == 6
        assert len(it.host.ran) == asked


async def test_a_reload_does_not_hide_a_bug(autojump_clock: trio.abc.Clock) -> None:
    """A guest that nobody drives says so until somebody starts it again, with what its file says by then; others get theirs."""
    changed = guest("bad", health=Health(ping=Text("192.0.2.1")), memory=guest().memory.parse("3G"))
    async with lab(guest("bad", autostart=True), daemon=FAST) as it:
        await it.phase(Phase.UP, "bad")
        it.machine("bad").press = None  # type: ignore[method-assign, assignment]  # a bug of ours
        it.stop("bad")
        reason = (await it.phase(Phase.HELD, "bad")).reason
        for vms in ({"bad": changed, "new": guest("new", autostart=True)}, {}, {"bad": changed}):
            it.files.loaded = Loaded(daemon=FAST, vms=vms)
            await it.guests.reload(plan_only=False, prune=False, by="alice")
            assert (it.status("bad").phase, it.status("bad").reason) == (Phase.HELD, reason)
            assert it.guests.submit("bad", SetHold(hold=Hold(by="alice", since_at=NOON))).code == "internal-error"
        assert it.start("bad").ok
        await trio.testing.wait_all_tasks_blocked()
        await it.phase(Phase.UP, "bad")
        assert it.machine("bad").orders[-1].spec == changed


@pytest.mark.parametrize("moment", ["while it starts", "while nobody knows whether it runs"])
async def test_a_drain_that_is_taken_back_at_once_stops_nobody(moment: str, autojump_clock: trio.abc.Clock) -> None:
    """A guest that has to be looked at before it is stopped goes on, though it had been asked already."""
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        machine = host.machine("web1")
        machine.found = found(guest())
        machine.lives = [Life(title_s=10.0)]
        if moment != "while it starts":
            machine.find_fails = [HostError("too many open files")]
        async with lab(guest(autostart=True), daemon=FAST, host=host) as it:
            assert it.status().phase is (Phase.STARTING if moment == "while it starts" else Phase.WAITING)
            it.guests.set_drain(drained(it))
            with trio.fail_after(1):
                while not it.guests._drivers["web1"]._early:
                    await trio.lowlevel.checkpoint()
            it.guests.set_drain(None)
            await it.phase(Phase.UP)
            await trio.sleep(100)

            assert it.status().phase is Phase.UP
            assert machine.did == []
        nursery.cancel_scope.cancel()


async def test_a_file_that_does_not_answer_holds_up_one_reload() -> None:
    """The next one is in force, and the daemon can end meanwhile: what waits is a thread that nobody waits for."""
    answers = threading.Event()
    async with lab(guest()) as it:
        read = it.files.read

        def hang() -> Loaded:
            answers.wait(60)
            return read()

        it.files.read = hang  # type: ignore[method-assign]
        it.guests._reloading.read_s = 0.05
        with trio.fail_after(30):
            with pytest.raises(HostError, match=r"^the configuration, .* could not be read within 0.05 s: is a mount dead\?$"):
                await it.guests.reload(plan_only=False, prune=False, by="alice")
            it.files.read = read  # type: ignore[method-assign]
            it.guests._reloading.read_s = reloading.READ_S
            assert (await it.guests.reload(plan_only=False, prune=False, by="alice")).applied
    answers.set()


@pytest.mark.parametrize("has_file", [True, False])
async def test_a_reload_does_not_hide_that_nothing_is_known(has_file: bool, autojump_clock: trio.abc.Clock) -> None:
    """Of a guest that may run: it is not shown as down, whatever has become of its file."""
    said = "it cannot be told whether the guest runs: alive: too many open files"
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").found = found(guest())
        host.machine("web1").find_fails = [HostError(said)] * 3
        async with lab(guest(), host=host) as it:
            driver = it.guests._drivers["web1"]  # and not by a reload, whose thread takes real time
            driver.update(guest(memory=guest().memory.parse("3G"))) if has_file else driver.orphan("its file has gone")
            assert (it.status().phase, it.status().reason) == (Phase.WAITING, said)
            await it.phase(Phase.UP)

            assert it.machine().did == []
        nursery.cancel_scope.cancel()
