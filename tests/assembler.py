"""as(1) and ld(1), for the committed guests that are written in assembler."""

import shutil
import subprocess
from pathlib import Path

import pytest


def assembled(source: Path, origin: str, scratch: Path) -> bytes:
    """What a source comes to, as flat code for `origin`. Skips the test, by name, where that cannot be made."""
    missing = [tool for tool in ("as", "ld") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"binutils missing: {', '.join(missing)}")
    if b"elf_i386" not in subprocess.run(["ld", "-V"], capture_output=True, check=True).stdout:
        pytest.skip("this ld does not link elf_i386")
    code, built = scratch / "code.o", scratch / "code.bin"
    subprocess.run(["as", "--32", "-o", code, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", origin, "--oformat", "binary", "-o", built, code], check=True)
    return built.read_bytes()
