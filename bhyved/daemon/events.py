"""What happens, as it happens: numbered by the journal, waited for by subscribers, hooks and the page.

Everything that changes a guest or the daemon tells it here, in plain synchronous code. A reader keeps the number of the last event it
has seen and waits for a newer one; nothing is queued for anybody, so a slow reader costs nobody.
"""

import functools
from collections import Counter

import trio

from bhyved.core.status import Event, Phase
from bhyved.daemon.ports import Journal

LATELY = 4000  # events, all of which the journal has in memory: guests by the hundred may end in one moment


class Events:
    """The stream of events, on top of what the journal keeps."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last_seq: int | None = None
        self._changed = trio.Event()
        self.counts: Counter[str] = Counter()  # by kind, since this daemon started

    @property
    def last_seq(self) -> int:
        """The number of the newest event, perhaps of an earlier daemon's; 0 when there has been none."""
        if self._last_seq is None:
            self._last_seq = max((event.seq for event in self._journal.since(0)), default=0)
        return self._last_seq

    def tell(
        self,
        event: str,
        *,
        vm: str = "",
        phase: Phase | None = None,
        reason: str = "",
        by: str = "",
        **data: str | int | float | bool | None,
    ) -> Event:
        """Number, keep and publish one event."""
        told = self._journal.append(event, vm=vm, phase=phase, reason=reason, by=by, data=data)
        self._last_seq = told.seq
        self.counts[event] += 1
        if event == "ended":
            self._newest_ends[vm] = data.get("run")
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        return told

    def since(self, seq: int) -> list[Event]:
        """Events after `seq` that are still kept, oldest first."""
        return self._journal.since(seq)

    def has_ended(self, vm: str, run: str) -> bool:
        """Whether the newest end of a guest's run that was told lately is of this run, perhaps by an earlier daemon."""
        return self._newest_ends.get(vm) == run

    @functools.cached_property
    def _newest_ends(self) -> dict[str, object]:
        """Guest → run. Looked up once, since all that an earlier daemon left may end in one moment; `tell` keeps it up."""
        lately = self._journal.since(max(0, self.last_seq - LATELY))
        return {event.vm: event.data.get("run") for event in lately if event.event == "ended"}

    async def wait_newer(self, seq: int) -> None:
        """Wait until there is an event after `seq`."""
        while self.last_seq <= seq:
            await self._changed.wait()
