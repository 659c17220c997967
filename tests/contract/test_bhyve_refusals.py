"""What ends the set-up of a guest: status and text of contract 1.3, 1.7.4, 1.7.5 and 3."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bhyved.lab import netif
from tests.contract.stand_ins import Lab
from tests.waiting import until

INVALID = "Device emulation initialization error: Invalid argument\n"
INVALID_RAW = INVALID.replace("\n", "\r\n")
ABSENT = "Device emulation initialization error: No such file or directory\n"


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"pci__0__4__0__path": "/x"}, 'pci slot 0:4:0 missing "device" value\n' + INVALID),
        ({"pci__0__4__0__device": "floppy"}, 'pci slot 0:4:0 unknown device "floppy"\n' + INVALID),
        ({"pci__0__4__0__device": "ahci-hd"}, 'pci slot 0:4:0: legacy device "ahci-hd", use "ahci" instead\n' + INVALID),
        ({"pci__0__4__0__device": "ahci-cd"}, 'pci slot 0:4:0: legacy device "ahci-cd", use "ahci" instead\n' + INVALID),
        (
            {"pci__0__0__0__device": "amd_hostbridge"},
            'pci slot 0:0:0: legacy device "amd_hostbridge", use "hostbridge" instead\n' + INVALID,
        ),
        ({"pci__0__4__0__device": "lpc", "pci__0__31__0__device": "lpc"}, "Only one LPC bridge is allowed.\r\n" + INVALID_RAW),
        ({"pci__1__4__0__device": "lpc", "pci__0__31__0__device": ""}, "LPC bridge can be present only on bus 0.\n" + INVALID),
        ({"pci__0__4__0__device": "virtio-blk"}, 'Missing "path" for block device.\n' + INVALID),
        (
            {"pci__0__4__0__device": "virtio-blk", "pci__0__4__0__path": "/nowhere"},
            "bhyve: Could not open backing file: /nowhere: No such file or directory\n" + ABSENT,
        ),
        (
            {"pci__0__4__0__device": "ahci", "pci__0__4__0__port__3__type": "cd", "pci__0__4__0__port__3__path": "/nowhere"},
            "bhyve: Could not open backing file: /nowhere: No such file or directory\n" + ABSENT,
        ),
        ({"pci__0__4__0__device": "ahci", "pci__0__4__0__port__31__type": "hd"}, 'Missing "path" for block device.\n' + INVALID),
        ({"lpc__com1__path": "/nowhere"}, "Unable to initialize backend '/nowhere' for LPC device com1\n" + INVALID),
        ({"lpc__com1__path": "/dev/null"}, "Unable to initialize backend '/dev/null' for LPC device com1\n" + INVALID),
        (
            {"lpc__com2__path": "stdio", "lpc__com3__path": "stdio"},
            "Unable to initialize backend 'stdio' for LPC device com3\r\n" + INVALID_RAW,
        ),
        ({"pci__0__29__0__device": "fbuf", "pci__0__29__0__w": "9999"}, "fbuf: max resolution is 3840x2160\n" + INVALID),
        ({"pci__0__29__0__device": "fbuf", "pci__0__29__0__h": "200"}, "fbuf: minimum resolution is 640x480\n" + INVALID),
        ({"pci__0__29__0__device": "fbuf", "pci__0__29__0__vga": "x"}, 'fbuf: Invalid vga setting: "x"\n' + INVALID),
        ({"pci__0__29__0__device": "fbuf", "pci__0__29__0__vga": "on"}, "pci_fbuf: VGA rendering not enabled\n" + INVALID),
        (
            {"pci__0__29__0__device": "fbuf", "pci__0__29__0__tcp": "127.0.0.1:0", "pci__0__30__0__device": "fbuf"},
            "Only one frame buffer device is allowed.\n" + INVALID,
        ),
        ({"pci__0__4__0__device": "passthru"}, "bhyve: passthru requires guest memory to be wired\n" + INVALID),
        ({"pci__0__4__0__device": "passthru", "memory__wired": "true"}, "bhyve: passthru: missing required bus setting\n" + INVALID),
        (
            {
                "pci__0__4__0__device": "passthru",
                "memory__wired": "true",
                "pci__0__4__0__bus": "2",
                "pci__0__4__0__slot": "0",
                "pci__0__4__0__func": "0",
            },
            "bhyve: PCI device at 2/0/0 is not using the ppt(4) driver\n" + INVALID,
        ),
        (
            {"pci__0__5__0__device": "virtio-console", "pci__0__5__0__port__0__name": "a"},
            "bhyve: vtcon: required path missing for port 0\n" + INVALID,
        ),
        (
            {"pci__0__5__0__device": "virtio-console", "pci__0__5__0__port__1__path": "/x"},
            "bhyve: vtcon: required name missing for port 1\n" + INVALID,
        ),
        ({"pci__0__6__0__device": "virtio-net", "pci__0__6__0__backend": "web0"}, "net backend web0 is not known\n" + INVALID),
        ({"tpm__type": "swtpm", "tpm__path": "/nowhere", "tpm__version": "2.0"}, "Failed to init TPM device\r\n"),
        ({"cpus": "17"}, "17 vCPUs requested but only 16 available\n"),
        ({"bootrom": "/nowhere"}, 'Error opening bootrom "/nowhere": No such file or directory\n'),
        ({"bootvars": "/nowhere"}, 'Error opening bootrom variable file "/nowhere": No such file or directory\n'),
        ({"bootvars": "/dev/null"}, "Invalid bootrom variable size 0\n"),
        ({"pci__1__4__0__device": "virtio-rnd"}, "MPtable is incompatible with multiple PCI hierarchies.\n"),
        ({"lab__setup_fails": "", "lab__setup-fails": "4 VM exit on HLT not supported"}, "VM exit on HLT not supported\n"),
        ({"lab__script": "dance"}, "bhyve: lab.script: step 'dance': is unknown\n"),
    ],
    ids=lambda value: value.partition("\n")[0] if isinstance(value, str) else "",
)
def test_a_machine_that_cannot_be_is_refused_with_status_4(lab: Lab, variables: dict[str, str], text: str) -> None:
    """Each with bhyve's own words, which end in CR LF once a console has been opened (contract 4.2)."""
    bhyve = lab.start(**variables)

    assert bhyve.ended() == 4
    assert bhyve.said() == text


