"""What the control socket asks of the guests as a whole (the supervisor), and of the host about a client (`host.peer`)."""

from datetime import datetime
from typing import Protocol

import msgspec
import trio

from bhyved.core.answers import Reloaded
from bhyved.core.assigned import Target
from bhyved.core.config import Loaded
from bhyved.core.drain import Drain
from bhyved.core.lifecycle import Answer, Wish
from bhyved.core.plan import Plan
from bhyved.core.reload import Change
from bhyved.core.rights import Peer
from bhyved.core.room import Room
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import RunRecord
from bhyved.daemon.board import Board
from bhyved.daemon.console import Consoles
from bhyved.daemon.events import Events


class About(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon's life. `started` is monotonic, `config` the main file."""

    version: str
    config: str
    boot: str
    pid: int
    started_at: datetime
    started: float


class Peers(Protocol):
    """Who is at the other end of a connection."""

    def peer_of(self, sock: trio.socket.SocketType) -> Peer:
        """Ids only; returns at once. Raises HostError."""

    def named(self, peer: Peer) -> Peer:
        """With the names of user and groups. May block for long: call it in a thread."""


class Guests(Protocol):
    """Every guest. What is marked with KeyError raises it for a name that there is no guest of."""

    @property
    def board(self) -> Board: ...

    @property
    def consoles(self) -> Consoles: ...

    @property
    def events(self) -> Events: ...

    @property
    def about(self) -> About: ...

    @property
    def daemon_spec(self) -> DaemonSpec:
        """As the last reload left it: whom to trust is read from here at each request."""

    @property
    def target(self) -> Target:
        """This host, for plans."""

    @property
    def closing(self) -> bool:
        """All guests are being stopped."""

    @property
    def drain(self) -> Drain | None: ...

    def set_drain(self, drain: Drain | None, *, by: str) -> None:
        """Stop every guest and start none; None: start again those that are wished up, since `by` said so. Its end is kept here too."""

    async def drain_kept(self) -> None:
        """Return when the drain, or its end, is on disk, has refused to go there, or has had its time, should the disk hang."""

    async def kept(self, *names: str) -> None:
        """The same of what is to outlive the daemon of these guests, in one time for all. One that has been forgotten is not waited for."""

    @property
    def room(self) -> Room:
        """What guests may have of the host's memory."""

    def now(self) -> float:
        """The monotonic clock of statuses."""

    def utc(self) -> datetime: ...

    def names(self) -> list[str]:
        """Configured guests, and those that go on without their file."""

    def spec(self, name: str) -> VmSpec | None:
        """As configured; None: no file, or no such guest."""

    def started_spec(self, name: str) -> VmSpec | None:
        """As started, while something of it runs."""

    def changes(self, name: str) -> tuple[Change, ...]:
        """Keys whose new value waits for another run. KeyError."""

    def runs(self, name: str, last: int) -> list[RunRecord]:
        """The newest runs, oldest first."""

    def submit(self, name: str, wish: Wish) -> Answer:
        """Ask one guest; the board shows what followed when this returns. KeyError."""

    async def nmi(self, name: str) -> Answer:
        """KeyError."""

    async def suspend(self, name: str, *, by: str) -> Answer:
        """KeyError."""

    def plan(self, name: str, *, target: Target | None = None, install: bool = False) -> Plan:
        """What the next start would do. Raises ConfError. KeyError."""

    async def check(self) -> Loaded:
        """The files as they are now. Raises HostError."""

    async def reload(self, *, plan_only: bool, prune: bool, by: str) -> Reloaded:
        """Put the files in force, all or nothing."""

    async def shutdown_budget_s(self) -> float | None:
        """How long the host would wait for all guests; None: not known."""


def configured(guests: Guests) -> dict[str, VmSpec]:
    """Every guest that has a configuration, by its name."""
    return {name: spec for name in guests.names() if (spec := guests.spec(name)) is not None}
