"""bhyved(8) says what the program and the rc script do: the same options, variables, files and exit statuses."""

import re
import subprocess
import sys

from bhyved.app.daemon import SOCKET, URL_FILE
from bhyved.app.signals import LEFT, SHUTDOWN_FILE
from bhyved.cli import daemon
from tests.system.rchost import ROOT

PAGE = (ROOT / "docs/man/bhyved.8").read_text()
SCRIPT = (ROOT / "rc.d/bhyved").read_text()


def items(heading: str) -> str:
    """The text of one section."""
    return PAGE.split(f".Sh {heading}\n")[1].split("\n.Sh ")[0]


def test_options_and_commands() -> None:
    """Every option and command of the program is on the page, and no other."""
    usage = subprocess.run([sys.executable, "-m", "bhyved", "--help"], capture_output=True, text=True, check=True).stdout
    said = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage)) - {"-h", "--help"}
    commands = re.search(r"\{([a-z,]+)\}", usage)
    assert commands is not None

    description = items("DESCRIPTION")
    lines = re.findall(r"^\.It (Fl .*)$", description, re.MULTILINE)

    assert {f"-{word}" for line in lines for word in re.findall(r"Fl ([a-z-]+)", line)} == said
    assert set(re.findall(r"^\.It Cm (\w+)$", description, re.MULTILINE)) == set(commands[1].split(","))


def test_variables_of_rc_conf() -> None:
    """The page's variables and defaults are the script's."""
    written = dict(re.findall(r"^\.It Va (bhyved_\w+) Pq Dq ?(.*)$", PAGE, re.MULTILINE))
    in_header = dict(re.findall(r'^# (bhyved_\w+)="(.*)"', SCRIPT, re.MULTILINE))
    defaults = dict(re.findall(r'^: "\$\{(bhyved_\w+):=(.*)\}"$', SCRIPT, re.MULTILINE))

    assert written == in_header
    assert {name: value for name, value in written.items() if value} == {name: defaults[name] for name in written if name in defaults}


def test_exit_statuses() -> None:
    """The respawner, the page and the program agree on what a status means."""
    written = set(map(int, re.findall(r"^\.It (\d+)$", items("EXIT STATUS"), re.MULTILINE)))
    respawn = (ROOT / "rc.d/respawn").read_text()

    assert written == {daemon.OK, daemon.FAILED, daemon.USAGE, daemon.CONFIG, LEFT}
    assert set(map(int, re.findall(r"^\t(\d+)\)$", respawn, re.MULTILINE))) == {daemon.OK, daemon.CONFIG, LEFT}


def test_files() -> None:
    """The files that rc script, respawner and daemon share have one name."""
    names = set(re.findall(r"^\.It Pa /var/run/bhyved/([\w.]+)$", items("FILES"), re.MULTILINE))

    assert names == {SOCKET, URL_FILE, SHUTDOWN_FILE, "bhyved.pid", "respawner.pid", "bhyved.stderr"}
    assert SOCKET in SCRIPT
    assert f"/{SHUTDOWN_FILE}" in SCRIPT
