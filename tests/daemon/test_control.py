"""What the control socket does with clients, good and bad, over real sockets."""

import os
import socket
from contextlib import suppress

import pytest
import trio

from bhyved.core.errors import HostError
from bhyved.core.jsonrpc import LINE_BYTES
from bhyved.core.status import Phase
from bhyved.daemon import connection, control, outbox
from tests.daemon.controlkit import ROOT, error_of, guest, served, user

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


async def test_a_request_is_a_line_and_so_is_its_answer(tmp_path):
    """The example of the protocol's page works as it stands there."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        await client.send(b'{"jsonrpc":"2.0","id":1,"method":"vm.list"}\n')
        answer = await client.line()

    assert answer["id"] == 1
    assert [row["name"] for row in answer["result"]["vms"]] == ["web1"]
    assert answer["result"]["version"] == 1


async def test_requests_in_pieces_and_in_heaps_are_answered_in_order(tmp_path):
    """A request may come byte by byte, and many may come at once."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        for byte in b'{"jsonrpc":"2.0","id":"slow","method":"daemon.info"}\r\n':
            await client.send(bytes([byte]))
        first = await client.line()
        heap = b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"vm.list"}\n\n' % number for number in range(500))
        await client.send(heap)
        ids = [(await client.line())["id"] for _ in range(500)]

    assert first["id"] == "slow"
    assert ids == list(range(500))


@pytest.mark.parametrize(
    ("line", "id", "code", "words"),
    [
        (b"hello", None, "parse-error", "no JSON"),
        (b"\xff\xfe", None, "parse-error", "no JSON"),
        (b"[" * 100_000, None, "parse-error", "nested too deeply"),
        (b"[]", None, "invalid-request", "one request a line"),
        (b"7", None, "invalid-request", "object"),
        (b'{"jsonrpc":"2.0","method":"vm.list"}', None, "invalid-request", "needs an id"),
        (b'{"jsonrpc":"2.0","id":true,"method":"vm.list"}', None, "invalid-request", "needs an id"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"vm.list"}', None, "invalid-request", "needs an id"),
        (b'{"id":3,"method":"vm.list"}', 3, "invalid-request", "2.0"),
        (b'{"jsonrpc":"2.0","id":3}', 3, "invalid-request", "method"),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.list","x":1}', 3, "invalid-request", '"x"'),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.list","params":["web1"]}', 3, "invalid-params", "object"),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.lst"}', 3, "unknown-method", 'did you mean "vm.list"?'),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.list","params":{"nmaes":[]}}', 3, "invalid-params", 'did you mean "names"?'),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.why","params":{}}', 3, "invalid-params", "name is missing"),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.why","params":{"name":7}}', 3, "invalid-params", "name: expected str, got int"),
        (b'{"jsonrpc":"2.0","id":3,"method":"daemon.info","params":{"a":1}}', 3, "invalid-params", "takes no params"),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.start","params":{}}', 3, "invalid-params", "give names"),
        (b'{"jsonrpc":"2.0","id":3,"method":"vm.start","params":{"names":["a"],"all":true}}', 3, "invalid-params", "not both"),
    ],
)
async def test_what_is_no_request_is_answered_in_words(tmp_path, line, id, code, words):
    """A bad line costs one error, and the connection goes on."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        await client.send(line + b"\n")
        answer = await client.line()
        assert (await client.call("daemon.info"))["protocol"] == 1

    assert answer["id"] == id
    assert error_of(answer)["code"] == code
    assert words in error_of(answer)["message"]


async def test_a_line_without_end_is_refused_before_it_costs_memory(tmp_path):
    """Of 100 MB without a line end the daemon takes a little over 1 MiB, says so and closes."""
    sent = 0
    async with served(tmp_path, guest()) as daemon, daemon.client() as client, daemon.client() as other:
        chunk = b"x" * (1 << 16)
        try:
            while sent < 100_000_000:
                sent += await client.sock.send(chunk)
        except ConnectionError:
            pass
        answer = await client.line()
        assert await client.line() is None
        assert (await other.call("daemon.info"))["pid"]

    assert error_of(answer)["code"] == "line-too-long"
    assert sent < LINE_BYTES + 4_000_000


async def test_a_line_of_the_longest_length_is_read(tmp_path):
    """1 MiB is a request like any other, one byte more is not."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        request = b'{"jsonrpc":"2.0","id":1,"method":"daemon.info"'
        await client.send(request + b" " * (LINE_BYTES - len(request) - 1) + b"}\n")
        assert (await client.line())["result"]["protocol"] == 1
        await client.send(request + b" " * (LINE_BYTES - len(request)) + b"}\n")
        assert error_of(await client.line())["code"] == "line-too-long"
        assert await client.line() is None


