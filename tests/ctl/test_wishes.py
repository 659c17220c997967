"""Verbs that ask guests for something: what they ask for, what they wait for, what they say of it, and with which status they end."""

import json
from typing import Any

import pytest

from bhyved.ctl.connection import Connection
from bhyved.ctl.wishes import wait_for, worst
from tests.ctl.conftest import Vmctl
from tests.ctl.played import Stream, playing, told, waited


def test_start_waits_for_another_run(vmctl: Vmctl) -> None:
    """A guest that was accepted has to be up in another run than it had; one that is up already just has to be up."""
    answers = {"answers": [told("a"), told("b", code="already", phase="up")]}
    with playing(vm_start=answers, vm_wait=lambda params: waited()) as daemon:
        ran = vmctl(daemon, "start", "a", "b", "--install")

        assert (ran.status, ran.out) == (0, "a: up\nb: up\n")
        assert daemon.params("vm.start") == [{"names": ["a", "b"], "install": True}]
        assert [(each["name"], each["until"], each.get("after-run")) for each in daemon.params("vm.wait")] == [
            ("a", "up", "run1"),
            ("b", "up", None),
        ]


@pytest.mark.parametrize(
    ("words", "until"),
    [
        (("start", "a", "--ready"), "ready"),
        (("stop", "a"), "down"),
        (("restart", "a"), "up"),
        (("restart", "a", "--ready"), "ready"),
        (("suspend", "a"), "suspended"),
        (("resume", "a"), "up"),
        (("resume", "a", "--ready"), "ready"),
        (("reset", "a", "--wait"), "up"),
        (("poweroff", "a", "--wait"), "down"),
    ],
)
def test_what_is_waited_for(vmctl: Vmctl, words: tuple[str, ...], until: str) -> None:
    """Each verb waits for the state that it is for; --ready asks for more than that the guest is up."""
    with playing(**{f"vm_{words[0]}": {"answers": [told("a")]}}, vm_wait=waited(phase="x")) as daemon:
        assert vmctl(daemon, *words).status == 0
        assert [params["until"] for params in daemon.params("vm.wait")] == [until]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a", "not running", "a: not running"),
        ("guest", "the guest is not running", "guest: the guest is not running"),
        ("web1", "web1 is up: its disks go back only while it is down", "web1 is up: its disks go back only while it is down"),
        ("web", "web1 has drained this host", "web: web1 has drained this host"),
        ("b", 'there is no guest "b"', 'there is no guest "b"'),
        ("db", "al may not do this to db: that needs root", "al may not do this to db: that needs root"),
    ],
)
def test_a_refusal_names_its_guest(vmctl: Vmctl, name: str, text: str, said: str) -> None:
    """Once: where the sentence has the name among its other words, that is not enough."""
    with playing(vm_start={"answers": [told(name, ok=False, code="no", text=text)]}) as daemon:
        assert vmctl(daemon, "start", name).err == f"vmctl: {said}\n"


@pytest.mark.parametrize("words", [("start", "a", "--no-wait"), ("reset", "a"), ("poweroff", "a"), ("nmi", "a"), ("release", "a")])
def test_what_is_not_waited_for(vmctl: Vmctl, words: tuple[str, ...]) -> None:
    """The answer is printed as it is."""
    with playing(**{f"vm_{words[0]}": {"answers": [told("a", text="it will be done")]}}) as daemon:
        assert vmctl(daemon, *words).out == "a: it will be done\n"
        assert [method for method, _ in daemon.asked] == [f"vm.{words[0]}"]


def test_stop_passes_its_options_on(vmctl: Vmctl) -> None:
    """--grace is the guest's time, --timeout is vmctl's."""
    with playing(vm_stop={"answers": [told("a")]}, vm_wait=waited(phase="down")) as daemon:
        assert vmctl(daemon, "stop", "--all", "--force", "--grace", "1m30s", "-t", "5m").status == 0
        assert daemon.params("vm.stop") == [{"all": True, "force": True, "timeout": 90.0}]
        assert 290 < daemon.params("vm.wait")[0]["timeout"] <= 300


