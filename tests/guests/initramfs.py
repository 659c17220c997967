"""The root file system of the Linux guest: a busybox, a handful of modules, and a power button that works.

`newc` is pure (entries in, archive out), so that building it needs neither cpio(1) nor root. The archive stays
uncompressed: unpacking under TCG costs the guest more than loading the larger file.
"""

import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# In the order of insmod, which resolves nothing by itself. virtio needs virtio_ring although modules.dep says
# the reverse for old kernels.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio-rng",
    "virtio_console",
    "button",
    "evdev",
)
OPTIONAL_MODULES = ("efivarfs",)  # refuses to load without UEFI, so rc loads it on its own
CD_MODULES = ("scsi_common", "scsi_mod", "libata", "libahci", "ahci", "cdrom", "sr_mod", "isofs")  # the cloud kernel has no AHCI
SHARE_MODULES = ("netfs", "fscache", "9pnet", "9pnet_virtio", "9p")  # the cloud kernel has none of 9p, and rc loads what there is

# The last line of defence of a guest test: rc ends before getty starts, so the login prompt proves that acpid listens.
# t.noacpi on the kernel command line makes a guest that ignores the button; t.ip=ADDR/BITS gives eth0 an address.
RC = """#!/bin/sh
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
hostname -F /etc/hostname
for module in $(cat /modules/order); do [ ! -e /modules/$module.ko ] || insmod /modules/$module.ko; done
if [ -d /sys/firmware/efi/efivars ]; then
    insmod /modules/efivarfs.ko
    mount -t efivarfs efivars /sys/firmware/efi/efivars
fi
for word in $(cat /proc/cmdline); do
    case $word in
    t.noacpi) noacpi=1 ;;
    t.ip=*) ip addr add "${word#t.ip=}" dev eth0; ip link set eth0 up ;;
    esac
done
[ -n "$noacpi" ] && exit
acpid
until [ -e /var/run/acpid.pid ]; do usleep 5000; done
"""

INITTAB = """::sysinit:/etc/rc
ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100
"""

FILES = {
    "etc/rc": (0o755, RC),
    "etc/inittab": (0o644, INITTAB),
    "etc/passwd": (0o644, "root::0:0:root:/root:/bin/sh\n"),
    "etc/group": (0o644, "root:x:0:\n"),
    "etc/hostname": (0o644, "linux\n"),
    # busybox's acpid runs this executable on the power button, as long as it finds no acpid.conf.
    "etc/acpi/PWRF/00000080": (0o755, "#!/bin/sh\npoweroff -f\n"),
}
# acpid dies without a word when /var/log or /var/run is missing.
DIRECTORIES = ("dev", "proc", "sys", "tmp", "root", "bin", "sbin", "usr/bin", "usr/sbin", "etc/acpi/PWRF", "var/log", "var/run", "modules")


@dataclass(frozen=True)
class Entry:
    """One file of the archive; `device` is (major, minor) for device nodes."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def entries(busybox: bytes, applets: Iterable[str], modules: Mapping[str, bytes]) -> list[Entry]:
    """Everything in the root file system, directories before what is in them."""
    directories = {parent for name in DIRECTORIES for parent in _with_parents(name)}
    found = [Entry(name, stat.S_IFDIR | 0o755) for name in sorted(directories)]
    found.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))  # init's stdout until devtmpfs is there
    found.append(Entry("bin/busybox", stat.S_IFREG | 0o755, busybox))
    found.extend(Entry(applet, stat.S_IFLNK | 0o777, b"/bin/busybox") for applet in applets if applet != "bin/busybox")
    found.append(Entry("init", stat.S_IFLNK | 0o777, b"/bin/busybox"))
    found.extend(Entry(name, stat.S_IFREG | mode, text.encode()) for name, (mode, text) in FILES.items())
    found.append(Entry("modules/order", stat.S_IFREG | 0o644, " ".join(MODULES + CD_MODULES + SHARE_MODULES).encode()))
    found.extend(Entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, content) for name, content in modules.items())
    return found


def newc(files: Iterable[Entry]) -> bytes:
    """The "new ASCII" cpio archive of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst."""
    archive = bytearray()
    for inode, entry in enumerate([*files, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields)
        archive += _padded(name, 110)
        archive += _padded(entry.content, 0)
    return bytes(archive)


def unpacked_kernel(bzimage: bytes) -> bytes:
    """The compressed payload of a bzImage, as its boot header names it (boot.rst: payload_offset, payload_length)."""
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return bzimage[start : start + length]


def _padded(content: bytes, header: int) -> bytes:
    return content + bytes(-(header + len(content)) % 4)


def _with_parents(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[: count + 1]) for count in range(len(parts)))
