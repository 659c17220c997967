"""What both faces of `vmctl top` show: the guests, looked at again and again, and a line for each."""

from __future__ import annotations

from bhyved.ctl.amounts import size, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect
from bhyved.ctl.connection import UNREACHABLE, Connection, Failure
from bhyved.ctl.gauges import Gauge, Gauges

HEADS = ("NAME", "PHASE", "UPTIME", "CPU%", "MEMORY", "NET/s", "CONSOLE/s", "RESTARTS", "REASON")
RIGHT = frozenset({2, 3, 4, 5, 6, 7})
#: The column that each way to sort stands for.
MARKED = {"name": 0, "phase": 1, "uptime": 2, "cpu": 3, "memory": 4, "network": 5, "console": 6, "restarts": 7}


class Watch:
    """The guests, looked at again and again; a daemon that is restarted meanwhile is waited for."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._gauges = Gauges(asked.names)
        self._connection: Connection | None = None
        self._known = False  # that there is a daemon
        self.last: list[Gauge] = []
        self.problem = ""

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def look(self) -> list[Gauge]:
        """The guests; the last that were seen, and `problem`, while there is no daemon. Raises Failure where there never was one."""
        try:
            if self._connection is None:
                self._connection = connect(self._asked)
            self.last = self._gauges.look(self._connection)
            self._known, self.problem = True, ""
        except Failure as failure:
            self._close()
            if failure.status != UNREACHABLE or not self._known:
                raise
            self.problem = failure.text
        return self.last

    def _close(self) -> None:
        if self._connection is not None:
            with self._connection:
                self._connection = None


def cells(gauge: Gauge) -> tuple[str, ...]:
    """One line."""
    return (
        gauge.name,
        f"{gauge.phase} (ill)" if gauge.ill else gauge.phase,
        "-" if gauge.uptime_s is None else span(gauge.uptime_s),
        "-" if gauge.cpu is None else f"{gauge.cpu:.1f}",
        "-" if gauge.memory_bytes is None else size(gauge.memory_bytes),
        _rate(gauge.network),
        _rate(gauge.console),
        str(gauge.restarts),
        gauge.remark,
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else size(round(value))
