"""The drain of a host: a value that the daemon keeps over its own restarts, and that answers, events and sentences show."""

from datetime import datetime

import msgspec


class Drain(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Every guest is stopped and none is started: by whom, why, and until when (UTC; None: until switched off)."""

    by: str
    reason: str = ""
    since_at: datetime
    until_at: datetime | None = None
