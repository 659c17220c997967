"""Devices as a real operating system sees them, through the daemon: UEFI variables, a screen, a TPM, an agent, shares, a CD."""

import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bhyved.lab import guest512
from tests.guests import linux
from tests.guests.rfb import Viewer
from tests.guests.shell import PATIENCE_S, boot, cut_off, guest, log_in, power_off, reboots, run, wait_for
from tests.system.labkit import LabHost, running

pytestmark = pytest.mark.guest

VARIABLE = "/sys/firmware/efi/efivars/Kept-12345678-1234-1234-1234-123456789abc"
_ATTRIBUTES = r"\007\000\000\000"  # non-volatile, boot service, run time: what Linux lets be written
_RETURN_KEY, _ESCAPE_KEY = 0xFF0D, 0xFF1B  # X11 keysyms
SCREEN_S = 60.0


@pytest.fixture
def uefi(tmp_path: Path) -> Iterator[LabHost]:
    """Linux on a UEFI disk, with real firmware, variables of its own and a screen."""
    disk = tmp_path / "disk.img"
    shutil.copy(linux.uefi().disk, disk)
    variables = linux.OVMF.with_name("OVMF_VARS_4M.fd")
    text = f"""
memory = "256M"
autostart = false
disk = [{{ path = "{disk}", model = "nvme" }}]
[boot]
firmware = "{linux.OVMF}"
vars-template = "{variables}"
[graphics]
"""
    tpm = f"{text}[tpm]\n"
    with running({"linux": text, "tpm": tpm, "empty": text.replace(str(disk), str(_empty(tmp_path)))}, engine="qemu") as lab:
        yield lab


def _empty(folder: Path) -> Path:
    """A disk that looks bootable to the lab, and has nothing for a firmware to boot."""
    path = folder / "empty.img"
    path.write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))
    return path


def test_uefi_variables_are_kept_across_boots(uefi: LabHost) -> None:
    """A variable that the guest has written is there in its next run: the guest's own copy of the template goes with it."""
    boot(uefi, "linux")
    log_in(uefi, "linux")
    run(uefi, "linux", f"printf '{_ATTRIBUTES}kept' >{VARIABLE}; echo written=$?", "written=0")
    power_off(uefi, "linux")

    boot(uefi, "linux")
    log_in(uefi, "linux")

    run(uefi, "linux", f"tail -c 4 {VARIABLE}; echo =read", "kept=read")
    power_off(uefi, "linux")


def test_the_screen_shows_the_firmware_and_takes_keys(uefi: LabHost) -> None:
    """The VNC address that the daemon names has a picture of the firmware's, which key presses change."""
    uefi.ask("start", "empty")
    row = uefi.until(lambda rows: rows["empty"]["vnc"] != "", "it has a screen", PATIENCE_S)["empty"]
    address, _, port = row["vnc"].rpartition(":")
    wait_for(uefi, "empty", "to skip")  # "Press ESC in 5 seconds to skip startup.nsh"

    with socket.create_connection((address, int(port)), SCREEN_S) as connection:
        viewer = Viewer(connection)
        assert viewer.enter() >= (640, 480)
        before = viewer.picture()
        press(connection, _ESCAPE_KEY)
        prompt = uefi.call("console.wait-for", name="empty", text="Shell> ", since="boot", timeout=PATIENCE_S)
        assert prompt["found"], uefi.console("empty")
        press(connection, _RETURN_KEY)
        assert uefi.call("console.wait-for", name="empty", text="Shell> ", since=prompt["offset"], timeout=PATIENCE_S)["found"]
        after = viewer.picture()

    assert before.colours > 1
    assert before.pixels != after.pixels
    cut_off(uefi, "empty")


def press(viewer: socket.socket, key: int) -> None:
    """Down and up again."""
    for is_down in (1, 0):
        viewer.sendall(struct.pack(">BBHI", 4, is_down, 0, key))


def test_linux_sees_a_tpm_of_its_own(uefi: LabHost) -> None:
    """A swtpm that bhyved has started for the run is a TPM 2 to the guest, and is gone when the guest is."""
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")
    boot(uefi, "tpm")
    log_in(uefi, "tpm")
    run(uefi, "tpm", "echo version=$(cat /sys/class/tpm/tpm0/tpm_version_major)=", "version=2=")
    assert any(process.name() == "swtpm" for process in uefi.processes())

    power_off(uefi, "tpm")

    assert not any(process.name() == "swtpm" for process in uefi.processes())


#: As much of qemu-ga as is asked for: it gives back the number of a guest-sync, and {} for a guest-ping.
_AGENT = (
    "exec 3<>/dev/$(basename $(dirname $(grep -l guest_agent /sys/class/virtio-ports/*/name))); "
    "while read -r line <&3; do case $line in *guest-sync*) said=$(echo $line | tr -dc 0-9);; *) said={};; esac; "
    "printf '{\"return\": %s}\\n' $said >&3; done"
)


def test_an_agent_in_the_guest_says_when_it_is_ready() -> None:
    """`ready.agent` waits until the guest's own agent answers on its virtio-console port."""
    more = '[[virtio-console]]\nname = "org.qemu.guest_agent.0"\n[order]\nready = { agent = true, timeout = "1h" }'
    with running({"web1": guest(linux.direct(), more=more)}, engine="qemu") as lab:
        boot(lab, "web1")
        log_in(lab, "web1")
        assert not lab.rows()["web1"]["ready"]

        lab.call("console.send", name="web1", text=f"{_AGENT}\n")

        lab.until(lambda rows: rows["web1"]["ready"], "the agent answers", PATIENCE_S)
        power_off(lab, "web1")


