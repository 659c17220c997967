"""Console hubs on real terminals: always recording, many viewers, one keyboard, and daemons that die."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bhyved.core.console import LogPolicy, Mark, Output
from bhyved.core.consolewire import LogParams, SendParams, TailParams, WaitParams
from bhyved.daemon import consoleask
from bhyved.daemon.attach import Refused, open_tail
from bhyved.host.logreader import LogReader
from tests.daemon.consolekit import NOON, Daemon, attached
from tests.daemon.guestline import GuestLine


@pytest.fixture
def line(tmp_path: Path) -> Iterator[GuestLine]:
    guest = GuestLine(tmp_path / "nmdm-web1.1B")
    yield guest
    guest.close()


async def logged(daemon: Daemon) -> bytes:
    """What the log file says was printed."""
    with trio.fail_after(5):
        await daemon.consoles.flushed()
    return b"".join(record.data for record in LogReader(daemon.log).read(0, 1 << 30).records if isinstance(record, Output))


async def test_records_while_nobody_looks(tmp_path: Path, line: GuestLine) -> None:
    """What a guest prints is in ring and log without any viewer."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            await line.say(b"Booting...\r\nlogin: ")
            await daemon.hub.wait_for(re.compile(rb"login: "), 0)

        assert daemon.hub.tail(2) == "Booting...\nlogin: "
        assert await logged(daemon) == b"Booting...\r\nlogin: "


async def test_first_byte_wakes_the_driver(tmp_path: Path, line: GuestLine) -> None:
    """A guest's first byte after the loader's last is told at once; the loader's are not taken for it."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            await line.say(b"loader")
            await daemon.hub.wait_for(re.compile(b"loader"), 0)
            since = daemon.consoles.settle("web1")
            with trio.move_on_after(0.05) as early:
                await daemon.consoles.first_byte("web1", since)
            await line.say(b"k")
            await daemon.consoles.first_byte("web1", since)

        assert early.cancelled_caught
        assert since == {"com1": 6}


async def test_a_viewer_sees_what_came_before_and_what_comes(tmp_path: Path, line: GuestLine) -> None:
    """Attached to the start of the run, a viewer gets its output from there on, and hears of the guest's end and return."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            await line.say(b"old run\n")
            await daemon.hub.wait_for(re.compile(b"old run"), 0)
            daemon.consoles.mark("web1", "boot", "run 2 by autostart", run="r2")
            await line.say(b"new run\n")
            async with attached(daemon, since="boot") as client:
                await client.until_output(b"new run\n")
                daemon.consoles.mark("web1", "exit", "the guest rebooted")
                await client.until_event("exit", text="the guest rebooted", offset=16)
                daemon.consoles.mark("web1", "boot", "run 3", run="r3")
                await client.until_event("boot", text="run 3")
                await line.say(b"again")
                await client.until_output(b"again")

        assert client.output == b"new run\nagain"
        assert not client.gaps


@pytest.mark.parametrize(
    ("since", "lines", "expected"), [("all", None, b"a\nb\nc\n"), ("end", None, b""), (2, None, b"b\nc\n"), ("end", 2, b"b\nc\n")]
)
async def test_replay_begins_where_it_is_asked_to(
    tmp_path: Path, line: GuestLine, since: str | int, lines: int | None, expected: bytes
) -> None:
    """Replay begins at everything kept, at the end, at an offset or so many lines back."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            await line.say(b"a\nb\nc\n")
            await daemon.hub.wait_for(re.compile(b"c\n"), 0)
            async with attached(daemon, since=since, lines=lines) as client:
                await line.say(b"!")
                await client.until_output(b"!")

        assert client.output == expected + b"!"


async def test_keys_reach_the_guest_in_order(tmp_path: Path, line: GuestLine) -> None:
    """What is typed arrives whole and in order, a paste larger than the line's buffer too, once the guest reads."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        paste = b"".join(b"%05d\n" % number for number in range(6000))
        with trio.fail_after(5):
            async with attached(daemon) as client:
                await client.until_event("writer", you=True)
                await client.type(paste)
                heard = await line.hear(len(paste))

        assert heard == paste


