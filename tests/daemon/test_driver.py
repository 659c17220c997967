"""One guest under its driver, in virtual time: what is asked of the host, when, and what is told of it."""

import itertools

import pytest
import trio
import trio.testing

from bhyved.core.errors import HostError, Stuck
from bhyved.core.exits import ExitKind, Stage
from bhyved.core.lifecycle import Poweroff, Release, Reset, Restart, SetHold
from bhyved.core.spec import Hooks, Order, Ready
from bhyved.core.spec import Restart as RestartSpec
from bhyved.core.spec import Stop as StopSpec
from bhyved.core.status import Desired, Hold, Phase
from bhyved.core.units import Duration, Limit
from bhyved.daemon.ports import Found
from tests.daemon.fakehost import NOON, FakeHost, FakeVault, Life
from tests.daemon.guestkit import guest, lab


async def test_a_guest_starts_and_stops(autojump_clock: trio.abc.Clock) -> None:
    """A start prepares and spawns; a stop presses the button, and what is left of the run is removed."""
    async with lab(guest()) as it:
        assert it.start().code == "accepted"
        await it.phase(Phase.UP)
        assert it.status().pid == 4711
        assert it.start().code == "already"

        assert it.stop().code == "accepted"
        await it.phase(Phase.DOWN)

        assert it.machine().did == ["prepare", "spawn", "press", "clean all"]
        assert it.status().last_exit is not None
        assert it.status().last_exit.kind is ExitKind.POWEROFF
        assert it.stop().code == "already"


async def test_a_crashing_guest_waits_longer_each_time_and_is_held(autojump_clock: trio.abc.Clock) -> None:
    """With four crashes allowed, a guest that dies after half a second starts at 0, 2.5, 7, 15.5 and 32 s, then is held."""
    spec = guest(restart=RestartSpec(crash_limit=Limit(4, Duration(600))))
    async with lab(spec) as it:
        it.machine().lives = [Life(after_s=0.5, status=4)]
        it.start()
        await it.phase(Phase.HELD)

        assert it.machine().times("spawn") == [0.0, 2.5, 7.0, 15.5, 32.0]
        assert it.status().restarts.crash == 4
        assert "over its crash-limit" in it.status().reason
        assert it.machine().did[-1] == "clean all"


async def test_an_hour_of_back_off(autojump_clock: trio.abc.Clock) -> None:
    """A host that cannot start a guest is tried every backoff-max for ever, and the guest comes up when it can."""
    async with lab(guest()) as it:
        it.machine().prepare_fails = [HostError("the pool is gone")] * 64
        it.start()
        await it.phase(Phase.UP)

        starts = it.machine().times("prepare")
        assert starts[:6] == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0]
        assert {round(b - a, 3) for a, b in itertools.pairwise(starts[5:])} == {60.0}
        assert starts[-1] > 3500
        assert it.status().restarts.start_failure == 64
        assert [record.text for record in it.journal.records] == ["the pool is gone"]
        assert it.journal.records[0].decision == "starting again in 2s (failed start 1)"


async def test_the_first_reboot_is_immediate(autojump_clock: trio.abc.Clock) -> None:
    """A guest that reboots is started again at once, without giving its taps back."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(after_s=100.0, status=0), Life()]
        it.start()
        await it.ran(1)
        await it.phase(Phase.UP)

        assert it.machine().times("spawn") == [0.0, 100.0]
        assert it.machine().did == ["prepare", "spawn", "clean", "prepare", "spawn"]
        assert it.status().restarts.reboot == 1
        assert it.journal.records[0].decision


async def test_a_guest_that_ignores_the_button_loses_its_power_at_the_timeout(autojump_clock: trio.abc.Clock) -> None:
    """It is pressed at 0, 2, 10, 30, 45 s and cut off when stop.timeout runs out, not sooner."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(acpi_s=None)]
        it.start()
        await it.phase(Phase.UP)
        began = it.host.monotonic()
        it.stop()
        await it.phase(Phase.DOWN)

        assert [at - began for at in it.machine().times("press")] == pytest.approx([0, 2, 10, 30, 45])
        assert [at - began for at in it.machine().times("force poweroff")] == pytest.approx([60])
        assert it.status().forced_stops == 1