def test_a_guest_reads_and_writes_a_share(tmp_path: Path) -> None:
    """A directory of the host by 9p: what lies there is read; what is written arrives, unless the share is read-only."""
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "greeting").write_text(f"hello from {name}\n")
    shares = "".join(
        f'[[share]]\nname = "{name}"\npath = "{tmp_path / name}"\nread-only = {is_closed}\n'
        for name, is_closed in (("open", "false"), ("closed", "true"))
    )
    with running({"web1": guest(linux.direct(full=True), more=shares)}, engine="qemu") as lab:
        boot(lab, "web1")
        log_in(lab, "web1")
        for name in ("open", "closed"):
            run(lab, "web1", f"mkdir /{name} && mount -t 9p -o trans=virtio {name} /{name} && cat /{name}/greeting", f"hello from {name}")
            run(lab, "web1", f"echo a-word >/{name}/answer; echo {name}-wrote=$?", f"{name}-wrote={0 if name == 'open' else 1}")
        cut_off(lab, "web1")

    assert (tmp_path / "open/answer").read_text() == "a-word\n"
    assert [path.name for path in (tmp_path / "closed").iterdir()] == ["greeting"]


#: What cloud-init does in more words: look for the label on every disk, mount it, read.
_FIND_SEED = (
    "mkdir -p /seed; for disk in $(ls /sys/block); do "
    '[ "$(dd if=/dev/$disk bs=1 skip=32808 count=6 2>/dev/null)" = cidata ] && '
    "mount -t iso9660 -o ro /dev/$disk /seed && echo =$disk=; done; "
    "cat /seed/*-data /seed/network-config; echo read-$?"
)


@pytest.mark.parametrize(("model", "full", "disk"), [("ahci-cd", True, "sr0"), ("virtio-blk", False, "vda")], ids=["CD", "disk"])
def test_a_guest_finds_its_seed_by_the_label(tmp_path: Path, model: str, full: bool, disk: str) -> None:
    """As a CD, or as a disk where a kernel has no AHCI; after a reboot of the guest it is what the files say by then."""
    if shutil.which("xorriso") is None:
        pytest.skip("xorriso is not installed")
    script = tmp_path / "user-data"
    script.write_text("#cloud-config\nruncmd: [first-seed]\n")
    more = f"""
[[network]]
bridge = "bridge0"
[cloud-init]
model = "{model}"
user-data = "{script}"
[[cloud-init.network]]
addresses = ["192.0.2.77/24"]
"""
    with running({"web1": guest(linux.direct(full=full), more=more)}, engine="qemu") as lab:
        boot(lab, "web1")
        log_in(lab, "web1")
        run(lab, "web1", _FIND_SEED, "read-0")
        for text in (f"={disk}=", 'instance-id: "web1"', "runcmd: [first-seed]", '- "192.0.2.77/24"'):
            wait_for(lab, "web1", text)
        run(lab, "web1", "grep -q $(cat /sys/class/net/eth0/address) /seed/network-config; echo by-mac-$?", "by-mac-0")
        run(lab, "web1", "ls -l /seed/user-data", "-rw-------")
        run(lab, "web1", f"dd if=/dev/zero of=/dev/{disk} bs=2048 count=1; echo writes-$?", "writes-1")

        script.write_text("#cloud-config\nruncmd: [second-seed]\n")
        reboots(lab, "web1", "reboot -f")
        wait_for(lab, "web1", "login:")
        log_in(lab, "web1")
        run(lab, "web1", _FIND_SEED, "read-0")
        wait_for(lab, "web1", "runcmd: [second-seed]")
        power_off(lab, "web1")


def test_an_installer_boots_from_its_cd_which_then_goes(tmp_path: Path) -> None:
    """`start --install`: GRUB on the CD boots Linux, which writes a system on the empty disk; after its reboot the CD is no longer there.

    The CD is the first that the firmware would boot from: were it there, its installer would run again.
    """
    iso, disk = linux.installer(), tmp_path / "disk.img"
    disk.write_bytes(bytes(guest512.DISK_BYTES))
    text = f"""
memory = "256M"
autostart = false
disk = [{{ path = "{disk}", model = "virtio-blk", boot-index = 1 }}]
cdrom = [{{ path = "{iso}", when = "install", boot-index = 0 }}]
[boot]
loader = "uefi-csm"
"""
    with running({"web1": text}, engine="qemu") as lab:
        boot(lab, "web1", install=True)
        wait_for(lab, "web1", linux.CD_GREETING)
        log_in(lab, "web1")
        run(lab, "web1", "echo controllers=$(cat /sys/bus/pci/devices/*/class | grep -c 0x010601)", "controllers=2")  # one is q35's own

        reboots(lab, "web1", f"cat {linux.SYSTEM} >/dev/vda && sync && reboot -f")

        wait_for(lab, "web1", f"boot {linux.BOOTS_SO_FAR + 1} clean")
        assert lab.runs("web1")[-1]["kind"] == "reboot"
        power_off(lab, "web1")
        assert lab.ask("start", "web1")["ok"]
        wait_for(lab, "web1", f"boot {linux.BOOTS_SO_FAR + 2} clean")
        power_off(lab, "web1")
        assert lab.console("web1").count(linux.CD_GREETING) == 1
