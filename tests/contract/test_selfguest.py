"""The selftest's guest on a real (emulated) machine: its ROM boots, speaks, and ends in each of the ways it offers."""

import shutil
import signal

import pytest

from bhyved.host import selfguest
from bhyved.lab.qemu_machine import QEMU
from tests.contract.stand_ins import Bhyve, Lab

pytestmark = [pytest.mark.guest, pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")]


def started(lab: Lab, *, ignoring_term: bool = False) -> Bhyve:
    lab.settle(engine="qemu")
    rom = str(selfguest.ROM)
    guest = lab.start("rom", ignoring_term=ignoring_term, bootrom=rom, lpc__bootrom=rom)
    guest.console.wait_for("ready")
    return guest


@pytest.mark.parametrize(("word", "status"), [("reboot", 0), ("poweroff", 1), ("halt", 2), ("panic", 3)])
def test_a_line_ends_it(lab: Lab, word: str, status: int) -> None:
    """Each of its four words is one of bhyve's four ends."""
    guest = started(lab)
    guest.console.type(f"{word}\n")

    assert guest.ended() == status


def test_the_power_button_works_once_acpi_is_on(lab: Lab) -> None:
    """Before that SIGTERM is ignored, as its disposition says; the line that switches ACPI on is echoed when it is on."""
    guest = started(lab, ignoring_term=True)
    guest.send(signal.SIGTERM)
    guest.console.type("xx\n")
    assert "xx\r\n" in guest.console.wait_for("\n")

    guest.console.type("acpi\n")
    guest.console.wait_for("acpi\r\n")
    guest.send(signal.SIGTERM)

    assert guest.ended() == 1
