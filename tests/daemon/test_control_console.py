"""console.* over the control socket, on a real terminal line."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bhyved.core import frames
from bhyved.core.console import ConsoleSpec
from bhyved.core.frames import Kind
from bhyved.core.status import Phase
from tests.daemon import consolekit
from tests.daemon.controlkit import ROOT, Served, guest, served, user
from tests.daemon.guestline import GuestLine


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[GuestLine]:
    guest_line = GuestLine(tmp_path / "nmdm-web1.1B")
    yield guest_line
    guest_line.close()


@asynccontextmanager
async def consoled(root: Path, line: GuestLine) -> AsyncIterator[Served]:
    """web1 belongs to alice and has a console, db1 to nobody and its console is not there."""
    async with served(root, guest("web1", owner=("alice",)), guest("db1")) as daemon:
        daemon.guests.consoles.open("web1", [ConsoleSpec(port="com1", path=str(line.path))])
        daemon.guests.consoles.open("db1", [ConsoleSpec(port="com1", path=str(root / "nowhere"))])
        await daemon.guests.consoles.ready("web1")
        yield daemon


async def test_attach_turns_the_connection_into_frames(tmp_path, line):
    """Behind the answer's line come output and events, and keystrokes sent with the request itself arrive."""
    async with consoled(tmp_path, line) as daemon, daemon.client(user("alice")) as client:
        await line.say(b"login: ")
        await daemon.guests.consoles.first_byte("web1", {"com1": 0})
        request = b'{"jsonrpc":"2.0","id":1,"method":"console.attach","params":{"name":"web1","since":"all"}}\n'
        await client.send(request + frames.frame(Kind.INPUT, b"root\r"))
        answer = await client.line()
        assert await line.hear(5) == b"root\r"
        behind = client.rest()
        while b"login: " not in behind:
            behind += await client.sock.recv(1 << 16)

    assert (answer["result"]["name"], answer["result"]["frames"]) == ("web1", 1)
    kinds = [frame.kind for frame in frames.Parser().feed(behind)]
    assert Kind.DATA in kinds


async def test_a_reader_watches_and_does_not_type(tmp_path, line):
    """Who has the right to read only is attached read-only, whatever it asks for."""
    async with consoled(tmp_path, line) as daemon:
        daemon.guests.trust(read_group="monitors")
        async with daemon.client(user("carol", 1003, "monitors")) as client:
            result = await client.call("console.attach", name="web1", since="all")
            viewer = consolekit.Client(client.sock)
            viewer.next = result["offset"]
            await line.say(b"login: ")
            await viewer.until_output(b"login: ")
            await viewer.type(b"root\r")
            await viewer.until_event("refused", why="read-only")
            assert line.waiting() == b""
        async with daemon.client() as client:
            assert (await client.fail("console.send", name="web1", text="x"))["code"] == "not-permitted"
            assert (await client.call("console.log", name="web1"))["records"]


async def test_a_console_takes_the_connection_over_only_when_nothing_waits(tmp_path, line):
    """Frames and answers cannot share a connection; afterwards requests go on as before."""
    async with consoled(tmp_path, line) as daemon, daemon.client(ROOT) as client:
        daemon.guests.show("web1", phase=Phase.STARTING, run="r1")
        await client.ask("vm.wait", "wait", name="web1", until="up")
        error = await client.fail("console.attach", name="web1")
        assert (await client.call("daemon.info"))["protocol"] == 1

    assert error["code"] == "connection-busy"


async def test_tail_follows_what_the_caller_may_read(tmp_path, line):
    """Without names it is every console that the caller may read, and the client's end ends it."""
    async with consoled(tmp_path, line) as daemon, daemon.client(user("alice")) as client:
        result = await client.call("console.tail")
        await line.say(b"hello\r\n")
        text = ""
        while "hello" not in text:
            told = await client.line()
            text += told["params"].get("text", "")
        refused = None
        async with daemon.client(user("alice")) as other:
            refused = await other.fail("console.tail", names=["db1"])
        client.sock.shutdown(socket.SHUT_WR)
        while await client.line() is not None:
            pass

    assert result["consoles"] == [["web1", "com1"]]
    assert told["method"] == "console.output"
    assert refused["code"] == "no-such-guest"


async def test_scripts_send_and_wait_for_text(tmp_path, line):
    """console.send types, console.wait-for returns what the guest prints, and waiting holds up nobody."""
    async with consoled(tmp_path, line) as daemon, daemon.client(user("alice")) as client:
        await client.ask("console.wait-for", "wait", name="web1", text="login:", timeout=20)
        sent = await client.call("console.send", name="web1", text="\r")
        assert await line.hear(1) == b"\r"
        await line.say(b"\r\nlogin: ")
        waited = await client.line()
        told = daemon.guests.events.since(0)[-1]
        assert (await client.fail("console.log", name="web1", port="com9"))["code"] == "no-console"

    assert sent["taken"] == 1
    assert (waited["id"], waited["result"]["found"]) == ("wait", True)
    assert (told.event, told.vm, told.by, told.data["method"]) == ("asked", "web1", "alice", "console.send")
