"""Devices as a real operating system sees them, through the daemon: UEFI variables, a screen, a TPM, an agent, an install medium."""

import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests import linux
from tests.guests.rfb import Viewer
from tests.guests.test_linux_guest import PATIENCE_S, boot, guest, log_in, run, wait_for
from tests.system.labkit import LabHost, running

pytestmark = pytest.mark.guest

VARIABLE = "/sys/firmware/efi/efivars/Kept-12345678-1234-1234-1234-123456789abc"
_ATTRIBUTES = r"\007\000\000\000"  # non-volatile, boot service, run time: what Linux lets be written
_RETURN_KEY = 0xFF0D  # an X11 keysym
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


def power_off(lab: LabHost, name: str) -> None:
    lab.ask("stop", name)
    lab.phase("down", name, patience_s=PATIENCE_S)


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
    """The VNC address that the daemon names has a picture of the firmware's, which a key press changes."""
    uefi.ask("start", "empty")
    row = uefi.until(lambda rows: rows["empty"]["vnc"] != "", "it has a screen", PATIENCE_S)["empty"]
    address, _, port = row["vnc"].rpartition(":")
    prompt = uefi.call("console.wait-for", name="empty", text="Shell> ", since="boot", timeout=PATIENCE_S)
    assert prompt["found"], uefi.console("empty")

    with socket.create_connection((address, int(port)), SCREEN_S) as connection:
        viewer = Viewer(connection)
        assert viewer.enter() >= (640, 480)
        before = viewer.picture()
        for is_down in (1, 0):
            connection.sendall(struct.pack(">BBHI", 4, is_down, 0, _RETURN_KEY))
        assert uefi.call("console.wait-for", name="empty", text="Shell> ", since=prompt["offset"], timeout=PATIENCE_S)["found"]
        after = viewer.picture()

    assert before.colours > 1
    assert before.pixels != after.pixels
    uefi.ask("poweroff", "empty")
    uefi.phase("down", "empty", patience_s=PATIENCE_S)


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


def test_an_agent_in_the_guest_says_when_it_is_ready() -> None:
    """`ready.agent` waits until the guest's own agent answers on its virtio-console port."""
    more = '[[virtio-console]]\nname = "org.qemu.guest_agent.0"\n[order]\nready = { agent = true }'
    with running({"web1": guest(linux.direct(), more=more)}, engine="qemu") as lab:
        boot(lab, "web1")
        log_in(lab, "web1")
        assert not lab.rows()["web1"]["ready"]

        port = "/dev/$(basename $(dirname $(grep -l guest_agent /sys/class/virtio-ports/*/name)))"
        lab.call("console.send", name="web1", text=f"exec 3<>{port}; while read -r line <&3; do echo '{{\"return\": {{}}}}' >&3; done\n")

        lab.until(lambda rows: rows["web1"]["ready"], "the agent answers", PATIENCE_S)
        power_off(lab, "web1")


def test_the_install_medium_goes_after_the_first_reboot(tmp_path: Path) -> None:
    """`start --install` gives the guest its drive; when the installer reboots, the guest comes up without it."""
    iso = tmp_path / "install.iso"
    iso.write_bytes(bytes(1 << 20))
    look = "echo drive=$(ls /sys/bus/pci/devices | grep -c 0000:00:02.0)"
    with running({"web1": guest(linux.direct(), more=f'[[cdrom]]\npath = "{iso}"\nwhen = "install"')}, engine="qemu") as lab:
        assert lab.ask("start", "web1", install=True)["ok"]
        lab.phase("up", "web1", patience_s=PATIENCE_S)
        wait_for(lab, "web1", "login:")
        log_in(lab, "web1")
        run(lab, "web1", look, "drive=1")
        first = lab.rows()["web1"]["run"]

        lab.call("console.send", name="web1", text="reboot -f\n")
        lab.until(lambda rows: rows["web1"]["run"] not in ("", first) and rows["web1"]["phase"] == "up", "up again", PATIENCE_S)
        wait_for(lab, "web1", "login:")
        log_in(lab, "web1")

        run(lab, "web1", look, "drive=0")
        power_off(lab, "web1")
