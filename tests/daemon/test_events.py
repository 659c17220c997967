"""The stream of events over a journal that is a list."""

from datetime import UTC, datetime
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from bhyved.core.status import Event, Phase, RunRecord
from bhyved.daemon.events import Events


class ListJournal:
    """A journal in memory, beginning after `last`, as after a restart of the daemon."""

    def __init__(self, kept: tuple[Event, ...] = ()) -> None:
        self.events = list(kept)

    def append(self, event: str, /, **fields: Any) -> Event:
        seq = self.events[-1].seq + 1 if self.events else 1
        told = Event(seq=seq, at=datetime(2026, 1, 1, tzinfo=UTC), event=event, **fields)
        self.events.append(told)
        return told

    def add_run(self, record: RunRecord) -> None:
        raise AssertionError("no event adds a run")

    def runs(self, name: str, last: int) -> list[RunRecord]:
        return []

    def since(self, seq: int) -> list[Event]:
        return [event for event in self.events if event.seq > seq]


async def test_an_event_carries_what_it_was_told_with():
    """Known fields stand beside the event's name, all others in `data`."""
    events = Events(ListJournal())

    told = events.tell("phase", vm="web1", phase=Phase.UP, reason="asked for", by="root", was="starting", seconds=1.5)

    assert (told.seq, told.event, told.vm, told.phase, told.reason, told.by) == (1, "phase", "web1", Phase.UP, "asked for", "root")
    assert told.data == {"was": "starting", "seconds": 1.5}


async def test_numbers_go_on_after_those_of_an_earlier_daemon():
    """A new daemon's stream begins where the kept events end."""
    kept = Event(seq=41, at=datetime(2026, 1, 1, tzinfo=UTC), event="phase")
    events = Events(ListJournal((kept,)))

    assert events.last_seq == 41
    assert events.tell("phase").seq == 42
    assert events.last_seq == 42
    assert [event.seq for event in events.since(40)] == [41, 42]


async def test_nothing_has_happened_yet():
    """Before the first event of a host the last number is 0."""
    assert Events(ListJournal()).last_seq == 0


async def test_a_waiter_sleeps_until_there_is_something_newer(nursery):
    """wait_newer returns at the next event, and at once when one is there already."""
    events = Events(ListJournal())
    events.tell("first")
    seen = []

    async def follow() -> None:
        seq = 1
        while len(seen) < 3:
            await events.wait_newer(seq)
            for event in events.since(seq):
                seen.append(event.event)
                seq = event.seq

    nursery.start_soon(follow)
    await wait_all_tasks_blocked()
    assert seen == []
    events.tell("second")
    events.tell("third")
    await wait_all_tasks_blocked()
    assert seen == ["second", "third"]
    events.tell("fourth")
    with trio.fail_after(1):
        await events.wait_newer(1)
    await wait_all_tasks_blocked()

    assert seen == ["second", "third", "fourth"]
