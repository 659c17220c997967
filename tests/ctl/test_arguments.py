"""The command line: what is understood, what is refused, and what help says."""

import re
import subprocess
import sys
from typing import Any

import pytest

import bhyved
from bhyved.cli.ctl import function_of
from bhyved.ctl.arguments import parse
from bhyved.ctl.connection import Failure
from bhyved.ctl.habits import MEANT
from bhyved.ctl.helptext import general, grouped, of_verb, short
from bhyved.ctl.verbs import BY_NAME, VERBS, Verb
from tests.ctl.conftest import Vmctl


def asked(verb: str, *words: str) -> Any:
    return parse(BY_NAME[verb], words)


def test_options_and_names_may_be_mixed() -> None:
    """In any order, with `=` or without, short ones together."""
    found = asked("log", "a", "-fn5", "--grep=x=y", "b", "--boot", "-1", "--", "--all")

    assert found.names == ["a", "b", "--all"]
    assert (found.has("follow"), found.number("lines"), found.text("grep"), found.number("boot")) == (True, 5, "x=y", -1)


def test_the_last_of_two_options_counts() -> None:
    """So that an alias can be overruled."""
    assert not asked("start", "a", "--wait", "--no-wait").has("wait", True)
    assert asked("start", "a", "--no-wait", "--wait").has("wait", False)
    assert asked("start", "a").has("wait", True)


def test_durations_are_those_of_the_configuration() -> None:
    """`1h30m`, not seconds."""
    assert asked("hold", "a", "--for", "1h30m").seconds("for") == 5400


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("lits",), 'there is no verb "lits"; did you mean "list"? (vmctl --help)'),
        (("a", "start"), 'there is no verb "a"; the verb comes first: vmctl start a (vmctl --help)'),
        (("install", "web1"), 'there is no verb "install"; instead: vmctl start --install (vmctl --help)'),
        (("-f", "log"), "options of a verb come behind it: vmctl VERB -f …; `vmctl --help` lists the verbs"),
        (("list", "--jsn"), 'list: there is no option --jsn; did you mean "--json"? (vmctl list --help)'),
        (("list", "--foo"), "list: there is no option --foo (vmctl list --help)"),
        (("start", "-z", "a"), "start: there is no option -z"),
        (("start",), "start: it takes the name of a guest, or --all (vmctl start --help)"),
        (("start", "a", "--all"), "start: give names or --all, not both (vmctl start --help)"),
        (("why",), "why: it takes the name of a guest (vmctl why --help)"),
        (("create",), "create: it takes the name of one guest (vmctl create --help)"),
        (("create", "a", "b"), "create: it takes the name of one guest (vmctl create --help)"),
        (("reload", "a"), 'reload: it takes no names, and "a" is one (vmctl reload --help)'),
        (("drain", "--off", "--for", "1h"), "drain: --off ends a drain: it goes with no other option"),
        (("drain", "--off", "--wait"), "drain: --off ends a drain: it goes with no other option"),
        (("list", "--json=yes"), "list: --json takes no value (vmctl list --help)"),
        (("hold", "a", "--reason"), "hold: --reason needs a value: TEXT (vmctl hold --help)"),
        (("log", "a", "-n", "-5"), 'log: -n is a number, not "-5" (vmctl log --help)'),
        (("log", "a", "--boot", "x"), 'log: --boot is a number, not "x" (vmctl log --help)'),
        (("stop", "a", "-t", "5"), 'stop: -t "5": a duration is a number and ms, s, m, h, d or w, for example "90s" or "1h30m"'),
        (("plan", "a", "--release", "13"), 'plan: --release is one of 14, 15, main, not "13" (vmctl plan --help)'),
        (("log", "a", "--since", "soon"), '"soon" is no time: say how long ago, as in 10m or 1h30m, or when, as in 2026-01-31T12:00'),
    ],
)
def test_bad_usage(vmctl: Vmctl, words: tuple[str, ...], sentence: str) -> None:
    """Exit 64, and a sentence that says what would be right."""
    ran = vmctl(None, *words)

    assert (ran.status, ran.out) == (64, "")
    assert ran.err.startswith(f"vmctl: {sentence}")


