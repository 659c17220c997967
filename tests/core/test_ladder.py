"""The steps of a stop, and how they shrink when the host ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.ladder import FORCE_S, KILL_S, NEEDED_LEAST_S, Ladder, climb, cut_power, kill_now, needed_s, sooner
from bhyved.core.spec import Stop
from bhyved.core.units import Duration

DEFAULT = Stop()


def stops() -> st.SearchStrategy[Stop]:
    presses = st.lists(st.integers(0, 120), min_size=1, max_size=5, unique=True).map(
        lambda times: tuple(Duration(t) for t in sorted(times))
    )
    return st.builds(Stop, presses=presses, timeout=st.integers(0, 300).map(Duration))


def in_order(steps: Ladder) -> bool:
    return steps.force_at <= steps.kill_at <= steps.give_up_at and list(steps.presses) == sorted(steps.presses)


def test_the_default_stop() -> None:
    """The listed presses, one every 15 s after the last, then the power, then SIGKILL, then we give up."""
    assert climb(DEFAULT, 100.0) == Ladder(
        presses=(100.0, 102.0, 110.0, 130.0, 145.0), force_at=160.0, kill_at=160.0 + FORCE_S, give_up_at=160.0 + FORCE_S + KILL_S
    )


def test_a_shorter_timeout_leaves_the_later_presses_out() -> None:
    """`vmctl stop --timeout 5` presses at once and after 2 s."""
    steps = climb(DEFAULT, 100.0, timeout_s=5.0)
    assert steps.presses == (100.0, 102.0)
    assert steps.force_at == 105.0


def test_the_end_of_the_host_compresses_the_whole_stop() -> None:
    """With 20 s left of the 60 s wanted, 30 % are kept for the forced steps and the presses move together."""
    steps = climb(DEFAULT, 100.0, end_at=120.0)
    assert steps.force_at == 114.0
    assert (steps.kill_at, steps.give_up_at) == (117.0, 120.0)
    assert steps.presses[:2] == (100.0, 100.0 + 2.0 * 14 / 60)


def test_a_distant_end_of_the_host_changes_nothing() -> None:
    """A guest whose own timeout fits is not hurried."""
    assert climb(DEFAULT, 100.0, end_at=1000.0) == climb(DEFAULT, 100.0)


def test_an_end_that_has_passed_leaves_no_grace() -> None:
    """Everything is due now."""
    steps = climb(DEFAULT, 100.0, end_at=90.0)
    assert (steps.force_at, steps.kill_at, steps.give_up_at) == (100.0, 100.0, 100.0)
    assert cut_power(100.0, end_at=90.0).give_up_at == 100.0
    assert kill_now(100.0, end_at=90.0).give_up_at == 100.0


def test_late_presses_count_as_one() -> None:
    """A daemon that was stopped for a while does not make up for what it missed."""
    steps = climb(DEFAULT, 100.0)
    assert steps.due(112.0)
    assert steps.pressed(112.0).presses == (130.0, 145.0)


def test_a_press_is_due_at_its_time_and_once() -> None:
    """Not before it, and not again after it was made; without any left nothing is due."""
    steps = climb(DEFAULT, 100.0).pressed(100.0)
    assert not steps.due(101.9)
    assert steps.due(102.0)
    assert steps.pressed(102.0).presses == (110.0, 130.0, 145.0)
    assert not cut_power(100.0).due(100.0)


def test_what_comes_next_is_a_press_until_there_are_none() -> None:
    """Then it is the power."""
    steps = climb(DEFAULT, 100.0)
    assert steps.next_at() == 100.0
    assert steps.pressed(100.0).next_at() == 102.0
    assert steps.pressed(150.0).next_at() == 160.0


def test_no_press_at_the_moment_of_the_power_cut() -> None:
    """A guest could do nothing about it any more."""
    stop = Stop(presses=(Duration(0), Duration(10)), timeout=Duration(10))
    assert climb(stop, 100.0).presses == (100.0,)


def test_a_stop_of_a_second_presses_when_it_says() -> None:
    """However short the timeout is."""
    stop = Stop(presses=(Duration(0), Duration(0.5)), timeout=Duration(1))
    assert climb(stop, 100.0).presses == (100.0, 100.5)


@pytest.mark.parametrize(("timeout_s", "needed"), [(0.0, 3.0), (1.0, 3.0), (7.0, 10.0), (35.0, 50.0), (60.0, 80.0)])
def test_what_a_stop_needs_of_the_hosts_time(timeout_s: float, needed: float) -> None:
    """Long ones 20 s for the forced steps, short ones 30 % of it, and none less than cutting the power takes."""
    assert needed_s(timeout_s) == pytest.approx(needed)


@given(st.floats(NEEDED_LEAST_S, 3000))
def test_with_what_it_needs_a_stop_has_its_whole_grace(timeout_s: float) -> None:
    """And with a second less it has not."""
    needed = needed_s(timeout_s)
    assert climb(DEFAULT, 0.0, timeout_s=timeout_s, end_at=needed).force_at == pytest.approx(timeout_s)
    assert climb(DEFAULT, 0.0, timeout_s=timeout_s, end_at=needed - 1).force_at < timeout_s - 0.5


def test_a_power_cut_without_grace() -> None:
    """At once, then SIGKILL, then we give up; what is left to the end of the host is shared by the two."""
    assert cut_power(100.0) == Ladder(presses=(), force_at=100.0, kill_at=110.0, give_up_at=120.0)
    assert cut_power(100.0, end_at=1000.0) == cut_power(100.0)
    assert cut_power(100.0, end_at=108.0) == Ladder(presses=(), force_at=100.0, kill_at=104.0, give_up_at=108.0)


def test_a_kill_is_at_once() -> None:
    """Given up after 10 s, or at the end of the host."""
    assert kill_now(100.0) == Ladder(presses=(), force_at=100.0, kill_at=100.0, give_up_at=110.0)
    assert kill_now(100.0, end_at=1000.0) == kill_now(100.0)
    assert kill_now(100.0, end_at=104.0).give_up_at == 104.0


def test_the_presses_of_two_stops_are_those_of_the_one_that_ends_first() -> None:
    """Whichever was asked for first."""
    slow, quick = climb(DEFAULT, 100.0), climb(DEFAULT, 101.0, timeout_s=5.0)
    assert sooner(slow, quick).presses == quick.presses == (101.0, 103.0)
    assert sooner(quick, slow).presses == quick.presses


def test_a_power_cut_that_comes_late_leaves_the_steps_behind_it_their_time() -> None:
    """So does one that comes early."""
    steps = climb(DEFAULT, 100.0)
    assert steps.forced(400.0) == Ladder(presses=(), force_at=400.0, kill_at=400.0 + FORCE_S, give_up_at=400.0 + FORCE_S + KILL_S)
    assert steps.forced(110.0).kill_at == 110.0 + FORCE_S


def test_only_a_command_no_button() -> None:
    """`presses = []` needs a command, which is run at once and every 15 s."""
    stop = Stop(presses=(), command=("true",), timeout=Duration(40))  # type: ignore[arg-type]
    assert climb(stop, 0.0).presses == (0.0, 15.0, 30.0)


@given(stops(), st.floats(0, 1e6), st.none() | st.floats(0, 400), st.none() | st.floats(-50, 400))
def test_steps_are_in_order_and_end_with_the_host(stop: Stop, now: float, timeout_s: float | None, left_s: float | None) -> None:
    """Whatever is asked for, no step comes before its turn, and none after the end of the host."""
    steps = climb(stop, now, timeout_s=timeout_s, end_at=None if left_s is None else now + left_s)

    assert in_order(steps)
    assert all(now <= at <= steps.force_at for at in steps.presses)
    if left_s is not None:
        assert steps.give_up_at <= now + max(0.0, left_s) + 1e-6


@given(stops(), stops(), st.floats(0, 100), st.none() | st.floats(0, 400))
def test_the_sooner_of_two_stops_is_no_later_than_either(one: Stop, two: Stop, later_s: float, left_s: float | None) -> None:
    """A second wish may hurry a stop, never put it off."""
    old, new = climb(one, 0.0), climb(two, later_s, end_at=None if left_s is None else later_s + left_s)
    both = sooner(old, new)

    assert in_order(both)
    for name in ("force_at", "kill_at", "give_up_at"):
        assert getattr(both, name) == min(getattr(old, name), getattr(new, name))
