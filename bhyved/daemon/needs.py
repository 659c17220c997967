"""Looks whether what waiting guests need of the host is there, and only while one waits.

Nobody tells when an interface is made, a path appears or a pool is imported: these are looked at every PERIOD_S. Used by the turnstile.
"""

from collections.abc import Callable, Mapping

import trio

from bhyved.daemon.ports import Host

PERIOD_S = 5.0


class Needs:
    """What was seen at the last look. `known`: need → why it is missing, or ''; what has not been looked at is not in it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._wanted: frozenset[str] = frozenset()
        self._known: dict[str, str] = {}
        self._changed = trio.Event()

    @property
    def known(self) -> Mapping[str, str]:
        return self._known

    def want(self, needs: frozenset[str]) -> None:
        """These matter now. What ceases to matter is forgotten, so that it is looked at afresh when it matters again."""
        if needs != self._wanted:
            if needs - self._wanted:
                self._changed.set()
            self._wanted = needs
            self._known = {need: why for need, why in self._known.items() if need in needs}

    async def run(self, seen: Callable[[], None]) -> None:
        """Look until cancelled; `seen` is called after each look."""
        while True:
            while not self._wanted:
                await self._changed.wait()
                self._changed = trio.Event()
            self._changed = trio.Event()
            wanted = self._wanted
            missing = await self._host.missing(sorted(wanted))
            self._known = {need: missing.get(need, "") for need in wanted & self._wanted}
            seen()
            with trio.move_on_after(PERIOD_S):
                await self._changed.wait()
