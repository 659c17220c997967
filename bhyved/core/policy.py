"""What follows the end of a run: stay down, start again now or later, or wait for a person.

Pure: time and the random source are arguments. The lifecycle calls `judge` when a run has ended and `judge_failed_start` when one
could not begin; both return the verdict and the new `Book`. Three causes are kept apart, because they need different cures: a guest
that reboots itself, a guest that crashes, and a host that cannot start it.
"""

from collections.abc import Callable

import msgspec

from bhyved.core.exits import Exit, ExitKind
from bhyved.core.spec import Restart
from bhyved.core.status import Book
from bhyved.core.units import Limit, span
from bhyved.core.verdict import HoldFor as HoldFor
from bhyved.core.verdict import StartAt as StartAt
from bhyved.core.verdict import Stay as Stay
from bhyved.core.verdict import Verdict as Verdict

#: At most a quarter of the delay on top, so that guests which fell together do not rise together (Nomad's figure).
JITTER = 0.25

CRASHES = frozenset({ExitKind.TRIPLE_FAULT, ExitKind.ERROR, ExitKind.KILLED, ExitKind.DESTROYED, ExitKind.UNKNOWN, ExitKind.STOPPED_EARLY})


Rng = Callable[[], float]  # uniform in [0, 1)


def delay_s(restart: Restart, failures: int, rng: Rng) -> float:
    """Back-off before attempt `failures` (from 1): doubles, with jitter, never above the limit, never shrinking."""
    base = float(restart.backoff) * 2.0 ** min(failures - 1, 30)  # 2**30 x any delay is above any limit
    return min(float(restart.backoff_max), base * (1.0 + JITTER * rng()))


def judge(restart: Restart, end: Exit, book: Book, *, uptime_s: float, now: float, rng: Rng) -> tuple[Verdict, Book]:
    """Decide about a run that nobody asked to end."""
    if uptime_s >= restart.stable_after:
        book = Book()
    match end.kind:
        case ExitKind.REBOOT:
            if restart.on_reboot == "stop":
                return Stay("the guest rebooted, and on-reboot says stop"), book
            return _rebooted(restart, book, now, rng)
        case ExitKind.POWEROFF | ExitKind.HALT:
            word = "powered off" if end.kind is ExitKind.POWEROFF else "halted"
            if restart.on_poweroff == "stop":
                return Stay(f"the guest {word}"), Book()
            return _rebooted(restart, book, now, rng, word)
        case ExitKind.SUSPENDED:
            return Stay("suspended"), Book()
        case ExitKind.START_ERROR if end.final:
            return HoldFor(sentence(end)), book
        case ExitKind.CONFIG_ERROR:
            return HoldFor(sentence(end)), book
        case ExitKind.START_ERROR:
            return judge_failed_start(restart, sentence(end), book, now=now, rng=rng)
        case _:
            if restart.on_crash == "stop":
                return Stay(f"{end.text}, and on-crash says stop"), book
            return _crashed(restart, end, book, now, rng)


def judge_failed_start(restart: Restart, why: str, book: Book, *, now: float, rng: Rng) -> tuple[Verdict, Book]:
    """A start failed because of the host: try for ever, more and more slowly, since storage and networks come back."""
    failures = book.failures + 1
    wait = delay_s(restart, failures, rng)
    reason = f"{why} (failed start {failures})"
    return StartAt(now + wait, reason, "start_failure"), msgspec.structs.replace(book, failures=failures)


def decision(verdict: Verdict, restart: Restart, book: Book, now: float) -> str:
    """What follows, as the record of the run tells it: "starting again in 4.2s (crash 2 of 5)"."""
    match verdict:
        case Stay():
            return f"stays down: {verdict.reason}"
        case HoldFor():
            return f"held: {verdict.reason}"
        case StartAt(cause=""):
            return f"starting again: {verdict.reason}"
        case StartAt():
            when = f"in {span(verdict.at - now)}" if verdict.at > now else "at once"
            return f"starting again {when} ({_counted(verdict.cause, restart, book, now)})"


def _counted(cause: str, restart: Restart, book: Book, now: float) -> str:
    if cause == "start_failure":
        return f"failed start {book.failures}"
    times, limit = (book.reboots, restart.reboot_limit) if cause == "reboot" else (book.crashes, restart.crash_limit)
    return _nth(cause, _recent(times, limit, now), limit)


def _nth(cause: str, recent: tuple[float, ...], limit: Limit) -> str:
    count = len(recent)
    return f"{cause} {count} of {limit.count}" if count <= limit.count else f"{cause} {count}, over the limit of {limit}"


def attempts(restart: Restart, book: Book, now: float) -> tuple[str, int | None]:
    """How near the limits a guest is: words for people ("crash 4 of 5"), and how many restarts are left."""
    reboots = _recent(book.reboots, restart.reboot_limit, now)
    crashes = _recent(book.crashes, restart.crash_limit, now)
    left = min(restart.reboot_limit.count - len(reboots), restart.crash_limit.count - len(crashes))
    words = []
    if reboots:
        words.append(_nth("reboot", reboots, restart.reboot_limit))
    if crashes:
        words.append(_nth("crash", crashes, restart.crash_limit))
    if book.failures:
        words.append(f"failed start {book.failures}")
    return ", ".join(words), max(0, left)


def _rebooted(restart: Restart, book: Book, now: float, rng: Rng, word: str = "rebooted") -> tuple[Verdict, Book]:
    recent = (*_recent(book.reboots, restart.reboot_limit, now), now)
    book = Book(reboots=recent, crashes=book.crashes)
    count = len(recent)
    if count > restart.reboot_limit.count:
        reason = f"{word} {count} times in {restart.reboot_limit.window}: over its reboot-limit of {restart.reboot_limit}"
        return _over_limit(restart, reason, "reboot", now), book
    # The first reboot is immediate: somebody asked for it. Those after it in the same window look like a loop and wait.
    wait = 0.0 if count == 1 else delay_s(restart, count - 1, rng)
    return StartAt(now + wait, f"the guest {word}", "reboot"), book


def _crashed(restart: Restart, end: Exit, book: Book, now: float, rng: Rng) -> tuple[Verdict, Book]:
    recent = (*_recent(book.crashes, restart.crash_limit, now), now)
    book = Book(reboots=book.reboots, crashes=recent)
    count = len(recent)
    if count > restart.crash_limit.count:
        reason = f"crashed {count} times in {restart.crash_limit.window}: over its crash-limit of {restart.crash_limit}; last: {end.text}"
        return _over_limit(restart, reason, "crash", now), book
    return StartAt(now + delay_s(restart, count, rng), sentence(end), "crash"), book


def _over_limit(restart: Restart, reason: str, cause: str, now: float) -> Verdict:
    if restart.over_limit == "slow":
        return StartAt(now + restart.backoff_max, f"{reason}; trying on slowly", cause)
    return HoldFor(reason)


def _recent(times: tuple[float, ...], limit: Limit, now: float) -> tuple[float, ...]:
    return tuple(t for t in times if now - t < limit.window_s)


def sentence(end: Exit) -> str:
    """An end in words, with its remedy."""
    return f"{end.text}: {end.hint}" if end.hint else end.text