def test_a_failed_set_up_leaves_a_node_that_may_be_used_again(lab: Lab) -> None:
    """After a missing disk a plain rerun works (contract 8.10)."""
    lab.start(pci__0__4__0__device="virtio-blk").ended()
    assert lab.has_node()

    lab.start().console.wait_for("login: ")


def test_a_rom_of_odd_size_is_refused(lab: Lab) -> None:
    """It is mapped by whole pages."""
    lab.rom.write_bytes(bytes(5000))
    bhyve = lab.start()

    assert bhyve.ended() == 4
    assert bhyve.said() == "ROM size 5000 is not a multiple of the page size\n"


@pytest.mark.parametrize(("release", "text"), [("14", "max resolution is 1920x1200"), ("main", "max resolution is 3840x2160")])
def test_the_largest_screen_depends_on_the_release(lab: Lab, release: str, text: str) -> None:
    """1920x1200 on 14, 3840x2160 later."""
    lab.settle(release=release)
    bhyve = lab.start(pci__0__29__0__device="fbuf", pci__0__29__0__w="4000")

    assert bhyve.ended() == 4
    assert text in bhyve.said()


def test_an_unknown_tap_is_made_and_leads_nowhere(lab: Lab) -> None:
    """A typo gives a guest without network and no error (contract 5.3)."""
    lab.start(pci__0__6__0__device="virtio-net", pci__0__6__0__backend="tap77").wait_titled()

    tap = netif.Net(str(lab.root)).find("tap77")

    assert tap is not None
    assert (tap.bridge, tap.up) == ("", True)


def test_a_tap_has_one_opener(lab: Lab) -> None:
    """The second guest ends with 4; when the first has gone, even by SIGKILL, the tap is free."""
    card = {"pci__0__6__0__device": "virtio-net", "pci__0__6__0__backend": "tap7"}
    first = lab.start(**card).wait_titled()
    second = lab.start("web2", **card)

    assert second.ended() == 4
    assert second.said() == "open of tap device tap7 failed\nDevice emulation initialization error: Device busy\n"
    first.kill()
    lab.start("web3", **card).wait_titled()


def test_a_busy_vnc_port_is_refused(lab: Lab) -> None:
    """With status 4."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        bhyve = lab.start(pci__0__29__0__device="fbuf", pci__0__29__0__tcp=f"127.0.0.1:{other.getsockname()[1]}")

        assert bhyve.ended() == 4
        assert bhyve.said().startswith("bind: Address already in use\n")


def test_a_virtio_console_socket_that_is_there_already_is_refused(lab: Lab) -> None:
    """bhyve cannot unlink what the last run left."""
    path = lab.root / "agent"
    port = {"pci__0__5__0__device": "virtio-console", "pci__0__5__0__port__0__name": "agent", "pci__0__5__0__port__0__path": str(path)}
    lab.start(**port).wait_titled().kill()
    assert path.is_socket()
    lab.control("--destroy")

    bhyve = lab.start(**port)

    assert bhyve.ended() == 4
    assert bhyve.said().startswith("bhyve: cannot create port agent: Address already in use\n")


@pytest.fixture
def swtpm(tmp_path: Path) -> Iterator[Path]:
    """Something that listens where a swtpm would."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "tpm"))
        listener.listen()
        yield tmp_path / "tpm"


