"""The daemon and a real operating system: Linux under QEMU, with a real ACPI stack, a login on its console, and real panics."""

from collections.abc import Iterator

import pytest

from tests.guests import linux
from tests.guests.shell import PATIENCE_S, boot, cut_off, guest, log_in, reboots, wait_for
from tests.system.labkit import LabHost

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def host() -> Iterator[LabHost]:
    """One lab for all."""
    kernel = linux.direct()
    guests = {
        "web1": guest(kernel),
        "panics": guest(kernel, "panic=1"),
        "hangs": guest(kernel, "panic=0", '[stop]\npresses = ["0s"]\ntimeout = "1s"'),
    }
    with LabHost(guests, engine="qemu") as lab:
        yield lab


@pytest.fixture
def lab(host: LabHost) -> Iterator[LabHost]:
    """With nothing running, before and after, whatever a test that failed has left."""
    yield host
    for name, row in host.rows().items():
        if row["phase"] != "down":
            cut_off(host, name)


def test_linux_reboots_from_its_shell_and_shuts_down_at_the_button(lab: LabHost) -> None:
    """`reboot` typed on the console ends the run as a reboot, and the console goes on; the button ends the next one, without force."""
    before = lab.rows()["web1"]
    boot(lab, "web1")
    log_in(lab, "web1")
    reboots(lab, "web1", "reboot -f")
    wait_for(lab, "web1", "login:")
    assert lab.runs("web1")[-1]["kind"] == "reboot"

    assert lab.ask("stop", "web1")["ok"]
    rows = lab.phase("down", "web1", patience_s=PATIENCE_S)

    assert rows["web1"]["last_exit"]["kind"] == "poweroff"
    assert rows["web1"]["forced_stops"] == before["forced_stops"]


def test_a_panic_with_reboot_is_a_reboot_and_its_last_words_are_kept(lab: LabHost) -> None:
    """bhyve sees a panic that reboots as status 0; the run's record has the panic's text."""
    boot(lab, "panics")
    log_in(lab, "panics")
    before = lab.rows()["panics"]["restarts"]["reboot"]

    reboots(lab, "panics", "echo c >/proc/sysrq-trigger")

    assert lab.rows()["panics"]["restarts"]["reboot"] == before + 1
    ended = lab.runs("panics")[-1]
    assert ended["kind"] == "reboot"
    assert "Kernel panic" in ended["console"]


def test_a_panic_without_reboot_runs_on_and_is_cut_off_by_a_stop(lab: LabHost) -> None:
    """A guest that hangs in its panic says nothing to the host; the button does nothing, the timeout does."""
    before = lab.rows()["hangs"]["forced_stops"]
    boot(lab, "hangs")
    log_in(lab, "hangs")
    lab.call("console.send", name="hangs", text="echo c >/proc/sysrq-trigger\n")
    wait_for(lab, "hangs", "Kernel panic")
    assert lab.rows()["hangs"]["phase"] == "up"

    lab.ask("stop", "hangs")
    rows = lab.phase("down", "hangs", patience_s=PATIENCE_S)
    assert rows["hangs"]["forced_stops"] == before + 1
