"""What the console hubs need of their host, and have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bhyved.core.console import ConsoleSpec, Page
from bhyved.core.ring import Ring
from bhyved.daemon.logpump import Log, LogPump
from bhyved.daemon.ports import Tty
from bhyved.daemon.together import Together


class RingHandle(Protocol):
    """A ring, and where it came from."""

    ring: Ring
    found: bool
    problem: str

    def close(self) -> None: ...


class LogReader(Protocol):
    """What the log files say. Every method blocks on the disk and raises HostError."""

    def read(self, since: int, limit: int) -> Page:
        """Output and marks from `since` on, at most `limit` bytes of output."""

    def boots(self) -> list[int]:
        """The offsets at which runs began, oldest first."""

    def offset_at(self, time: float) -> int | None:
        """The offset of the first output at or after a unix time."""

    def line_offset(self, lines: int, end: int) -> int:
        """The offset at which the last `lines` lines before `end` begin."""


class ConsolePorts(Protocol):
    """What a hub needs of its host. All but `open_line` may block on the disk."""

    async def open_line(self, spec: ConsoleSpec) -> Tty:
        """Raises HostError."""

    def open_ring(self, name: str, spec: ConsoleSpec) -> RingHandle:
        """Never fails: without a file it lives in memory."""

    def open_log(self, name: str, spec: ConsoleSpec, *, first: bool) -> Log | None:
        """None: not logged."""

    def reader(self, name: str, spec: ConsoleSpec, *, first: bool) -> LogReader:
        """For the log files of a console, whether or not they are written to now."""

    def forget(self, name: str, spec: ConsoleSpec) -> None:
        """The guest is no longer configured: the ring goes, logs stay. Raises HostError."""


Tell = Callable[[str, str, Mapping[str, str | int]], None]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all hubs of a host have in common."""

    ports: ConsolePorts
    tell: Tell
    clock: Callable[[], float]
    pump: LogPump = field(default_factory=LogPump)
    histories: Together[tuple[RingHandle, int | None, str]] = field(default_factory=Together)
