"""What `bhyved selftest` found, and the report of it: plain text, for a bug report. Pure; `host.selftest` does the looking."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

#: The one guest whose node, processes and console lines the selftest touches. No configuration should have it.
GUEST = "bhyved-selftest"
#: Its tap; the daemon's own begin at 1000 and count up.
TAP = "tap32001"

Verdict = Literal["ok", "failed", "skipped"]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One test. `saw` is what happened, or why it was not tried."""

    title: str
    about: str  # the part of bhyve's, or the system's, behaviour that it is about
    verdict: Verdict
    saw: str
    seconds: float = 0.0


def passed(found: Sequence[Found]) -> bool:
    """Nothing failed, and something was tried."""
    return any(each.verdict == "ok" for each in found) and not any(each.verdict == "failed" for each in found)


def report(host: Mapping[str, str], found: Sequence[Found]) -> str:
    """The whole text: who, what, and how it went."""
    width = max(map(len, host), default=0)
    lines = ["bhyved selftest", *(f"  {name:<{width}}  {value}" for name, value in host.items())]
    about = ""
    for each in found:
        if each.about != about:
            about = each.about
            lines += ["", f"{about}:"]
        lines += [line(each)]
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in ("ok", "failed", "skipped")}
    total = sum(each.seconds for each in found)
    lines += ["", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f", in {total:.1f} s"]
    return "\n".join(lines) + "\n"


def line(found: Found) -> str:
    """One test on one line."""
    return f"  {found.verdict:<8}{found.title}: {found.saw}"
