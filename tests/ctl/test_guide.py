"""The guide says what works: its configurations are read, its commands parsed, its links followed."""

import json
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from bhyved.core.config import Source, load
from bhyved.core.status import Phase
from bhyved.ctl.arguments import find_verb, parse
from bhyved.daemon.hooks import _story
from tests.ctl.conftest import Vmctl
from tests.daemon.webkit import crowd

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guide"
PAGES = sorted(GUIDE.glob("*.md"))
TEMPLATES = {path.stem: Source(str(path), path.read_text()) for path in (ROOT / "etc/template.d").glob("*.toml")}
EXAMPLES = ROOT / "etc/examples/hooks"


def blocks(page: Path, *kinds: str) -> list[str]:
    """Its fenced blocks of these kinds; '' has none."""
    return [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE) if kind in kinds]


CONFIGURATIONS = [pytest.param(text, id=f"{page.stem}-{number}") for page in PAGES for number, text in enumerate(blocks(page, "toml"))]


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configurations_are_read(text: str) -> None:
    """As a guest's file or the daemon's, without a problem."""
    files = dict(re.findall(r"# vm\.d/(\w+)\.toml\n(.*?)(?=# vm\.d/|\Z)", text, re.DOTALL)) or {"web1": text}
    others = {name: Source(name, "") for name in ("db1", "web1") if name not in files}
    as_guest = load(Source("", ""), others | {name: Source(name, body) for name, body in files.items()}, TEMPLATES).problems
    as_daemon = load(Source("", text), {}, {}).problems

    assert not as_guest or not as_daemon, [str(problem) for problem in (*as_guest, *as_daemon)]


def commands(page: Path) -> list[str]:
    lines = [line for text in blocks(page, "", "console", "sh") for line in text.splitlines()]
    typed = [line[2:] for line in lines if re.match(r"[#$] \S", line)]
    inline = [named(command) for command in re.findall(r"`(vmctl [a-z]+ [^`]*)`", page.read_text())]
    return [command.partition(" > ")[0].partition(" | ")[0] for command in (*typed, *inline)]


