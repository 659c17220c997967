"""The health of a guest, in virtual time: who is asked when, and what follows."""

from typing import Any

import msgspec
import pytest
import trio

from bhyved.core.config import Loaded
from bhyved.core.spec import DaemonSpec, Health, Order, Ready, Restart
from bhyved.core.status import Phase
from bhyved.core.units import Duration
from bhyved.daemon.agent import Agent
from bhyved.daemon.health import HealthWatch
from bhyved.daemon.readiness import Questions
from tests.daemon.fakehost import Life
from tests.daemon.guestkit import Lab, guest, lab


def health(**table: Any) -> Health:
    return Health(**{"ping": "192.0.2.1", "command": ("/bin/ask",), "period": Duration(10), "grace": Duration(60), **table})


def told(it: Lab, event: str) -> list[str]:
    return [each.reason for each in it.journal.events if each.event == event]


async def test_a_healthy_guest_is_asked_and_left_alone(autojump_clock: trio.abc.Clock) -> None:
    """The first look comes a grace and a period after it was ready, the others a period apart."""
    ready = Order(ready=Ready(uptime=Duration(100)))
    async with lab(guest(autostart=True, health=health(command=None), order=ready)) as it:
        await it.phase(Phase.UP)
        await trio.sleep(165)
        assert it.host.ran == []
        await trio.sleep(10)
        assert [argv for argv, _ in it.host.ran] == [("ping", "-n", "-c", "1", "-t", "5", "192.0.2.1")]
        await trio.sleep(100)

        assert len(it.host.ran) == 11
        assert it.status().ill == ""
        assert told(it, "ill") == []


async def test_a_guest_without_the_table_is_not_asked(autojump_clock: trio.abc.Clock) -> None:
    """Opt-in, and idle means idle."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        await trio.sleep(80_000)

        assert it.host.ran == []


async def test_a_guest_that_ends_as_soon_as_it_is_ready_is_not_asked(autojump_clock: trio.abc.Clock) -> None:
    """Its end may be heard before the watch over its health has begun: what comes then is no illness of its next run."""
    said: list[str] = []

    async def ill(why: str) -> None:
        said.append(why)

    async with lab(guest()) as it:
        consoles, commands = it.around.consoles, it.host
        commands.command_status = 1
        watch = HealthWatch("web1", consoles, it.machine(), ill=ill, well=lambda: None, start=it.guests._nursery.start_soon)  # type: ignore[union-attr]
        watch.begin(health(ping=None), Questions("web1", consoles, commands, "", Agent(), ""))
        watch.over()
        await trio.sleep(1000)

        assert (it.host.ran, said) == ([], [])


async def test_an_ill_guest_is_told_of(autojump_clock: trio.abc.Clock) -> None:
    """Once, in words, and so is its recovery; it is not touched."""
    async with lab(guest(autostart=True, health=health())) as it:
        await it.phase(Phase.UP)
        it.host.command_status = 1
        await trio.sleep(300)
        assert told(it, "ill") == ["command (it ended with status 1), ping (no answer) failed 3 times in a row, 10s apart"]
        assert it.status().ill == "command (it ended with status 1), ping (no answer) failed 3 times in a row, 10s apart"
        it.host.command_status = 0
        await trio.sleep(20)

        assert it.status().ill == ""
        assert told(it, "well") == [""]
        assert it.machine().did == ["prepare", "spawn"]


async def test_a_reset_counts_as_a_crash(autojump_clock: trio.abc.Clock) -> None:
    """It is held when the limit is reached: a service that never comes back does not reset its guest for ever."""
    restart = Restart(crash_limit=Restart().crash_limit.parse("2 in 1h"), backoff=Duration(1))
    async with lab(guest(autostart=True, health=health(action="reset"), restart=restart)) as it:
        it.host.command_status = 1
        status = await it.phase(Phase.HELD)

        assert it.machine().did.count("force reset") == 3
        assert it.machine().did.count("spawn") == 3
        assert (status.restarts.crash, status.restarts.reboot) == (2, 0)
        assert "reset by its health probes: command (it ended with status 1), ping (no answer) failed 3 times in a row" in status.reason


async def test_a_reset_that_does_nothing_is_a_kill(autojump_clock: trio.abc.Clock) -> None:
    """Its vCPUs do not run: SIGKILL after ten seconds, and another run."""
    async with lab(guest(autostart=True, health=health(action="reset"))) as it:
        it.machine().lives = [Life(force_works=False), Life()]
        await it.phase(Phase.UP)
        it.host.command_status = 1
        await it.phase(Phase.BACKOFF)
        it.host.command_status = 0
        await it.phase(Phase.UP)

        assert it.machine().times("kill")[0] - it.machine().times("force reset")[0] == pytest.approx(10, abs=0.1)
        assert it.status().restarts.crash == 1


async def test_an_nmi(autojump_clock: trio.abc.Clock) -> None:
    """The guest may write its dump: it is given as long again before the next one."""
    async with lab(guest(autostart=True, health=health(action="nmi"))) as it:
        await it.phase(Phase.UP)
        it.host.command_status = 1
        await trio.sleep(155)

        assert it.machine().times("nmi") == pytest.approx([90, 120, 150], abs=0.5)


async def test_nobody_asks_a_guest_that_is_stopped_or_restarted(autojump_clock: trio.abc.Clock) -> None:
    """The watch ends with the run and begins with the next one that is ready."""
    async with lab(guest(autostart=True, health=health(action="reset"))) as it:
        await it.phase(Phase.UP)
        await trio.sleep(75)
        asked = len(it.host.ran)
        it.stop()
        await it.phase(Phase.DOWN)
        it.host.command_status = 1
        await trio.sleep(1000)
        assert len(it.host.ran) == asked
        it.start()
        await trio.sleep(65)

        assert len(it.host.ran) == asked


async def test_processors_that_run_no_more(autojump_clock: trio.abc.Clock) -> None:
    """A debugger, or a halt for ever: nothing has ended, and no processor has left the guest since the last look."""
    async with lab(guest(autostart=True, health=health(ping=None, command=None, vcpus=True))) as it:
        await it.phase(Phase.UP)
        await trio.sleep(200)
        assert told(it, "ill") == []
        it.machine().frozen_at = it.host.monotonic()
        await trio.sleep(45)
        assert told(it, "ill") == ["vcpus (no processor of the guest has run since the last look) failed 3 times in a row, 10s apart"]
        it.machine().frozen_at = None
        await trio.sleep(15)
        assert it.status().ill == ""
        it.machine().exits_fail = "`bhyvectl` could not be run: no such file or directory"
        await trio.sleep(45)

        assert "vcpus (`bhyvectl` could not be run: no such file or directory) failed" in it.status().ill


async def test_a_reload_changes_the_watch(autojump_clock: trio.abc.Clock) -> None:
    """The table may come, change and go while the guest runs."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        for table, asks in ((health(), 8), (health(period=Duration(40)), 2), (None, 0)):
            it.files.loaded = Loaded(daemon=DaemonSpec(), vms={"web1": msgspec.structs.replace(guest(autostart=True), health=table)})
            await it.guests.reload(plan_only=False, prune=False, by="alice")
            before = len(it.host.ran)
            await trio.sleep(105)

            assert len(it.host.ran) - before == asks