async def test_sigkill_follows_when_the_power_cut_does_nothing(autojump_clock: trio.abc.Clock) -> None:
    """`--force-poweroff` needs running vCPUs; ten seconds later the process is killed."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(acpi_s=None, force_works=False)]
        it.start()
        await it.phase(Phase.UP)
        began = it.host.monotonic()
        assert it.guests.submit("web1", Poweroff(by="alice")).ok
        await it.phase(Phase.DOWN)

        assert [at - began for at in it.machine().times("kill")] == pytest.approx([10])
        assert it.status().last_exit is not None
        assert it.status().last_exit.kind is ExitKind.KILLED


async def test_a_process_stuck_in_the_kernel_is_held_and_never_started_over(autojump_clock: trio.abc.Clock) -> None:
    """What SIGKILL does not end is left alone until it goes by itself."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(acpi_s=None, force_works=False, kill_works=False), Life()]
        it.start()
        await it.phase(Phase.UP)
        it.guests.submit("web1", Poweroff(by="alice"))
        await it.phase(Phase.HELD)
        assert it.status().stuck
        assert it.start().code == "stuck"

        it.machine()._finish(137)
        await it.phase(Phase.HELD)
        while it.status().stuck:
            await it.guests.board.wait_newer(it.guests.board.generation)
        assert it.start().ok
        await it.phase(Phase.UP)
        assert it.machine().most_alive == 1


async def test_a_node_stuck_in_the_kernel_is_held(autojump_clock: trio.abc.Clock) -> None:
    """A destroy that never comes back ends automation, with the sentence that says so."""
    async with lab(guest()) as it:
        it.machine().clean_fails = [Stuck("`bhyvectl --vm=web1 --destroy` (pid 99) is stuck in the kernel")]
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.HELD)

        assert "pid 99" in it.status().reason


async def test_a_reboot_while_stopping_is_the_end(autojump_clock: trio.abc.Clock) -> None:
    """A guest that answers the button by rebooting is stopped all the same."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(acpi_s=3.0, acpi_status=0)]
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)

        assert it.machine().did.count("spawn") == 1
        assert it.status().restarts.reboot == 0


async def test_restart_and_reset_count_nowhere(autojump_clock: trio.abc.Clock) -> None:
    """What an operator asks for is not the guest's fault."""
    async with lab(guest()) as it:
        it.start()
        await it.phase(Phase.UP)
        first = it.status().run
        assert it.guests.submit("web1", Restart(by="alice")).ok
        await it.ran(1)
        await it.phase(Phase.UP)
        assert it.status().run != first
        assert it.guests.submit("web1", Reset(by="alice")).ok
        await it.ran(2)
        await it.phase(Phase.UP)

        restarts = it.status().restarts
        assert (restarts.reboot, restarts.crash, restarts.start_failure) == (0, 0, 0)
        assert it.machine().did.count("spawn") == 3


async def test_a_hold_ends_by_itself(autojump_clock: trio.abc.Clock) -> None:
    """A guest held for an hour stays down after a crash and is started when the hour is over."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(after_s=60.0, status=4), Life()]
        it.start()
        await it.phase(Phase.UP)
        until = NOON.replace(hour=13)
        it.guests.submit("web1", SetHold(hold=Hold(by="alice", reason="disk swap", since_at=it.host.utc(), until_at=until)))
        await it.phase(Phase.HELD)
        assert "disk swap" in it.status().reason
        await it.phase(Phase.UP)

        assert it.machine().times("spawn") == [0.0, 3600.0]


async def test_release_starts_what_is_wished_up(autojump_clock: trio.abc.Clock) -> None:
    """After a release the wish decides."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(after_s=1.0, status=4), Life()]
        it.start()
        await it.phase(Phase.UP)
        it.guests.submit("web1", SetHold(hold=Hold(by="alice", since_at=it.host.utc())))
        await it.phase(Phase.HELD)
        it.guests.submit("web1", Release(by="alice"))

        await it.phase(Phase.UP)


