"""What a guest's record counts: each function takes a record and returns the next one."""

import msgspec

from bhyved.core.exits import Exit
from bhyved.core.policy import StartAt, Verdict
from bhyved.core.status import LastExit, Restarts, VmRecord


def started(record: VmRecord, seconds: float) -> VmRecord:
    """A guest came up, so long after its start began."""
    return msgspec.structs.replace(record, start_s=record.start_s.plus(seconds))


def ended(record: VmRecord, run: str, end: Exit, last: LastExit, *, stop_s: float | None, forced: bool) -> VmRecord:
    """A run has ended. `stop_s`: how long after a stop began; None: nobody had asked."""
    return msgspec.structs.replace(
        failed(record, run),
        exits={**record.exits, end.kind: record.exits.get(end.kind, 0) + 1},
        last_exit=msgspec.structs.replace(last, forced=forced),
        stop_s=record.stop_s if stop_s is None else record.stop_s.plus(stop_s),
        forced_stops=record.forced_stops + forced,
    )


def failed(record: VmRecord, run: str) -> VmRecord:
    """A run has ended, perhaps before its bhyve was started: what policy makes of that counts once."""
    return msgspec.structs.replace(record, counted_run=run)


def decided(record: VmRecord, verdict: Verdict) -> VmRecord:
    """Policy has decided what follows: an automatic restart counts under its cause."""
    if not isinstance(verdict, StartAt) or not verdict.cause:
        return record
    old = record.restarts
    counts = {"reboot": old.reboot, "crash": old.crash, "start_failure": old.start_failure}
    counts[verdict.cause] += 1
    return msgspec.structs.replace(record, restarts=Restarts(**counts))
