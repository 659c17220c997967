"""vmctl(8) says what the program does: the same verbs with the same options, and commands that can be run."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bhyved.ctl import connection
from bhyved.ctl.arguments import find_verb, parse
from bhyved.ctl.helptext import grouped, of_verb
from bhyved.ctl.verbs import COMMON, VERBS, Option, Verb

PAGE = (Path(__file__).parents[2] / "docs/man/vmctl.8").read_text()
ITEM = re.compile(r"^\.It ((?:Fl \S+(?: , )?)+)(?: Ar (\S+))?$", re.MULTILINE)


def section(title: str) -> str:
    return PAGE.partition(f".Sh {title}\n")[2].partition("\n.Sh ")[0]


def options(text: str) -> dict[tuple[str, ...], str]:
    """Spellings and value of each option that is described."""
    return {tuple(f"-{word}" for word in re.findall(r"Fl (\S+)", item)): value for item, value in ITEM.findall(text)}


def of_table(entries: tuple[Option, ...]) -> dict[tuple[str, ...], str]:
    return {option.spellings: option.value for option in entries}


def described() -> dict[str, str]:
    """The part of each verb."""
    parts = re.split(r"^\.Ss (\S+)\n", section("VERBS"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_verb_is_described_once() -> None:
    """In any order: the help groups them."""
    assert sorted(described()) == sorted(verb.name for verb in VERBS)
    assert sorted(name for _, names in grouped() for name in names) == sorted(described())


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_options_are_those_of_the_program(verb: Verb) -> None:
    """Spellings and values, none missing and none too many."""
    assert options(described()[verb.name]) == of_table(tuple(option for option in verb.options if option not in COMMON))


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_synopsis_of_a_verb_is_the_usage_of_its_help(verb: Verb) -> None:
    """What stands behind its options: names, how many, and what may stand in their place."""
    line = described()[verb.name].partition("\n.Pp")[0].replace("\n.", " ")
    line = line.removeprefix(".Nm vmctl Cm ").replace("Oo Ar option ... Oc", "[Ar option ...]").replace("Fl -", "--")
    said = re.sub(r"Op ((?:Ar )?\S+(?: \.\.\.)?)", r"[\1]", line)
    said = re.sub(r"Ar (\w+)", lambda found: found[1].upper(), said)

    assert of_verb(verb).startswith(f"usage: vmctl {said}\n")


def test_options_of_every_verb() -> None:
    """They are described once, in front."""
    assert options(section("DESCRIPTION")) == of_table(COMMON)


def test_exit_statuses_are_those_of_the_program() -> None:
    """Every status that the client knows, and the one of an interrupt."""
    names = ("OK", "FAILED", "USAGE", "UNREACHABLE", "TIMED_OUT", "NOT_PERMITTED", "CONFIG")

    listed = [int(number) for number in re.findall(r"^\.It (\d+)$", section("EXIT STATUS"), re.MULTILINE)]
    assert listed == [*(getattr(connection, name) for name in names), 130]


def test_examples_can_be_parsed() -> None:
    """Each command of the page."""
    commands = [
        words[: words.index("|") if "|" in words else None]
        for block in re.findall(r"\.Bd -literal -offset indent\n(.*?)\n\.Ed", PAGE, re.DOTALL)
        for line in re.split(r"\n| && ", block.replace(r"\e", "\\"))
        if line.startswith("vmctl ")
        for words in [shlex.split(re.sub(r" (<<|>).*", "", line), comments=True)]
    ]

    assert len(commands) > 5
    for _, verb, *words in commands:
        parse(find_verb(verb), words)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_nothing() -> None:
    """But for pages that this host does not have."""
    path = Path(__file__).parents[2] / "docs/man/vmctl.8"
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "style", str(path)], check=False, capture_output=True, text=True)

    assert [line for line in done.stdout.splitlines() if "referenced manual not found" not in line] == []
