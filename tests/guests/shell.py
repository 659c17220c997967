"""A Linux guest of a lab as a person handles it at its console: boot it, log in, type, wait for what it prints."""

from tests.guests import linux
from tests.system.labkit import LabHost

PATIENCE_S = 120


def guest(kernel: linux.Direct, extra: str = "", more: str = "") -> str:
    """Its file: the kernel in the place of a loader's, with `extra` on its command line and `more` tables."""
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


def wait_for(lab: LabHost, name: str, text: str) -> None:
    """Until this run of the guest has printed it."""
    assert lab.call("console.wait-for", name=name, text=text, since="boot", timeout=PATIENCE_S)["found"], lab.console(name)


def boot(lab: LabHost, *names: str, install: bool = False) -> None:
    """Guests that are down, up to the login prompt."""
    for name in names:
        assert lab.ask("start", name, install=install)["ok"]
    for name in names:
        lab.phase("up", name, patience_s=PATIENCE_S)
        wait_for(lab, name, "login:")


def log_in(lab: LabHost, name: str) -> None:
    run(lab, name, "root", "# ")


def run(lab: LabHost, name: str, command: str, then: str) -> None:
    """Type a command and wait for what it prints, which nothing before it in this run may have printed, nor the echo of it."""
    lab.call("console.send", name=name, text=f"{command}\n")
    wait_for(lab, name, then)


def reboots(lab: LabHost, name: str, command: str) -> None:
    """Type what makes it reboot; until its next run is up."""
    before = lab.rows()[name]["run"]
    lab.call("console.send", name=name, text=f"{command}\n")
    lab.until(lambda rows: rows[name]["run"] not in ("", before) and rows[name]["phase"] == "up", f"{name} up again", PATIENCE_S)


def power_off(lab: LabHost, name: str) -> None:
    """By the button."""
    lab.ask("stop", name)
    lab.phase("down", name, patience_s=PATIENCE_S)


def cut_off(lab: LabHost, name: str) -> None:
    """Without asking it."""
    lab.ask("poweroff", name)
    lab.phase("down", name, patience_s=PATIENCE_S)
