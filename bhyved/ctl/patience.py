"""What a person at a terminal is told while guests take their time: what they do or wait for, and that nobody has to look on."""

from __future__ import annotations

import sys
import time

from bhyved.ctl.connection import Connection, Failure
from bhyved.ctl.listing import remark, standing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIRST_S = 5.0  # until somebody wonders; then ever less often
SEVERAL = 5  # of more guests only the number is said


class Patience:
    """Of one wait. `look_at`: when to look (monotonic); None: nobody is there to be told, or wants to be."""

    def __init__(self, path: str, until: str, *, is_quiet: bool) -> None:
        self._path, self._until = path, until
        self._pause_s = FIRST_S
        self._said: list[str] = []
        self.look_at = time.monotonic() + FIRST_S if sys.stderr.isatty() and not is_quiet else None

    def look(self, names: Sequence[str]) -> None:
        """Say where these guests are, if that is new."""
        self._pause_s *= 2
        self.look_at = time.monotonic() + self._pause_s
        lines = list(self._lines(names))
        if lines == self._said:
            return
        end = "" if self._said else " (^C ends the waiting, and nothing else)"
        for number, line in enumerate(lines):
            print(line + (end if number == len(lines) - 1 else ""), file=sys.stderr)
        self._said = lines

    def _lines(self, names: Sequence[str]) -> Iterator[str]:
        if len(names) > SEVERAL:
            yield f"{len(names)} guests are not {self._until} yet"
            return
        try:
            with Connection(self._path) as connection:
                rows = connection.call("vm.list", names=names)["vms"]
        except Failure:  # whoever waits is told by the wait itself
            return
        for row in rows:
            phase, why = standing(row["phase"]), remark(row)
            says_both = not why or why.startswith(f"{phase} ")  # "waiting for a pool"
            yield f"{row['name']} is {(why or phase) if says_both else f'{phase}: {why}'}"
