"""Whoever waits at a terminal is told what for."""

import sys
import threading
from typing import Any

import pytest

from bhyved.ctl import patience
from tests.ctl.conftest import Vmctl
from tests.ctl.played import PATIENCE_S, playing, row, told, waited

HINT = " (^C ends the waiting, and nothing else)"


class Slow:
    """A daemon whose guests take so long that they are looked at `looks` times; each look finds the next of `phases`."""

    def __init__(self, names: list[str], looks: int, *found: dict[str, Any]) -> None:
        self._names, self._left, self._found = names, looks, list(found)
        self._enough = threading.Event()

    def wait(self, params: dict[str, Any]) -> Any:
        assert self._enough.wait(PATIENCE_S)
        return waited()

    def look(self, params: dict[str, Any]) -> Any:
        self._left -= 1
        if self._left == 0:
            self._enough.set()
        found = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        return {"version": 1, "vms": [row(name, **found) for name in params["names"]]}

    def playing(self) -> Any:
        return playing(vm_start={"answers": [told(name) for name in self._names]}, vm_wait=self.wait, vm_list=self.look)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.01)


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch, vmctl: Vmctl) -> Vmctl:
    def run(*words: Any) -> Any:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        return vmctl(*words)

    return run


def test_what_a_guest_waits_for_is_said_once(at_terminal: Vmctl) -> None:
    """And again when it is something else."""
    pool = {"phase": "waiting", "waiting_for": "waiting for the pool tank", "uptime_s": None}
    backoff = {"phase": "backoff", "reason": "no firmware", "next_start_in_s": 3.0, "uptime_s": None}
    with Slow(["a"], 4, pool, pool, backoff, backoff).playing() as daemon:
        ran = at_terminal(daemon, "start", "a")

    assert (ran.status, ran.out) == (0, "a: up\n")
    assert ran.err.splitlines() == [f"a is waiting for the pool tank{HINT}", "a is in backoff: no firmware; next start in 3s"]


def test_many_guests_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A host that goes down would fill the screen; and nobody has to be asked."""
    look = patience.Patience("/nowhere", "down", is_quiet=False).look
    for count in (7, 7, 6):
        look([f"g{number}" for number in range(count)])

    assert capsys.readouterr().err.splitlines() == [f"7 guests are not down yet{HINT}", "6 guests are not down yet"]


def test_a_daemon_that_has_gone_is_for_the_wait_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said twice."""
    patience.Patience("/nowhere", "down", is_quiet=False).look(["a"])

    assert capsys.readouterr().err == ""


def test_nobody_is_told_where_nobody_looks(vmctl: Vmctl, at_terminal: Vmctl) -> None:
    """Not into a log, and not beside JSON."""
    with playing(vm_start={"answers": [told("a")]}, vm_wait=waited()) as daemon:
        assert vmctl(daemon, "start", "a").err == ""
        assert at_terminal(daemon, "start", "a", "--json").err == ""
        assert patience.Patience(str(daemon.path), "up", is_quiet=True).look_at is None
        assert daemon.asked.count(("vm.list", {"names": ["a"]})) == 0
