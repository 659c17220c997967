"""Tables at a terminal: cut to its width, coloured only where a person looks."""

import re

import pytest

from bhyved.ctl.columns import pairs
from tests.ctl.played import playing, row
from tests.ctl.terminals import person

HELD = row("a", phase="held", uptime_s=None, reason="five crashes within ten minutes")
ROWS = {"version": 1, "vms": [row("web1"), HELD, row("sick", ill="no answer three times")]}


def screen(monkeypatch: pytest.MonkeyPatch, term: str, **environment: str) -> list[str]:
    """The lines of `vmctl list` at a terminal."""
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with playing(vm_list=ROWS) as daemon, person(daemon.path, "list", term=term) as somebody:
        assert somebody.status() == 0
        return somebody.screen.decode().replace("\r\n", "\n").splitlines()


def test_lines_are_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a line that does not fit is an ellipsis; colours take no room."""
    lines = screen(monkeypatch, "xterm", COLUMNS="60")
    bare = [re.sub("\x1b\\[[0-9]*m", "", line) for line in lines]

    assert bare[2] == "a     held           -         3  five crashes within ten m…"
    assert max(map(len, bare)) == 60


@pytest.mark.parametrize(
    ("columns", "heads", "held"),
    [
        (
            "79",
            "NAME  PHASE     UPTIME  RESTARTS  CPUS  MEMORY  REASON",
            "a     held           -         3     2      2G  five crashes within ten minutes",
        ),
        (
            "70",
            "NAME  PHASE     UPTIME  RESTARTS  MEMORY  REASON",
            "a     held           -         3      2G  five crashes within ten min…",
        ),
        ("40", "NAME  PHASE     REASON", "a     held      five crashes within ten…"),
        ("20", "NAME  PHASE     REA…", "a     held      fiv…"),
    ],
)
def test_a_narrow_terminal_shows_reasons(monkeypatch: pytest.MonkeyPatch, columns: str, heads: str, held: str) -> None:
    """Columns that change least go first, until something can be read of the last."""
    bare = [re.sub("\x1b\\[[0-9]*m", "", line) for line in screen(monkeypatch, "xterm", COLUMNS=columns)]

    assert (bare[0], bare[2]) == (heads, held)


def test_colour_is_for_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Green is up, red wants a person, also for a guest that is up and ill; the head is bold."""
    lines = screen(monkeypatch, "xterm")

    assert lines[0].startswith("\x1b[1mNAME")
    assert lines[1].startswith("web1  \x1b[32mup\x1b[m ")
    assert lines[2].startswith("a     \x1b[31mheld\x1b[m ")
    assert lines[3].startswith("sick  \x1b[31mup (ill)\x1b[m ")


@pytest.mark.parametrize(("term", "environment"), [("dumb", {}), ("xterm", {"NO_COLOR": "1"})])
def test_no_colour(monkeypatch: pytest.MonkeyPatch, term: str, environment: dict[str, str]) -> None:
    """Where the terminal has none, or somebody does not want it."""
    assert "\x1b" not in "".join(screen(monkeypatch, term, **environment))


def test_sentences_are_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the terminal would do it within them; a word that is longer than the line stays whole, to be copied."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    why = {
        "name": "a",
        "phase": "backoff",
        "sentences": ["a waits before it is started again: disk /dev/zvol/zroot/vm/a-disk-with-a-long-name is gone", "next start in 4s"],
        "runs": [],
        "hint": "vmctl start a starts it now and forgets the count",
    }
    with playing(vm_why=why) as daemon, person(daemon.path, "why", "a", term="xterm") as somebody:
        assert somebody.status() == 0
        lines = somebody.screen.decode().replace("\r\n", "\n").splitlines()

    assert lines == [
        "a waits before it is started again: disk",
        "  /dev/zvol/zroot/vm/a-disk-with-a-long-name",
        "  is gone",
        "  next start in 4s",
        "  hint: vmctl start a starts it now and",
        "    forgets the count",
    ]


def test_pairs_leave_out_what_there_is_not() -> None:
    """Names are padded to the longest that is shown."""
    assert pairs([("a", "1"), ("longer", ""), ("bc", "2")]) == "  a   1\n  bc  2\n"
