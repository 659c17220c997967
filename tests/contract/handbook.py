"""The Handbook's guests (chapter 24.7, contract 9): its command lines as printed, ours in TOML, and what differs between the two.

`docs/guide/handbook.md` quotes all of it, and `test_handbook` holds the page to this table.
"""

from typing import NamedTuple

UEFI = "/usr/local/share/uefi-firmware"


class Difference(NamedTuple):
    """A variable of bhyve's tree that is not the same. `None`: the variable is not there; "*": any value."""

    key: str  # an fnmatch pattern
    theirs: str | None
    ours: str | None
    why: str


DIFFERENCES = {
    "console": Difference(
        "lpc.com1.path",
        "stdio",
        "/dev/nmdm-*.1A",
        "The console is a null-modem pair, recorded and shown to any number of viewers, not the terminal of whoever started bhyve.",
    ),
    "console of one's own": Difference(
        "lpc.com1.path", "/dev/nmdm0A", "/dev/nmdm-*.1A", "The pair is named after the guest, so that nobody hands out numbers."
    ),
    "misspelt console": Difference(
        "lpc.com1.path", "/dev/nmdbbhyve0A", "/dev/nmdm-*.1A", "`nmdb` is a slip in the Handbook: such a device cannot be opened."
    ),
    "no console": Difference(
        "lpc.com1.path", None, "/dev/nmdm-*.1A", "Every guest has a serial console that is recorded, unless `serial = []`."
    ),
    "mac": Difference(
        "pci.*.mac",
        None,
        "*",
        "bhyve's own default is the same on two hosts with guests of the same name; bhyved derives the address from the host as well.",
    ),
    "clock": Difference("rtc.use_localtime", None, "*", "bhyve's default is local time; bhyved's is UTC, unless `clock = \"localtime\"`."),
    "strictmsr": Difference(
        "x86.strictmsr", "true", "false", "Strict MSRs stop Windows, some Linux kernels and guests on AMD hosts; it is what `-w` is for."
    ),
    "pause": Difference("x86.vmexit_on_pause", None, "true", "`-P` is always on: it helps guests with several vCPUs on a busy host."),
    "random": Difference(
        "pci.0.16.0.device", None, "virtio-rnd", "Every guest gets a source of randomness, unless `random.enabled = false`."
    ),
    "tap": Difference(
        "pci.*.backend", "tap*", "tap0", "The tap is made, put on the bridge and destroyed by bhyved, which chooses its number."
    ),
    "variables": Difference(
        "bootvars", None, "/var/db/bhyved/vars/*.fd", "UEFI variables are kept in a copy of the guest's own, unless `keep-vars = false`."
    ),
    "destroy": Difference(
        "destroy_on_poweroff",
        "true",
        None,
        "The node is always destroyed by bhyved, which could not tell a power-off from a destroy otherwise.",
    ),
    "tablet": Difference("pci.0.29.0.tablet", "true", None, "`tablet` is no option of `fbuf`, which overlooks it: it belongs to `xhci`."),
    "screen": Difference("pci.0.29.0.*", None, "*", "A tablet without the screen of 24.7.5 is of no use: `[graphics]` is both."),
    "xhci": Difference("pci.0.30.0.*", None, "*", "The tablet that was meant."),
    # What depends on the release alone.
    "old bootrom": Difference("lpc.bootrom", None, "*", "15 and newer read `bootrom`; 14 reads `lpc.bootrom`. Both are written."),
    "new bootrom": Difference("bootrom", None, "*", "15 and newer read `bootrom`; 14 reads `lpc.bootrom`. Both are written."),
    "old bootvars": Difference("lpc.bootvars", None, "*", "As with `bootrom`."),
    "new bootvars": Difference("bootvars", None, "*", "As with `bootrom`."),
    "acpi": Difference("acpi_tables", "false", "true", "Without `-A`, 14 gives the guest no power button, and a SIGTERM kills it."),
}
#: In every guest.
ALWAYS = ("clock", "random", "mac")
#: By a letter that a line lacks.
WITHOUT = {"w": "strictmsr", "P": "pause"}
#: By the release.
RELEASES = ("old bootrom", "acpi")


class Guest(NamedTuple):
    """One command line of the chapter."""

    section: str
    line: str  # `bhyve …`, the chapter's own words
    name: str
    toml: str
    moved: dict[str, str]  # PCI slots: the chapter's → ours
    differs: tuple[str, ...]
    install: bool = False
    loader: tuple[str, ...] = ()  # the chapter's loader command


