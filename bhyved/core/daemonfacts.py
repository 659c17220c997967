"""What the daemon can say of itself at one moment, for metrics and for the health pages. The app gathers it."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from bhyved.core.room import Room
from bhyved.core.status import Histogram


class CommandFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How one of the host's commands has done since the daemon started."""

    durations: Histogram = Histogram()
    failures: int = 0


class DaemonFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon at one moment. Counts are since it started."""

    version: str
    started_at: datetime
    not_ready: str = ""  # why guests are not looked after at present: still finding them, or going
    drained: bool = False  # every guest was stopped, and none is started
    adopted: int = 0  # runs taken over from an earlier daemon
    config_problems: int = 0  # in the files as they were read last
    events: Mapping[str, int] = {}  # by kind
    commands: Mapping[str, CommandFacts] = {}  # by the command's name
    shutdown_budget_s: float | None = None  # what a host shutdown gives us; None: not known
    shutdown_needed_s: float = 0.0  # what the stop timeouts of running guests come to, one after the other where order says so
    room: Room = Room()  # the host's memory, and what guests may have of it
    problems: Mapping[str, str] = {}  # by part (journal, records…): a sentence, or empty when all is well
