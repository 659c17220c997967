"""A guest's row as the wire has it: encoded when the guest changes, and at each question only its durations put in.

`core.status.row` says what a row is; this is its JSON, a hundred times over for what it costs once. `daemon.board` keeps one for each
guest that has not changed since it was asked for.
"""

import msgspec

from bhyved.core.status import VmStatus, row

_HOLES = ("uptime_s", "next_start_in_s", "phase_s")  # in the order of the row


class RowText:
    """One status. `at` is all that is asked of it."""

    __slots__ = ("_next_start", "_since", "_started", "_template")

    def __init__(self, status: VmStatus) -> None:
        self._started, self._next_start, self._since = status.started, status.next_start, status.since
        blank = msgspec.structs.replace(row(status, status.since), uptime_s=None, next_start_in_s=None, phase_s=None)
        text = msgspec.json.encode(blank).replace(b"%", b"%%")
        for key, moment in zip(_HOLES, (self._started, self._next_start, self._since), strict=True):
            if moment is not None:  # a key cannot be met within a string, where its quotes are escaped
                text = text.replace(f'"{key}":null'.encode(), f'"{key}":%.3f'.encode())
        self._template = text

    def at(self, now: float) -> bytes:
        """The row at `now` (monotonic)."""
        phase_s, started, next_start = max(0.0, now - self._since), self._started, self._next_start
        if next_start is None:
            return self._template % (phase_s if started is None else (max(0.0, now - started), phase_s))
        if started is None:
            return self._template % (max(0.0, next_start - now), phase_s)
        return self._template % (max(0.0, now - started), max(0.0, next_start - now), phase_s)
