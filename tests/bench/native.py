"""The C parts of the bench, compiled once a run: a host that costs nothing, and the loop that everything is compared with."""

import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
TOOLS = ("bhyve", "child", "ps", "bhyvectl", "sysctl", "sysrc", "kldstat", "kldload", "ifconfig")


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(name: str, target: Path) -> None:
    """Compile native/NAME.c."""
    found = compiler()
    assert found is not None, "no C compiler is installed"
    subprocess.run([found, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(SOURCES / f"{name}.c")], check=True)


def furnish(root: Path) -> None:
    """Fill ROOT/bin with the tools of the host: one program under all their names, so that it finds its root by its own path."""
    (root / "bin").mkdir(parents=True)
    build("host", root / "bin/host")
    for tool in TOOLS:
        (root / "bin" / tool).hardlink_to(root / "bin/host")
