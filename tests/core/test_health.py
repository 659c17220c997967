"""What a round of probes means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.health import Course, Turn, after_round, sentence
from bhyved.core.spec import Health
from bhyved.core.units import Duration

RESET = Health(ping="192.0.2.1", tcp="192.0.2.1:80", failures=3, action="reset")
TELL = Health(ping="192.0.2.1", failures=2)
BAD, GOOD = {"ping": "no answer", "tcp": "connection refused"}, {"ping": "no answer", "tcp": ""}


def turns(spec: Health, *rounds: dict[str, str]) -> list[Turn]:
    course, said = Course(), []
    for answers in rounds:
        course, turn = after_round(spec, course, answers)
        said.append(turn)
    return said


def test_all_must_fail_several_times_in_a_row() -> None:
    """One success of one probe, and the count begins anew."""
    assert turns(RESET, BAD, BAD, GOOD, BAD, BAD, BAD) == [Turn.NOTHING] * 5 + [Turn.ILL]


def test_an_illness_is_told_once_and_its_end_too() -> None:
    """However long it lasts."""
    assert turns(TELL, *[{"ping": "no"}] * 6, {"ping": ""}, {"ping": ""}) == [
        Turn.NOTHING,
        Turn.ILL,
        *[Turn.NOTHING] * 4,
        Turn.WELL,
        Turn.NOTHING,
    ]


def test_a_remedy_is_tried_again_after_as_many_failures() -> None:
    """A guest that is being reset gets that time."""
    assert [turn is Turn.ILL for turn in turns(RESET, *[BAD] * 6)] == [False, False, True, False, False, True]


@given(st.lists(st.dictionaries(st.sampled_from(["ping", "tcp", "agent"]), st.sampled_from(["", "no"]), min_size=1)), st.integers(1, 5))
def test_nobody_who_answers_is_ill(rounds: list[dict[str, str]], failures: int) -> None:
    """In any history: a guest falls ill only in a round without an answer, with as many such rounds right before."""
    spec = Health(ping="192.0.2.1", tcp="192.0.2.1:80", failures=failures, action="reset")
    for place, turn in enumerate(turns(spec, *rounds)):
        if turn is Turn.ILL:
            assert all(all(answers.values()) for answers in rounds[place - failures + 1 : place + 1])
            assert place + 1 >= failures


def test_why() -> None:
    """Which probes, what they were answered, and how often."""
    assert sentence(RESET, BAD) == "ping (no answer), tcp (connection refused) failed 3 times in a row, 30s apart"
    assert sentence(Health(ping="192.0.2.1", failures=1), {"ping": "no answer"}) == "ping (no answer) failed once"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "at least one of"),
        ({"ping": "192.0.2.1", "action": "reset"}, "two probes at least"),
        ({"vcpus": True, "action": "nmi"}, "two probes at least"),
        ({"ping": "192.0.2.1", "period": Duration(0)}, "at least 1s"),
        ({"command": ()}, "must not be empty"),
    ],
)
def test_what_is_refused(table: dict[str, object], words: str) -> None:
    """A remedy that one broken probe could cause, and looks without a pause."""
    with pytest.raises(ValueError, match=words):
        Health(**table)  # type: ignore[arg-type]
