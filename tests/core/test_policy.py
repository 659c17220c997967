"""What follows the end of a run: limits with windows, back-off, forgiveness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import policy
from bhyved.core.exits import Exit, ExitKind
from bhyved.core.policy import HoldFor, StartAt, Stay, Verdict, attempts, decision, delay_s, judge, judge_failed_start
from bhyved.core.spec import Restart
from bhyved.core.status import Book
from bhyved.core.units import Duration, Limit

CRASH, REBOOT, OFF = ExitKind.TRIPLE_FAULT, ExitKind.REBOOT, ExitKind.POWEROFF


def end(kind: ExitKind) -> Exit:
    return Exit(kind=kind, text="the end")


def replay(restart: Restart, *ends: tuple[float, ExitKind], uptime_s: float = 1.0) -> tuple[Verdict, Book]:
    """Judge a history of ends; the last verdict."""
    book = Book()
    for now, kind in ends:
        verdict, book = judge(restart, end(kind), book, uptime_s=uptime_s, now=now, rng=lambda: 0.0)
    return verdict, book


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (REBOOT, StartAt(10.0, "the guest rebooted", "reboot")),
        (OFF, Stay("the guest powered off")),
        (ExitKind.HALT, Stay("the guest halted")),
        (ExitKind.SUSPENDED, Stay("suspended")),
        (ExitKind.CONFIG_ERROR, HoldFor("the end")),
        (ExitKind.START_ERROR, StartAt(12.0, "the end (failed start 1)", "start_failure")),
        *((kind, StartAt(12.0, "the end", "crash")) for kind in sorted(policy.CRASHES)),
    ],
)
def test_each_kind_of_end(kind: ExitKind, verdict: Verdict) -> None:
    """With the defaults: a reboot restarts at once, a crash and a failed start after 2 s, the rest does not."""
    assert replay(Restart(), (10.0, kind))[0] == verdict


def test_a_start_that_would_fail_for_ever_is_not_tried_again() -> None:
    """A saved state that bhyve cannot restore waits for a person."""
    end = Exit(kind=ExitKind.START_ERROR, text="cannot be restored", hint="boot it", final=True)
    verdict, book = judge(Restart(), end, Book(), uptime_s=0.1, now=10.0, rng=lambda: 0.0)

    assert (verdict, book) == (HoldFor("cannot be restored: boot it"), Book())


def test_every_kind_is_judged() -> None:
    """The kinds that are no crash are those with a rule of their own."""
    others = {REBOOT, OFF, ExitKind.HALT, ExitKind.SUSPENDED, ExitKind.CONFIG_ERROR, ExitKind.START_ERROR}
    assert policy.CRASHES | others == set(ExitKind)
    assert not policy.CRASHES & others


def test_the_other_choices() -> None:
    """on-reboot, on-poweroff and on-crash each turn one rule round."""
    assert replay(Restart(on_reboot="stop"), (1.0, REBOOT))[0] == Stay("the guest rebooted, and on-reboot says stop")
    assert replay(Restart(on_crash="stop"), (1.0, CRASH))[0] == Stay("the end, and on-crash says stop")
    assert replay(Restart(on_poweroff="restart"), (1.0, OFF))[0] == StartAt(1.0, "the guest powered off", "reboot")


def test_the_first_reboot_is_immediate_and_those_after_it_wait() -> None:
    """0, 2, 4, 8 and 16 s; the sixth within the window is over the limit of five."""
    waits = []
    for count in range(1, 6):
        verdict, _ = replay(Restart(), *((float(i), REBOOT) for i in range(count)))
        assert isinstance(verdict, StartAt)
        waits.append(verdict.at - (count - 1))
    assert waits == [0.0, 2.0, 4.0, 8.0, 16.0]
    over, _ = replay(Restart(), *((float(i), REBOOT) for i in range(6)))
    assert over == HoldFor("rebooted 6 times in 5m: over its reboot-limit of 5 in 5m")


def test_a_window_slides() -> None:
    """Five crashes long ago do not count against one of today, and the back-off begins anew."""
    verdict, book = replay(Restart(), *((float(i), CRASH) for i in range(5)), (604.5, CRASH))
    assert verdict == StartAt(606.5, "the end", "crash")
    assert book.crashes == (604.5,)


def test_the_sixth_crash_within_the_window_holds() -> None:
    """And says how many, in how long, and what the last one was."""
    verdict, _ = replay(Restart(), *((100.0 * i, CRASH) for i in range(6)))
    assert verdict == HoldFor("crashed 6 times in 10m: over its crash-limit of 5 in 10m; last: the end")


def test_slow_instead_of_held() -> None:
    """Over the limit, `slow` tries on every backoff-max."""
    verdict, _ = replay(Restart(over_limit="slow"), *((float(i), CRASH) for i in range(6)))
    assert verdict == StartAt(
        5.0 + 60.0, "crashed 6 times in 10m: over its crash-limit of 5 in 10m; last: the end; trying on slowly", "crash"
    )
    verdict, _ = replay(Restart(over_limit="slow"), *((float(i), REBOOT) for i in range(6)))
    assert verdict == StartAt(5.0 + 60.0, "rebooted 6 times in 5m: over its reboot-limit of 5 in 5m; trying on slowly", "reboot")


def test_the_fifth_crash_within_the_window_restarts() -> None:
    """A limit of five allows five."""
    verdict, _ = replay(Restart(), *((float(i), CRASH) for i in range(5)))
    assert verdict == StartAt(4.0 + 32.0, "the end", "crash")


def test_a_power_off_that_restarts_is_a_reboot() -> None:
    """Those after the first wait as reboots do, and the limit is theirs."""
    restart = Restart(on_poweroff="restart")
    assert replay(restart, (1.0, REBOOT), (2.0, OFF))[0] == StartAt(2.0 + 2.0, "the guest powered off", "reboot")
    over, _ = replay(restart, *((float(i), OFF) for i in range(6)))
    assert over == HoldFor("powered off 6 times in 5m: over its reboot-limit of 5 in 5m")


def test_reboots_and_crashes_count_apart() -> None:
    """Five of each within the window are not over either limit."""
    ends = [(float(i), kind) for i in range(5) for kind in (CRASH, REBOOT)]
    verdict, book = replay(Restart(), *ends)
    assert isinstance(verdict, StartAt)
    assert (len(book.crashes), len(book.reboots)) == (5, 5)


def test_a_run_that_was_stable_is_forgiven_everything() -> None:
    """Up for stable-after: the next crash is the first."""
    restart = Restart(stable_after=Duration(60))
    _, book = replay(restart, *((float(i), CRASH) for i in range(5)))
    verdict, _ = judge(restart, end(CRASH), book, uptime_s=59.9, now=70.0, rng=lambda: 0.0)
    assert isinstance(verdict, HoldFor)
    verdict, book = judge(restart, end(CRASH), book, uptime_s=60.0, now=70.0, rng=lambda: 0.0)
    assert verdict == StartAt(72.0, "the end", "crash")
    assert book == Book(crashes=(70.0,))


def test_failed_starts_go_on_for_ever_ever_more_slowly() -> None:
    """Storage and networks come back; 2, 4, 8, 16, 32, then 60 s each."""
    book, waits = Book(), []
    for _ in range(50):
        verdict, book = judge_failed_start(Restart(), "no tap", book, now=0.0, rng=lambda: 0.0)
        assert isinstance(verdict, StartAt)
        waits.append(verdict.at)
    assert waits[:7] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert book.failures == 50
    assert verdict.reason == "no tap (failed start 50)"


def test_a_remedy_is_part_of_the_sentence() -> None:
    """What bhyve said and what to do about it."""
    fault = Exit(kind=ExitKind.CONFIG_ERROR, text="bhyve refused its configuration", hint="set wired = true")
    assert judge(Restart(), fault, Book(), uptime_s=0.0, now=0.0, rng=lambda: 0.0)[0] == HoldFor(
        "bhyve refused its configuration: set wired = true"
    )


def test_how_near_the_limit() -> None:
    """Only what is within the windows is shown, and what is left is the smaller of the two."""
    book = Book(reboots=(0.0, 290.0), crashes=(1.0, 2.0, 3.0, 4.0), failures=7)
    assert attempts(Restart(), book, 295.0) == ("reboot 2 of 5, crash 4 of 5, failed start 7", 1)
    assert attempts(Restart(), book, 302.0) == ("reboot 1 of 5, crash 4 of 5, failed start 7", 1)
    assert attempts(Restart(), Book(), 0.0) == ("", 5)
    assert attempts(Restart(), Book(reboots=(1.0, 2.0, 3.0), crashes=(1.0,)), 4.0) == ("reboot 3 of 5, crash 1 of 5", 2)
    assert attempts(Restart(), Book(crashes=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)), 7.0) == ("crash 6, over the limit of 5 in 10m", 0)


def test_a_window_ends_with_its_last_moment() -> None:
    """What is as long ago as the window is wide has left it."""
    assert attempts(Restart(), Book(reboots=(0.0,)), 299.9) == ("reboot 1 of 5", 4)
    assert attempts(Restart(), Book(reboots=(0.0,)), 300.0) == ("", 5)


def test_the_last_that_is_within_a_limit_and_the_first_over_it() -> None:
    """Five of five are no excess."""
    slow = Restart(over_limit="slow")
    book = Book(crashes=(1.0, 2.0, 3.0, 4.0, 5.0))
    assert decision(StartAt(5.0, "crashed", "crash"), slow, book, 5.0) == "starting again at once (crash 5 of 5)"
    over = Book(crashes=(*book.crashes, 6.0))
    assert decision(StartAt(66.0, "crashed", "crash"), slow, over, 6.0) == "starting again in 1m (crash 6, over the limit of 5 in 10m)"


def test_decisions_in_words() -> None:
    """As the record of a run tells them."""
    restart, book = Restart(), Book(reboots=(1.0,), crashes=(1.0, 2.0), failures=3)
    said = [
        decision(verdict, restart, book, 2.0)
        for verdict in (
            StartAt(6.23, "x", "crash"),
            StartAt(2.0, "x", "reboot"),
            StartAt(40.0, "x", "start_failure"),
            StartAt(2.0, "asked for by alice"),
            Stay("the guest powered off"),
            HoldFor("over its limit"),
        )
    ]
    assert said == [
        "starting again in 4.2s (crash 2 of 5)",
        "starting again at once (reboot 1 of 5)",
        "starting again in 38s (failed start 3)",
        "starting again: asked for by alice",
        "stays down: the guest powered off",
        "held: over its limit",
    ]


def test_a_decision_over_the_limit() -> None:
    """With over-limit = "slow" the count goes on."""
    book = Book(crashes=(1.0, 2.0, 3.0))
    text = decision(StartAt(63.0, "x", "crash"), Restart(crash_limit=Limit(2, Duration(600))), book, 3.0)
    assert text == "starting again in 1m (crash 3, over the limit of 2 in 10m)"


RESTARTS = st.builds(
    Restart,
    backoff=st.floats(0.001, 100).map(Duration),
    backoff_max=st.floats(100, 10_000).map(Duration),
    reboot_limit=st.builds(Limit, st.integers(0, 20), st.floats(1, 1000).map(Duration)),
    crash_limit=st.builds(Limit, st.integers(0, 20), st.floats(1, 1000).map(Duration)),
    over_limit=st.sampled_from(["hold", "slow"]),
    on_crash=st.sampled_from(["restart", "stop"]),
)


@given(RESTARTS, st.integers(1, 2000), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_no_delay_is_shorter_than_the_one_before_it(restart: Restart, failures: int, one: float, two: float) -> None:
    """Whatever the jitter, back-off grows until it is backoff-max, and never passes it."""
    first, second = delay_s(restart, failures, lambda: one), delay_s(restart, failures + 1, lambda: two)
    assert restart.backoff * 0.999 <= first <= second <= restart.backoff_max


@given(RESTARTS, st.lists(st.tuples(st.floats(0, 500), st.sampled_from(sorted(ExitKind)), st.floats(0, 1000)), min_size=1, max_size=40))
def test_judge_is_total_and_keeps_the_limits(restart: Restart, history: list[tuple[float, ExitKind, float]]) -> None:
    """Any history has a verdict; a restart is never in the past, and never over a limit that holds."""
    now, book = 0.0, Book()
    for pause_s, kind, uptime_s in history:
        now += pause_s
        verdict, book = judge(restart, end(kind), book, uptime_s=uptime_s, now=now, rng=lambda: 0.5)

        if isinstance(verdict, StartAt):
            assert verdict.at >= now
            assert verdict.cause in ("reboot", "crash", "start_failure")
            if restart.over_limit == "hold" and verdict.cause == "crash":
                assert len(book.crashes) <= restart.crash_limit.count
            if restart.over_limit == "hold" and verdict.cause == "reboot":
                assert len(book.reboots) <= restart.reboot_limit.count
        assert decision(verdict, restart, book, now)
