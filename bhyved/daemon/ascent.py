"""From the spawn of bhyve to a guest that is up: by its first console byte, or by a look at the process title (contract 1.6).

The byte is waited for. A title tells nobody when it changes, so it is looked at a few times, at growing distances, and then only when
somebody asks: idle means idle, also for a guest that waits for a VNC client.
"""

from collections.abc import Callable, Mapping

import trio

from bhyved.daemon.console import Consoles
from bhyved.daemon.ports import Machine

#: A guest with a console is given time to say something first: a look costs a process.
FIRST_LOOK_S, FIRST_LOOK_WITH_CONSOLE_S, LAST_LOOK_S = 0.01, 0.25, 30.0
HISTORY_S = 5.0  # for a console's history to be opened, at the daemon's start


class Ascent:
    """Watches one guest come up. `came_up` is told, at most once a run; it knows whether that still matters. `start`: as a task."""

    def __init__(self, name: str, machine: Machine, consoles: Consoles, came_up: Callable[[], None], start: Callable[..., None]) -> None:
        self._name, self._machine, self._consoles, self._came_up, self._start = name, machine, consoles, came_up, start
        self._watch = trio.CancelScope()

    def begin(self, since: Mapping[str, int] | None = None) -> None:
        """Watch until the guest is up, or `over`, which may come before the task has begun.

        `since`: the offset of each console where the run began; None: where the ring says.
        """
        self._watch = trio.CancelScope()
        self._start(self._climb, self._watch, since)

    async def _climb(self, scope: trio.CancelScope, since: Mapping[str, int] | None) -> None:
        hubs = self._consoles.hubs(self._name)
        since = {hub.port: hub.ring.run_start for hub in hubs} if since is None else since
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._first_byte, since, nursery.cancel_scope)
                look_s = FIRST_LOOK_WITH_CONSOLE_S if hubs else FIRST_LOOK_S
                while look_s <= LAST_LOOK_S:
                    await trio.sleep(look_s)
                    if await self._machine.title_is_set():
                        nursery.cancel_scope.cancel()
                    look_s *= 2
            self._came_up()

    async def _first_byte(self, since: Mapping[str, int], scope: trio.CancelScope) -> None:
        await self._consoles.first_byte(self._name, since)
        scope.cancel()

    async def look(self) -> None:
        """Look once more, because somebody wants to know."""
        watch = self._watch
        if await self._machine.title_is_set() and watch is self._watch:
            watch.cancel()
            self._came_up()

    def over(self) -> None:
        """The run has ended."""
        self._watch.cancel()

    async def seen(self) -> bool:
        """Whether a guest that an earlier daemon started had come up: it had printed something in this run, or its title is set."""
        hubs = self._consoles.hubs(self._name)
        with trio.move_on_after(HISTORY_S):
            for hub in hubs:
                await hub.history()
        return any(hub.ring.end > hub.ring.run_start for hub in hubs) or await self._machine.title_is_set()