async def test_a_client_that_never_reads_is_cut_off(tmp_path, monkeypatch):
    """Its answers wait up to a limit; then its connection ends, and nobody else notices."""
    monkeypatch.setattr(outbox, "LIMIT_BYTES", 1 << 18)
    guests = [guest(f"web{number}") for number in range(100)]
    async with served(tmp_path, *guests) as daemon, daemon.client() as client, daemon.client() as other:
        asked = 0
        with suppress(ConnectionError):
            while asked < 10_000:
                await client.ask("vm.list")
                asked += 1
        assert len((await other.call("vm.list"))["vms"]) == 100

    assert asked < 1000


async def test_one_long_answer_is_no_offence(tmp_path, monkeypatch):
    """An answer longer than the limit reaches a client that reads."""
    monkeypatch.setattr(outbox, "LIMIT_BYTES", 1000)
    async with served(tmp_path, *(guest(f"web{number}") for number in range(500))) as daemon, daemon.client() as client:
        assert len((await client.call("vm.list"))["vms"]) == 500


async def test_two_hundred_clients_at_once(tmp_path):
    """Root may have 200 connections, and each gets its answer while all are open."""
    async with served(tmp_path, guest()) as daemon, trio.open_nursery() as nursery:
        open_now = 0
        all_open = trio.Event()

        async def one() -> None:
            nonlocal open_now
            async with daemon.client() as client:
                await client.call("vm.list")
                open_now += 1
                if open_now == 200:
                    all_open.set()
                await all_open.wait()
                await client.call("daemon.info")

        for _ in range(200):
            nursery.start_soon(one)


async def test_each_user_has_so_many_connections(tmp_path, monkeypatch):
    """One more is told so and closed; another user and root still get in, and an ended connection makes room."""
    monkeypatch.setattr(control, "USER_MAX", 3)
    async with served(tmp_path, guest()) as daemon, trio.open_nursery() as nursery:
        hold = trio.Event()

        async def keep(task_status: trio.TaskStatus[None]) -> None:
            async with daemon.client(user("alice", 1001)) as client:
                await client.call("daemon.info")
                task_status.started()
                await hold.wait()

        for _ in range(3):
            await nursery.start(keep)
        async with daemon.client() as fourth:
            refused = error_of(await fourth.line())
            assert await fourth.line() is None
        for peer in (user("bob", 1002), ROOT):
            async with daemon.client(peer) as client:
                assert (await client.call("daemon.info"))["you"]["uid"] == peer.uid
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        async with daemon.client(user("alice", 1001)) as client:
            assert (await client.call("daemon.info"))["you"]["uid"] == 1001

    assert refused["code"] == "too-many-connections"


async def test_all_users_together_leave_room_for_root(tmp_path, monkeypatch):
    """Many users cannot take what root needs."""
    monkeypatch.setattr(control, "USERS_MAX", 2)
    async with served(tmp_path, guest()) as daemon, daemon.client(user("a", 1)) as first, daemon.client() as second:
        await first.call("daemon.info")
        daemon.peers.peer = user("b", 2)
        await second.call("daemon.info")
        async with daemon.client(user("c", 3)) as third:
            assert error_of(await third.line())["code"] == "too-many-connections"
        async with daemon.client(ROOT) as root:
            assert (await root.call("daemon.info"))["you"]["role"] == "root"


async def test_root_does_not_wait_for_the_user_database(tmp_path):
    """Root's name is known; every other user is looked up once a connection."""
    async with served(tmp_path, guest()) as daemon:
        async with daemon.client(ROOT) as client:
            assert (await client.call("daemon.info"))["you"]["user"] == "root"
        assert daemon.peers.asked == 0
        async with daemon.client(user("alice")) as client:
            await client.call("daemon.info")
            await client.call("daemon.info")

    assert daemon.peers.asked == 1


