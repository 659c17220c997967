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


def shares(behind: Mapping[str, frozenset[str]], running: frozenset[str]) -> dict[str, int]:
    """For each running guest, how many stops in a row its own begins: itself, and the longest chain of guests that wait for its end.

    `behind` has, for each guest, those that must be down before it may stop.
    """
    ahead: dict[str, list[str]] = {name: [] for name in running}
    for name in running:
        for dependent in behind.get(name, frozenset()) & running:
            ahead[dependent].append(name)
    depth: dict[str, int] = {}

    def walk(name: str, path: frozenset[str]) -> int:
        if name in path:  # a cycle is refused at check; a stop must not hang on one all the same
            return 0
        if name not in depth:
            depth[name] = 1 + max((walk(next_, path | {name}) for next_ in ahead[name]), default=0)
        return depth[name]

    for name in running:
        walk(name, frozenset())
    return depth


def share_end(end_at: float | None, now: float, chain: int) -> float | None:
    """By when the first of `chain` stops in a row must be over, so that each of them gets as much."""
    return None if end_at is None else now + max(0.0, end_at - now) / max(1, chain)
