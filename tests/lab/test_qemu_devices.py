"""How bhyve's PCI devices become QEMU arguments."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from bhyved.lab.qemu_devices import RefusedError, Surroundings, device_arguments, mac_address, option, pci_devices


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image whose name holds the character that separates QEMU's options."""
    path = tmp_path / "disk,one.img"
    path.write_bytes(bytes(512))
    return path


def arguments(config: Mapping[str, str], around: Surroundings | None = None) -> list[str]:
    return device_arguments(pci_devices(config), around or Surroundings(vm="web1"))


def after(argv: list[str], flag: str) -> list[str]:
    """The values of each `flag` in `argv`."""
    return [value for name, value in pairwise(argv) if name == flag]


def test_a_device_keeps_its_slot(disk: Path) -> None:
    """The guest finds a disk at the slot it has under bhyve."""
    argv = arguments({"pci.0.4.0.device": "virtio-blk", "pci.0.4.0.path": str(disk)})

    assert after(argv, "-device")[0].startswith("virtio-blk-pci,bus=pcie.0,addr=4.0,drive=pci0-4-0")


def test_a_comma_in_a_path_is_no_separator(disk: Path) -> None:
    """QEMU reads a doubled comma as one character of the value."""
    argv = arguments({"pci.0.4.0.device": "virtio-blk", "pci.0.4.0.path": str(disk)})

    assert str(disk).replace(",", ",,") in after(argv, "-drive")[0]


def test_functions_of_one_slot_are_announced(disk: Path) -> None:
    """Two devices in a slot are both marked, or the guest would look at the first only."""
    config = {f"pci.0.4.{function}.device": "virtio-rnd" for function in (0, 1)}

    argv = arguments(config)

    assert after(argv, "-device") == [f"virtio-rng-pci,bus=pcie.0,addr=4.{function},multifunction=on" for function in (0, 1)]


@pytest.mark.parametrize("at", ["0.31.2", "2.5.0", "0.0.3"])
def test_a_slot_that_q35_has_not_is_swapped_for_a_free_one(at: str) -> None:
    """Slots of the board itself and other buses move to the first free slot, past those in use."""
    argv = arguments({"pci.0.1.0.device": "virtio-rnd", f"pci.{at}.device": "virtio-rnd"})

    assert sorted(after(argv, "-device")) == ["virtio-rng-pci,bus=pcie.0,addr=1.0", "virtio-rng-pci,bus=pcie.0,addr=2.0"]


def test_the_bridges_are_the_boards_own() -> None:
    """Host bridge and LPC bridge need no argument: q35 has them."""
    assert arguments({"pci.0.0.0.device": "hostbridge", "pci.0.31.0.device": "lpc"}) == []


def test_a_read_only_sata_disk_throws_writes_away(disk: Path) -> None:
    """QEMU's SATA disk knows no read-only image, so a read-only one gets a throw-away layer."""
    config = {"pci.0.3.0.device": "ahci", "pci.0.3.0.port.0.type": "hd", "pci.0.3.0.port.0.path": str(disk), "pci.0.3.0.port.0.ro": "true"}

    drive = after(arguments(config), "-drive")[0]

    assert "snapshot=on" in drive
    assert "readonly" not in drive


def test_a_cd_and_a_disk_share_a_controller(disk: Path) -> None:
    """Each AHCI port becomes a disk or a CD on that port."""
    config = {"pci.0.3.0.device": "ahci"}
    config |= {"pci.0.3.0.port.0.type": "cd", "pci.0.3.0.port.0.path": str(disk)}
    config |= {"pci.0.3.0.port.2.type": "hd", "pci.0.3.0.port.2.path": str(disk), "pci.0.3.0.port.2.ser": "ABC"}

    assert after(arguments(config), "-device") == [
        "ich9-ahci,bus=pcie.0,addr=3.0,id=pci0-3-0",
        "ide-cd,bus=pci0-3-0.0,drive=pci0-3-0-0",
        "ide-hd,bus=pci0-3-0.2,drive=pci0-3-0-2,serial=ABC",
    ]


@pytest.mark.parametrize(
    ("backend", "wanted"),
    [
        ({"backend": "tap7"}, "tap,id=pci0-10-0,ifname=tap7,script=no,downscript=no"),
        ({"backend": "tap8"}, "hubport,id=pci0-10-0,hubid=80"),
        ({}, "hubport,id=pci0-10-0,hubid=80"),
        (
            {"backend": "slirp", "hostfwd": "tcp:127.0.0.1:2222-:22;tcp:127.0.0.1:8080-:80"},
            "user,id=pci0-10-0,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:8080-:80",
        ),
        ({"backend": "slirp", "open": "true"}, "user,id=pci0-10-0,restrict=off"),
    ],
)
def test_network_backends(backend: dict[str, str], wanted: str) -> None:
    """A tap that exists is used, slirp lets only connections in, and all else is a NIC without a cable."""
    config = {"pci.0.10.0.device": "virtio-net"} | {f"pci.0.10.0.{key}": value for key, value in backend.items()}

    argv = arguments(config, Surroundings(vm="web1", taps=frozenset({"tap7"})))

    assert after(argv, "-netdev") == [wanted]


def test_the_made_up_mac_address_depends_on_name_and_slot() -> None:
    """Without `mac` the address is bhyve's own prefix and differs from slot to slot, not from start to start."""
    first, second = pci_devices({"pci.0.10.0.device": "e1000", "pci.0.11.0.device": "e1000"})

    assert mac_address(first, "web1").startswith("58:9c:fc:")
    assert mac_address(first, "web1") == mac_address(first, "web1")
    assert len({mac_address(first, "web1"), mac_address(second, "web1"), mac_address(first, "web2")}) == 3


def test_passthru_is_refused_in_bhyves_words() -> None:
    """There is no ppt(4) in the lab, and the message says so as bhyve does."""
    config = {"pci.0.20.0.device": "passthru", "pci.0.20.0.bus": "2", "pci.0.20.0.slot": "0", "pci.0.20.0.func": "1"}

    with pytest.raises(RefusedError, match=r"PCI device at 2/0/1 is not using the ppt\(4\) driver"):
        arguments(config)


def test_an_unknown_model_is_refused_with_its_slot() -> None:
    """A model that bhyve does not know is not passed on to QEMU, which might know it."""
    with pytest.raises(RefusedError, match="0:6:0"):
        arguments({"pci.0.6.0.device": "vmxnet3"})


def test_an_option_leaves_out_what_is_none() -> None:
    """None means that the key is not given; booleans are QEMU's on and off."""
    assert option("nvme", serial=None, drive="d0", file__locking=False) == "nvme,drive=d0,file.locking=off"
