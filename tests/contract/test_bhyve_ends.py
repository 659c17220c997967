"""How bhyve ends, under either engine: exit statuses, signals, and the node that stays (contract 1.7, 1.8, 1.10)."""

import os
import signal

import pytest

from tests.contract.stand_ins import Bhyve, Lab
from tests.waiting import until

# What makes the guest of each engine end: a line for sim's, a key for the 512-byte guest.
TYPED = {
    "sim": {"poweroff": "poweroff\r", "reboot": "reboot\r", "halt": "halt\r", "triple fault": "panic\r"},
    "qemu": {"poweroff": "p", "reboot": "r", "halt": "h", "triple fault": "t"},
}
READY = {"sim": "login: ", "qemu": "> "}


def up(lab: Lab, engine: str, **more: str) -> Bhyve:
    """A guest at its prompt."""
    bhyve = lab.start(lab__engine=engine, **more)
    bhyve.console.wait_for(READY[engine])
    return bhyve


def deaf(lab: Lab, engine: str) -> Bhyve:
    """A guest at its prompt that ignores the power button."""
    if engine == "sim":
        return up(lab, engine, lab__script="acpi ignore; print login: ; wait")
    bhyve = up(lab, engine)
    bhyve.console.type("i")
    bhyve.console.wait_for("i")
    return bhyve


@pytest.mark.parametrize(("end", "status"), [("reboot", 0), ("poweroff", 1), ("halt", 2), ("triple fault", 3)])
def test_a_guest_that_ends_itself_gives_its_status_and_a_node_that_may_be_used_again(lab: Lab, engine: str, end: str, status: int) -> None:
    """Statuses 0 to 3 leave the node behind, and a new start on it works."""
    bhyve = up(lab, engine)
    bhyve.console.type(TYPED[engine][end])

    assert bhyve.ended() == status
    assert lab.has_node()
    assert lab.control("--get-suspended-cpus").stdout == "suspended cpus:\t 0\n"
    up(lab, engine)


def test_sigterm_is_the_power_button_once_acpi_is_on(lab: Lab, engine: str) -> None:
    """A guest that listens powers off: status 1."""
    bhyve = up(lab, engine)

    bhyve.send(signal.SIGTERM)

    assert bhyve.ended() == 1


def test_sigterm_may_be_ignored_by_the_guest_and_never_escalates(lab: Lab, engine: str) -> None:
    """Any number of presses leaves a deaf guest running."""
    bhyve = deaf(lab, engine)
    for _ in range(3):
        bhyve.send(signal.SIGTERM)

    bhyve.console.type("x\r")

    bhyve.console.wait_for("x")
    assert bhyve.process.poll() is None


def test_sigterm_before_acpi_kills_and_leaves_the_node_busy(lab: Lab, engine: str) -> None:
    """The default disposition: a death by signal 15, after which only a destroy helps."""
    bhyve = before_acpi(lab, engine)

    bhyve.send(signal.SIGTERM)

    assert bhyve.ended() == -signal.SIGTERM
    again = lab.start(lab__engine=engine)
    assert again.ended() == 4
    assert again.said() == "bhyve: vm_openf: Device busy\n"


def test_sigterm_before_acpi_is_lost_when_it_was_ignored_at_the_start(lab: Lab, engine: str) -> None:
    """The keeper's way: an early press does nothing, a later one is the button (contract 8.3)."""
    if engine == "sim":
        bhyve = lab.start(ignoring_term=True, lab__script="print early ; sleep 0.3s; acpi on; print login: ; wait")
        bhyve.console.wait_for("early ")
        bhyve.send(signal.SIGTERM)
    else:
        bhyve = lab.start(ignoring_term=True, lab__engine=engine).wait_titled()
        bhyve.send(signal.SIGTERM)
    bhyve.console.wait_for(READY[engine])
    assert bhyve.process.poll() is None

    bhyve.send(signal.SIGTERM)

    assert bhyve.ended() == 1


def before_acpi(lab: Lab, engine: str) -> Bhyve:
    """A guest whose firmware is still at work, for ever."""
    if engine == "sim":
        bhyve = lab.start(lab__script="print firmware ; wait")
        bhyve.console.wait_for("firmware ")
        return bhyve
    blank = lab.root / "blank.img"
    # Bootable by its signature, and nothing in it but a jump to itself.
    blank.write_bytes(b"\xeb\xfe" + bytes(508) + b"\x55\xaa" + bytes((1 << 20) - 512))
    where = {"pci__0__4__0__device": "virtio-blk", "pci__0__4__0__path": str(blank), "bootrom": str(csm(lab))}
    return lab.start(lab__engine=engine, **where).wait_titled()