async def test_a_guest_that_does_not_read_blocks_nobody(tmp_path: Path, line: GuestLine) -> None:
    """Keys beyond the bound are refused with their number, and the daemon goes on recording."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            async with attached(daemon) as client:
                for _ in range(4):
                    await client.type(b"x" * (1 << 16))
                dropped = await client.until_event("dropped")
                await line.say(b"still here")
                await client.until_output(b"still here")

        assert dropped["why"] == "the guest does not read"


async def test_one_types_and_the_others_watch(tmp_path: Path, line: GuestLine) -> None:
    """The keyboard is one viewer's; another is told whose, may take it, and gets it when it is free."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            async with attached(daemon, "alice") as alice, attached(daemon, "bob") as bob:
                await bob.until_event("refused", why="busy", writer="alice")
                await bob.type(b"no")
                await bob.ask(steal=True)
                await alice.until_event("writer", writer="bob", you=False)
                await bob.type(b"yes")
                heard = await line.hear(3)
                await alice.type(b"now not")
                await alice.until_event("refused", why="busy", writer="bob")
                assert daemon.hub.stats().writer == "bob"
                assert daemon.hub.stats().viewers == 2

        assert heard == b"yes"
        assert line.waiting() == b""


async def test_who_may_only_read_cannot_type(tmp_path: Path, line: GuestLine) -> None:
    """Without the right, or attached read-only, neither keys nor the keyboard are taken."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            async with attached(daemon, may_write=False) as client:
                await client.type(b"rm -rf /\r")
                await client.ask(steal=True)
                await client.until_event("refused", why="read-only")
            async with attached(daemon, read_only=True) as client:
                await client.type(b"rm -rf /\r")
                await client.until_event("refused", why="read-only")
            await line.say(b".")
            await daemon.hub.wait_for(re.compile(rb"\."), 0)

        assert line.waiting() == b""


async def test_leaving_sends_the_logout_string(tmp_path: Path, line: GuestLine) -> None:
    """When whoever has the keyboard leaves, the configured string is typed; a reader's leaving types nothing."""
    async with Daemon(tmp_path, line.path, on_detach=b"\x04").running() as daemon:
        with trio.fail_after(5):
            async with attached(daemon, "bob", read_only=True) as bob:
                async with attached(daemon, "alice") as alice:
                    await alice.until_event("writer", you=True)
                await bob.until_event("detach")
            heard = await line.hear(1)

        assert heard == b"\x04"
        assert line.waiting() == b""


async def test_sessions_are_in_the_log(tmp_path: Path, line: GuestLine) -> None:
    """Who attached, when, and how many bytes went each way stands in the log."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            async with attached(daemon, "alice (uid 1001, pid 7)") as client:
                await client.until_event("writer", you=True)
                await client.type(b"ls\r")
                await line.hear(3)
                await line.say(b"out")
                await client.until_output(b"out")
            await daemon.consoles.flushed()
        marks = [record for record in LogReader(daemon.log).read(0, 1 << 20).records if isinstance(record, Mark)]

        assert [(mark.kind, mark.text, mark.at) for mark in marks] == [
            ("attach", "alice (uid 1001, pid 7)", NOON),
            ("detach", "alice (uid 1001, pid 7), 3 bytes read, 3 typed", NOON),
        ]


async def test_a_slow_viewer_loses_bytes_and_learns_how_many(tmp_path: Path, line: GuestLine) -> None:
    """A viewer that does not read gets exact gaps, while the guest, the log and another viewer lose nothing."""
    flood = b"".join(b"%09d\n" % number for number in range(400_000))
    async with Daemon(tmp_path, line.path, log=LogPolicy(max_bytes=0)).running() as daemon:
        with trio.fail_after(30):
            async with attached(daemon, "slow", buffer=4096) as slow, attached(daemon, "fast", read_only=True) as fast:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(line.say, flood)
                    await fast.until_output(flood[-20:])
                await slow.until_output(flood[-20:])
            written = await logged(daemon)

        assert slow.next == len(flood)
        assert sum(gap.size for gap in slow.gaps) + len(slow.output) == len(flood)
        assert {gap.why for gap in slow.gaps} == {"slow"}
        assert fast.output == flood or fast.gaps
        assert len(fast.output) + sum(gap.size for gap in fast.gaps) == len(flood)
        assert written == flood


async def test_a_killed_daemon_is_followed_byte_by_byte(tmp_path: Path, line: GuestLine) -> None:
    """The next daemon goes on at the offset, knows the run, logs what its predecessor had not, and resumes a viewer without a gap."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            daemon.consoles.mark("web1", "boot", "run 1", run="r1")
            async with attached(daemon, since="boot") as client:
                await line.say(b"before")
                await client.until_output(b"before")
                stream = daemon.hub.ring.stream
                # As by kill -9: nothing more is written by this one.
                daemon.consoles._shared.pump.dirty = lambda *_, **__: None  # type: ignore[method-assign]
                await line.say(b" unlogged")
                await client.until_output(b"unlogged")
    await line.say(b" meanwhile")
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            async with attached(daemon, since=client.next, stream=stream) as resumed:
                await line.say(b" after")
                await resumed.until_output(b"after")
            written = await logged(daemon)
        marks = [(mark.kind, mark.offset) for mark in LogReader(daemon.log).read(0, 1 << 20).records if isinstance(mark, Mark)]

        assert client.output + resumed.output == b"before unlogged meanwhile after"
        assert not resumed.gaps
        assert daemon.hub.ring.run == "r1"
        assert daemon.hub.ring.running
        assert written == b"before unlogged meanwhile after"
        assert ("gap", 15) in marks


