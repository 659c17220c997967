"""The 512-byte guest: a boot sector that boots in a tenth of a second and proves how it was stopped.

guest512.s beside this file says what it prints and which keys it obeys; guest512.bin is that source assembled, so
that the lab needs no assembler (a test assembles it again and compares). It runs under QEMU's q35 with SeaBIOS, from
any disk the BIOS can read and write.
"""

from pathlib import Path

SOURCE = Path(__file__).with_name("guest512.s")
BOOT_SECTOR = Path(__file__).with_name("guest512.bin").read_bytes()
DISK_BYTES = 1 << 20  # the guest uses two sectors; AHCI and NVMe want a disk of a believable size


def make_disk(path: Path) -> None:
    """Write a fresh disk with the guest on it: its boot counter at zero, its last stop clean.

    Raises FileExistsError rather than write over a disk.
    """
    with path.open("xb") as disk:
        disk.write(BOOT_SECTOR)
        disk.truncate(DISK_BYTES)
