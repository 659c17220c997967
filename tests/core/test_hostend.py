"""The end of the host: what the rc script says, how much time that is, and who gets how much of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import hostend
from bhyved.core.hostend import HostEnd
from bhyved.core.ladder import climb, needed_s
from bhyved.core.spec import Stop
from bhyved.core.units import Duration


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("reason=reboot\ntimeout=90\nused=12\n", HostEnd(reason="reboot", timeout_s=90.0, used_s=12.0)),
        ("reason=service stop\n", HostEnd(reason="service stop")),
        ("timeout=0\n", HostEnd(timeout_s=0.0)),
        ("timeout=90", HostEnd(timeout_s=90.0)),
        ("timeout=99999999\n", HostEnd(timeout_s=99_999_999.0)),
        ("reason=a=b=c\n", HostEnd(reason="a=b=c")),
        (f"reason={'x' * 200}\n", HostEnd(reason="x" * 80)),
        ("", HostEnd()),
    ],
)
def test_what_the_rc_script_says(text: str, end: HostEnd) -> None:
    """A file without a timeout is a plain stop of the service; an empty `used` is none."""
    assert hostend.parse(text) == end


@pytest.mark.parametrize("word", ["-1", "1e9", "nan", "9" * 9, "٣", "ninety", "1.5", "", " "])
def test_a_number_that_is_none_is_not_said(word: str) -> None:
    """Nonsense sets no deadline: a stop with every guest's own time is better than one of a second."""
    assert hostend.parse(f"timeout={word}\nused={word}\n") == HostEnd()


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Whatever stands in the file, the stop goes on."""
    end = hostend.parse(text)

    assert len(end.reason) <= 80
    assert end.used_s >= 0
    assert end.timeout_s is None or end.timeout_s >= 0


@pytest.mark.parametrize(
    ("rcshutdown_s", "init_s", "budget_s"),
    [
        (90.0, 120.0, 85.0),  # FreeBSD's defaults
        (None, None, 85.0),
        (300.0, 120.0, 115.0),  # init does not wait for rc.shutdown's watchdog
        (0.0, 600.0, 595.0),  # 0 switches rc.shutdown's watchdog off, not init's
        (90.0, 1.0, 85.0),  # init takes values below 2 as 120
        (90.0, 2.0, 0.0),
        (200.0, 0.0, 115.0),
        (3.0, 120.0, 0.0),
    ],
)
def test_the_budget(rcshutdown_s: float | None, init_s: float | None, budget_s: float) -> None:
    """The sooner of two watchdogs, less what is kept back; never less than nothing."""
    assert hostend.budget_s(rcshutdown_s, init_s, 5.0) == budget_s


def test_the_deadline_counts_what_others_have_used() -> None:
    """rc.shutdown stopped other services for 12 s before ours."""
    assert hostend.deadline(HostEnd(timeout_s=90.0, used_s=12.0), 120.0, 5.0, now=1000.0) == 1073.0
    assert hostend.deadline(HostEnd(timeout_s=90.0, used_s=200.0), 120.0, 5.0, now=1000.0) == 1000.0
    assert hostend.deadline(HostEnd(timeout_s=60.0), 120.0, 5.0, now=1000.0) == 1055.0
    assert hostend.deadline(HostEnd(timeout_s=60.0), 40.0, 5.0, now=1000.0) == 1035.0
    assert hostend.deadline(HostEnd(), 120.0, 5.0, now=1000.0) is None


def test_a_chain_is_the_longest_row_of_stops() -> None:
    """web and mail wait for nobody, db for both, nfs for db; alone belongs to none."""
    behind = {"db": frozenset({"web", "mail"}), "nfs": frozenset({"db", "gone"}), "web": frozenset[str]()}

    chains = hostend.chains(behind, {"web": 10.0, "mail": 20.0, "db": 40.0, "nfs": 5.0, "alone": 7.0})

    assert chains == {"web": 55.0, "mail": 65.0, "db": 45.0, "nfs": 5.0, "alone": 7.0}


def test_a_cycle_ends() -> None:
    """Files refuse cycles, adopted guests may still have one: the stop must not hang."""
    chains = hostend.chains({"a": frozenset({"b"}), "b": frozenset({"a"})}, {"a": 1.0, "b": 1.0})

    assert chains.keys() == {"a", "b"}
    assert max(chains.values()) == 2.0


def test_shares() -> None:
    """Each gets in proportion to what it needs; without a deadline nobody is limited."""
    assert hostend.share_end(100.0, 40.0, 10.0, 60.0) == pytest.approx(50.0)
    assert hostend.share_end(100.0, 40.0, 10.0, 10.0) == 100.0
    assert hostend.share_end(100.0, 130.0, 10.0, 60.0) == 130.0
    assert hostend.share_end(None, 40.0, 10.0, 60.0) is None


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6), st.floats(1, 1000))
def test_a_row_of_deaf_guests_ends_in_time(timeouts: list[int], left_s: float) -> None:
    """However the timeouts are, each guest of a row is ended by the deadline, and if all fit each gets its whole grace."""
    needs = [needed_s(timeout) for timeout in timeouts]
    now = 0.0
    for place, timeout in enumerate(timeouts):
        end_at = hostend.share_end(left_s, now, needs[place], sum(needs[place:]))
        assert end_at is not None
        steps = climb(Stop(timeout=Duration(timeout)), now, end_at=end_at)

        if sum(needs) <= left_s:
            assert steps.force_at - now == pytest.approx(timeout, abs=0.01)
        assert now < end_at <= left_s + 0.001
        assert steps.give_up_at <= end_at + 0.001
        now = end_at