async def test_an_offset_of_another_recording_is_not_believed(tmp_path: Path, line: GuestLine) -> None:
    """When ring and log were removed meanwhile, a returning viewer is told and goes on at the end."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            await line.say(b"something")
            await daemon.hub.wait_for(re.compile(b"something"), 0)
            async with attached(daemon, since=3, stream="00000000") as client:
                await client.until_event("gap")
                await line.say(b"!")
                await client.until_output(b"!")

        assert client.output == b"!"


async def test_a_dead_line_is_opened_again(tmp_path: Path, line: GuestLine) -> None:
    """When the pair vanishes the hub says so once, and goes on with the next pair, offsets and viewers too, when a run begins."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(10):
            async with attached(daemon) as client:
                await line.say(b"one")
                await client.until_output(b"one")
                first = GuestLine(tmp_path / "other")
                line.die()
                while not daemon.told:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                line.__init__(line.path)  # type: ignore[misc]
                first.close()
                daemon.consoles.mark("web1", "boot", "run 2", run="r2")
                await line.say(b"two")
                await client.until_output(b"two")

        assert client.output == b"onetwo"
        assert [what for _, what, _ in daemon.told] == ["console-trouble"]
        assert "nmdm is not loaded" in str(daemon.told[0][2]["reason"])


async def test_a_log_that_cannot_be_written_costs_the_log_only(tmp_path: Path, line: GuestLine) -> None:
    """A log directory that is gone is reported once; guest, ring and viewers notice nothing, and the log goes on when it is back."""
    log = tmp_path / "log"
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(10):
            log.rmdir()
            async with attached(daemon) as client:
                await line.say(b"into the void")
                await client.until_output(b"void")
                while not daemon.hub.problem:
                    await daemon.consoles.flushed()
                assert "cannot be written: no such file or directory" in daemon.hub.problem
                log.mkdir()
                daemon.hub._book._retry_at = 0.0
                await line.say(b", and back")
                await client.until_output(b"back")
                written = await logged(daemon)

        assert written == b"into the void, and back"
        assert [what for _, what, _ in daemon.told] == ["console-log", "console-log"]
        assert "is written again" in str(daemon.told[1][2]["reason"])


