"""The boot-sector guest: the committed bytes are its source, and its disk is one a BIOS boots."""

from pathlib import Path

import pytest

from bhyved.lab import guest512
from tests.assembler import assembled


def test_the_committed_bytes_are_the_source_assembled(tmp_path: Path) -> None:
    """Assembling guest512.s gives guest512.bin, byte for byte."""
    assert assembled(guest512.SOURCE, "0x7c00", tmp_path) == guest512.BOOT_SECTOR


def test_the_boot_sector_is_one() -> None:
    """The guest fills exactly one sector and ends in the BIOS's boot signature."""
    assert len(guest512.BOOT_SECTOR) == 512
    assert guest512.BOOT_SECTOR.endswith(b"\x55\xaa")


def test_a_fresh_disk_holds_the_guest_and_nothing_else(tmp_path: Path) -> None:
    """A fresh disk is the boot sector followed by zeros: no boot counted, last stop clean."""
    disk = tmp_path / "disk.img"

    guest512.make_disk(disk)

    content = disk.read_bytes()
    assert content == guest512.BOOT_SECTOR.ljust(guest512.DISK_BYTES, b"\0")


def test_a_disk_is_never_written_over(tmp_path: Path) -> None:
    """Making a disk where something is already leaves that as it was."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"precious")

    with pytest.raises(FileExistsError):
        guest512.make_disk(disk)

    assert disk.read_bytes() == b"precious"
