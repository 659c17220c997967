"""events.subscribe over real sockets."""

import msgspec
import pytest
import trio

from bhyved.core.status import Phase
from bhyved.daemon import outbox
from tests.daemon.controlkit import Client, guest, served, user


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


async def until_end(client: Client) -> list[dict]:
    """Notifications up to and without `end`."""
    told = []
    while (line := await client.line())["method"] != "end":
        told.append(line)
    return told


async def test_what_happens_is_told_as_it_happens(tmp_path):
    """After the answer come new events with all their keys, and other requests are answered in between."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        daemon.guests.events.tell("before")
        assert (await client.call("events.subscribe"))["next"] == 1
        daemon.guests.events.tell("phase", vm="web1", phase=Phase.UP, reason="asked for", by="alice", was="starting")
        told = await client.line()
        assert (await client.call("daemon.info"))["protocol"] == 1
        daemon.guests.events.tell("ready", vm="web1")
        again = await client.line()

    assert told["method"] == "event"
    assert told["params"] == {
        "seq": 2,
        "at": "2026-01-01T00:00:00Z",
        "event": "phase",
        "vm": "web1",
        "phase": "up",
        "reason": "asked for",
        "by": "alice",
        "data": {"was": "starting"},
    }
    assert (again["params"]["seq"], again["params"]["event"], again["params"]["phase"]) == (3, "ready", None)


async def test_what_has_happened_is_told_first(tmp_path):
    """`since` replays what came after a number, and without `follow` the end is told."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        for number in range(1, 6):
            daemon.guests.events.tell(f"e{number}", vm="web1" if number % 2 else "")
        result = await client.call("events.subscribe", since=2, follow=False)
        told = await until_end(client)
        await client.call("events.subscribe", since=0, names=["web1"], follow=False)
        narrowed = await until_end(client)
        await client.call("events.subscribe", since_time=1_767_225_600, follow=False)
        by_time = await until_end(client)
        await client.call("events.subscribe", since_time=1_767_225_601, follow=False)
        later = await until_end(client)
        await client.call("events.subscribe", follow=False)
        nothing = await until_end(client)

    assert result["next"] == 5
    assert [each["params"]["event"] for each in told] == ["e3", "e4", "e5"]
    assert [each["params"]["event"] for each in narrowed] == ["e1", "e3", "e5"]
    assert len(by_time) == 5
    assert later == nothing == []


async def test_a_reader_from_another_life_begins_now(tmp_path):
    """A number that has not been reached yet is of events that are gone: the reader is not left waiting for it."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        daemon.guests.events.tell("one")
        await client.call("events.subscribe", since=1000)
        daemon.guests.events.tell("two")
        told = await client.line()

    assert told["params"]["event"] == "two"


async def test_dropped_events_are_counted(tmp_path):
    """What the journal no longer has is told as a number."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        for number in range(1, 11):
            daemon.guests.events.tell(f"e{number}")
        del daemon.guests.journal.events[:7]
        await client.call("events.subscribe", since=2, follow=False)
        told = await until_end(client)

    assert told[0]["method"] == "lost"
    assert told[0]["params"] == {"count": 5, "next": 8}
    assert [each["params"]["seq"] for each in told[1:]] == [8, 9, 10]


async def test_a_slow_reader_is_neither_cut_off_nor_waited_for(tmp_path, monkeypatch):
    """While it does not read, little waits for it; then it is given all that is kept, in order, and told what is not."""
    monkeypatch.setattr(outbox, "LIMIT_BYTES", 1 << 20)
    monkeypatch.setattr(outbox, "ROOM_BYTES", 1 << 14)
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        await client.call("events.subscribe")
        for number in range(1, 20_001):
            daemon.guests.events.tell("flood", reason="x" * 100)
            if number % 500 == 0:
                await trio.testing.wait_all_tasks_blocked()
        del daemon.guests.journal.events[:-100]
        seen, lost, last = 0, 0, 0
        while last < 20_000:
            line = await client.line()
            if line["method"] == "lost":
                lost += line["params"]["count"]
                assert line["params"]["next"] == last + line["params"]["count"] + 1
                last = line["params"]["next"] - 1
            else:
                assert line["params"]["seq"] == last + 1
                last += 1
                seen += 1

    assert seen + lost == 20_000
    assert lost > 10_000


async def test_an_owner_sees_the_events_of_its_guests_only(tmp_path):
    """Neither other guests' events nor the daemon's; and what a reload takes away is gone at once."""
    async with served(tmp_path, guest("mine", owner=("alice",)), guest("other")) as daemon, daemon.client(user("alice")) as client:
        await client.call("events.subscribe")
        for vm in ("other", "", "mine", "forgotten", "mine"):
            daemon.guests.events.tell("phase", vm=vm)
        seqs = [(await client.line())["params"]["seq"] for _ in range(2)]
        refused = await client.fail("events.subscribe", names=["other"])
        daemon.guests.show("mine", owner=())
        daemon.guests.events.tell("phase", vm="mine")
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.fail("events.subscribe"))["code"] == "not-permitted"

    assert seqs == [3, 5]
    assert refused["code"] == "no-such-guest"


async def test_behind_a_gap_nobody_knows_how_many(tmp_path):
    """A reader from before a crash of the host is told that events may be missing, without a number that would be invented."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        daemon.guests.events.tell("before")
        journal = daemon.guests.journal
        journal.events.append(msgspec.structs.replace(journal.events[-1], seq=10_002, event="gap", reason="the host went down"))
        await client.call("events.subscribe", since=1, follow=False)
        from_before = await until_end(client)

    assert [(each["method"], each["params"].get("event")) for each in from_before] == [("lost", None), ("event", "gap")]
    assert from_before[0]["params"] == {"next": 10_002}