# vmrun.sh is given by what it passes on: its fixed flags, slots in order, the install medium at 31 (contract 2.6).
_FREEBSD = """\
cpus = 4
memory = "1024M"
disk = [{ path = "/vm/guest.img" }]
cdrom = [{ path = "/vm/FreeBSD-14.0-RELEASE-amd64-bootonly.iso", when = "install" }]
network = [{ bridge = "bridge0" }]

[boot]
loader = "bhyveload"
"""
_LINUX = """\
cpus = 4
memory = "1024M"
disk = [{ path = "/vm/linux.img" }]
cdrom = [{ path = "/vm/somelinux.iso", when = "install" }]
network = [{ bridge = "bridge0" }]

[boot]
loader = "grub"

[boot.grub]
install-commands = [
  "linux (cd0)/isolinux/vmlinuz",
  "initrd (cd0)/isolinux/initrd.img",
]
commands = [
  "linux (hd0,msdos1)/vmlinuz-2.6.32-431.el6.x86_64 root=/dev/mapper/VolGroup-lv_root",
  "initrd (hd0,msdos1)/initramfs-2.6.32-431.el6.x86_64.img",
]
"""
_UEFI = """\
cpus = 4
memory = "1024M"
disk = [{ path = "/vm/disk.img" }]
cdrom = [{ path = "/vm/install.iso", when = "install" }]
network = [{ bridge = "bridge0" }]
"""
_ZVOL = """\
cpus = 4
memory = "1024M"
disk = [{ path = "/dev/zvol/zroot/linuxdisk0" }]
network = [{ bridge = "bridge0" }]

[boot]
loader = "grub"
"""
_IN_ORDER = {"1": "31", "2": "10", "3": "4", "4": "2"}
_LINUX_LINE = "bhyve -A -H -P -s 0:0,hostbridge -s 1:0,lpc -s 2:0,virtio-net,tap0 -s 3:0,virtio-blk,./linux.img"
_UEFI_LINE = (
    "bhyve -AHP -s 0:0,hostbridge -s 1:0,lpc -s 2:0,virtio-net,tap1 -s 3:0,virtio-blk,./disk.img -s 4:0,ahci-cd,./install.iso"
    " -c 4 -m 1024M -l bootrom,/usr/local/share/uefi-firmware/"
)

