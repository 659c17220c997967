"""What each guest uses at the moment: two looks at the daemon's figures, and the difference of them as rates.

`vmctl top` looks every few seconds. A guest's first look, and the first of a new run, has no rates: those are None.
"""

from __future__ import annotations

from bhyved.ctl.listing import remark, restarts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from bhyved.ctl.connection import Connection

    Row = dict[str, Any]


class Gauge:
    """One guest at one look. `cpu` is in hundredths of one processor; network and console are bytes a second, in and out together."""

    __slots__ = ("console", "cpu", "ill", "memory_bytes", "name", "network", "phase", "remark", "restarts", "uptime_s")

    def __init__(self, row: Row, used: Row, rates: dict[str, float | None]) -> None:
        self.name: str = row["name"]
        self.phase: str = row["phase"]
        self.ill: str = row["ill"]
        self.uptime_s: float | None = row["uptime_s"]
        self.restarts = restarts(row)
        self.remark = remark(row)
        self.memory_bytes: int | None = used.get("resident_bytes")
        self.cpu, self.network, self.console = rates["cpu"], rates["network"], rates["console"]

    @property
    def state(self) -> str:
        """The phase, or that a guest which is up is ill."""
        return "ill" if self.ill else self.phase

    def data(self) -> dict[str, object]:
        """For programs."""
        keys = ("name", "phase", "ill", "uptime_s", "cpu", "memory_bytes", "network", "console", "restarts")
        return {key: getattr(self, key) for key in keys}


class Gauges:
    """Takes looks. One for as long as they are to be compared."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names) or None
        self._at_s = 0.0
        self._before: dict[tuple[str, str], Row] = {}  # by guest and run: a new run counts from nothing

    def look(self, connection: Connection) -> list[Gauge]:
        """Of all guests, in the order of their names. Raises Failure."""
        rows = connection.call("vm.list", names=self._names)["vms"]
        usage = connection.call("vm.usage", names=self._names)
        used = {each["name"]: each for each in usage["vms"]}
        span_s = usage["at-s"] - self._at_s
        found, now = [], {}
        for row in rows:
            name, mine = row["name"], used.get(row["name"], {})
            before = self._before.get((name, row["run"]), {}) if span_s > 0 else {}
            found.append(Gauge(row, mine, _rates(before, mine, span_s)))
            now[name, row["run"]] = mine
        self._at_s, self._before = usage["at-s"], now
        return found


def _rates(before: Row, now: Row, span_s: float) -> dict[str, float | None]:
    def rate(*keys: str) -> float | None:
        grown = 0.0
        for key in keys:
            was, is_ = before.get(key), now.get(key)
            if was is None or is_ is None or is_ < was:  # less than before: another daemon's count, or another tap's
                return None
            grown += is_ - was
        return grown / span_s

    cpu = rate("cpu_s")
    return {
        "cpu": None if cpu is None else 100 * cpu,
        "network": rate("received_bytes", "sent_bytes"),
        "console": rate("console_bytes"),
    }


def _descending(value: float | None) -> float:
    return float("inf") if value is None else -value


#: By `verbs.SORTS`. What a person looks for comes first, so that numbers fall.
KEYS: dict[str, Callable[[Gauge], Any]] = {
    "cpu": lambda gauge: (_descending(gauge.cpu), gauge.name),
    "memory": lambda gauge: (_descending(gauge.memory_bytes), gauge.name),
    "network": lambda gauge: (_descending(gauge.network), gauge.name),
    "console": lambda gauge: (_descending(gauge.console), gauge.name),
    "restarts": lambda gauge: (-gauge.restarts, gauge.name),
    "uptime": lambda gauge: (float("inf") if gauge.uptime_s is None else gauge.uptime_s, gauge.name),
    "phase": lambda gauge: (gauge.phase == "up" and not gauge.ill, gauge.phase, gauge.name),
    "name": lambda gauge: gauge.name,
}


def chosen(gauges: Sequence[Gauge], sort: str, wanted: str) -> list[Gauge]:
    """Those whose name, phase or remark has the words, in order."""
    words = wanted.lower().split()
    found = [gauge for gauge in gauges if all(word in f"{gauge.name} {gauge.phase} {gauge.remark}".lower() for word in words)]
    return sorted(found, key=KEYS[sort])