def test_hold_passes_its_options_on(vmctl: Vmctl) -> None:
    """A reason and an end."""
    with playing(vm_hold={"answers": [told("a")]}) as daemon:
        assert vmctl(daemon, "hold", "a", "--reason", "disk", "--for=2h").status == 0
        assert daemon.params("vm.hold") == [{"names": ["a"], "reason": "disk", "for": 7200.0}]


class CountingConnection(Connection):
    """Answers the oldest wait whenever it is read, and counts how many stood open."""

    def __init__(self) -> None:
        self.open: list[int] = []
        self.most, self.number, self.path = 0, 0, ""

    def send(self, method: str, **params: object) -> int:
        self.number += 1
        self.open.append(self.number)
        self.most = max(self.most, len(self.open))
        return self.number

    def read(self, deadline: float | None = None) -> dict[str, Any]:
        return {"id": self.open.pop(0), "result": waited(phase="down")}


def test_hundreds_of_guests_are_waited_for_some_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    """The daemon lets a connection wait for 64 guests; all are waited for in the end, and not one after the other."""
    names = [f"g{number}" for number in range(200)]
    connection = CountingConnection()
    status = wait_for(connection, names, "down", None, is_quiet=False)

    assert status == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: down" for name in names]
    assert 30 < connection.most <= 64


def test_a_wait_that_cannot_be_met(vmctl: Vmctl) -> None:
    """It says where the guest is and why, and exits 1."""
    answer = waited(met=False, phase="held", reason="5 crashes in 10m")
    with playing(vm_start={"answers": [told("a")]}, vm_wait=answer) as daemon:
        ran = vmctl(daemon, "start", "a")

    assert (ran.status, ran.out, ran.err) == (1, "", "vmctl: a is held, not up: 5 crashes in 10m (vmctl why a)\n")


def test_a_wait_that_takes_too_long(vmctl: Vmctl) -> None:
    """It exits 75."""
    answer = waited(met=False, phase="stopping", reason="stopped by root") | {"timed-out": True}
    with playing(vm_stop={"answers": [told("a")]}, vm_wait=answer) as daemon:
        ran = vmctl(daemon, "stop", "a", "--timeout", "1s")

    assert ran.status == 75
    assert ran.err.startswith("vmctl: a is stopping, not down after ")


def test_a_daemon_that_goes_away_while_we_wait(vmctl: Vmctl) -> None:
    """Exit 69, and no guest is said to be down."""

    with playing(vm_stop=Stream({"answers": [told("a")]}, close=True)) as daemon:
        ran = vmctl(daemon, "stop", "a")

    assert (ran.status, ran.out) == (69, "")
    assert "has closed the connection" in ran.err


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        (("accepted", "no-such-guest"), 1),
        (("not-permitted", "not-permitted"), 77),
        (("not-permitted", "no-such-guest"), 1),
        (("accepted", "not-permitted"), 77),
    ],
)
def test_the_status_of_several_guests(vmctl: Vmctl, codes: tuple[str, ...], status: int) -> None:
    """Those that failed decide, if they agree; the others are done all the same."""
    answers = [told(f"g{at}", ok=code == "accepted", code=code, text="" if code == "accepted" else "no") for at, code in enumerate(codes)]
    with playing(vm_nmi={"answers": answers}) as daemon:
        ran = vmctl(daemon, "nmi", "g0", "g1")

    assert ran.status == status
    assert ran.err.count("vmctl: g") == sum(code != "accepted" for code in codes)


