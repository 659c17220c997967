"""What all tests share: no test is skipped without being named, and in CI none for want of a program."""

import os
import re
from collections.abc import Generator

import pytest
from hypothesis import Phase, settings

# The machine that runs the tests is busy with them: a slow example says nothing. `make fuzz` takes the second profile.
settings.register_profile("tests", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=5_000, print_blob=True)
# tests/mutation: the same examples each time, and no search for a smaller one: that there is one is all it asks.
settings.register_profile("mutation", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("tests")

# Programs that tests start by the thousand are compiled once, as they are where they are installed.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

#: How tests say that something is not there which could be installed.
_MISSING = re.compile(r"not installed|missing|cannot be built|could not import")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With BHYVED_NO_SKIP=1 a test that lacks a program has failed: CI installs them all."""
    report = yield
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if is_skip and os.environ.get("BHYVED_NO_SKIP") == "1" and _MISSING.search(_reason(report)):
        report.outcome = "failed"
        report.longrepr = f"{_reason(report)} (BHYVED_NO_SKIP=1: nothing may be skipped for that)"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which tests were not run, by name, and what each lacks."""
    by_reason: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        by_reason.setdefault(_reason(report), []).append(report.nodeid)
    if by_reason:
        terminalreporter.section("not run")
    for reason, names in sorted(by_reason.items()):
        terminalreporter.write_line(f"{reason}:")
        for name in sorted(names):
            terminalreporter.write_line(f"    {name}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    assert isinstance(report.longrepr, tuple)  # file, line, reason
    return report.longrepr[2].removeprefix("Skipped: ")