def test_no_verb_is_bad_usage(vmctl: Vmctl) -> None:
    """It lists the verbs all the same."""
    ran = vmctl(None)

    assert (ran.status, ran.out, ran.err) == (64, "", short())


def test_help_and_version(vmctl: Vmctl) -> None:
    """Asked for, help goes to standard output, also without the names that the verb needs."""
    assert vmctl(None, "--help").out == vmctl(None, "help").out == general()
    assert vmctl(None, "start", "--help").out == vmctl(None, "help", "start").out == of_verb(BY_NAME["start"])
    assert vmctl(None, "--version").out == f"vmctl {bhyved.__version__}\n"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_fits_a_rescue_console(verb: Verb) -> None:
    """80 columns, every option, and no word of it left out."""
    text = of_verb(verb)

    assert max(map(len, text.splitlines())) < 80
    assert all(spelling in text for option in verb.options for spelling in option.spellings)


def test_every_verb_is_in_the_overview() -> None:
    """Within 80 columns, each once."""
    assert max(map(len, (general() + short()).splitlines())) < 80
    assert sorted(name for _, names in grouped() for name in names) == sorted(BY_NAME)
    assert "others" not in dict(grouped())


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_table_is_sound(verb: Verb) -> None:
    """Its function is there, no spelling is given twice, and every example can be parsed."""
    spellings = [spelling for option in verb.options for spelling in option.spellings]

    assert callable(function_of(verb))
    assert len(set(spellings)) == len(spellings)
    for command, _ in verb.examples:
        words = subprocess.run(
            ["/bin/sh", "-c", f"printf '%s\\n' {command.partition(' | ')[0]}"], check=True, capture_output=True, text=True
        )
        name, *rest = words.stdout.splitlines()[1:]
        assert name == verb.name
        parse(verb, rest)


EVERYDAY = ("list", "status", "show", "start", "stop", "restart", "reset", "poweroff", "nmi", "hold", "release", "why", "history", "events")
HEAVY = ("msgspec", "trio", "argparse", "json", "structlog", "enum", "typing", "re", "socket", "dataclasses", "datetime")


def test_everyday_verbs_import_little() -> None:
    """What costs more than the whole of vmctl is not imported until something needs it."""
    code = f"""
import sys
before = set(sys.modules)
from bhyved.cli.ctl import function_of
from bhyved.ctl.verbs import BY_NAME
for verb in {EVERYDAY!r}:
    function_of(BY_NAME[verb])
print(*(set(sys.modules) - before) & set({HEAVY!r}))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == []


def test_no_verb_imports_the_daemons_libraries() -> None:
    """Every verb, loaded: trio, structlog and argparse are not among what comes along."""
    code = """
import sys
from bhyved.cli.ctl import function_of
from bhyved.ctl.verbs import VERBS
for verb in VERBS:
    function_of(verb)
print(*set(sys.modules) & {"trio", "structlog", "argparse", "msgspec"})
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == []


def test_failures_carry_their_status() -> None:
    """`parse` refuses with the status of bad usage."""
    with pytest.raises(Failure) as failure:
        asked("reload", "x")

    assert failure.value.status == 64


@pytest.mark.parametrize(("word", "meant"), MEANT.items())
def test_habits_of_other_tools_lead_to_verbs_that_are(word: str, meant: str) -> None:
    """None is a verb here, and what is said instead has verbs and options of ours."""
    assert word not in BY_NAME
    for verb, option in re.findall(r"vmctl (\w+)(?: (--\w+))?", meant):
        assert not option or option in {spelling for each in BY_NAME[verb].options for spelling in each.spellings}
