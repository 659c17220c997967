"""Linux in the qemu engine: a real ACPI stack, panics, UEFI with its variables, a screen. A TPM: tests/guests, through the daemon."""

import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bhyved.lab.qemu import HALT_LOOK_S, POWEROFF, REBOOT
from bhyved.lab.qemu_machine import Payload
from tests.guests import linux
from tests.guests.rfb import NO_AUTHENTICATION, VNC_AUTHENTICATION, Viewer
from tests.lab.machine import LINUX_S, UEFI_S, Machine, need_qemu

pytestmark = pytest.mark.guest

VARIABLE = "/sys/firmware/efi/efivars/Kept-12345678-1234-1234-1234-123456789abc"


class Computer:
    """Boots Linux again and again, each run in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.machines: list[Machine] = []

    def boot(self, words: str = "", config: Mapping[str, str] | None = None) -> Machine:
        """Linux by -kernel, with `words` on its command line, up to the login prompt."""
        guest = linux.direct()
        payload = Payload(str(guest.kernel), str(guest.initrd), f"{guest.cmdline} {words}")
        return self._up({"memory.size": "256M", **(config or {})}, LINUX_S, payload)

    def boot_uefi(self, config: Mapping[str, str]) -> Machine:
        """Linux from its UEFI disk, up to the login prompt."""
        return self._up({"memory.size": "256M", **config}, UEFI_S, None)

    def power_on(self, config: Mapping[str, str], patience_s: float = LINUX_S, payload: Payload | None = None) -> Machine:
        """A machine that has begun to boot whatever there is."""
        machine = Machine(config, self._folder / f"run{len(self.machines)}", patience_s=patience_s, payload=payload)
        self.machines.append(machine)
        return machine.power_on()

    def _up(self, config: Mapping[str, str], patience_s: float, payload: Payload | None) -> Machine:
        machine = self.power_on(config, patience_s, payload)
        machine.wait_for("login: ")
        return machine


@pytest.fixture
def computer(tmp_path: Path) -> Iterator[Computer]:
    """A place for Linux to run, cleaned up in the end."""
    need_qemu()
    found = Computer(tmp_path)
    yield found
    for machine in found.machines:
        machine.close()


def log_in(machine: Machine) -> None:
    machine.type("root\n")
    machine.wait_for("# ")


def run(machine: Machine, command: str) -> str:
    """What `command` prints, run in the guest's shell."""
    machine.type(f"{command}; echo status=$?\n")
    machine.wait_for("status=0")
    return machine.wait_for("# ").partition("\n")[2]


def test_the_power_button_shuts_linux_down(computer: Computer) -> None:
    """ACPI's button reaches acpid, which powers off: status 1."""
    machine = computer.boot()

    machine.guest.press()

    assert machine.ended() == POWEROFF


def test_a_reboot_is_a_status_of_its_own(computer: Computer) -> None:
    """`reboot` in the guest is status 0."""
    machine = computer.boot()
    log_in(machine)

    machine.type("reboot -f\n")

    assert machine.ended() == REBOOT


def test_a_panic_that_reboots_looks_like_a_reboot(computer: Computer) -> None:
    """With panic=1 a crashed kernel resets the machine after a second: status 0."""
    machine = computer.boot("panic=1")
    log_in(machine)

    machine.type("echo c >/proc/sysrq-trigger\n")

    assert machine.ended() == REBOOT


def test_nobody_listens_to_the_button(computer: Computer) -> None:
    """Without a program that does, the button does nothing; nor in a panic with panic=0, where the kernel stays, and bhyve runs on."""
    machine = computer.boot("t.noacpi panic=0")

    machine.guest.press()
    log_in(machine)

    assert "acpid" not in run(machine, "ps | grep -v grep")
    machine.type("echo c >/proc/sysrq-trigger\n")
    machine.wait_for("Kernel panic")
    machine.guest.press()
    assert machine.runs_for(2.5 * HALT_LOOK_S)


def test_the_guest_sees_the_machine_that_was_configured(computer: Computer) -> None:
    """CPUs, memory, UUID, MAC and PCI slots are those of the configuration."""
    uuid = "12345678-1234-5678-1234-567812345678"
    config = {"cpus": "2", "sockets": "1", "cores": "2", "memory.size": "192M", "uuid": uuid}
    config |= {"pci.0.10.0.device": "virtio-net", "pci.0.10.0.backend": "slirp", "pci.0.10.0.mac": "58:9c:fc:00:00:01"}
    config |= {"pci.0.16.0.device": "virtio-rnd"}
    machine = computer.boot(config=config)
    log_in(machine)

    assert run(machine, "nproc").startswith("2\r")
    assert uuid in run(machine, "cat /sys/class/dmi/id/product_uuid").lower()
    assert "BHYVE" in run(machine, "cat /sys/class/dmi/id/product_name")
    assert "58:9c:fc:00:00:01" in run(machine, "cat /sys/class/net/eth0/address")
    assert "0000:00:0a.0" in run(machine, "readlink -f /sys/class/net/eth0")
    assert "1AF4:1005" in run(machine, "cat /sys/bus/pci/devices/0000:00:10.0/uevent")


def test_uefi_variables_outlive_a_power_cycle(computer: Computer, tmp_path: Path) -> None:
    """What the guest writes into its variables is there at the next boot; a viewer sees the configured size, and that somebody draws."""
    config = uefi_config(tmp_path) | {"pci.0.29.0.device": "fbuf", "pci.0.29.0.w": "800", "pci.0.29.0.h": "600"}
    machine = computer.boot_uefi(config)
    with connected(machine) as connection:
        viewer = Viewer(connection)
        assert NO_AUTHENTICATION in viewer.security
        assert viewer.enter() == (800, 600)
        deadline = time.monotonic() + UEFI_S
        while viewer.picture().colours == 1:  # blank for a moment, when the kernel takes the screen over
            assert time.monotonic() < deadline, "nobody draws anything"
    log_in(machine)
    run(machine, f"printf '\\7\\0\\0\\0kept' >{VARIABLE}")
    machine.guest.press()
    assert machine.ended() == POWEROFF

    machine = computer.boot_uefi(config)
    log_in(machine)

    assert "kept" in run(machine, f"cat {VARIABLE}")


def test_a_viewer_without_the_password_stays_out(computer: Computer) -> None:
    """With a password the only way in is to know it, whatever the guest does."""
    machine = computer.power_on({"pci.0.29.0.device": "fbuf", "pci.0.29.0.password": "secret"})
    with connected(machine) as connection:
        viewer = Viewer(connection)

        assert viewer.security == (VNC_AUTHENTICATION,)
        assert viewer.enter_with_wrong_password()


def connected(machine: Machine) -> socket.socket:
    """A viewer's end of a connection that the machine shows its screen on."""
    ours, theirs = socket.socketpair()
    ours.settimeout(machine.patience_s)
    with theirs:
        machine.guest.show(theirs)
    return ours


def uefi_config(folder: Path) -> dict[str, str]:
    """A guest with a disk of its own, a placeholder for bhyve's firmware, and one for its variables."""
    disk = folder / "uefi.img"
    shutil.copyfile(linux.uefi().disk, disk)
    config = {"pci.0.4.0.device": "nvme", "pci.0.4.0.path": str(disk)}
    for key, name in (("bootrom", "BHYVE_UEFI.fd"), ("bootvars", "vars.fd")):
        (folder / name).write_bytes(bytes(4096))
        config[key] = str(folder / name)
    return config
