"""Starts, restarts, deaths and stops: the same questions to bhyved and to every peer."""

import time
from typing import Protocol

from tests.bench.reports import Reports

_BREATH_S = 0.02  # between two restarts, so that each is measured alone


class Supervising(Protocol):
    """Whoever looks after children that report themselves."""

    names: list[str]
    reports: Reports

    def start_all(self) -> None: ...
    def stop_all(self) -> None: ...
    def reboot(self, name: str) -> None: ...


def start_s(of: Supervising) -> float:
    """From the wish until the last child runs."""
    began = time.monotonic()
    before = of.reports.count
    of.start_all()
    of.reports.wait(before + len(of.names))
    return max(of.reports.began.values()) - began


def restart_s(of: Supervising, rounds: int) -> list[float]:
    """From the end of one child until the next of its name runs, one after the other."""
    took = []
    for _ in range(rounds):
        for name in of.names:
            before = of.reports.count
            began = time.monotonic()
            of.reboot(name)
            of.reports.wait(before + 1)
            took.append(of.reports.began[name] - began)
            time.sleep(_BREATH_S)
    return sorted(took)


def deaths_s(of: Supervising) -> float:
    """All end at once: until all run again."""
    before = of.reports.count
    began = time.monotonic()
    for name in of.names:
        of.reboot(name)
    of.reports.wait(before + len(of.names))
    return max(of.reports.began.values()) - began


def stop_s(of: Supervising) -> float:
    """From the wish until the last one has ended and been seen to."""
    began = time.monotonic()
    of.stop_all()
    return time.monotonic() - began


def quantile(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]