async def test_tail_follows_several_guests_in_json(tmp_path: Path, line: GuestLine) -> None:
    """`console.tail` sends output and marks as notifications, cleaned of escape sequences, for every guest that was named."""
    other = GuestLine(tmp_path / "nmdm-db1.1B")
    async with Daemon(tmp_path, line.path).running() as daemon:
        daemon.consoles.open("db1", [daemon.spec.__class__(port="com1", path=str(other.path))])
        with trio.fail_after(5):
            await daemon.consoles.ready("db1")
            session = await open_tail(daemon.consoles, TailParams(names=("db1", "web1")), who="carol")
            ours, theirs = trio.socket.socketpair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.serve, ours)
                await line.say(b"\x1b[31mweb\x1b[0m\n")
                await other.say(b"db\n")
                got = b""
                while got.count(b"console.output") < 2:
                    got += await theirs.recv(4096)
                theirs.close()
            ours.close()
    other.close()

    assert session.result.consoles == (("db1", "com1"), ("web1", "com1"))
    assert b'"name": "web1", "port": "com1", "offset": 0, "size": 13, "text": "web\\n"' in got
    assert b'"name": "db1", "port": "com1", "offset": 0, "size": 3, "text": "db\\n"' in got


async def test_plain_requests(tmp_path: Path, line: GuestLine) -> None:
    """A script reads the log, waits for a text and types, each by one request; the keyboard of a person is respected."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            daemon.consoles.mark("web1", "boot", "run 1", run="r1")
            await line.say(b"\x1b[1mlogin:\x1b[0m ")
            waited = await consoleask.wait_for(daemon.consoles, WaitParams(name="web1", text="login: "))
            sent = await consoleask.send(daemon.consoles, SendParams(name="web1", text="root\r"))
            heard = await line.hear(5)
            page = await consoleask.log(daemon.consoles, LogParams(name="web1", boot=0))
            missing = await consoleask.wait_for(daemon.consoles, WaitParams(name="web1", text="never", timeout=0.05))
            async with attached(daemon, "alice") as alice:
                await alice.until_event("writer", you=True)
                with pytest.raises(Refused, match="alice has the keyboard of web1's com1"):
                    await consoleask.send(daemon.consoles, SendParams(name="web1", text="x"))
            with pytest.raises(Refused, match='web1 has no console "com9"; it has com1'):
                await consoleask.log(daemon.consoles, LogParams(name="web1", port="com9"))
            with pytest.raises(Refused, match=r"the console log of web1 has 1 run: --boot 0$"):
                await consoleask.log(daemon.consoles, LogParams(name="web1", boot=-1))

        assert waited.found
        assert (sent.taken, sent.offset) == (5, 15)
        assert heard == b"root\r"
        assert [(record.mark, record.text) for record in page.records] == [("boot", "run 1"), (None, "login: ")]
        assert not missing.found


async def test_a_guest_that_is_forgotten_ends_its_viewers(tmp_path: Path, line: GuestLine) -> None:
    """Closing a guest's consoles ends the sessions and removes the ring; the log stays."""
    async with Daemon(tmp_path, line.path).running() as daemon:
        with trio.fail_after(5):
            async with attached(daemon) as client:
                await line.say(b"bye")
                await client.until_output(b"bye")
                daemon.consoles.close("web1")
                while await client.read():
                    pass
            while list((tmp_path / "run" / "console").iterdir()):
                await trio.testing.wait_all_tasks_blocked(0.01)

    assert daemon.consoles.hub("web1") is None
    assert daemon.log.exists()


async def test_the_ring_is_nobody_elses_to_read(tmp_path: Path, line: GuestLine) -> None:
    """Ring and directory are root's alone: a console shows what people type."""
    async with Daemon(tmp_path, line.path).running():
        directory = tmp_path / "run" / "console"

        assert directory.stat().st_mode & 0o077 == 0
        assert [entry.stat().st_mode & 0o077 for entry in directory.iterdir()] == [0]


async def test_other_programs_have_a_socket(tmp_path: Path, line: GuestLine) -> None:
    """A configured socket carries the guest's bytes and nothing else, in both directions, for its owner only."""
    path = tmp_path / "c.sock"
    async with Daemon(tmp_path, line.path, socket=str(path)).running() as daemon:
        with trio.fail_after(5):
            async with await trio.open_unix_socket(path) as peer:
                while not daemon.hub.viewers:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                await line.say(b"\x1b[1mlogin: ")
                got = await peer.receive_some(100)
                await peer.send_all(b"root\r")
                heard = await line.hear(5)
            mode = path.stat().st_mode & 0o777

    assert (got, heard, mode) == (b"\x1b[1mlogin: ", b"root\r", 0o600)
    assert not path.exists()
