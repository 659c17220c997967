"""Real guests in the qemu engine: what a guest does, and the status bhyve would give for it."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import bhyved
from bhyved.lab import guest512
from bhyved.lab.qemu import ERROR, HALT, HALT_LOOK_S, POWEROFF, REBOOT, TRIPLE_FAULT
from bhyved.lab.qemu_devices import RefusedError
from tests.lab.machine import BOOT_SECTOR_S, Machine, need_qemu

pytestmark = pytest.mark.guest

Boot = Callable[..., Machine]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Powers the boot-sector guest on and waits for its prompt; the same disk each time."""
    need_qemu()
    disk = tmp_path / "disk.img"
    guest512.make_disk(disk)
    machines: list[Machine] = []

    def start(config: Mapping[str, str] | None = None) -> Machine:
        with_disk = config or {"pci.0.4.0.device": "virtio-blk", "pci.0.4.0.path": str(disk)}
        machines.append(Machine(with_disk, tmp_path / f"run{len(machines)}").power_on())
        machines[-1].wait_for("> ")
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


def test_the_power_button_is_a_clean_shutdown(boot: Boot) -> None:
    """The button ends the guest with status 1, and the next boot finds the disk clean."""
    machine = boot()

    machine.guest.press()

    assert machine.ended() == POWEROFF
    assert "boot 2 clean" in boot().printed


def test_cutting_the_power_is_not(boot: Boot) -> None:
    """A guest whose power was cut says so at its next boot."""
    boot().close()

    assert "boot 2 dirty" in boot().printed


@pytest.mark.parametrize(
    ("key", "status", "next_boot"),
    [("p", POWEROFF, "boot 2 clean"), ("r", REBOOT, "boot 2 clean"), ("h", HALT, "boot 2 clean"), ("t", TRIPLE_FAULT, "boot 2 dirty")],
)
def test_each_end_has_its_status(boot: Boot, key: str, status: int, next_boot: str) -> None:
    """Power-off, reboot, halt and triple fault are told apart, as bhyve does."""
    machine = boot()

    machine.type(key)

    assert machine.ended() == status
    assert next_boot in boot().printed


def test_a_guest_may_ignore_the_button(boot: Boot) -> None:
    """After `i` the button does nothing, and keys still work."""
    machine = boot()
    machine.type("i")
    machine.wait_for("i")

    machine.guest.press()
    machine.guest.press()
    machine.type("x\r")

    machine.wait_for("x\r\n> ")
    assert machine.guest.outcome() is None


def test_a_busy_guest_is_not_taken_for_a_halted_one(boot: Boot) -> None:
    """A guest that spins with interrupts off is running, however long one looks."""
    machine = boot()

    machine.type("s")

    machine.wait_for("s")
    assert machine.runs_for(2.5 * HALT_LOOK_S)


def test_an_idle_guest_is_not_taken_for_a_halted_one(boot: Boot) -> None:
    """A guest that waits for interrupts is running, however long one looks."""
    assert boot().runs_for(2.5 * HALT_LOOK_S)


def test_acpi_is_off_until_the_guest_switches_it_on(tmp_path: Path, boot: Boot) -> None:
    """A guest without an operating system never has ACPI; the boot-sector guest has it at its prompt."""
    blank = tmp_path / "blank.img"
    blank.write_bytes(bytes(guest512.DISK_BYTES))
    machine = Machine({"pci.0.4.0.device": "virtio-blk", "pci.0.4.0.path": str(blank)}, tmp_path / "blank")
    try:
        machine.power_on()

        assert not machine.guest.has_acpi()
    finally:
        machine.close()
    assert boot().guest.has_acpi()


@pytest.mark.parametrize("model", ["nvme", "ahci"])
def test_other_disks_boot_and_keep_what_is_written(boot: Boot, tmp_path: Path, model: str) -> None:
    """The counter on the disk goes up on NVMe and SATA as well."""
    where = "pci.0.5.0.port.0" if model == "ahci" else "pci.0.5.0"
    config = {"pci.0.5.0.device": model, f"{where}.path": str(tmp_path / "disk.img")}
    first = boot(config)
    first.type("p")
    assert first.ended() == POWEROFF

    assert "boot 2 clean" in boot(config).printed


def test_a_read_only_disk_keeps_nothing(boot: Boot, tmp_path: Path) -> None:
    """With `ro` each boot is the first one."""
    config = {"pci.0.5.0.device": "virtio-blk", "pci.0.5.0.path": str(tmp_path / "disk.img"), "pci.0.5.0.ro": "true"}
    boot(config).close()

    assert "boot 1 clean" in boot(config).printed


def test_output_is_complete_when_the_guest_has_ended(boot: Boot) -> None:
    """What the guest printed last can still be read after its end."""
    machine = boot()
    machine.type("abcdefg p")

    machine.ended()

    assert machine.wait_for("p") == "abcdefg p"


def test_the_end_of_qemu_is_an_error(boot: Boot) -> None:
    """A QEMU that dies is bhyve's status 4."""
    machine = boot()

    os.kill(machine.guest.pid, signal.SIGKILL)

    assert machine.ended() == ERROR


def test_a_guest_that_cannot_start_is_refused_in_words(tmp_path: Path) -> None:
    """QEMU's own complaint is the reason, and nothing is left running."""
    need_qemu()
    machine = Machine({"memory.size": "16M", "pci.0.10.0.device": "virtio-net", "pci.0.10.0.mac": "nonsense"}, tmp_path / "run")

    with pytest.raises(RefusedError, match="nonsense"):
        machine.power_on()

    machine.close()


def test_the_guest_dies_with_whoever_runs_it(tmp_path: Path) -> None:
    """Killing the process that runs the engine cuts the guest's power at once."""
    need_qemu()
    program = (
        "import sys, pathlib; from bhyved.lab.qemu import QemuGuest; from bhyved.lab.qemu_devices import Surroundings\n"
        "guest = QemuGuest({'memory.size': '16M'}, Surroundings(vm='web1'), pathlib.Path(sys.argv[1])); guest.start(())\n"
        "print(guest.pid, flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(argv, cwd=Path(bhyved.__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        qemu = os.pidfd_open(int(runner.stdout.readline()))
        try:
            runner.kill()

            assert select.select([qemu], [], [], BOOT_SECTOR_S)[0]
        finally:
            os.close(qemu)