GUESTS = {
    "freebsd-install": Guest(
        "24.7.2",
        "bhyve -c 1 -m 1024M -AHP -s 0:0,hostbridge -s 1:0,lpc -s 2:0,virtio-net,tap0 -s 3:0,virtio-blk,guest.img -l com1,stdio"
        " -s 31:0,ahci-cd,FreeBSD-14.0-RELEASE-amd64-bootonly.iso guestname",
        "guestname",
        _FREEBSD.replace("cpus = 4", "cpus = 1"),
        {"1": "31", "2": "10", "3": "4", "31": "2"},
        ("console",),
        install=True,
        loader=("bhyveload", "-c", "stdio", "-m", "1024M", "-d", "FreeBSD-14.0-RELEASE-amd64-bootonly.iso", "guestname"),
    ),
    "freebsd": Guest(
        "24.7.2",
        "bhyve -c 4 -m 1024M -AHP -s 0:0,hostbridge -s 1:0,lpc -s 2:0,virtio-net,tap0 -s 3:0,virtio-blk,guest.img -l com1,stdio guestname",
        "guestname",
        _FREEBSD,
        _IN_ORDER,
        ("console",),
        loader=("bhyveload", "-c", "stdio", "-m", "1024M", "-d", "guest.img", "guestname"),
    ),
    "linux-install": Guest(
        "24.7.3",
        f"{_LINUX_LINE} -s 4:0,ahci-cd,./somelinux.iso -l com1,stdio -c 4 -m 1024M linuxguest",
        "linuxguest",
        _LINUX,
        _IN_ORDER,
        ("console",),
        install=True,
        loader=("grub-bhyve", "-m", "device.map", "-r", "cd0", "-M", "1024M", "linuxguest"),
    ),
    "linux": Guest(
        "24.7.3",
        f"{_LINUX_LINE} -l com1,stdio -c 4 -m 1024M linuxguest",
        "linuxguest",
        _LINUX,
        _IN_ORDER,
        ("console",),
        loader=("grub-bhyve", "-m", "device.map", "-r", "hd0,msdos1", "-M", "1024M", "linuxguest"),
    ),
    "uefi": Guest(
        "24.7.4", f"{_UEFI_LINE}BHYVE_UEFI.fd guest", "guest", _UEFI, _IN_ORDER, ("no console", "tap", "variables"), install=True
    ),
    "uefi-variables": Guest(
        "24.7.4",
        f"{_UEFI_LINE}BHYVE_UEFI.fd,/path/to/vm-image/BHYVE_UEFI_VARS.fd guest",
        "guest",
        f'{_UEFI}\n[boot]\nvars = "/path/to/vm-image/BHYVE_UEFI_VARS.fd"\n',
        _IN_ORDER,
        ("no console", "tap"),
        install=True,
    ),
    "uefi-csm": Guest(
        "24.7.4",
        f"{_UEFI_LINE}BHYVE_UEFI_CSM.fd guest",
        "guest",
        f'{_UEFI}\n[boot]\nloader = "uefi-csm"\n',
        _IN_ORDER,
        ("no console", "tap"),
        install=True,
    ),
    "framebuffer": Guest(
        "24.7.5",
        "bhyve -AHP -s 0:0,hostbridge -s 31:0,lpc -s 2:0,virtio-net,tap1 -s 3:0,virtio-blk,./disk.img -s 4:0,ahci-cd,./install.iso"
        " -c 4 -m 1024M -s 29,fbuf,tcp=0.0.0.0:5900,w=800,h=600,wait -s 30,xhci,tablet"
        f" -l bootrom,{UEFI}/BHYVE_UEFI.fd guest",
        "guest",
        f'{_UEFI}\n[graphics]\nlisten = "0.0.0.0:5900"\nresolution = "800x600"\nwait = true\n',
        {"2": "10", "3": "4", "4": "2"},
        ("no console", "tap", "variables"),
        install=True,
    ),
    "windows": Guest(
        "24.7.6",
        "bhyve -c 2 -s 0,hostbridge -s 3,nvme,windows2016.img -s 4,ahci-cd,install.iso -s 10,virtio-net,tap0 -s 31,lpc -s 30,xhci,tablet"
        f" -l bootrom,{UEFI}/BHYVE_UEFI.fd -m 8G -H -w windows2016",
        "windows2016",
        'cpus = 2\nmemory = "8G"\nclock = "localtime"\ndisk = [{ path = "/vm/windows2016.img", model = "nvme" }]\n'
        'cdrom = [{ path = "/vm/install.iso", when = "install" }]\nnetwork = [{ bridge = "bridge0" }]\n\n'
        "[graphics]\n",
        {"3": "4", "4": "2"},
        ("no console", "variables", "screen"),
        install=True,
    ),
    "zfs": Guest(
        "24.7.7",
        "bhyve -A -H -P -s 0:0,hostbridge -s 1:0,lpc -s 2:0,virtio-net,tap0 -s3:0,virtio-blk,/dev/zvol/zroot/linuxdisk0 -l com1,stdio"
        " -c 4 -m 1024M linuxguest",
        "linuxguest",
        _ZVOL,
        _IN_ORDER,
        ("console",),
    ),
    "jail": Guest(
        "24.7.9",
        "bhyve -c 1 -m 1024M -AHP -s 0:0,hostbridge -s 1:0,lpc -s 2:0,virtio-net,tap100 -s 3:0,virtio-blk,/dev/zvol/zroot/vms/bhyvevm0"
        " -l com1,stdio -s 31:0,ahci-cd,/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso bhyvevm0",
        "bhyvevm0",
        'memory = "1024M"\ndisk = [{ path = "/dev/zvol/zroot/vms/bhyvevm0" }]\n'
        'cdrom = [{ path = "/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso", when = "install" }]\nnetwork = [{ tap = "tap100" }]\n\n'
        '[boot]\nloader = "bhyveload"\n',
        {"1": "31", "2": "10", "3": "4", "31": "2"},
        ("console",),
        install=True,
        loader=("bhyveload", "-c", "stdio", "-m", "1024M", "-d", "/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso", "bhyvevm0"),
    ),
    "jail-ufs": Guest(
        "24.7.9",
        "bhyve -c 1 -m 1024M -AHP -s 0:0,hostbridge -s 1:0,lpc -s 2:0,virtio-net,tap100 -s 3:0,virtio-blk,/vms/bhyvevm0"
        " -l com1,stdio -s 31:0,ahci-cd,/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso bhyvevm0",
        "bhyvevm0",
        'memory = "1024M"\ndisk = [{ path = "/vms/bhyvevm0" }]\n'
        'cdrom = [{ path = "/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso", when = "install" }]\nnetwork = [{ tap = "tap100" }]\n\n'
        '[boot]\nloader = "bhyveload"\n',
        {"1": "31", "2": "10", "3": "4", "31": "2"},
        ("console",),
        install=True,
        loader=("bhyveload", "-c", "stdio", "-m", "1024M", "-d", "/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso", "bhyvevm0"),
    ),
    "jail-uefi": Guest(
        "24.7.9",
        "bhyve -A -c 4 -D -H -m 2G -s 0,hostbridge -s 1,lpc -s 2,virtio-net,tap100 -s 3,virtio-blk,/dev/zvol/zroot/vms/bhyvevm0"
        " -s 4,ahci-cd,/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso -s 31,fbuf,tcp=127.0.0.1:5900,w=1024,h=800,tablet"
        f" -l bootrom,{UEFI}/BHYVE_UEFI.fd -l com1,/dev/nmdbbhyve0A bhyvevm0",
        "bhyvevm0",
        'cpus = 4\nmemory = "2G"\ndisk = [{ path = "/dev/zvol/zroot/vms/bhyvevm0" }]\n'
        'cdrom = [{ path = "/vms/FreeBSD-14.0-RELEASE-amd64-bootonly.iso", when = "install" }]\nnetwork = [{ tap = "tap100" }]\n\n'
        '[graphics]\nlisten = "127.0.0.1:5900"\nresolution = "1024x800"\n',
        {"1": "31", "2": "10", "3": "4", "4": "2", "31": "29"},
        ("misspelt console", "variables", "destroy", "tablet", "xhci"),
        install=True,
    ),
    "console": Guest(
        "24.7.10",
        f"{_LINUX_LINE} -l com1,/dev/nmdm0A -c 4 -m 1024M linuxguest",
        "linuxguest",
        _LINUX,
        _IN_ORDER,
        ("console of one's own",),
    ),
}
