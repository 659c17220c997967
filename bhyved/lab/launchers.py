"""DIR/bin: one executable for each of FreeBSD's programs that bhyved runs, each a start of the stand-in's `main(root, argv)`.

The daemon gives its tools an environment of its own, so the root is written into each. They run in an isolated interpreter without
site-packages (`-IS`), which halves their start: about 20 ms with json, 12 of which are Python itself.
"""

import os
import sys
from pathlib import Path

#: program -> the module of its stand-in, and the function
TOOLS = {
    "bhyve": ("bhyve", "main"),
    "bhyvectl": ("bhyvectl", "main"),
    "bhyveload": ("bhyveload", "main"),
    "grub-bhyve": ("grub_bhyve", "main"),
    "ifconfig": ("ifconfig", "main"),
    "jail": ("jail", "jail"),
    "jexec": ("jail", "jexec"),
    "jls": ("jail", "jls"),
    "kldload": ("kld", "kldload"),
    "kldstat": ("kld", "kldstat"),
    "makefs": ("makefs", "main"),
    "ps": ("ps", "main"),
    "rctl": ("rctl", "main"),
    "sysctl": ("sysctl", "sysctl"),
    "sysrc": ("sysctl", "sysrc"),
    "freebsd-version": ("sysctl", "freebsd_version"),
    "zfs": ("zfs", "main"),
    "zpool": ("zfs", "zpool"),
}

# `os._exit` after a flush saves the interpreter's own clean-up. Whoever goes by SystemExit or a signal goes as usual.
_TEXT = """\
#!{python} -IS
import os, sys
sys.path.append({package!r})
from bhyved.lab.{module} import {function}
status = {function}({root!r}, sys.argv[1:])
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""
_SHEBANG_BYTES = 127  # of older Linux kernels: BINPRM_BUF_SIZE


def write(root: Path) -> None:
    """Write all launchers. Raises ValueError when this interpreter cannot be named in a `#!` line."""
    python = _interpreter()
    if " " in python or len(f"#!{python} -IS\n") > _SHEBANG_BYTES:
        raise ValueError(f"the interpreter's path, {python}, cannot stand in a #! line: it has blanks or is too long")
    package = str(Path(__file__).resolve().parents[2])
    directory = root / "bin"
    directory.mkdir(exist_ok=True)
    for program, (module, function) in TOOLS.items():
        text = _TEXT.format(python=python, package=package, module=module, function=function, root=str(root))
        path, fresh = directory / program, directory / f".{program}"
        if path.is_file() and path.read_text() == text:
            continue  # as on a host that was not upgraded: bhyve is told by its time
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.rename(path)


def _interpreter() -> str:
    """The real one rather than that of a virtual environment, which would first read where it belongs."""
    return os.path.realpath(sys.executable)
