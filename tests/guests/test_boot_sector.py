"""The daemon and a real guest: the 512-byte guest under QEMU, which knows how it was stopped and says so at its next boot."""

import shutil
import time
from collections.abc import Iterator

import pytest

from bhyved.lab.qemu_machine import QEMU
from tests.system.labkit import Connection, LabHost

pytestmark = pytest.mark.guest

POLICY = """
[restart]
reboot-limit = "3 in 5m"
backoff = "2s"
backoff-max = "2s"
[stop]
presses = ["0s", "1s"]
timeout = "3s"
"""
GUEST = f'memory = "16M"\nautostart = false\n[boot]\nloader = "uefi-csm"\n{POLICY}'


@pytest.fixture
def lab() -> Iterator[LabHost]:
    """A lab with real guests."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (package qemu-system-x86)")
    with LabHost({"web1": GUEST, "web2": GUEST}, engine="qemu") as lab:
        yield lab


def boot(lab: LabHost, name: str = "web1") -> None:
    assert lab.ask("start", name)["ok"]
    lab.phase("up", name)
    prompt(lab, name)


def prompt(lab: LabHost, name: str = "web1", text: str = "> ") -> None:
    """Wait until this run has printed `text`."""
    assert lab.call("console.wait-for", name=name, text=text, since="boot", timeout=30)["found"], lab.console(name)


def press_key(lab: LabHost, key: str, name: str = "web1") -> None:
    assert lab.call("console.send", name=name, text=key)["taken"] == 1


def ended(lab: LabHost, count: int, name: str = "web1") -> dict[str, object]:
    """Wait until so many runs have ended; the newest."""
    lab.until(lambda rows: len(lab.runs(name)) >= count, f"{count} runs of {name}")
    return lab.runs(name)[-1]


def test_the_button_is_a_clean_shutdown_and_a_kill_is_not(lab: LabHost) -> None:
    """After `stop` the guest finds its disk clean; after `poweroff` it finds it dirty."""
    boot(lab)
    assert lab.ask("stop", "web1")["ok"]
    lab.phase("down", "web1")
    assert ended(lab, 1)["kind"] == "poweroff"
    boot(lab)
    prompt(lab, text="boot 2 clean")

    assert lab.ask("poweroff", "web1")["ok"]
    lab.phase("down", "web1")
    boot(lab)
    prompt(lab, text="boot 3 dirty")


def test_a_reboot_restarts_at_once(lab: LabHost) -> None:
    """The guest's own reboot is exit status 0, and the next bhyve follows without back-off."""
    boot(lab)
    run = lab.rows()["web1"]["run"]
    press_key(lab, "r")
    rows = lab.until(lambda rows: rows["web1"]["phase"] == "up" and rows["web1"]["run"] != run, "up again")
    prompt(lab)

    assert ended(lab, 1)["kind"] == "reboot"
    assert rows["web1"]["restarts"]["reboot"] == 1
    prompt(lab, text="boot 2 clean")


def test_a_triple_fault_restarts_after_back_off(lab: LabHost) -> None:
    """A crash is exit status 3, and the guest is started again after the configured delay."""
    boot(lab)
    run = lab.rows()["web1"]["run"]
    press_key(lab, "t")
    rows = lab.phase("backoff", "web1")
    assert 0 < rows["web1"]["next_start_in_s"] <= 3
    lab.until(lambda rows: rows["web1"]["phase"] == "up" and rows["web1"]["run"] != run, "up again")

    assert ended(lab, 1)["kind"] == "triple-fault"
    prompt(lab, text="boot 2 dirty")


def test_a_halt_is_an_end(lab: LabHost) -> None:
    """A guest that halts its CPUs is down, and stays so."""
    boot(lab)
    press_key(lab, "h")
    lab.phase("down", "web1")

    assert ended(lab, 1)["kind"] == "halt"


def test_a_guest_that_ignores_the_button_is_cut_off_at_the_timeout(lab: LabHost) -> None:
    """Not sooner than stop.timeout says, and not much later."""
    boot(lab)
    press_key(lab, "i")
    prompt(lab, text="i")
    began = time.monotonic()
    lab.ask("stop", "web1")
    rows = lab.phase("down", "web1")
    took = time.monotonic() - began

    assert took >= 3
    assert rows["web1"]["forced_stops"] == 1
    boot(lab)
    prompt(lab, text="boot 2 dirty")


def test_a_reboot_loop_is_held_and_a_start_ends_that(lab: LabHost) -> None:
    """The fourth reboot in a row is one too many; a person's start clears the book."""
    boot(lab)
    connection = Connection(lab.socket)
    connection.call("events.subscribe", follow=True)
    press_key(lab, "r")
    while (row := lab.rows()["web1"])["phase"] != "held":
        event = connection.read()["params"]
        if event["event"] == "phase" and event["phase"] == "up":
            prompt(lab)
            press_key(lab, "r")
    connection.close()
    assert "over its reboot-limit of 3 in 5m" in row["reason"]

    boot(lab)
    assert lab.rows()["web1"]["attempts"] == ""


def test_a_daemon_that_is_killed_loses_no_guest(lab: LabHost) -> None:
    """Two real guests run on with their pids; one reboots while no daemon is there, and that is noticed and handled."""
    boot(lab, "web1")
    boot(lab, "web2")
    before = lab.rows()
    lab.kill_daemon()
    lab.start()
    after = lab.rows()
    assert [after[name]["pid"] for name in after] == [before[name]["pid"] for name in before]
    assert all(row["adopted"] and row["phase"] == "up" for row in after.values())
    assert after["web1"]["uptime_s"] > before["web1"]["uptime_s"]

    lab.ask("stop", "web2")
    lab.phase("down", "web2")
    assert lab.runs("web2")[-1]["adopted"]
    press_key(lab, "r")
    lab.until(lambda rows: rows["web1"]["restarts"]["reboot"] == 1 and rows["web1"]["phase"] == "up", "web1 up again")
    prompt(lab, text="boot 2 clean")
