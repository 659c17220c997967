"""`[limits]` as rules of rctl(8): which are to go, which to come, and what is refused."""

import pytest

from bhyved.core.config import Source, load
from bhyved.core.limits import Limits, refusal, rules, steps
from bhyved.core.units import Size

ALL = Limits(pcpu=150, readbps=Size(50 << 20), writebps=Size(20 << 20), readiops=1000, writeiops=500)
PCPU = Limits(pcpu=150)


def problems(text: str) -> list[str]:
    found = load(Source("bhyved.toml", ""), {"web1": Source("web1.toml", f'memory = "1G"\n[limits]\n{text}\n')}, {})
    return [str(problem) for problem in found.problems]


def test_each_resource_has_its_action() -> None:
    """A processor's share is denied, reading and writing are throttled; sizes become bytes, which rctl counts."""
    assert rules(ALL, 4711) == (
        "process:4711:pcpu:deny=150",
        "process:4711:readbps:throttle=52428800",
        "process:4711:writebps:throttle=20971520",
        "process:4711:readiops:throttle=1000",
        "process:4711:writeiops:throttle=500",
    )
    assert str(ALL) == "pcpu 150, readbps 50M, writebps 20M, readiops 1000, writeiops 500"


@pytest.mark.parametrize(
    ("limits", "listing", "remove", "add"),
    [
        (PCPU, "", (), ("process:7:pcpu:deny=150",)),
        (PCPU, "process:7:pcpu:deny=150\n", (), ()),
        (PCPU, "process:7:pcpu:deny=100\n", ("process:7:pcpu:deny",), ("process:7:pcpu:deny=150",)),
        (None, "process:7:pcpu:deny=100\nprocess:7:readiops:throttle=9\n", ("process:7:pcpu:deny", "process:7:readiops:throttle"), ()),
        # Another throttle would stand beside it, and the lower one would hold.
        (
            Limits(readiops=9),
            "process:7:readiops:throttle=5\nprocess:7:readiops:throttle=9\n",
            ("process:7:readiops:throttle",),
            ("process:7:readiops:throttle=9",),
        ),
        # What is not ours: another resource, another action, another process.
        (None, "process:7:openfiles:deny=9\nprocess:7:pcpu:log=90\nprocess:8:pcpu:deny=1\nuser:root:pcpu:deny=1\n", (), ()),
        (None, "", (), ()),
    ],
)
def test_from_the_rules_that_are_to_those_that_should_be(
    limits: Limits | None, listing: str, remove: tuple[str, ...], add: tuple[str, ...]
) -> None:
    """What holds already is left, what differs goes first, and an operator's own rules stay."""
    assert steps(limits, 7, listing) == (remove, add)


@pytest.mark.parametrize(
    "text", ["pcpu = 150", 'readbps = "50M"\nwritebps = "1G"', "readiops = 1\nwriteiops = 1", 'pcpu = 1\nreadbps = "1K"\nwriteiops = 7']
)
def test_sound(text: str) -> None:
    """Any of them."""
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must have at least one of pcpu, readbps, writebps, readiops, writeiops"),
        ("pcpu = 0", "limits.pcpu"),
        ('pcpu = "150%"', "limits.pcpu"),
        ('readbps = "0K"', 'limits.readbps: found "0K"; must be more than 0'),
        ("readbps = 50", "limits.readbps: found 50; must be text, in quotes"),
        ('memoryuse = "1G"', "memoryuse"),
        ("readops = 5", '"readiops"'),
    ],
)
def test_unsound(text: str, sentence: str) -> None:
    """Each with its key, and what would be right."""
    (problem,) = problems(text)
    assert sentence in problem


@pytest.mark.parametrize(("racct", "word"), [("1", ""), ("0", "kern.racct.enable=1 into /boot/loader.conf"), ("", "without RACCT")])
def test_a_host_that_does_not_count(racct: str, word: str) -> None:
    """What to do about it depends on why."""
    assert word in refusal(racct, jailed=False)
    assert bool(refusal(racct, jailed=False)) is bool(word)


@pytest.mark.parametrize("racct", ["1", "0", ""])
def test_a_jail_may_set_no_rules(racct: str) -> None:
    """Whatever its host counts; rules for the jail as a whole are its host's to set."""
    assert "on its host, jail:NAME:pcpu" in refusal(racct, jailed=True)
