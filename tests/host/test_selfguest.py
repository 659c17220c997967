"""The guest of the selftest: the committed bytes are its source, and fit where bhyve looks for them."""

from pathlib import Path

from bhyved.host import selfguest
from tests.assembler import assembled

PAGE_BYTES = 4096


def test_the_committed_bytes_are_the_source_assembled(tmp_path: Path) -> None:
    """Assembling selfguest.s gives selfguest.bin, byte for byte."""
    assert assembled(selfguest.SOURCE, "0xf000", tmp_path) == selfguest.ROM.read_bytes()


def test_it_is_one_page_and_begins_at_the_reset_vector() -> None:
    """bhyve takes whole pages only; the CPU begins 16 bytes before the end, with a jump to the first byte."""
    rom = selfguest.ROM.read_bytes()
    assert len(rom) == PAGE_BYTES
    assert rom[-16] == 0xE9
    jumped_from = PAGE_BYTES - 16 + 3
    assert (jumped_from + int.from_bytes(rom[-15:-13], "little", signed=True)) == 0
