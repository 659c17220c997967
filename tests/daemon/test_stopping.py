"""The end of the host, in virtual time: every guest ends by the deadline, in order, and nothing starts any more."""

import pytest
import trio
import trio.testing

from bhyved.core.errors import HostError, Stuck
from bhyved.core.lifecycle import Release, Restart, Start
from bhyved.core.spec import DaemonSpec, Order, Stop
from bhyved.core.status import Phase
from bhyved.core.units import Duration
from tests.daemon.fakehost import Life
from tests.daemon.guestkit import Lab, guest, lab

FAST = DaemonSpec(start_parallel=100, start_gap=Duration(0))
DEAF = Life(acpi_s=None)
VERY_DEAF = Life(acpi_s=None, force_works=False)


def stop(seconds: float) -> Stop:
    return Stop(timeout=Duration(seconds))


async def all_up(it: Lab) -> float:
    for name in it.guests.names():
        await it.phase(Phase.UP, name)
    return it.host.monotonic()


async def test_thirty_guests_of_which_some_are_deaf(autojump_clock: trio.abc.Clock) -> None:
    """They stop together; the deaf ones are switched off in time, the very deaf killed in time, the others end by themselves."""
    specs = [guest(f"vm{n:02}", autostart=True, stop=stop(300)) for n in range(30)]
    async with lab(*specs, daemon=FAST) as it:
        for n, spec in enumerate(specs):
            it.machine(spec.name).lives = [DEAF if n % 5 == 0 else VERY_DEAF if n % 5 == 1 else Life(acpi_s=1.0 + n)]
        began = await all_up(it)
        await it.guests.stop_all(by="SIGTERM", end_at=began + 85).done()

        assert it.host.monotonic() - began <= 85
        for n, spec in enumerate(specs):
            machine = it.machine(spec.name)
            assert machine.times("press")[0] == pytest.approx(began, abs=0.1)
            assert bool(machine.times("force poweroff")) is (n % 5 < 2)
            assert bool(machine.times("kill")) is (n % 5 == 1)


async def test_what_one_guest_leaves_over_is_the_next_ones(autojump_clock: trio.abc.Clock) -> None:
    """The web server ends after 2 of its seconds: its slow database gets all the others."""
    specs = [guest("db1", autostart=True, stop=stop(300)), guest("web1", autostart=True, stop=stop(300), order=Order(after=("db1",)))]
    async with lab(*specs, daemon=FAST) as it:
        it.machine("web1").lives = [Life(acpi_s=2.0)]
        it.machine("db1").lives = [Life(acpi_s=60.0)]
        began = await all_up(it)
        await it.guests.stop_all(by="SIGTERM", end_at=began + 85).done()

        assert it.host.monotonic() - began == pytest.approx(62.0, abs=0.5)
        assert it.machine("db1").times("force poweroff") == []


async def test_a_guest_that_needs_more_gets_more(autojump_clock: trio.abc.Clock) -> None:
    """A web server with 5 s takes nothing from a database with 50 s when both fit."""
    specs = [guest("db1", autostart=True, stop=stop(5)), guest("web1", autostart=True, stop=stop(50), order=Order(after=("db1",)))]
    async with lab(*specs, daemon=FAST) as it:
        it.machine("web1").lives = [Life(acpi_s=49.0)]
        it.machine("db1").lives = [Life(acpi_s=4.0)]
        began = await all_up(it)
        await it.guests.stop_all(by="SIGTERM", end_at=began + 85).done()

        assert it.host.monotonic() - began == pytest.approx(53.0, abs=0.5)
        assert it.status("web1").forced_stops == it.status("db1").forced_stops == 0


async def test_a_long_chain_of_deaf_guests(autojump_clock: trio.abc.Clock) -> None:
    """Eight in a row that ignore everything but SIGKILL are all ended within the time, each after at least one press."""
    names = [f"vm{n}" for n in range(8)]
    specs = [guest(name, autostart=True, order=Order(after=tuple(names[:n][-1:]))) for n, name in enumerate(names)]
    async with lab(*specs, daemon=FAST) as it:
        for name in names:
            it.machine(name).lives = [VERY_DEAF]
        began = await all_up(it)
        await it.guests.stop_all(by="SIGTERM", end_at=began + 85).done()

        assert it.host.monotonic() - began <= 85
        kills = [it.machine(name).times("kill")[0] for name in reversed(names)]
        assert kills == sorted(kills)
        assert all(it.machine(name).times("press") for name in names)


async def test_no_time_is_left(autojump_clock: trio.abc.Clock) -> None:
    """rc.shutdown has used it up before us: the power is cut at once, and the stop still ends."""
    async with lab(guest(autostart=True)) as it:
        it.machine().lives = [VERY_DEAF]
        began = await all_up(it)
        await it.guests.stop_all(by="SIGTERM", end_at=began).done()

        assert it.host.monotonic() - began < 3
        assert it.machine().times("press") == []
        assert it.machine().times("kill")


