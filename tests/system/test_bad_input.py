"""`bhyved check` on a directory of broken guests: one line for each, that names file, line, key and what would be right; no traceback."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.labkit import BHYVED

#: What is written into NAME.toml, and how the one line about it begins after the file's name.
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "wrong-type": ("\nmemory = 1024\n", ':2: memory: found 1024; must be text, in quotes, for example "2G"'),
    "wrong-size": ('memory = "1Gb"\n', ':1: memory: found "1Gb"; a size is a number and K, M, G or T'),
    "wrong-cpus": ("cpus = 1.5\n", ":1: cpus: found 1.5; must be a number of vCPUs, or a table"),
    "unknown-top": ("autostrt = true\n", ':1: autostrt: unknown key; did you mean "autostart"?'),
    "unknown-table": ('[boot]\nloder = "uefi"\n', ':2: boot.loder: unknown key; did you mean "loader"?'),
    "unknown-array": ('[[disk]]\npath = "/a"\nmodle = "nvme"\n', ':3: disk[0].modle: unknown key; did you mean "model"?'),
    "unknown-deep": ('[[disk]]\npath = "/a"\ncreate = { size = "1G", spars = true }\n', ":3: disk[0].create.spars: unknown key; did you"),
    "unknown-word": ('[boot]\nloader = "uefy"\n', ':2: boot.loader: found "uefy"; must be one of "uefi", '),
    "misplaced": (
        '[[disk]]\npath = "/a"\nautostart = true\n',
        ":3: disk[0].autostart: unknown key here; it belongs to the top of the file",
    ),
    "table-for-array": ('[disk]\npath = "/a"\n', ":1: disk: found a table; must be an array of tables: write [[disk]]"),
    "slot": ('[[disk]]\npath = "/a"\nslot = "99"\n', ':3: disk[0].slot: found "99"; a PCI slot has a bus up to 255'),
    "two-in-a-slot": (
        '[[disk]]\npath = "/b"\nslot = "4"\n[[disk]]\npath = "/c"\nslot = "4"\n',
        ":4: disk[1]: slot 0:4:0 belongs to disk[0] already",
    ),
    "mac": ('[[network]]\nbridge = "bridge0"\nmac = "58:9c:fc"\n', ':3: network[0].mac: found "58:9c:fc"; must be a MAC address such as'),
    "relative": ('[[disk]]\npath = "disk.img"\n', ':2: disk[0].path: found "disk.img"; must be an absolute path'),
    "no-template": ('template = ["bse"]\n', ':1: template: found "bse"; there is no such template; did you mean "base"?'),
    "circle": ('template = ["round"]\n', ""),  # said of the template
    "waits": ('[order]\nafter = ["wait"]\n', ""),  # said with the next
    "wait": ('[order]\nrequires = ["waits"]\n', ":1: order: guests wait for each other in a circle: "),
    "twice": ("cpus = 1\ncpus = 2\n", ':2: found "cpus = 2"; is no TOML: the key has a value already'),
    "unquoted": ("[stop]\ntimeout = 90s\n", ':2: found "timeout = 90s"; is no TOML: '),
    "latin": (b"# caf\xe9\n", ": is not UTF-8: line 1 has the byte 0xe9"),
    "bom": (b"\xef\xbb\xbfcpus = 1\n", ": begins with a byte order mark"),
    "deep": ("x = " + "[" * 3000, ": is no TOML: nested too deeply"),
}
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (lambda path: path.mkdir(), ": cannot be read: is a directory"),
    "fifo": (os.mkfifo, ": is no regular file"),
    "dangling": (lambda path: path.symlink_to("nowhere"), ": does not exist"),
    "loop": (lambda path: path.symlink_to("loop.toml"), ": cannot be read: too many levels of symbolic links"),
    "anybodys": (lambda path: (path.touch(), path.chmod(0o666)), ": may be written by anybody; take that away with chmod go-w"),
    "bad name": (lambda path: path.touch(), ": a guest's name begins with a letter or digit"),
}


@pytest.fixture
def said(tmp_path: Path) -> list[str]:
    """All that the command prints."""
    for directory in ("vm.d", "template.d"):
        (tmp_path / directory).mkdir(mode=0o755)
    (tmp_path / "bhyved.toml").touch(0o644)
    (tmp_path / "template.d/base.toml").touch(0o644)
    (tmp_path / "template.d/round.toml").write_text('template = ["round"]\n')
    for name, (text, _) in TEXTS.items():
        (tmp_path / f"vm.d/{name}.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        (tmp_path / f"vm.d/{name}.toml").chmod(0o644)
    for name, (make, _) in FILES.items():
        make(tmp_path / f"vm.d/{name}.toml")
    done = subprocess.run([*BHYVED, "check", "-c", str(tmp_path / "bhyved.toml")], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    return [line.replace(f"{tmp_path}/", "") for line in (done.stdout + done.stderr).splitlines()]


def test_one_line_each(said: list[str]) -> None:
    """Every broken file is told of at once, in one line; a circle of templates or guests once, and not for each that is in it."""
    begins = {name: start for table in (TEXTS, FILES) for name, (_, start) in table.items()}
    for name, start in begins.items():
        lines = [line for line in said if re.match(rf"vm\.d/{re.escape(name)}\.toml\b", line)]
        assert len(lines) == (1 if start else 0), (name, said)
        assert not start or lines[0].startswith(f"vm.d/{name}.toml{start}")
    assert 'template.d/round.toml:1: template: found "round"; templates go round in a circle: round → round' in said
    count = sum(1 for start in begins.values() if start) + 1
    assert said[-1] == f"bhyved: {count} problems"
    assert len(said) == count + 1
