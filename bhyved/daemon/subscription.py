"""`events.subscribe`: one client's reading of the event stream.

Nothing is queued for it: it is read on from the journal as fast as the client takes it. What the journal has dropped by then is counted
by the numbers and told; behind a gap in the numbers nobody knows how many events there were, and that is told.
"""

from collections.abc import Callable

from bhyved.core.answers import GAP_EVENT, Subscribed, event_row
from bhyved.core.jsonrpc import notification
from bhyved.core.params import SubscribeParams
from bhyved.core.status import Event
from bhyved.daemon.events import Events
from bhyved.daemon.outbox import Outbox


class Subscription:
    """`result` is the answer; `stream` what comes after it. `may_see` is asked for each event."""

    def __init__(self, events: Events, params: SubscribeParams, may_see: Callable[[Event], bool]) -> None:
        self._events, self._params, self._may_see = events, params, may_see
        self.result = Subscribed(next=events.last_seq)
        self._seq = self._begin()

    async def stream(self, outbox: Outbox) -> None:
        """Until there is nothing more to come."""
        while True:
            for event in self._events.since(self._seq):
                lost, self._seq = event.seq - self._seq - 1, event.seq
                if lost:
                    count = {} if event.event == GAP_EVENT else {"count": lost}
                    outbox.put(notification("lost", {**count, "next": event.seq}))
                if self._is_wanted(event):
                    outbox.put(notification("event", event_row(event)))
                    await outbox.room()
            if not self._params.follow:
                outbox.put(notification("end", {"next": max(self._seq, self.result.next)}))
                return
            await self._events.wait_newer(self._seq)

    def _begin(self) -> int:
        """The number after which the client's events begin."""
        if self._params.since is not None:
            # A larger number than any is of a host whose events are gone: what happens from now on is what there is.
            return min(self._params.since, self.result.next)
        since_time = self._params.since_time
        if since_time is None:
            return self.result.next
        later = (event.seq for event in self._events.since(0) if event.at.timestamp() >= since_time)
        return next(later, self.result.next + 1) - 1

    def _is_wanted(self, event: Event) -> bool:
        return (not self._params.names or event.vm in self._params.names) and self._may_see(event)
