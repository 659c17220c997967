"""What vmctl says of a wish that guests have agreed to, what it waits for then, and with which status it ends."""

import pytest

from bhyved.ctl.wishes import worst
from tests.ctl.conftest import Vmctl
from tests.ctl.played import playing, told, waited


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


@pytest.mark.parametrize(
    ("words", "until"),
    [
        (("restart", "a", "--ready"), "ready"),
        (("suspend", "a"), "suspended"),
        (("resume", "a"), "up"),
        (("resume", "a", "--ready"), "ready"),
    ],
)
def test_a_wait_for_more(vmctl: Vmctl, words: tuple[str, ...], until: str) -> None:
    """--ready asks for more than that the guest is up, and a suspended guest is more than down."""
    with playing(**{f"vm_{words[0]}": {"answers": [told("a")]}}, vm_wait=waited()) as daemon:
        assert vmctl(daemon, *words).out == f"a: {until}\n"
        assert [params["until"] for params in daemon.params("vm.wait")] == [until]


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
