"""Figures with their targets and verdicts, as a table for a terminal and for docs/benchmarks.md."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measurement. `value` is compared with `target`, a number of the same `unit`; the smaller the better unless `more` is."""

    what: str
    value: float
    unit: str
    target: float | None = None
    more: bool = False
    also: str = ""  # what the value is made of, or how the peers do

    @property
    def holds(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.more else self.value <= self.target

    def cells(self) -> tuple[str, str, str, str, str]:
        bound = "" if self.target is None else f"{'at least' if self.more else 'at most'} {number(self.target)} {self.unit}"
        verdict = {True: "yes", False: "no", None: ""}[self.holds]
        return self.what, f"{number(self.value)} {self.unit}", bound, verdict, self.also


def number(value: float) -> str:
    """Three digits say enough."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


_HEADS = ("metric", "bhyved", "target", "met", "in this run")


def table(figures: Sequence[Figure]) -> str:
    """For a terminal."""
    rows = [_HEADS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def markdown(figures: Sequence[Figure]) -> str:
    """For a page."""
    rows = [_HEADS, ("---",) * len(_HEADS), *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
