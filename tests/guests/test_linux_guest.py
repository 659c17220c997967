"""The daemon and a real operating system: Linux under QEMU, with a real ACPI stack, a login on its console, and real panics."""

from collections.abc import Iterator

import pytest

from tests.guests import linux
from tests.system.labkit import LabHost

pytestmark = pytest.mark.guest

PATIENCE_S = 120


def guest(kernel: linux.Direct, extra: str = "", more: str = "") -> str:
    options = {"lab.kernel": kernel.kernel, "lab.initrd": kernel.initrd, "lab.append": f"{kernel.cmdline} {extra}".strip()}
    table = ", ".join(f'"{key}" = "{value}"' for key, value in options.items())
    return f"""
memory = "256M"
autostart = false
[boot]
loader = "uefi-csm"
[restart]
backoff = "500ms"
{more}
[bhyve]
options = {{ {table} }}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[LabHost]:
    """One lab for all, since Linux takes seconds."""
    kernel = linux.direct()
    guests = {
        "web1": guest(kernel),
        "panics": guest(kernel, "panic=1"),
        "hangs": guest(kernel, "panic=0", '[stop]\npresses = ["0s"]\ntimeout = "2s"'),
    }
    with LabHost(guests, engine="qemu") as lab:
        yield lab


def wait_for(lab: LabHost, name: str, text: str) -> None:
    assert lab.call("console.wait-for", name=name, text=text, since="boot", timeout=PATIENCE_S)["found"], lab.console(name)


def boot(lab: LabHost, name: str) -> None:
    assert lab.ask("start", name)["ok"]
    lab.phase("up", name, patience_s=PATIENCE_S)
    wait_for(lab, name, "login:")


def run(lab: LabHost, name: str, command: str, then: str) -> None:
    """Log in if need be, type a command, wait for what it prints."""
    lab.call("console.send", name=name, text=f"{command}\n")
    wait_for(lab, name, then)


def log_in(lab: LabHost, name: str) -> None:
    run(lab, name, "root", "# ")


def test_linux_shuts_down_at_the_button(lab: LabHost) -> None:
    """The ACPI button reaches acpid in the guest, which powers off: exit kind poweroff, no force."""
    boot(lab, "web1")
    assert lab.ask("stop", "web1")["ok"]
    rows = lab.phase("down", "web1", patience_s=PATIENCE_S)

    assert rows["web1"]["last_exit"]["kind"] == "poweroff"
    assert rows["web1"]["forced_stops"] == 0


def test_a_reboot_from_the_guests_shell_restarts_it(lab: LabHost) -> None:
    """`reboot` typed on the console ends the run with a reboot, and the console goes on."""
    boot(lab, "web1")
    log_in(lab, "web1")
    first = lab.rows()["web1"]["run"]
    lab.call("console.send", name="web1", text="reboot -f\n")
    lab.until(lambda rows: rows["web1"]["run"] not in ("", first) and rows["web1"]["phase"] == "up", "up again", PATIENCE_S)
    wait_for(lab, "web1", "login:")

    assert lab.runs("web1")[-1]["kind"] == "reboot"
    lab.ask("stop", "web1")
    lab.phase("down", "web1", patience_s=PATIENCE_S)


def test_a_panic_with_reboot_is_a_reboot_and_its_last_words_are_kept(lab: LabHost) -> None:
    """bhyve sees a panic that reboots as status 0; the run's record has the panic's text."""
    boot(lab, "panics")
    log_in(lab, "panics")
    lab.call("console.send", name="panics", text="echo c >/proc/sysrq-trigger\n")
    lab.until(lambda rows: rows["panics"]["restarts"]["reboot"] == 1 and rows["panics"]["phase"] == "up", "up again", PATIENCE_S)

    run_ = lab.runs("panics")[-1]
    assert run_["kind"] == "reboot"
    assert "Kernel panic" in run_["console"]
    lab.ask("poweroff", "panics")
    lab.phase("down", "panics", patience_s=PATIENCE_S)


def test_a_panic_without_reboot_runs_on_and_is_cut_off_by_a_stop(lab: LabHost) -> None:
    """A guest that hangs in its panic says nothing to the host; the button does nothing, the timeout does."""
    boot(lab, "hangs")
    log_in(lab, "hangs")
    lab.call("console.send", name="hangs", text="echo c >/proc/sysrq-trigger\n")
    wait_for(lab, "hangs", "Kernel panic")
    assert lab.rows()["hangs"]["phase"] == "up"

    lab.ask("stop", "hangs")
    rows = lab.phase("down", "hangs", patience_s=PATIENCE_S)
    assert rows["hangs"]["forced_stops"] == 1
