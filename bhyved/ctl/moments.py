"""Points in time as a person names them, and as unix times."""

from __future__ import annotations

import time

from bhyved.ctl.connection import USAGE, Failure


def since(word: str) -> float:
    """`10m` is so long ago; otherwise a time of day, in UTC unless it says where: the zone of all times that vmctl prints."""
    from datetime import UTC, datetime

    from bhyved.core.units import Duration

    try:
        return time.time() - float(Duration.parse(word))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise Failure(USAGE, f'"{word}" is no time: say how long ago, as in 10m or 1h30m, or when, as in 2026-01-31T12:00') from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def stamp(unix: float) -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))