async def test_a_loader_runs_before_bhyve_and_has_its_own_time_limit(autojump_clock: trio.abc.Clock) -> None:
    """bhyveload that waits at its prompt is killed when boot.timeout is over, and that is a failed start."""
    from bhyved.core.boot import Boot

    async with lab(guest(boot=Boot(loader="bhyveload"))) as it:
        it.machine().loader = [(1e6, 0), (3.0, 0)]
        it.start()
        await it.phase(Phase.BACKOFF)
        assert "did not finish within" in it.status().reason
        await it.phase(Phase.UP)

        assert it.machine().did[:3] == ["prepare", "load", "kill"]
        assert it.machine().did[-2:] == ["load", "spawn"]


async def test_readiness_is_another_fact_than_being_up(autojump_clock: trio.abc.Clock) -> None:
    """With ready by uptime the guest is up at once and ready twenty seconds later."""
    spec = guest(order=Order(ready=Ready(uptime=Duration(20))))
    async with lab(spec) as it:
        it.start()
        status = await it.phase(Phase.UP)
        assert not status.ready
        while not it.status().ready:
            await it.guests.board.wait_newer(it.guests.board.generation)

        assert it.host.monotonic() == pytest.approx(20, abs=0.1)


async def test_hooks_are_told_and_pre_start_decides(autojump_clock: trio.abc.Clock) -> None:
    """A pre-start hook that fails is a failed start; the others only hear of it."""
    spec = guest(hooks=Hooks(pre_start=("/pre",), post_start=("/up",), post_stop=("/down",)))
    async with lab(spec) as it:
        it.host.command_status = 1
        it.start()
        await it.phase(Phase.BACKOFF)
        assert "pre-start hook ended with status 1" in it.status().reason
        it.host.command_status = 0
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)
        await trio.testing.wait_all_tasks_blocked()

        assert [argv for argv, _ in it.host.ran] == [("/pre",), ("/pre",), ("/up",), ("/down",)]
        assert b'"vm": "web1"' in it.host.ran[-1][1]


async def test_a_stop_command_takes_the_place_of_the_button(autojump_clock: trio.abc.Clock) -> None:
    """With stop.command nobody presses; the power is cut at the timeout as always."""
    spec = guest(stop=StopSpec(command=("/bin/ssh", "web1", "poweroff"), timeout=Duration(5), presses=(Duration(0),)))
    async with lab(spec) as it:
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)

        assert it.host.ran[0][0][0] == "/bin/ssh"
        assert "press" not in it.machine().did
        assert it.machine().did.count("force poweroff") == 1


async def test_a_killed_daemon_loses_nothing(autojump_clock: trio.abc.Clock) -> None:
    """The next daemon takes the run up with its pid, uptime and wish, and handles its end by the policy."""
    vault = FakeVault()
    async with lab(guest(), vault=vault) as it:
        it.start()
        await it.phase(Phase.UP)
        await trio.testing.wait_all_tasks_blocked()
        run = it.status().run
    assert vault.records["web1"].desired is Desired.UP
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        machine = host.machine("web1")
        machine.found = Found(run=run, by="alice", stage=Stage.RUNNING, spec=guest(), pid=4711, started=-100.0, started_at=NOON)
        machine.lives = [Life(after_s=30.0, status=0), Life()]
        async with lab(guest(), vault=vault, host=host) as it:
            assert it.status().phase is Phase.UP
            assert it.status().adopted
            assert it.status().run == run
            assert it.status().started == -100.0
            await it.ran(1)
            await it.phase(Phase.UP)

            assert it.journal.records[0].adopted
            assert it.journal.records[0].kind is ExitKind.REBOOT
            assert machine.did == ["clean", "prepare", "spawn"]
        nursery.cancel_scope.cancel()