@pytest.mark.parametrize(
    ("release", "version", "works"),
    [("14", "2.0", False), ("15", "2.0", True), ("15", "", False)],
    ids=["14 has no swtpm", "15 has", "a file has no default version"],
)
def test_a_tpm_by_swtpm(lab: Lab, swtpm: Path, release: str, version: str, works: bool) -> None:
    """It must be up, the release must know it, and a file must say the version (contract 3.4)."""
    lab.settle(release=release)
    bhyve = lab.start(tpm__type="swtpm", tpm__path=str(swtpm), tpm__version=version)

    if works:
        bhyve.wait_titled()
    else:
        assert bhyve.ended() == 4


def test_a_reserved_device_passes_through(lab: Lab) -> None:
    """With wired memory and a device of ppt(4)."""
    lab.settle(ppt=["2/0/0"])

    lab.start(pci__0__4__0__device="passthru", pci__0__4__0__pptdev="ppt0", memory__wired="true").wait_titled()


def test_more_memory_than_there_is_cannot_be_set_up(lab: Lab) -> None:
    """ENOMEM is 12."""
    lab.settle(physmem=8 << 20)
    bhyve = lab.start()

    assert bhyve.ended() == 4
    assert bhyve.said() == "Unable to setup memory (12)\n"


def test_main_has_so_many_vms_and_no_more(lab: Lab) -> None:
    """hw.vmm.maxvmms, for root too (contract 1.13)."""
    lab.settle(release="main", maxvmms=1)
    lab.start().wait_titled()

    second = lab.start("web2")

    assert second.ended() == 4
    assert second.said() == "bhyve: vm_openf: Cannot allocate memory\n"


def test_numa_needs_acpi(lab: Lab) -> None:
    """Status 64, though it is no matter of the command line's form."""
    lab.settle(release="main")
    bhyve = lab.start(acpi_tables="false", domains__0__size="16M", domains__0__cpus="0")

    assert (bhyve.ended(), bhyve.said()) == (64, "bhyve: NUMA emulation requires ACPI\n")


def test_firmware_needs_an_unrestricted_guest(lab: Lab) -> None:
    """Old Intel CPUs have none."""
    lab.settle(unrestricted_guest=False)
    bhyve = lab.start()

    assert bhyve.ended() == 4
    assert bhyve.said().startswith("bhyve: ROM boot failed: unrestricted guest capability not available: ")


def test_arm64_says_1_of_a_missing_firmware_and_4_of_none(lab: Lab) -> None:
    """Its firmware is opened by other code (contract 1.7.2)."""
    lab.settle(arch="arm64")
    missing = lab.start(bootrom="/nowhere", pci__0__31__0__device="", lpc__com1__path="")
    none = lab.start(bootrom="", lpc__bootrom="", pci__0__31__0__device="", lpc__com1__path="")

    assert (missing.ended(), missing.said()) == (1, "bhyve: open(/nowhere): No such file or directory\n")
    assert (none.ended(), none.said()) == (4, "no bootrom specified\n")


@pytest.mark.parametrize(
    ("release", "spelling", "starts", "says"),
    [
        ("14", "bootrom", False, "virtual machine cannot be booted"),
        ("14", "lpc__bootrom", True, ""),
        ("15", "bootrom", True, ""),
        ("main", "lpc__bootrom", True, "bhyve: lpc.bootrom is deprecated, use '-o bootrom' instead"),
    ],
)
def test_each_release_reads_its_own_spelling_of_the_bootrom(lab: Lab, release: str, spelling: str, starts: bool, says: str) -> None:
    """14 knows only the older; the newest says that it is old."""
    lab.settle(release=release)
    bhyve = lab.start(**{"bootrom": "", "lpc__bootrom": "", spelling: str(lab.rom)})

    if starts:
        bhyve.wait_titled().kill()
    else:
        assert bhyve.ended() == 4
    assert bhyve.said().strip() == says


def test_a_disk_that_cannot_be_written_is_read_only_without_a_word(lab: Lab) -> None:
    """And nobody locks disks: two guests may have one."""
    disk = lab.root / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    disk.chmod(0o400)
    node = {"pci__0__4__0__device": "virtio-blk", "pci__0__4__0__path": str(disk)}

    lab.start(**node).wait_titled()
    lab.start("web2", **node).wait_titled()


def test_a_node_destroyed_during_the_set_up_ends_it(lab: Lab) -> None:
    """It fails at its next step."""
    bhyve = lab.start(**{"lab__boot-delay-before-title": "1s"})
    until(lab.has_node, "the node")

    lab.control("--destroy")

    assert bhyve.ended() == 71
    assert bhyve.said() == "bhyve: could not activate CPU 0: Device not configured\n"