def csm(lab: Lab) -> str:
    """Firmware whose name makes the qemu engine take its BIOS."""
    rom = lab.root / "BHYVE_UEFI_CSM.fd"
    rom.write_bytes(bytes(4096))
    return str(rom)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL, signal.SIGUSR1])
def test_other_signals_kill(lab: Lab, engine: str, number: signal.Signals) -> None:
    """The guest is gone at once, the node is busy."""
    bhyve = up(lab, engine)

    bhyve.send(number)

    assert bhyve.ended() == -number
    assert lab.control("--get-active-cpus").stdout == "active cpus:\t 0\n"
    assert lab.control("--get-suspended-cpus").stdout == "suspended cpus:\t (none)\n"


@pytest.mark.parametrize(("action", "status"), [("--force-poweroff", 1), ("--force-reset", 0)])
def test_force_ends_a_deaf_guest(lab: Lab, engine: str, action: str, status: int) -> None:
    """bhyvectl returns at once; bhyve ends as the guest had done it itself. Asking again is EALREADY."""
    bhyve = deaf(lab, engine)

    first = lab.control(action)
    assert bhyve.ended() == status
    second = lab.control(action)

    assert (first.returncode, first.stdout) == (0, "")
    assert (second.returncode, second.stdout) == (255, "errno = 37\n")


@pytest.mark.parametrize(("release", "status"), [("14", 1), ("15", 4), ("main", 4)])
def test_a_destroy_kills_a_live_guest(lab: Lab, engine: str, release: str, status: int) -> None:
    """bhyve ends with 4, on 14 with 1, and says how; the node is gone."""
    lab.settle(release=release)
    bhyve = up(lab, engine)

    assert lab.control("--destroy").returncode == 0

    assert bhyve.ended() == status
    assert bhyve.said() == "vm_run error -1, errno 6\n"
    assert not lab.has_node()


def test_the_title_says_that_the_set_up_is_done(lab: Lab, engine: str) -> None:
    """The title is `bhyve: NAME` from then on, and goes with the process."""
    bhyve = up(lab, engine)

    assert bhyve.wait_titled().title == "bhyve: web1"
    bhyve.send(signal.SIGTERM)
    bhyve.ended()
    assert bhyve.title == ""


def test_a_title_that_a_killed_bhyve_left_is_not_taken_over(lab: Lab) -> None:
    """Pids come again: there is no title before the set-up is done."""
    bhyve = lab.start_with_old_title("bhyve: other", **{"lab__boot-delay-before-title": "60s"})
    until(lab.has_node, "the set-up")

    assert bhyve.title == ""


def test_a_power_off_destroys_the_node_only_when_it_is_told_to(lab: Lab, engine: str) -> None:
    """With destroy_on_poweroff the node goes with a power-off, and stays after a reboot."""
    bhyve = up(lab, engine, destroy_on_poweroff="true")
    bhyve.console.type(TYPED[engine]["reboot"])
    assert bhyve.ended() == 0
    assert lab.has_node()

    bhyve = up(lab, engine, destroy_on_poweroff="true")
    bhyve.console.type(TYPED[engine]["poweroff"])

    assert bhyve.ended() == 1
    assert not lab.has_node()


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("stderr bhyve: vm_setup_pptdev_msi: Device busy; exit 1", 1),
        ("stderr vm exit[0]; signal 6", -signal.SIGABRT),
        ("stderr vmexit_suspend: invalid reason 9; exit 100", 100),
        ("stderr vm_loop: unexpected exitcode 0x99; exit 4", 4),
    ],
)
def test_a_run_may_end_in_any_way_with_any_words(lab: Lab, script: str, status: int) -> None:
    """For ends that no guest of the lab can bring about (contract 1.7.2, 1.7.5)."""
    bhyve = lab.start(lab__script=script)

    assert bhyve.ended() == status
    assert bhyve.said() == script.partition("; ")[0].removeprefix("stderr ") + "\n"


def test_a_stopped_bhyve_sees_a_forced_end_only_when_it_is_continued(lab: Lab, engine: str) -> None:
    """SIGSTOP is a crude pause, in which --force-poweroff is missed (contract 8.10)."""
    bhyve = up(lab, engine)
    bhyve.send(signal.SIGSTOP)
    os.waitpid(bhyve.pid, os.WUNTRACED)

    assert lab.control("--force-poweroff").returncode == 0
    assert bhyve.process.poll() is None
    assert lab.control("--get-suspended-cpus").stdout == "suspended cpus:\t (none)\n"

    bhyve.send(signal.SIGCONT)
    assert bhyve.ended() == 1
