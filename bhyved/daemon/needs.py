"""Looks whether what waiting guests need of the host is there, and only while one waits.

Where the host tells that something has come (an interface, a pool, what is in /dev) it is looked then, and every TOLD_S; else every
PERIOD_S. Used by the turnstile.
"""

from collections.abc import Callable, Mapping

import trio

from bhyved.core import needs
from bhyved.daemon.ports import Host

PERIOD_S = 5.0
TOLD_S = 60.0  # should what came have been told before it was there


class Needs:
    """What was seen at the last look. `known`: need → why it is missing, or ''; what has not been looked at is not in it."""

    def __init__(self, host: Host) -> None:
        self._host, self._news = host, host.news()
        self._is_told = False
        self._wanted: frozenset[str] = frozenset()
        self._known: dict[str, str] = {}
        self._changed, self._listening = trio.Event(), trio.Event()

    @property
    def is_told(self) -> bool:
        """The host tells when any of what is wanted comes."""
        return self._is_told and all(map(needs.is_told, self._wanted))

    @property
    def period_s(self) -> float:
        """From one look to the next, if nothing is told."""
        return TOLD_S if self.is_told else PERIOD_S

    @property
    def known(self) -> Mapping[str, str]:
        return self._known

    def want(self, wanted: frozenset[str]) -> None:
        """These matter now. What ceases to matter is forgotten, so that it is looked at afresh when it matters again."""
        if wanted != self._wanted:
            if wanted - self._wanted or not wanted:
                self._changed.set()
            self._wanted = wanted
            self._known = {need: why for need, why in self._known.items() if need in wanted}

    async def run(self, seen: Callable[[], None]) -> None:
        """Look until cancelled; `seen` is called after each look."""
        while True:
            while not self._wanted:
                self._news.close()
                await self._changed.wait()
                self._changed = trio.Event()
            self._changed = trio.Event()
            self._is_told = self._news.listen()  # before the look, so that nothing comes between
            if self._is_told:
                self._listening.set()
            wanted = self._wanted
            missing = await self._host.missing(sorted(wanted))
            self._known = {need: missing.get(need, "") for need in wanted & self._wanted}
            seen()
            with trio.move_on_after(self.period_s):
                await self._changed.wait()

    async def hear(self) -> None:
        """Have what is told looked at, until cancelled."""
        while True:
            await self._listening.wait()
            await self._news.wait()
            self._listening = trio.Event()  # the look that follows says whether there is anybody to listen to
            self._changed.set()
