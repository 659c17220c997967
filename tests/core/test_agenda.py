"""The boot of a host and its shutdown, laid out."""

import pytest

from bhyved.core import agenda
from bhyved.core.ladder import climb
from bhyved.core.room import HostMemory, Room
from bhyved.core.spec import Order, Ready, Stop, VmSpec
from bhyved.core.turns import Pace
from bhyved.core.units import Duration, Size

PACE = Pace(parallel=2, gap_s=2.0)


def guest(name: str, **tables: object) -> VmSpec:
    timeout_s = tables.pop("timeout_s", 60)
    return VmSpec(name=name, stop=Stop(timeout=Duration(timeout_s)), **tables)


def among(*specs: VmSpec) -> dict[str, VmSpec]:
    return {spec.name: spec for spec in specs}


def test_a_boot_is_the_order_of_the_autostart_guests():
    """Each with what it waits for, and until when at most."""
    ready = Ready(console="login:", timeout=Duration(30))
    plan = agenda.boot(
        among(
            guest("web1", order=Order(after=("db1",), requires=("nfs1",), needs=("pool:tank",))),
            guest("db1", order=Order(ready=ready)),
            guest("nfs1", autostart=False),
        ),
        PACE,
    )

    assert plan.text.splitlines() == [
        "2 guests start, 2 at a time, 2s apart",
        "  1. db1",
        "  2. web1 after db1, when it is ready or after 30s; nfs1, which does not start by itself; the pool tank",
    ]
    assert [(step.name, step.after, step.waits) for step in plan.steps] == [("db1", (), ""), ("web1", ("db1", "nfs1"), "")]
    assert plan.fits


def test_a_boot_says_who_waits_for_memory():
    """In the list, in its head, and for programs."""
    memory = Room(host=HostMemory(total_bytes=4 << 30), reserve_bytes=1 << 30)
    plan = agenda.boot(among(guest("big", memory=Size(8 << 30)), guest("db1", memory=Size(2 << 30))), PACE, memory)

    assert plan.text.splitlines()[0] == "1 guest starts, 2 at a time, 2s apart; 1 guest waits for memory"
    assert plan.text.splitlines()[1].startswith("  1. big: has to wait, needs 8G, more than this host ever has for guests, which is 3G")
    assert [bool(step.waits) for step in plan.steps] == [True, False]
    assert not plan.fits

    two = among(*(guest(name, memory=Size(8 << 30)) for name in ("big", "huge")))
    assert agenda.boot(two, PACE, memory).text.splitlines()[0] == "0 guests start, 2 at a time, 2s apart; 2 guests wait for memory"


@pytest.mark.parametrize(
    ("ready", "after", "requires"),
    [
        (None, "when it is up", "when it is up"),
        (Ready(uptime=Duration(20)), "when it has been up for 20s", "when it has been up for 20s"),
        (Ready(tcp="192.0.2.1:80", timeout=Duration(30)), "when it is ready or after 30s", "when it is ready or after 30s"),
        (
            Ready(tcp="192.0.2.1:80", timeout=Duration(30), on_timeout="fail"),
            "when it is ready or after 30s",
            "when it is ready, however long that takes (it should within 30s)",
        ),
    ],
)
def test_a_boot_says_how_long_guests_wait_for_others(ready: Ready | None, after: str, requires: str) -> None:
    """Merely to come after a guest is another thing than to require it."""
    specs = among(
        guest("db1", order=Order(ready=ready)), guest("a", order=Order(after=("db1",))), guest("b", order=Order(requires=("db1",)))
    )

    assert [step.text for step in agenda.boot(specs, PACE).steps] == ["db1", f"a after db1, {after}", f"b after db1, {requires}"]


def test_a_shutdown_says_who_is_suspended():
    """If it can be: its time is that of a stop, should it come to that."""
    plan = agenda.shutdown({"a": VmSpec(name="a", stop=Stop(timeout=Duration(14), on_host_shutdown="suspend"))}, 70)

    assert [step.text for step in plan.steps] == ["a: at most 20s, suspended if it can be"]


def test_nothing_to_boot():
    """A host without autostart says so."""
    assert agenda.boot(among(guest("a", autostart=False)), PACE).text == "no guest has autostart\n"


def test_a_shutdown_is_the_reverse_and_takes_the_longest_chain():
    """Guests that depend on nobody stop together; one that others need waits for their end."""
    plan = agenda.shutdown(
        among(guest("db1", timeout_s=28), guest("web1", timeout_s=14, order=Order(after=("db1",))), guest("x", timeout_s=7)), 70
    )

    steps = {step.name: step for step in plan.steps}
    assert [step.name for step in plan.steps][-1] == "db1"
    assert (steps["web1"].at_s, steps["x"].at_s) == (0.0, 0.0)
    assert steps["db1"].at_s == steps["web1"].up_to_s == pytest.approx(20.0)
    assert steps["db1"].up_to_s == pytest.approx(60.0)
    assert plan.needs_s == pytest.approx(60.0)
    assert plan.fits
    assert (plan.budget_s, steps["db1"].after, steps["x"].after) == (70, ("web1",), ())
    assert plan.text.splitlines() == [
        "3 guests stop within 1m at the latest; the host gives 1m10s: every guest gets its time",
        "  1. web1: at most 20s",
        "  2. x: at most 10s",
        "  3. db1: at most 40s, after web1",
    ]


def test_whom_a_guest_stops_after_is_named():
    """All of them."""
    order = Order(after=("db1",))
    plan = agenda.shutdown(among(guest("db1"), guest("web1", order=order), guest("web2", order=order)), None)

    assert plan.steps[-1].text == "db1: at most 1m20s, after web1, web2"


def test_a_shutdown_that_does_not_fit_says_what_to_set():
    """The sentence names both settings that decide."""
    plan = agenda.shutdown(among(guest("a", timeout_s=300)), 85.0)

    assert not plan.fits
    assert plan.needs_s == 320.0
    assert plan.text.splitlines()[0] == (
        "1 guest stops within 5m20s at the latest, but the host gives 1m25s: timeouts are cut short; "
        "set rcshutdown_timeout and kern.init_shutdown_timeout higher"
    )


@pytest.mark.parametrize("timeout_s", [3, 20, 46, 47, 60, 300])
def test_what_is_needed_is_what_the_ladder_keeps(timeout_s):
    """With exactly the time that is called needed a guest gets its whole grace, with a little less it does not."""
    needed = agenda.shutdown(among(guest("a", timeout_s=timeout_s)), None).needs_s
    stop = Stop(timeout=Duration(timeout_s))

    assert climb(stop, 0.0, end_at=needed + 0.1).force_at == pytest.approx(timeout_s, abs=0.1)
    assert climb(stop, 0.0, end_at=needed - 0.5).force_at < timeout_s - 0.1


def test_a_chain_needs_the_sum_of_its_guests():
    """Guests in a row share the time by what they need, so a long one before a short one takes nothing from it."""
    plan = agenda.shutdown(among(guest("db1", timeout_s=7), guest("web1", timeout_s=70, order=Order(after=("db1",)))), None)

    assert plan.needs_s == pytest.approx(100.0)


def test_nothing_to_stop_fits():
    """Without guests there is nothing that could not fit."""
    nothing = agenda.shutdown({}, 0.0)
    assert nothing.fits
    assert nothing.text == "no guest would have to be stopped\n"
    assert agenda.shutdown(among(guest("a")), None).fits