def test_answers_as_json(vmctl: Vmctl) -> None:
    """One object, with what became of each guest; the exit status is the same."""
    answers = {"answers": [told("a"), told("b", ok=False, code="no-such-guest", text='there is no guest "b"')]}
    with playing(vm_start=answers, vm_wait=waited()) as daemon:
        ran = vmctl(daemon, "start", "a", "b", "--json")

    printed = json.loads(ran.out)
    assert ran.status == 1
    assert [(each["name"], each["ok"], each.get("met"), each["run"]) for each in printed["answers"]] == [
        ("a", True, True, "run2"),
        ("b", False, None, "run1"),
    ]


def test_a_suspend_says_what_came_of_it(vmctl: Vmctl) -> None:
    """Suspended, or why not."""
    failed = waited(met=False, reason="not suspended: the disk is full")
    with playing(vm_suspend={"answers": [told("a")]}, vm_wait=waited(phase="down")) as daemon:
        done = vmctl(daemon, "suspend", "a")
    with playing(vm_suspend={"answers": [told("a")]}, vm_wait=failed) as daemon:
        undone = vmctl(daemon, "suspend", "a")

    assert (done.status, done.out) == (0, "a: suspended\n")
    assert (undone.status, undone.err) == (1, "vmctl: a is up, not suspended: not suspended: the disk is full (vmctl why a)\n")


def test_a_cold_start_is_asked_for(vmctl: Vmctl) -> None:
    """And only where it is."""
    with playing(vm_start={"answers": [told("a")]}) as daemon:
        vmctl(daemon, "start", "a", "--cold", "--no-wait")
        vmctl(daemon, "start", "a", "--no-wait")

    assert [call.get("cold") for _, call in daemon.asked] == [True, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start", "a", "--no-wait"), "accepted"),
        (("reset", "a"), "is being reset"),
        (("poweroff", "a"), "its power is being cut"),
        (("nmi", "a"), "has got its interrupt"),
        (("hold", "a"), "on hold"),
        (("hold", "a", "--for", "2h"), "on hold for 2h"),
        (("release", "a"), "released"),
    ],
)
def test_what_is_done_is_said(vmctl: Vmctl, words: tuple[str, ...], said: str) -> None:
    """Where the daemon has no sentence of its own; a guest that had nothing to do is told from one that has."""
    with playing(**{f"vm_{words[0]}": {"answers": [told("a"), told("b", code="already")]}}) as daemon:
        assert vmctl(daemon, *words).out == f"a: {said}\nb: already\n"


def test_what_is_to_be_known_is_said_before_the_wait(vmctl: Vmctl) -> None:
    """A guest that agrees may say something all the same, on standard error."""
    with playing(vm_start={"answers": [told("a", text="it starts, but memory is short")]}, vm_wait=waited()) as daemon:
        assert vmctl(daemon, "start", "a") == (0, "a: up\n", "vmctl: a: it starts, but memory is short\n")


def test_nobody_to_ask(vmctl: Vmctl) -> None:
    """`--all` of a host without guests, or of a person who may use none."""
    with playing(vm_start={"answers": []}) as daemon:
        assert vmctl(daemon, "start", "--all") == (0, "", "no guests\n")


@pytest.mark.parametrize(("statuses", "status"), [([], 0), ([0, 0], 0), ([0, 75], 75), ([77, 77], 77), ([75, 77], 1)])
def test_one_status_for_several_guests(statuses: list[int], status: int) -> None:
    """That of those that failed, where it is one; else there is only that something did."""
    assert worst(statuses) == status


def test_a_wait_without_an_end_is_made_again(vmctl: Vmctl) -> None:
    """The daemon waits for a day and no longer; who has not said for how long waits on."""
    answers = [waited(met=False, phase="stopping") | {"timed-out": True}, waited(phase="down")]
    with playing(vm_stop={"answers": [told("a")]}, vm_wait=lambda params: answers.pop(0)) as daemon:
        assert vmctl(daemon, "stop", "a") == (0, "a: down\n", "")
        assert len(daemon.params("vm.wait")) == 2
