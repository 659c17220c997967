"""The end of the host: how much time there is, and how the guests share it.

The rc script writes `run/shutdown` when it stops the daemon; only that file sets a deadline (design: a plain `service bhyved stop`
uses each guest's own timeouts). Pure: times are arguments.
"""

from collections.abc import Mapping

import msgspec

RCSHUTDOWN_S = 90.0  # rc.conf's default (contract 8.5)
INIT_S = 120.0  # kern.init_shutdown_timeout's default; init takes values below 2 as 120


class HostEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What `run/shutdown` says. `timeout_s` None: this is no host shutdown."""

    reason: str = ""
    timeout_s: float | None = None
    used_s: float = 0.0


def parse(text: str) -> HostEnd:
    """`key=value` lines, as the rc script writes them. What makes no sense is taken as not said: a stop must never fail for it."""
    words = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    timeout_s = _seconds(words.get("timeout", ""))
    return HostEnd(reason=words.get("reason", "")[:80], timeout_s=timeout_s, used_s=_seconds(words.get("used", "")) or 0.0)


def _seconds(text: str) -> float | None:
    text = text.strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def budget_s(rcshutdown_s: float | None, init_s: float | None, margin_s: float) -> float:
    """The time that a host shutdown gives all its services together, less what is kept back for those after us."""
    init = INIT_S if init_s is None or init_s < 2 else init_s
    rcshutdown = RCSHUTDOWN_S if rcshutdown_s is None else rcshutdown_s
    # 0 switches rc.shutdown's watchdog off; init's goes on.
    return max(0.0, min(rcshutdown or init, init) - margin_s)


def deadline(end: HostEnd, init_s: float | None, margin_s: float, now: float) -> float | None:
    """By when every guest must have ended, monotonic; None: nothing but their own timeouts counts."""
    if end.timeout_s is None:
        return None
    return now + max(0.0, budget_s(end.timeout_s, init_s, margin_s) - end.used_s)


def chains(behind: Mapping[str, frozenset[str]], needs: Mapping[str, float]) -> dict[str, float]:
    """For each running guest, how many seconds the longest row of stops takes that its own begins: its own, then of those behind it.

    `behind` has, for each guest, those that must be down before it may stop; `needs`, for each running guest, what its own stop takes.
    """
    ahead: dict[str, list[str]] = {name: [] for name in needs}
    for name in needs:
        for dependent in behind.get(name, frozenset()) & needs.keys():
            ahead[dependent].append(name)
    longest: dict[str, float] = {}

    def walk(name: str, path: frozenset[str]) -> float:
        if name in path:  # a cycle is refused at check; a stop must not hang on one all the same
            return 0.0
        if name not in longest:
            longest[name] = needs[name] + max((walk(next_, path | {name}) for next_ in ahead[name]), default=0.0)
        return longest[name]

    for name in needs:
        walk(name, frozenset())
    return longest


def share_end(end_at: float | None, now: float, mine: float, chain: float) -> float | None:
    """By when a guest that needs `mine` must be gone, so that those of its chain, which is part of it, get as much of what they need.

    Asked when its turn has come: what a guest before it has left over is shared by all that follow.
    """
    if end_at is None:
        return None
    return now + max(0.0, end_at - now) * (mine / chain)