async def test_a_waiting_request_holds_up_nobody(tmp_path):
    """Requests behind one that waits are answered first; ids tell which is which."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        await client.ask("vm.wait", "wait", name="web1", until="down", after_run="none")
        await client.line()
        daemon.guests.show("web1", phase=Phase.STARTING, run="r1")
        await client.ask("vm.wait", "up", name="web1", until="up")
        await client.ask("daemon.info", "info")
        info = await client.line()
        daemon.guests.show("web1", phase=Phase.UP)
        up = await client.line()

    assert info["id"] == "info"
    assert up["id"] == "up"
    assert up["result"]["met"]


async def test_many_clients_wait_at_once(tmp_path):
    """Fifty waits on one guest all end with the same change."""
    async with served(tmp_path, guest()) as daemon, trio.open_nursery() as nursery:
        daemon.guests.show("web1", phase=Phase.STARTING, run="r1")
        met = []
        ready = trio.Event()
        waiting = 0

        async def wait() -> None:
            nonlocal waiting
            async with daemon.client() as client:
                await client.ask("vm.wait", name="web1", until="up", timeout=20)
                await client.ask("daemon.info", "asked")
                assert (await client.line())["id"] == "asked"
                waiting += 1
                if waiting == 50:
                    ready.set()
                met.append((await client.line())["result"]["met"])

        for _ in range(50):
            nursery.start_soon(wait)
        await ready.wait()
        daemon.guests.show("web1", phase=Phase.UP)

    assert met == [True] * 50


async def test_waits_of_a_connection_are_counted(tmp_path, monkeypatch):
    """One more than allowed is refused, and one that has ended makes room."""
    monkeypatch.setattr(connection, "WAITS_MAX", 2)
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        daemon.guests.show("web1", phase=Phase.STARTING, run="r1")
        for id in ("a", "b", "c"):
            await client.ask("vm.wait", id, name="web1", until="up")
        refused = await client.line()
        daemon.guests.show("web1", phase=Phase.UP)
        ended = {(await client.line())["id"], (await client.line())["id"]}
        assert (await client.call("vm.wait", name="web1", until="up"))["met"]

    assert (refused["id"], error_of(refused)["code"]) == ("c", "too-many-waits")
    assert ended == {"a", "b"}


async def test_a_client_that_only_stopped_sending_gets_its_answers(tmp_path):
    """After a half-close, plain requests and waits are still answered, and then the daemon closes."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        daemon.guests.show("web1", phase=Phase.STARTING, run="r1")
        await client.ask("vm.wait", "wait", name="web1", until="up")
        await client.ask("daemon.info", "info")
        client.sock.shutdown(socket.SHUT_WR)
        assert (await client.line())["id"] == "info"
        await trio.testing.wait_all_tasks_blocked()
        daemon.guests.show("web1", phase=Phase.UP)
        assert (await client.line())["id"] == "wait"
        assert await client.line() is None


async def test_what_a_vanished_client_waited_for_is_given_up(tmp_path, monkeypatch):
    """A closed connection leaves no task behind: its place is free again."""
    monkeypatch.setattr(control, "USER_MAX", 1)
    async with served(tmp_path, guest(owner=("alice",))) as daemon:
        daemon.guests.show("web1", phase=Phase.STARTING, run="r1")
        async with daemon.client(user("alice")) as client:
            await client.ask("vm.wait", name="web1", until="up")
            await client.ask("events.subscribe", "events")
            assert (await client.line())["id"] == "events"
        await trio.testing.wait_all_tasks_blocked()
        async with daemon.client() as client:
            assert (await client.call("daemon.info"))["guests"] == 1


async def test_a_half_request_is_nobodys_business(tmp_path):
    """A client that goes away in the middle of a line is forgotten."""
    async with served(tmp_path, guest()) as daemon:
        async with daemon.client() as client:
            await client.send(b'{"jsonrpc":"2.0","id":1,"method":"vm.st')
        async with daemon.client() as client:
            await client.call("daemon.info")

    assert daemon.guests.wishes == []


async def test_a_bug_is_one_answer(tmp_path, monkeypatch):
    """An exception in a method is an internal error for its caller, who may go on."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        monkeypatch.setattr(daemon.guests, "runs", lambda name, last: 1 // 0)
        error = await client.fail("vm.history", name="web1")
        assert (await client.call("vm.list"))["vms"]

    assert (error["number"], error["code"]) == (-32603, "internal-error")
    assert "ZeroDivision" not in error["message"]


async def test_nobody_gets_in_without_credentials(tmp_path, monkeypatch):
    """When the kernel does not say who connected, the connection is closed."""
    async with served(tmp_path, guest()) as daemon:

        def refuse(sock: object) -> None:
            raise HostError("the kernel does not say who connected")

        monkeypatch.setattr(daemon.peers, "peer_of", refuse)
        async with daemon.client() as client:
            assert await client.line() is None


async def test_the_kernel_says_who_connects(tmp_path):
    """With the host's own look-up, this process is whoever runs the tests, and the daemon's own user is trusted."""
    async with served(tmp_path, guest(), euid=os.geteuid()) as daemon:
        daemon.peers.peer = None
        async with daemon.client() as client:
            you = (await client.call("daemon.info"))["you"]

    assert (you["uid"], you["role"]) == (os.geteuid(), "root")


async def test_who_is_in_stays_when_nobody_is_let_in_any_more(tmp_path):
    """Then nothing waits for the listener, whose descriptor the next pipe may get; a client of before is still answered."""
    async with served(tmp_path, guest()) as daemon, daemon.client() as client:
        await client.call("daemon.info")
        await daemon.control.shut()

        with trio.move_on_after(0.01) as scope:
            await trio.lowlevel.wait_readable(daemon.listener)
        assert scope.cancelled_caught
        assert (await client.call("daemon.info"))["protocol"] == 1


async def test_a_server_that_never_began_is_shut_at_once(tmp_path):
    """A daemon that fails before it serves does not wait for its clients."""
    async with served(tmp_path, guest()) as daemon:
        guests = daemon.guests
        with trio.fail_after(1):
            await control.Control(guests, guests.views, daemon.peers, euid=0).shut()
