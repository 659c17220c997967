"""What `bhyved selftest` found, and the report of it: plain text, for a bug report. Pure; `host.selftest` does the looking."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

#: The one guest whose node, processes and console lines the selftest touches. No configuration should have it.
GUEST = "bhyved-selftest"
#: Its tap; the daemon's own begin at 1000 and count up.
TAP = "tap32001"

#: What the numbers before the checks are, for people who have the report and nothing else.
SECTIONS = "The numbers are sections of the project's notes on how bhyve and FreeBSD behave: they say what a check is about."

Verdict = Literal["ok", "failed", "skipped"]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One test. `saw` is what happened, or why it was not tried."""

    section: str  # of the notes, as "1.7.1"
    title: str
    about: str  # the part of bhyve's, or the system's, behaviour that it is about
    verdict: Verdict
    saw: str
    seconds: float = 0.0


def passed(found: Sequence[Found]) -> bool:
    """Nothing failed: what was not tried is no failure."""
    return not any(each.verdict == "failed" for each in found)


def counts(found: Sequence[Found]) -> dict[Verdict, int]:
    """How many of each."""
    verdicts: tuple[Verdict, ...] = ("ok", "failed", "skipped")
    return {verdict: sum(each.verdict == verdict for each in found) for verdict in verdicts}


def report(host: Mapping[str, str], found: Sequence[Found]) -> str:
    """The whole text: who, what, and how it went."""
    width = max(map(len, host), default=0)
    lines = ["bhyved selftest", *(f"  {name:<{width}}  {value}" for name, value in host.items()), "", SECTIONS]
    about = ""
    for each in found:
        if each.about != about:
            about = each.about
            lines += ["", f"{about}:"]
        lines += [line(each)]
    lines += ["", summary(found)]
    return "\n".join(lines) + "\n"


def summary(found: Sequence[Found]) -> str:
    """The sum, and what it means: the last words of the report."""
    sums = counts(found)
    total = ", ".join(f"{count} {verdict}" for verdict, count in sums.items()) + f", in {sum(each.seconds for each in found):.1f} s: "
    if sums["failed"]:
        return total + "this host does not do all that bhyved needs"
    if sums["skipped"]:
        return total + f"nothing failed, but {sums['skipped']} could not be tried, and nothing is known of that"
    return total + "this host does what bhyved needs"


def as_json(host: Mapping[str, str], found: Sequence[Found]) -> bytes:
    """The same for programs."""
    return msgspec.json.encode({"version": 1, "host": host, "passed": passed(found), "counts": counts(found), "checks": found})


def line(found: Found) -> str:
    """One test on one line."""
    return f"  {found.verdict:<8}{found.section:<6} {found.title}: {found.saw}"
