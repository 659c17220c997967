"""What a guest's record counts."""

from datetime import UTC, datetime

import msgspec
import pytest

from bhyved.core import tally
from bhyved.core.exits import Exit, ExitKind
from bhyved.core.policy import HoldFor, StartAt, Stay
from bhyved.core.status import LastExit, Restarts, VmRecord

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
REBOOT = Exit(kind=ExitKind.REBOOT, text="the guest rebooted")
LAST = LastExit(kind=ExitKind.REBOOT, status=0, signal=None, at=NOON)


def test_a_start_is_measured() -> None:
    """One more guest came up, and how long that took."""
    record = tally.started(tally.started(VmRecord(), 0.2), 7.0)

    assert sum(record.start_s.counts) == 2
    assert record.start_s.total_s == pytest.approx(7.2)


def test_an_end_nobody_asked_for() -> None:
    """It counts under its kind, and no stop was measured."""
    record = tally.ended(VmRecord(exits={ExitKind.HALT: 2, ExitKind.REBOOT: 4}), "r1", REBOOT, LAST, stop_s=None, forced=False)

    assert record.exits == {ExitKind.HALT: 2, ExitKind.REBOOT: 5}
    assert record.last_exit == LAST
    assert sum(record.stop_s.counts) == 0
    assert record.forced_stops == 0


def test_a_stop_is_measured_and_a_forced_one_counted() -> None:
    """How long it took from the wish to the end; a guest whose power was cut counts twice."""
    record = tally.ended(VmRecord(forced_stops=3), "r1", REBOOT, LAST, stop_s=61.0, forced=True)

    assert record.stop_s.total_s == 61.0
    assert record.forced_stops == 4
    assert record.last_exit == msgspec.structs.replace(LAST, forced=True)
    assert record.exits == {ExitKind.REBOOT: 1}


def test_the_run_that_was_counted_last_is_known() -> None:
    """A daemon that finds its end again does not count it again."""
    assert tally.failed(VmRecord(counted_run="r1"), "r2").counted_run == "r2"
    assert tally.ended(VmRecord(counted_run="r1"), "r2", REBOOT, LAST, stop_s=None, forced=False).counted_run == "r2"


@pytest.mark.parametrize(
    ("cause", "counted"),
    [
        ("reboot", Restarts(reboot=2, crash=1, start_failure=1)),
        ("crash", Restarts(reboot=1, crash=2, start_failure=1)),
        ("start_failure", Restarts(reboot=1, crash=1, start_failure=2)),
        ("", Restarts(reboot=1, crash=1, start_failure=1)),
    ],
)
def test_an_automatic_restart_counts_under_its_cause(cause: str, counted: Restarts) -> None:
    """An operator's restart has no cause and counts nowhere."""
    record = VmRecord(restarts=Restarts(reboot=1, crash=1, start_failure=1))

    assert tally.decided(record, StartAt(1.0, "again", cause)).restarts == counted


@pytest.mark.parametrize("verdict", [Stay("enough"), HoldFor("too often")])
def test_what_is_no_start_counts_nothing(verdict: Stay | HoldFor) -> None:
    """The record stays what it was."""
    record = VmRecord()

    assert tally.decided(record, verdict) is record