async def test_a_guest_that_the_kernel_keeps_does_not_hold_up_the_others(autojump_clock: trio.abc.Clock) -> None:
    """It is left as stuck, its database is stopped all the same, and the stop is over in time."""
    specs = [guest("db1", autostart=True), guest("web1", autostart=True, order=Order(after=("db1",)))]
    async with lab(*specs, daemon=FAST) as it:
        it.machine("web1").lives = [Life(acpi_s=None, force_works=False, kill_works=False)]
        began = await all_up(it)
        await it.guests.stop_all(by="SIGTERM", end_at=began + 60).done()

        assert it.host.monotonic() - began <= 60
        assert it.status("web1").stuck
        assert it.status("db1").phase is Phase.DOWN


@pytest.mark.parametrize("wish", [Start(by="alice"), Restart(by="alice"), Start(by="x", auto=True)])
async def test_nothing_starts_while_all_stop(autojump_clock: trio.abc.Clock, wish: Start | Restart) -> None:
    """A request is refused with the reason, for a guest that runs and for one that does not."""
    async with lab(guest("up", autostart=True), guest("down")) as it:
        it.machine("up").lives = [Life(acpi_s=20.0)]
        await it.phase(Phase.UP, "up")
        stopping = it.guests.stop_all(by="SIGTERM")
        for name in ("up", "down"):
            assert it.guests.submit(name, wish).code == "shutting-down"
        it.guests.submit("down", Release(by="alice"))
        await stopping.done()

        assert [it.machine(name).did.count("spawn") for name in ("up", "down")] == [1, 0]


async def test_guests_that_wait_stay_down(autojump_clock: trio.abc.Clock) -> None:
    """One in back-off, one whose requirement is down, one that waits for its place: none of them starts, none is waited for."""
    specs = [
        guest("crashed", autostart=True),
        guest("needy", autostart=True, order=Order(requires=("gone",))),
        guest("queued", autostart=True),
        guest("gone"),
    ]
    async with lab(*specs, daemon=DaemonSpec(start_parallel=1, start_gap=Duration(3600))) as it:
        it.machine("crashed").lives = [Life(after_s=1.0, status=4)]
        await it.phase(Phase.BACKOFF, "crashed")
        assert it.status("queued").phase is Phase.WAITING
        began = it.host.monotonic()
        await it.guests.stop_all(by="SIGTERM").done()
        await trio.sleep(4000)

        assert it.host.monotonic() - began == pytest.approx(4000, abs=1)
        assert {it.status(name).phase for name in it.guests.names()} == {Phase.DOWN}
        assert [it.machine(name).did.count("spawn") for name in ("crashed", "needy", "queued")] == [1, 0, 0]


async def test_a_start_under_way_is_taken_back(autojump_clock: trio.abc.Clock) -> None:
    """Its host command ends first; then what it took is given back, and no bhyve is started."""
    async with lab(guest(autostart=True)) as it:
        it.machine().prepare_s = 7.0
        await it.phase(Phase.PREPARING)
        await it.guests.stop_all(by="SIGTERM").done()

        assert it.machine().did == ["prepare", "clean all"]


async def test_a_reboot_at_the_press_starts_nothing(autojump_clock: trio.abc.Clock) -> None:
    """A guest whose button is bound to a reboot is stopped by it."""
    async with lab(guest(autostart=True)) as it:
        it.machine().lives = [Life(acpi_s=1.0, acpi_status=0)]
        await it.phase(Phase.UP)
        await it.guests.stop_all(by="SIGTERM").done()

        assert it.machine().did.count("spawn") == 1
        assert it.journal.records[-1].decision.startswith("stays down")


async def test_the_wish_survives_the_end_of_the_host(autojump_clock: trio.abc.Clock) -> None:
    """What was wished up is up again for the next daemon: a stop of the host is no `vmctl stop`."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        await it.guests.stop_all(by="SIGTERM").done()
        await it.guests.saved()

        assert it.vault.records["web1"].desired == "up"


@pytest.mark.parametrize("failure", [HostError("ifconfig tap0 destroy failed"), Stuck("the node web1 is busy")])
async def test_what_cannot_be_cleaned_up_does_not_hold_up_the_end(autojump_clock: trio.abc.Clock, failure: HostError) -> None:
    """The host goes down with a tap or a node left."""
    async with lab(guest(autostart=True)) as it:
        it.machine().clean_fails = [failure]
        began = await all_up(it)
        await it.guests.stop_all(by="SIGTERM", end_at=began + 30).done()

        assert it.host.monotonic() - began < 30
        assert it.machine().alive == 0
