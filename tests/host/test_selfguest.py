"""The guest of the selftest: the committed bytes are its source, and fit where bhyve looks for them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bhyved.host import selfguest

PAGE_BYTES = 4096


def test_the_committed_bytes_are_the_source_assembled(tmp_path: Path) -> None:
    """Assembling selfguest.s gives selfguest.bin, byte for byte."""
    missing = [tool for tool in ("as", "ld") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"binutils missing: {', '.join(missing)}")
    if b"elf_i386" not in subprocess.run(["ld", "-V"], capture_output=True, check=True).stdout:
        pytest.skip("this ld does not link elf_i386")
    source, built = tmp_path / "selfguest.o", tmp_path / "selfguest.bin"

    subprocess.run(["as", "--32", "-o", source, selfguest.SOURCE], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0xf000", "--oformat", "binary", "-o", built, source], check=True)

    assert built.read_bytes() == selfguest.ROM.read_bytes()


def test_it_is_one_page_and_begins_at_the_reset_vector() -> None:
    """bhyve takes whole pages only; the CPU begins 16 bytes before the end, with a jump to the first byte."""
    rom = selfguest.ROM.read_bytes()
    assert len(rom) == PAGE_BYTES
    assert rom[-16] == 0xE9
    jumped_from = PAGE_BYTES - 16 + 3
    assert (jumped_from + int.from_bytes(rom[-15:-13], "little", signed=True)) == 0
