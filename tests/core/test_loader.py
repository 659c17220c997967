"""The loader's step: argv and the files grub reads."""

import shlex

import pytest

from bhyved.core.assigned import Assigned, provisional
from bhyved.core.config import Source, load
from bhyved.core.loader import LoaderCall, loader_call
from bhyved.core.spec import VmSpec

DISKS = '[[disk]]\npath = "/d1"\n[[disk]]\npath = "/d 2"\n[[cdrom]]\npath = "/iso"\nwhen = "install"\n[[cdrom]]\npath = "/live"\n'


def call(text: str, *, install: bool = False) -> LoaderCall | None:
    loaded = load(Source("", ""), {"a": Source("a.toml", text)}, {})
    assert loaded.problems == ()
    spec: VmSpec = loaded.vms["a"]
    assigned: Assigned = provisional(spec, install=install)
    return loader_call(spec, assigned, "/run/a")


@pytest.mark.parametrize(
    ("text", "install", "command"),
    [
        ('[boot]\nloader = "bhyveload"', False, "bhyveload -c /dev/nmdm-a.1A -m 256M a"),
        (
            'memory = "1G"\nwired = true\n[boot]\nloader = "bhyveload"\n' + DISKS,
            False,
            "bhyveload -c /dev/nmdm-a.1A -m 1G -S -d /d1 -d '/d 2' a",
        ),
        ('[boot]\nloader = "bhyveload"\n' + DISKS, True, "bhyveload -c /dev/nmdm-a.1A -m 256M -d /iso a"),
        (
            '[boot]\nloader = "bhyveload"\nbhyveload = { disk = ["/b"], loader = "/boot/userboot_lua.so", host-dir = "/h", '
            'env = { autoboot_delay = 3, boot_verbose = "YES" } }\n' + DISKS,
            False,
            "bhyveload -c /dev/nmdm-a.1A -m 256M -e autoboot_delay=3 -e boot_verbose=YES -l /boot/userboot_lua.so -h /h -d /b a",
        ),
        ('serial = []\n[boot]\nloader = "bhyveload"\n[[cdrom]]\npath = "/live"', False, "bhyveload -m 256M -d /live a"),
        (
            '[boot]\nloader = "bhyveload"\n[[serial]]\nmode = "tcp"\naddress = "127.0.0.1:4001"\n',
            False,
            "bhyveload -m 256M a",
        ),
        (
            '[boot]\nloader = "grub"\n' + DISKS,
            False,
            "grub-bhyve -m /run/a/device.map -r hd0,1 -M 256M -c /dev/nmdm-a.1A a",
        ),
        (
            '[boot]\nloader = "grub"\ngrub = { root = "hd0,msdos1", directory = "/grub2", file = "my.cfg", openbsd-console = false, '
            "vga-size = false }\nwired = true\n".replace("\nwired = true", "")
            + DISKS,
            False,
            "grub-bhyve -m /run/a/device.map -r hd0,msdos1 -d /grub2 -g my.cfg -M 256M -c /dev/nmdm-a.1A -n -e a",
        ),
        (
            '[boot]\nloader = "grub"\ngrub = { file = "my.cfg", install-directory = "/isolinux" }\n' + DISKS,
            True,
            "grub-bhyve -m /run/a/device.map -r cd0 -d /isolinux -M 256M -c /dev/nmdm-a.1A a",
        ),
        (
            'wired = true\n[boot]\nloader = "grub"\ngrub = { commands = ["linux (hd0,1)/vmlinuz", "initrd (hd0,1)/initrd"] }\n' + DISKS,
            False,
            "grub-bhyve -m /run/a/device.map -r host -d /run/a -M 256M -c /dev/nmdm-a.1A -S a",
        ),
    ],
)
def test_argv(text: str, install: bool, command: str) -> None:
    """The loader gets bhyve's memory size and wiring, com1 as its console, and the drives it may boot from (contract 2.2, 2.3)."""
    loader = call(text, install=install)
    assert loader is not None
    assert shlex.join(loader.argv) == command


@pytest.mark.parametrize("loader", ["uefi", "uefi-csm", "u-boot"])
def test_firmware_needs_no_loader(loader: str) -> None:
    """With a bootrom there is no loader step (contract 2.1)."""
    assert call(f'[boot]\nloader = "{loader}"') is None


def test_device_map() -> None:
    """grub's names for the drives; the install medium is cd0 while installing only."""
    text = '[boot]\nloader = "grub"\n' + DISKS
    normal, installing = call(text), call(text, install=True)
    assert normal is not None
    assert installing is not None
    assert normal.files == {"device.map": "(hd0) /d1\n(hd1) /d 2\n(cd0) /live\n"}
    assert installing.files == {"device.map": "(hd0) /d1\n(hd1) /d 2\n(cd0) /iso\n(cd1) /live\n"}


@pytest.mark.parametrize(
    ("commands", "text"),
    [
        ('["linux (hd0,1)/v", "initrd (hd0,1)/i"]', "linux (hd0,1)/v\ninitrd (hd0,1)/i\nboot\n"),
        ('["kopenbsd -h com0 (hd0,openbsd1)/bsd", "boot"]', "kopenbsd -h com0 (hd0,openbsd1)/bsd\nboot\n"),
    ],
)
def test_grub_cfg(commands: str, text: str) -> None:
    """The commands given, and `boot` at the end: grub would wait at its prompt for ever (contract 2.3)."""
    loader = call(f'[boot]\nloader = "grub"\ngrub = {{ commands = {commands} }}')
    assert loader is not None
    assert loader.files["grub.cfg"] == text


def test_install_commands_are_for_installing() -> None:
    """A guest may be installed by other commands than it boots by."""
    text = '[boot]\nloader = "grub"\ngrub = { install-commands = ["linux (cd0)/v"] }\n' + DISKS
    normal, installing = call(text), call(text, install=True)
    assert normal is not None
    assert installing is not None
    assert "grub.cfg" not in normal.files
    assert installing.files["grub.cfg"] == "linux (cd0)/v\nboot\n"
    assert "host" in installing.argv
