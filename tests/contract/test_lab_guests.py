"""What a guest's own file tells the lab: knobs by run, the engine, and what a qemu guest boots."""

import signal

import pytest

from bhyved.lab import guest512
from tests.contract.stand_ins import Bhyve, Lab
from tests.guests import linux
from tests.lab.machine import need_qemu


def test_a_knob_may_change_with_the_run(lab: Lab) -> None:
    """The one that begins last holds."""
    knobs = {"lab__script-from-4": "triple-fault", "lab__script-from-2": "halt", "lab__script": "reboot"}

    assert [lab.start(**knobs).ended() for _ in range(5)] == [0, 2, 2, 3, 3]


def test_runs_are_counted_for_each_guest(lab: Lab) -> None:
    """Another guest begins with its first."""
    knobs = {"lab__script": "reboot", "lab__script-from-2": "halt"}
    lab.start(**knobs).ended()

    assert lab.start("web2", **knobs).ended() == 0


def test_a_set_up_may_fail_as_it_is_told(lab: Lab) -> None:
    """With any status and text."""
    failing = lab.start(**{"lab__setup-fails": "71 bhyve: cap_enter() failed"})

    assert (failing.ended(), failing.said()) == (71, "bhyve: cap_enter() failed\n")


def test_a_set_up_may_take_its_time(lab: Lab) -> None:
    """Without title, and SIGTERM kills."""
    slow = lab.start(**{"lab__boot-delay-before-title": "60s"})
    assert slow.title == ""

    slow.send(signal.SIGTERM)

    assert slow.ended() == -signal.SIGTERM


@pytest.mark.guest
class TestQemu:
    """Which of a qemu guest's possessions it boots."""

    @pytest.fixture(autouse=True)
    def qemu(self, lab: Lab) -> None:
        need_qemu()
        lab.settle(engine="qemu")

    def test_without_a_disk_it_is_the_small_guest_with_a_disk_of_the_labs(self, lab: Lab) -> None:
        """Which remembers how it was stopped."""
        first = lab.start()
        first.console.wait_for("boot 1 clean")
        first.console.wait_for("> ")
        first.send(signal.SIGTERM)
        assert first.ended() == 1

        second = lab.start()
        second.console.wait_for("boot 2 clean")
        second.console.wait_for("> ")
        second.kill()
        lab.control("--destroy")

        lab.start().console.wait_for("boot 3 dirty")

    def test_an_empty_disk_is_there_but_does_not_boot(self, lab: Lab) -> None:
        """The small guest does, whatever firmware was asked for."""
        disk = lab.root / "empty.img"
        disk.write_bytes(bytes(1 << 20))

        lab.start(pci__0__4__0__device="virtio-blk", pci__0__4__0__path=str(disk)).console.wait_for("boot 1 clean")

    def test_a_bootable_disk_boots(self, lab: Lab) -> None:
        """By the BIOS, if the firmware's name says CSM."""
        disk, rom = lab.root / "disk.img", lab.root / "BHYVE_UEFI_CSM.fd"
        guest512.make_disk(disk)
        rom.write_bytes(bytes(4096))

        bhyve = lab.start(bootrom=str(rom), pci__0__4__0__device="nvme", pci__0__4__0__path=str(disk))
        bhyve.console.wait_for("> ")

        assert not (lab.root / "lab" / "disk").exists()

    def test_a_loaded_guest_boots_its_disk_without_firmware(self, lab: Lab) -> None:
        """After bhyveload."""
        disk = lab.root / "disk.img"
        guest512.make_disk(disk)
        lab.call("bhyveload", "-m", "16M", "web1")

        lab.start(has_rom=False, pci__0__4__0__device="ahci", pci__0__4__0__port__0__path=str(disk)).console.wait_for("> ")

    def test_a_kernel_of_the_host_boots(self, lab: Lab) -> None:
        """By the knob, and by the grub.cfg that grub-bhyve read."""
        guest = linux.direct()
        knobs = {"lab__kernel": str(guest.kernel), "lab__initrd": str(guest.initrd), "lab__append": guest.cmdline}
        powered_off(lab.start(memory__size="256M", **knobs))

        (lab.root / "grub.cfg").write_text(f"linux (host){guest.kernel} {guest.cmdline}\ninitrd (host){guest.initrd}\nboot\n")
        lab.control("--destroy")
        assert lab.call("grub-bhyve", "-r", "host", "-d", str(lab.root), "-M", "256M", "web1").returncode == 0
        powered_off(lab.start(has_rom=False, memory__size="256M"))

    def test_a_machine_that_qemu_cannot_be_is_refused(self, lab: Lab) -> None:
        """With 4, and the node can be used again."""
        refused = lab.start(pci__0__4__0__device="virtio-net", pci__0__4__0__mac="00:nonsense")
        assert refused.ended() == 4
        assert "nonsense" in refused.said()

        lab.start().console.wait_for("> ")

    def test_nothing_of_a_killed_guest_is_left_running(self, lab: Lab) -> None:
        """QEMU dies with its bhyve, and the next run of the guest cleans up behind it."""
        bhyve = lab.start()
        bhyve.console.wait_for("> ")
        bhyve.kill()
        lab.control("--destroy")
        assert (lab.root / "lab" / "scratch" / "web1").exists()

        again = lab.start()
        again.console.wait_for("> ")
        again.send(signal.SIGTERM)
        again.ended()

        assert not (lab.root / "lab" / "scratch" / "web1").exists()


def powered_off(bhyve: Bhyve) -> None:
    """Linux comes up to its prompt and heeds the power button."""
    bhyve.console.wait_for("login: ")
    bhyve.send(signal.SIGTERM)
    assert bhyve.ended() == 1
