"""Metrics of many guests as text, in the Prometheus format and in OpenMetrics.

Written here line by line because of its size: a thousand guests are eighty thousand lines, which a general library takes ten times as
long for, and in one piece. A `Page` is filled guest by guest, so that the caller can let others run in between. Which metrics there
are is said in `series`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from bhyved.core.console import ConsoleStats
from bhyved.core.snapshots import Stock
from bhyved.core.status import BOUNDS_S, Histogram, VmStatus
from bhyved.core.usage import Process, Traffic, Vcpus

Number = int | float
Labelled = Iterable[tuple[tuple[str, ...], Number]]  # values of the further labels, and the figure
Kind = Literal["gauge", "counter", "histogram"]

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_VM = "\0"  # where the guest's label goes in a template; no label value of ours holds one


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one guest when it is asked for."""

    status: VmStatus
    unix_offset_s: float  # what makes a monotonic time of this boot a unix time
    consoles: tuple[ConsoleStats, ...] = ()
    process: Process | None = None
    taps: Mapping[str, Traffic] = {}  # by name of the tap; ours are status.taps
    vcpus: Vcpus = Vcpus()
    stock: Stock | None = None  # of snapshots; None: not on ZFS, or not counted yet


class Metric(Protocol):
    """One metric of every guest."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]  # besides vm

    def lines(self, seen: Seen, vm: str) -> str:
        """The samples of one guest, whose label `vm` is; perhaps none."""


class Single:
    """One value a guest; None: nothing to say at present."""

    labels: tuple[str, ...] = ()

    def __init__(self, name: str, kind: Kind, help: str, of: Callable[[Seen], Number | None]) -> None:
        self.name, self.kind, self.help, self._of = name, kind, help, of

    def lines(self, seen: Seen, vm: str) -> str:
        value = self._of(seen)
        return "" if value is None else f"{self.name}{{{vm}}} {value}\n"


class Fixed:
    """A value for each of the values that one further label can have."""

    def __init__(
        self, name: str, kind: Kind, help: str, label: str, values: Iterable[str], of: Callable[[Seen], tuple[Number, ...]]
    ) -> None:
        self.name, self.kind, self.help, self._of = name, kind, help, of
        self.labels: tuple[str, ...] = (label,)
        self._template = "".join(f'{name}{{{_VM},{label}="{escaped(value)}"}} %s\n' for value in values)

    def lines(self, seen: Seen, vm: str) -> str:
        return (self._template % self._of(seen)).replace(_VM, vm)


class Many:
    """Values for further labels that are not known beforehand."""

    def __init__(self, name: str, kind: Kind, help: str, labels: tuple[str, ...], of: Callable[[Seen], Labelled]) -> None:
        self.name, self.kind, self.help, self.labels, self._of = name, kind, help, labels, of

    def lines(self, seen: Seen, vm: str) -> str:
        return "".join([f"{self.name}{{{vm}{self._further(values)}}} {number}\n" for values, number in self._of(seen)])

    def _further(self, values: Sequence[str]) -> str:
        return "".join([f',{label}="{escaped(value)}"' for label, value in zip(self.labels, values, strict=True)])


class Durations:
    """A histogram a guest."""

    kind: Kind = "histogram"
    labels: tuple[str, ...] = ()

    def __init__(self, name: str, help: str, of: Callable[[Seen], Histogram]) -> None:
        self.name, self.help, self._of = name, help, of
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        buckets = "".join(f'{name}_bucket{{{_VM},le="{bound}"}} %s\n' for bound in bounds)
        self._template = f"{buckets}{name}_count{{{_VM}}} %s\n{name}_sum{{{_VM}}} %s\n"

    def lines(self, seen: Seen, vm: str) -> str:
        durations = self._of(seen)
        below, numbers = 0, []
        for count in durations.counts:
            below += count
            numbers.append(below)
        return (self._template % (*numbers, below, durations.total_s)).replace(_VM, vm)


class Page:
    """The lines of each metric of a table: the formats want a metric's lines together."""

    def __init__(self, table: Sequence[Metric]) -> None:
        self._table = table
        self._lines: list[list[str]] = [[] for _ in table]

    def add(self, seen: Seen) -> None:
        """One more guest."""
        vm = f'vm="{escaped(seen.status.name)}"'
        for metric, lines in zip(self._table, self._lines, strict=True):
            lines.append(metric.lines(seen, vm))

    def pieces(self, *, openmetrics: bool) -> Iterator[str]:
        """The text, a piece a metric. OpenMetrics wants an `# EOF` after the last of what is served together."""
        for metric, lines in zip(self._table, self._lines, strict=True):
            # In OpenMetrics the suffix belongs to the sample, not to the metric.
            name = metric.name.removesuffix("_total") if openmetrics else metric.name
            text = "".join(lines)
            if text:
                yield f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n{text}"


def escaped(text: str) -> str:
    """`text` as the value of a label."""
    return text.translate(_ESCAPES) if '"' in text or "\\" in text or "\n" in text else text
