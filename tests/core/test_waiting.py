"""When a `vm.wait` is over."""

from datetime import UTC, datetime

import pytest

from bhyved.core.status import Desired, Phase, Suspension, VmStatus
from bhyved.core.waiting import Verdict, look

MET, NOT_YET, NEVER = Verdict.MET, Verdict.NOT_YET, Verdict.NEVER


def status(phase: str, **fields: object) -> VmStatus:
    known = {"run": "r1", "desired": Desired.UP} | fields
    return VmStatus(name="web1", since_at=datetime(2026, 1, 1, tzinfo=UTC), phase=Phase(phase), **known)


@pytest.mark.parametrize(
    ("phase", "up", "down"),
    [
        ("down", NEVER, MET),
        ("waiting", NOT_YET, NOT_YET),
        ("preparing", NOT_YET, NOT_YET),
        ("loading", NOT_YET, NOT_YET),
        ("starting", NOT_YET, NOT_YET),
        ("up", MET, NOT_YET),
        ("stopping", NOT_YET, NOT_YET),
        ("killing", NOT_YET, NOT_YET),
        ("cleaning", NOT_YET, NOT_YET),
        ("backoff", NEVER, NEVER),
        ("held", NEVER, MET),
    ],
)
def test_every_phase_is_somewhere_on_the_way_or_not(phase, up, down):
    """What each phase means for a client that waits for up, ready or down, asked in the same run."""
    assert look("up", None, "r1", status(phase)) is up
    assert look("ready", None, "r1", status(phase, ready=True)) is up
    assert look("down", None, "r1", status(phase)) is down


@pytest.mark.parametrize("phase", list(Phase))
def test_a_suspend_is_waited_for_while_it_is_under_way(phase: Phase) -> None:
    """A guest that is up goes on because it has failed; one that is down without a state has ended in another way."""
    state = Suspension(at=datetime(2026, 1, 1, tzinfo=UTC), by="alice", path="/db/web1/saved")
    under_way = NOT_YET if phase in (Phase.STOPPING, Phase.CLEANING) else NEVER

    assert look("suspended", None, "r1", status(phase)) is under_way
    assert look("suspended", None, "r1", status(phase, suspended=state)) is (MET if phase is Phase.DOWN else under_way)
    assert look("suspended", None, "r1", None) is NEVER


def test_up_is_not_ready():
    """A guest that is up and not ready yet may become so."""
    assert look("ready", None, "", status("up")) is NOT_YET


def test_a_guest_whose_time_to_become_ready_is_over_is_not_waited_for() -> None:
    """With on-timeout = "fail" nobody asks it any more."""
    assert look("ready", None, "", status("up", late=True)) is NEVER
    assert look("up", None, "", status("up", late=True)) is MET


def test_another_run_is_waited_for_by_its_id():
    """After a restart, the run that was there before does not count."""
    assert look("up", "r1", "r1", status("up", run="r1")) is NOT_YET
    assert look("up", "r1", "r1", status("up", run="r2")) is MET
    assert look("ready", "r1", "r1", status("up", run="r1", ready=True)) is NOT_YET
    assert look("up", "", "", status("up", run="r1")) is MET


def test_a_guest_that_comes_up_again_will_not_be_down():
    """In another run, under the same wish, waiting for its end is over; while it is wished down, it is not."""
    for phase in ("waiting", "preparing", "loading", "starting", "up"):
        assert look("down", None, "r1", status(phase, run="r2")) is NEVER
        assert look("down", None, "r1", status(phase, run="r2", desired=Desired.DOWN)) is NOT_YET
    assert look("down", "r2", "r1", status("up", run="r2")) is NOT_YET
    assert look("down", None, "r1", status("stopping", run="r2")) is NOT_YET
    assert look("down", None, "", status("waiting", run="")) is NOT_YET
    assert look("down", "", "r1", status("up", run="r1")) is NOT_YET


def test_a_stuck_guest_is_not_down():
    """What the kernel does not let go is not gone."""
    assert look("down", None, "r1", status("held", stuck=True)) is NEVER


def test_a_guest_that_is_gone_is_down():
    """It will never be up."""
    assert look("down", None, "r1", None) is MET
    assert look("up", None, "r1", None) is NEVER
    assert look("ready", "r1", "r1", None) is NEVER
