"""The consoles of all guests: a hub for each recorded port, for as long as the guest has an entry.

    consoles = Consoles(...)                    # app
    await nursery.start(consoles.run)           # before the supervisor
    consoles.open(name, consoles_of(spec))      # guest added or its file changed; returns at once, idempotent
    await consoles.ready(name)                  # before a start: every line is open, or its hub says why not (bounded)
    consoles.mark(name, "boot", "run 7 by autostart", run=order.run)      # before the loader
    since = consoles.settle(name)               # before spawn_bhyve: {port: offset}
    machine.spawn_bhyve(consoles.fds(name))     # the keeper inherits side B
    await consoles.first_byte(name, since)      # starting -> up
    await consoles.hub(name, "com1").wait_for(re.compile(rb"login:"), since["com1"])
    consoles.mark(name, "exit", exit.text)
    consoles.close(name)                        # guest forgotten
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import trio

from bhyved.core.console import ConsoleSpec, ConsoleStats

MarkKind = Literal["boot", "exit", "attach", "detach", "gap", "note"]


class ConsoleHub:
    """One serial port: reads its line always, keeps history and log, serves viewers. The guest never waits for any of them."""

    name: str
    port: str

    @property
    def offset(self) -> int:
        """The number of bytes recorded so far: the offset of the next one. Goes on across daemon restarts."""

    def settle(self) -> int:
        """Record what the line holds now, and return the offset after it."""

    async def first_byte(self, since: int) -> None:
        """Return when a byte at or after `since` has come."""

    async def wait_for(self, pattern: re.Pattern[bytes], since: int) -> int:
        """Return the offset after the first match at or after `since`; escape sequences do not disturb it."""

    def tail(self, lines: int) -> str:
        """The last lines as plain text, for run records and `why`."""

    def send(self, data: bytes) -> int:
        """Type `data`; how many bytes were taken. Never waits."""

    def stats(self) -> ConsoleStats: ...


class Consoles:
    """Every hub, by guest and port."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None: ...

    def open(self, name: str, specs: Sequence[ConsoleSpec]) -> None: ...

    async def ready(self, name: str) -> None: ...

    def close(self, name: str) -> None: ...

    def mark(self, name: str, kind: MarkKind, text: str, *, run: str = "") -> None: ...

    def settle(self, name: str) -> Mapping[str, int]: ...

    def fds(self, name: str) -> list[int]: ...

    async def first_byte(self, name: str, since: Mapping[str, int]) -> None:
        """Return when any console of the guest has said something since."""

    def hub(self, name: str, port: str = "") -> ConsoleHub | None:
        """The hub of a port; without one, the guest's first console."""

    def stats(self, name: str) -> tuple[ConsoleStats, ...]: ...
