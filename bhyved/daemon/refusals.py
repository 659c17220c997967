"""Refused changes in the log: a line each, with who asked, and no more of one user than nobody minds.

Every local user may ask, as often as it likes. What is counted and not logged is said on that user's next line.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bhyved.core.rights import Peer

_log = structlog.get_logger()

LINES, PERIOD_S = 10, 60.0  # of one user
USERS_MAX = 256  # remembered at a time, before those whose period is over are forgotten


@dataclass
class _Period:
    """One user's, from its first line on."""

    since: float
    lines: int = 0
    untold: int = 0


class Refusals:
    """Of all connections."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._users: dict[int, _Period] = {}

    def tell(self, peer: Peer, method: str, code: str) -> None:
        """A change was refused. What it was to be is the caller's words: they go into no log."""
        period, before = self._period(peer.uid)
        if period.lines == LINES:
            period.untold += 1
            return
        period.lines += 1
        words = {"untold": before} if before else {}
        if period.lines == LINES:
            words["quiet_s"] = round(period.since + PERIOD_S - self._now())
        _log.warning("refused", method=method, code=code, uid=peer.uid, user=peer.user, pid=peer.pid, **words)

    def _period(self, uid: int) -> tuple[_Period, int]:
        """The present one, and how many lines the one before it lacks."""
        now = self._now()
        old = self._users.get(uid)
        if old is not None and now - old.since < PERIOD_S:
            return old, 0
        if len(self._users) >= USERS_MAX:
            self._users = {user: period for user, period in self._users.items() if now - period.since < PERIOD_S}
        new = self._users[uid] = _Period(now)
        return new, 0 if old is None else old.untold