async def test_a_hold_by_policy_outlives_the_daemon(autojump_clock: trio.abc.Clock) -> None:
    """A guest held for its crashes is not started by a restart of the daemon on the same boot, but by the next boot."""
    vault = FakeVault()
    spec = guest(autostart=True, restart=RestartSpec(crash_limit=Limit(1, Duration(600))))
    async with lab(spec, vault=vault) as it:
        it.machine().lives = [Life(after_s=1.0, status=4)]
        await it.phase(Phase.HELD)
        await trio.testing.wait_all_tasks_blocked()
        reason = it.status().reason
    async with lab(spec, vault=vault) as it:
        await trio.testing.wait_all_tasks_blocked()
        assert it.status().phase is Phase.HELD
        assert it.status().reason == reason
        assert it.machine().did == []
        assert it.start().ok
        await it.phase(Phase.UP)
    async with trio.open_nursery() as nursery:
        async with lab(spec, vault=vault, host=FakeHost(nursery, boot="b2")) as it:
            await it.phase(Phase.UP)
        nursery.cancel_scope.cancel()


async def test_a_stop_outlives_the_daemon(autojump_clock: trio.abc.Clock) -> None:
    """A guest that was stopped on this boot stays down when the daemon is restarted, autostart or not."""
    vault = FakeVault()
    async with lab(guest(autostart=True), vault=vault) as it:
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)
        await trio.testing.wait_all_tasks_blocked()
    async with lab(guest(autostart=True), vault=vault) as it:
        await trio.testing.wait_all_tasks_blocked()

        assert it.status().phase is Phase.DOWN
        assert it.machine().did == []


async def test_a_record_that_cannot_be_saved_costs_nothing_else(autojump_clock: trio.abc.Clock) -> None:
    """A full disk is told once, and the guest goes on."""
    async with lab(guest()) as it:
        it.vault.fails = True
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)
        await trio.testing.wait_all_tasks_blocked()

        assert [event.event for event in it.journal.events].count("save-failed") == 1


async def test_a_record_that_could_not_be_saved_is_saved_when_it_can_be(autojump_clock: trio.abc.Clock) -> None:
    """Nothing has to happen to the guest for it: a wish that was made while the disk was full is not forgotten."""
    async with lab(guest()) as it:
        it.vault.fails = True
        it.start()
        await it.phase(Phase.UP)
        await trio.sleep(100)
        assert "web1" not in it.vault.records
        it.vault.fails = False
        await trio.sleep(30)

        assert it.vault.records["web1"].desired == "up"


async def test_arm64_has_no_button(autojump_clock: trio.abc.Clock) -> None:
    """There SIGTERM would kill or do nothing: without a stop command the power is cut at once."""
    from bhyved.core.assigned import Target

    async with lab(guest(), target=Target("15", "arm64")) as it:
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)

        assert it.machine().did == ["prepare", "spawn", "force poweroff", "clean all"]
        it.start()
        await it.phase(Phase.UP)
        it.guests.submit("web1", Restart(by="alice"))
        await it.ran(2)
        await it.phase(Phase.UP)

        assert "press" not in it.machine().did


async def test_a_guest_that_came_up_unseen_is_not_killed(autojump_clock: trio.abc.Clock) -> None:
    """A guest that waited for VNC for an hour is looked at before it is stopped: it has come up, so it gets the button."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(title_s=3600.0, acpi_s=1.0)]
        it.start()
        await it.phase(Phase.STARTING)
        await trio.sleep(7200)
        assert it.status().phase is Phase.STARTING
        it.stop()
        await it.phase(Phase.DOWN)

        assert it.machine().did == ["prepare", "spawn", "press", "clean all"]


async def test_a_guest_that_has_not_come_up_is_killed(autojump_clock: trio.abc.Clock) -> None:
    """While bhyve is still setting up no vCPU has run: there is nothing to save, and wishes are taken in their order."""
    async with lab(guest()) as it:
        it.machine().lives = [Life(title_s=1e9), Life()]
        it.start()
        await it.phase(Phase.STARTING)
        it.stop()
        it.start()
        await it.phase(Phase.UP)

        assert it.machine().did == ["prepare", "spawn", "kill", "clean", "prepare", "spawn"]
