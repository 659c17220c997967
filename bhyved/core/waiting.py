"""What `vm.wait` waits for: from a guest's status alone, whether it is where somebody wants it, may still get there, or will not.

Pure; `daemon.methods` asks again at each change on the board, which may skip states in between. So nothing here depends on having seen
a phase go by: runs are told apart by their ids.
"""

import enum

from bhyved.core.params import Until
from bhyved.core.status import Desired, Phase, VmStatus


class Verdict(enum.Enum):
    """How a wait stands."""

    MET = enum.auto()
    NOT_YET = enum.auto()
    NEVER = enum.auto()  # not by itself, and not soon


#: Where an automatic start is under way or done.
_RISING = frozenset({Phase.WAITING, Phase.PREPARING, Phase.LOADING, Phase.STARTING, Phase.UP})


def look(until: Until, after_run: str | None, begun_in: str, status: VmStatus | None) -> Verdict:
    """`after_run`: as the client gave it. `begun_in`: the first run seen since it asked. No status: the guest is no longer there."""
    if until == "down":
        return _down(after_run or begun_in, status)
    if until == "suspended":
        return _suspended(status)
    if status is None or status.phase in (Phase.HELD, Phase.BACKOFF, Phase.DOWN):
        return Verdict.NEVER
    if status.phase is not Phase.UP or status.run == after_run:
        return Verdict.NOT_YET
    if until == "up" or status.ready:
        return Verdict.MET
    return Verdict.NEVER if status.late else Verdict.NOT_YET


def _suspended(status: VmStatus | None) -> Verdict:
    """Asked behind a suspend that was accepted: a guest that is up goes on because it has failed."""
    if status is not None and status.phase in (Phase.STOPPING, Phase.CLEANING):
        return Verdict.NOT_YET
    is_there = status is not None and status.phase is Phase.DOWN and status.suspended is not None
    return Verdict.MET if is_there else Verdict.NEVER


def _down(run: str, status: VmStatus | None) -> Verdict:
    if status is None or status.phase is Phase.DOWN:
        return Verdict.MET
    if status.phase is Phase.HELD:
        return Verdict.NEVER if status.stuck else Verdict.MET
    if status.phase is Phase.BACKOFF:
        return Verdict.NEVER
    again = status.desired is Desired.UP and status.phase in _RISING and bool(run) and status.run != run
    return Verdict.NEVER if again else Verdict.NOT_YET