def named(command: str) -> str:
    """A command in the running text may leave the guest to the reader."""
    _, verb, *words = command.split()
    is_named = any(word == "--all" or not word.startswith("-") for word in words)
    return command if is_named or find_verb(verb).guests in ("none", "any") else f"{command} web1"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_can_be_parsed(page: Path) -> None:
    """Every vmctl of the page, with its verb, options and names."""
    for command in commands(page):
        words = shlex.split(command, comments=True)
        if words[0] == "vmctl" and not words[1].startswith("-"):
            parse(find_verb(words[1]), words[2:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Other pages and pictures are there."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_index_has_every_page() -> None:
    """Each once."""
    listed = re.findall(r"\]\((\S+\.md)\)", (GUIDE / "README.md").read_text())
    assert sorted(listed) == [page.name for page in PAGES if page.name != "README.md"]


def test_the_first_guest_is_what_create_writes(vmctl: Vmctl) -> None:
    """The file in the guide is the one that the command above it makes."""
    command, _ = (command for command in commands(GUIDE / "first-guest.md") if command.startswith("vmctl create"))  # the other is a lab's
    with tempfile.TemporaryDirectory(prefix="bhg") as directory:  # short: longer lines would be broken elsewhere
        root = Path(directory)
        shutil.copytree(ROOT / "etc/template.d", root / "template.d")
        (root / "debian.iso").touch()
        (root / "vm.d").mkdir()
        (root / "bhyved.toml").write_text(f'[paths]\ndb = "{root}/db"\n')
        ran = vmctl(None, *shlex.split(command.replace("/iso/", f"{root}/"))[1:], "-c", f"{root}/bhyved.toml")
        written = (root / "vm.d/web1.toml").read_text()

    assert ran.status == 0
    assert written.replace(f"{root}/db", "/var/db/bhyved").replace(str(root), "/iso") == blocks(GUIDE / "first-guest.md", "toml")[0]


def test_every_hook_is_described() -> None:
    """Each moment has its row, and the object that a hook is told has these keys."""
    from bhyved.core.spec import Hooks

    text = (GUIDE / "hooks.md").read_text()
    moments = {field.replace("_", "-") for field in Hooks.__struct_fields__ if field != "timeout"}
    (told,) = blocks(GUIDE / "hooks.md", "json")
    shown, real = json.loads(told), json.loads(_story("crash", crowd()[0]))

    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == moments
    assert shown.keys() == real.keys()
    assert shown["last_exit"].keys() == real["last_exit"].keys()
    assert shown["restarts"].keys() == real["restarts"].keys()


def test_the_examples_are_those_of_the_guide() -> None:
    """But for the comment that says what they are."""
    shown = blocks(GUIDE / "hooks.md", "sh")
    files = [re.sub(r"^# .*\n", "", (EXAMPLES / name).read_text(), flags=re.MULTILINE) for name in ("webhook", "mail")]

    assert shown == files
    assert all(path.stat().st_mode & 0o111 for path in EXAMPLES.iterdir())


def test_the_examples_do_what_they_say(tmp_path: Path) -> None:
    """With stand-ins for curl, vmctl and mail: the story goes to the address, and the mail has subject and text."""
    seen = tmp_path / "seen"
    for name, body in (
        ("curl", f'echo "$@" >{seen}; cat >>{seen}'),
        ("vmctl", 'echo "why: $2"'),
        ("mail", f'echo "$@" >{seen}; cat >>{seen}'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def ran(name: str, argument: str) -> str:
        script = tmp_path / "hook"
        script.write_text(re.sub(r"/usr/(local/)?bin/", f"{tmp_path}/", (EXAMPLES / name).read_text()))
        environment = {"PATH": "/usr/bin:/bin", "BHYVED_VM": "web1", "BHYVED_REASON": 'crashed; "x" $(y)'}
        subprocess.run(["/bin/sh", str(script), argument], input=b'{"vm": "web1"}\n', env=environment, check=True)
        return seen.read_text()

    assert ran("webhook", "https://example.org/x").splitlines()[0].endswith("--data-binary @- https://example.org/x")
    assert seen.read_text().endswith('{"vm": "web1"}\n')
    assert ran("mail", "root") == '-s web1: crashed; "x" $(y) root\nwhy: web1\n'


def test_the_recorded_session_is_one() -> None:
    """A cast that asciinema plays: a head, and output whose times grow; small, and without a path of the machine it was made on."""
    head, *events = [json.loads(line) for line in (GUIDE / "pictures/console.cast").read_text().splitlines()]
    times = [at for at, _, _ in events]
    text = "".join(data for _, _, data in events)

    assert (head["version"], {kind for _, kind, _ in events}) == (2, {"o"})
    assert times == sorted(times)
    assert times[-1] < 60
    assert all(words in text for words in ("boot 1 clean", "boot 2 clean", "bhyved has gone", "bhyved is back", "go on"))
    assert not re.search(r"/(tmp|home|root|work)/", text)
    assert all((GUIDE / "pictures" / name).stat().st_size < 100_000 for name in ("console.cast", "console.svg"))


def test_the_phases_are_explained() -> None:
    """Each once, in the order of their kind: in the guide, and in vmctl(8)."""
    table = re.findall(r"^\| `(\w+)` \|", (GUIDE / "words.md").read_text(), re.MULTILINE)
    manual = re.search(r"^\.Sh PHASES\n(.*?)^\.El\n", (ROOT / "docs/man/vmctl.8").read_text(), re.DOTALL | re.MULTILINE)
    assert manual is not None

    assert table == list(Phase)
    assert re.findall(r"^\.It Ic (\w+)$", manual[1], re.MULTILINE) == list(Phase)
