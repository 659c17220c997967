"""What follows the end of a run, or a start that failed. `policy` decides it; a guest's record keeps it for the next daemon."""

import msgspec


class Stay(msgspec.Struct, frozen=True, tag="stay"):
    """Down, and nothing follows."""

    reason: str


class StartAt(msgspec.Struct, frozen=True, tag="start"):
    """Start again when the clock says `at` (monotonic); `cause` is the counter that grows."""

    at: float
    reason: str
    cause: str = ""  # reboot | crash | start_failure | "" (an operator's restart counts nowhere)


class HoldFor(msgspec.Struct, frozen=True, tag="hold"):
    """Held until a person decides."""

    reason: str


Verdict = Stay | StartAt | HoldFor
