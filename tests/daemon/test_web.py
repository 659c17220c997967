"""The HTTP server: who sees what, what hostile clients can do, and that it ends when it should."""

import base64
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.status import Hold, Phase
from bhyved.core.values import AbsPath
from bhyved.daemon import gate, site, web
from tests.daemon.webkit import NOW, RUNS, Reply, Server, crowd, password_file, status, up

# `openssl passwd -6 -salt bhyved sesame`
SESAME = "$6$bhyved$GE6i7gUI2uqUyuS9/X/09JhlXGRtZE1yljjHkb9TFK1x6SCttuVPTLJd1vGTOuY5E.3e3tgZgTpC9rMILPuT31"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(*crowd()).running() as running:
        yield running


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Server]:
    path = password_file(tmp_path / "auth", SESAME)
    async with Server(*crowd(), basic_auth_file=AbsPath(path)).running() as running:
        yield running


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(*crowd(), listen=f"unix:{tmp_path}/web.sock").running() as running:
        yield running


async def cookie_of(server: Server) -> str:
    """A session, as a browser gets it by a link."""
    reply = await server.get(server.web.new_link().removeprefix(server.url))
    assert reply.status == 303
    return reply.headers["set-cookie"].partition(";")[0]


# --- what anybody may see ---------------------------------------------------------------------------------------------------------


async def test_figures_and_health_are_open(server: Server) -> None:
    """Without any proof a local user gets metrics and health, and nothing of a console."""
    reply = await server.get("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'bhyved_vm_up{vm="web1"} 1' in reply.text
    assert (await server.get("/metrics", accept="application/openmetrics-text;version=1.0.0")).text.endswith("# EOF\n")
    assert (await server.get("/healthz")).text == "ok\n"
    for path in ("/", "/events", "/vm/web1", "/vm/web1?part=detail"):
        reply = await server.get(path)
        assert reply.status == 403
        assert "vmctl web" in reply.text
        assert "login:" not in reply.text


@pytest.mark.parametrize("version", ["x", "1.x", "", "9" * 5000, "1.0.0;version=x"], ids=lambda version: version[:9])
@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
async def test_figures_in_a_format_that_nobody_knows(server: Server, kind: str, version: str) -> None:
    """Are figures all the same, and no traceback in the log for whoever asks."""
    reply = await server.get("/metrics", accept=f"{kind};version={version}")

    assert reply.status == 200
    assert 'bhyved_vm_up{vm="web1"} 1' in reply.text


async def test_ready_says_why_not(server: Server) -> None:
    """/readyz is 503 with the reason while guests are not looked after; /healthz does not mind."""
    assert (await server.get("/readyz")).status == 200
    server.facts = type(server.facts)(version="1.0", started_at=server.now, not_ready="looking for running guests")
    reply = await server.get("/readyz")
    assert (reply.status, reply.text) == (503, "looking for running guests\n")
    assert (await server.get("/healthz")).status == 200


async def test_other_paths_and_methods(server: Server) -> None:
    """Nothing is changed over HTTP."""
    assert (await server.get("/nothing")).status == 404
    assert (await server.get("/metrics", method="POST")).status == 405
    assert (await server.get("/metrics", method="DELETE")).headers["allow"] == "GET, HEAD"
    reply = await server.get("/metrics", method="HEAD")
    assert (reply.status, reply.text) == (200, "")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9747", "[::1]:9747", "vmhost.example.org", "VMHOST.example.org.:80", "10.1.2.3"])
async def test_hosts_that_are_ours(server: Server, host: str) -> None:
    """Addresses, localhost and the host's own name."""
    assert (await server.get("/metrics", host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.com", "localhost.evil.com:9747", "", "[::1].evil.com", "x@127.0.0.1"])
async def test_hosts_that_are_not(server: Server, host: str) -> None:
    """A page elsewhere cannot have its own name point here and read what its visitors' hosts run."""
    reply = await server.get("/metrics", host=host)
    assert reply.status == 421
    assert "bhyved_vm" not in reply.text


# --- links ------------------------------------------------------------------------------------------------------------------------


async def test_a_link_opens_one_session(server: Server) -> None:
    """A link works once; its session sees everything, and the cookie is out of reach for scripts and other sites."""
    link = server.web.new_link().removeprefix(server.url)
    assert (await server.get(link, method="HEAD")).status == 403
    reply = await server.get(link)
    assert (reply.status, reply.headers["location"]) == (303, "/")
    cookie, *attributes = reply.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert "web1" in (await server.get("/", cookie=cookie)).text
    assert (await server.get(link)).status == 403
    for right in (f"{cookie}; other=x", f'other="x; bhyved=x; {cookie}'):
        assert (await server.get("/", cookie=right)).status == 200
    for wrong in ("bhyved=", "bhyved=x", "bhyved", cookie[:-1], cookie + "x", f"x{cookie}", ";;=\x7f"):
        assert (await server.get("/", cookie=wrong)).status == 403


async def test_a_cookie_costs_no_more_than_its_length(server: Server) -> None:
    """Anybody who reaches the port may send one: http.cookies takes a minute for this, in the loop that looks after guests."""
    decisions = server.web._gate
    assert decisions is not None
    began = time.process_time()

    assert not decisions.has_session('bhyved="' + '\\"' * 60_000 + '"')
    assert time.process_time() - began < 5


async def test_links_and_sessions_grow_old(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old link opens nothing, an old session has ended, and of many links only the newest count."""
    many = [server.web.new_link().removeprefix(server.url) for _ in range(gate.KEPT + 1)]
    assert (await server.get(many[0])).status == 403
    cookie = (await server.get(many[1])).headers["set-cookie"].partition(";")[0]
    assert (await server.get("/", cookie=cookie)).status == 200
    decisions = server.web._gate
    assert decisions is not None
    later = trio.current_time() + gate.TOKEN_S
    monkeypatch.setattr(decisions, "_now", lambda: later)
    assert (await server.get(many[2])).status == 403
    assert (await server.get("/", cookie=cookie)).status == 200
    monkeypatch.setattr(decisions, "_now", lambda: later + gate.SESSION_S)
    assert (await server.get("/", cookie=cookie)).status == 403


# --- passwords --------------------------------------------------------------------------------------------------------------------


async def test_passwords_open_everything(guarded: Server) -> None:
    """With a file of users, metrics and page need one of them; health does not."""
    for path in ("/", "/metrics", "/vm/web1"):
        assert (await guarded.get(path, authorization=basic("alice", "sesame"))).status == 200
        for wrong in (basic("alice", "open"), basic("bob", "sesame"), basic("", ""), "Basic !!", "Basic YWxpY2U=", "Bearer x", "Basic"):
            reply = await guarded.get(path, authorization=wrong)
            assert (reply.status, reply.headers["www-authenticate"].split()[0]) == (401, "Basic")
        assert (await guarded.get(path)).status == 401
    assert (await guarded.get("/healthz")).status == 200
    assert (await guarded.get("/metrics", cookie=await cookie_of(guarded))).status == 200


async def test_a_right_password_is_remembered_while_it_is_right(guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape every few seconds does not cost a check each; a user who is taken out is out at once."""
    checks = []
    verify = gate.verify
    monkeypatch.setattr(gate, "verify", lambda *args: checks.append(args) or verify(*args))
    for _ in range(3):
        assert (await guarded.get("/metrics", authorization=basic("alice", "sesame"))).status == 200
    assert len(checks) == 1
    password_file(tmp_path / "auth", SESAME).write_text("# nobody\n")
    assert (await guarded.get("/metrics", authorization=basic("alice", "sesame"))).status == 401
    assert len(checks) == 2, "an unknown user takes as long as a known one"


async def test_a_broken_file_opens_nothing(guarded: Server, tmp_path: Path) -> None:
    """When passwords cannot be checked nobody gets in, and the log says why."""
    (tmp_path / "auth").unlink()
    reply = await guarded.get("/metrics", authorization=basic("alice", "sesame"))
    assert reply.status == 503
    assert str(tmp_path) not in reply.text
    assert (await guarded.get("/healthz")).status == 200


async def test_guessing_is_slow(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many guesses at once most are turned away unchecked."""
    monkeypatch.setattr(gate, "WAITING", 2)
    replies: list[Reply] = []

    async def guess(number: int) -> None:
        replies.append(await guarded.get("/metrics", authorization=basic("alice", f"guess{number}")))

    async with trio.open_nursery() as nursery:
        for number in range(24):
            nursery.start_soon(guess, number)
    found = {reply.status for reply in replies}
    assert found == {401, 503}


# --- the UNIX socket --------------------------------------------------------------------------------------------------------------


async def test_unix_socket_needs_no_proof(local: Server) -> None:
    """Whoever may open the socket may see everything; there is no link for it."""
    assert "web1" in (await local.get("/")).text
    assert (await local.get("/metrics")).status == 200
    with pytest.raises(HostError, match="the page is on the UNIX socket"):
        local.web.new_link()


# --- TLS --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "crt", tmp_path / "key"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-subj", "/CN=a.example"]
    subprocess.run([*argv, "-addext", "subjectAltName=DNS:a.example"], check=True, capture_output=True)
    return cert, key


async def test_tls(certificate: tuple[Path, Path]) -> None:
    """With a certificate only TLS is spoken, by HTTP/1.1, under any name; the cookie is for TLS only."""
    cert, key = certificate
    async with Server(*crowd(), tls_cert=AbsPath(cert), tls_key=AbsPath(key)).running() as server:
        assert server.url.startswith("https://")
        link = server.web.new_link().removeprefix(server.url)
        context = ssl.create_default_context(cafile=str(cert))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with trio.fail_after(10):
            raw = await server.connect()
            async with trio.SSLStream(raw, context, server_hostname="a.example", https_compatible=True) as stream:
                await stream.send_all(f"GET {link} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n".encode())
                reply = Reply(b"".join([part async for part in stream]))
                assert stream.selected_alpn_protocol() == "http/1.1"
        assert reply.status == 303
        assert "Secure" in reply.headers["set-cookie"]
        plain = await server.connect()
        with trio.fail_after(10):
            async with plain:
                await plain.send_all(b"GET /metrics HTTP/1.1\r\nhost: a.example\r\n\r\n")
                assert b"bhyved_vm" not in b"".join([part async for part in plain])


# --- the page ---------------------------------------------------------------------------------------------------------------------


async def test_the_page_is_a_table_without_script(local: Server) -> None:
    """The first answer has every guest with state, reason, restarts and a link, and asks nothing of anybody else."""
    reply = await local.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("web1", "db1", "loop1", "win11", "spare", "mail"):
        assert f'<a href="/vm/{name}">{name}</a>' in reply.text
    assert "the guest crashed (triple fault); next start in 12 s" in reply.text
    assert "1 held" in reply.text
    assert "6 ended in 24 hours, 5 of them not on purpose" in reply.text
    assert "http-equiv" in reply.text
    assert "://" not in reply.text
    assert " style=" not in reply.text
    assert " onclick=" not in reply.text


async def test_one_guest(local: Server) -> None:
    """A guest's own page says why, what its last runs came to, and what it printed."""
    reply = await local.get("/vm/win11")
    assert "win11 is held: crashed 5 times" in reply.text
    assert reply.text.count('<tr class="trouble">') == len(RUNS["win11"])
    assert "the disk is missing" in reply.text
    assert "FreeBSD/amd64 (web1) (ttyu0)" in reply.text
    part = await local.get("/vm/win11?part=detail")
    assert part.text in reply.text
    assert "<html" not in part.text
    assert (await local.get("/vm/none")).status == 404


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b]0;title\x07\x1b[31mred\u202e"


async def test_nothing_from_guests_is_html(tmp_path: Path) -> None:
    """Names, reasons, run records and console lines are text, whatever stands in them, on every way to the browser."""
    guest = status("<b>x</b>", phase=Phase.HELD, reason=HOSTILE, attempts=HOSTILE)
    async with Server(guest, listen=f"unix:{tmp_path}/web.sock").running() as server:
        server.lines = [(HOSTILE, HOSTILE)]
        records = [msgspec.structs.replace(each, text=HOSTILE, hint=HOSTILE, decision=HOSTILE, by=HOSTILE) for each in RUNS["win11"]]
        server.runs = {guest.name: records}
        for path in ("/", "/vm/%3Cb%3Ex%3C%2Fb%3E", "/vm/%3Cb%3Ex%3C%2Fb%3E?part=detail"):
            reply = await server.get(path)
            assert reply.status == 200
            assert "<script>alert" not in reply.text
            assert "<img" not in reply.text
            assert "<b>x" not in reply.text
            assert "&lt;script&gt;alert(1)" in reply.text
            assert not set(reply.text) & {"\x1b", "\x07", "\u202e"}


# --- live -------------------------------------------------------------------------------------------------------------------------


async def followed(server: Server, since: str = "d1.6") -> tuple[trio.abc.Stream, "Followed"]:
    stream = await server.connect()
    await stream.send_all(f"GET /events?since={since} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    return stream, Followed(stream)


class Followed:
    """Server-sent events as they come."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.data = b""

    async def until(self, text: bytes) -> bytes:
        while text not in self.data:
            part = await self.stream.receive_some()
            assert part, f"ended after {self.data!r}"
            self.data += part
        return self.data

    async def news(self) -> dict[str, object]:
        """The next message about guests."""
        await self.until(b"event: guests\ndata: ")
        self.data = self.data.partition(b"event: guests\ndata: ")[2]
        await self.until(b"\n\n")
        line, _, self.data = self.data.partition(b"\n\n")
        news: dict[str, object] = json.loads(line)
        return news


async def test_memory_is_said_as_everywhere_else(local: Server) -> None:
    """A guest of 2000M has 1.9G, as in `vmctl list`."""
    local.board.publish(status("web1", memory_bytes=2000 << 20))
    with trio.fail_after(10):
        text = (await local.get("/")).text

    assert '<td class="n">1.9G</tr>' in text


async def test_a_guest_that_is_ill_or_waits_for_memory_is_seen(local: Server) -> None:
    """The page counts the ill, marks their row, and says why in place of the reason they were started for."""
    local.board.publish(up("web1", ill="no answer <3 times"))
    local.board.publish(status("big", phase=Phase.WAITING, waiting_for="waiting for memory: needs 2G", roomless=True))
    with trio.fail_after(10):
        text = (await local.get("/")).text

    assert '<span class="chip ill">1 ill</span>' in text
    assert '<span class="note ill">ill</span><td class="why">no answer &lt;3 times<' in text
    assert '<span class="note">waits for memory</span><td class="why">waiting for memory: needs 2G<' in text


async def test_a_hold_and_a_drain_say_by_whom_until_when_and_why(local: Server) -> None:
    """On the page as everywhere else."""
    local.board.publish(up("web1", hold=Hold(by="alice", reason="disk <check>", since_at=NOW, until_at=NOW + timedelta(hours=1))))
    local.drain = Drain(by="bob", reason="new memory", since_at=NOW)
    with trio.fail_after(10):
        text = (await local.get("/")).text

    assert f">on hold by alice until {NOW + timedelta(hours=1):%Y-%m-%d %H:%M:%S} UTC: disk &lt;check&gt;<" in text
    assert '<span class="chip held">drained by bob: new memory</span>' in text


async def test_changes_are_followed(local: Server) -> None:
    """A browser is told of each guest that changes, comes or goes, and of no other."""
    with trio.fail_after(10):
        stream, events = await followed(local)
        async with stream:
            await events.until(b": hello\n\n")
            local.board.publish(up("web1", reason="up again <3"))
            local.board.publish(status("new1"))
            local.board.remove("spare")
            news = await events.news()
            rows = dict(news["rows"])  # type: ignore[call-overload]
            assert set(rows) == {"web1", "new1"}
            assert "up again &lt;3" in rows["web1"]
            assert news["gone"] == ["spare"]
            local.board.publish(up("db1"))
            assert [name for name, _ in (await events.news())["rows"]] == ["db1"]  # type: ignore[attr-defined]


async def test_a_browser_that_was_away_catches_up(local: Server) -> None:
    """The id of the last message that a browser has seen is where it goes on from."""
    local.board.publish(up("db1"))
    with trio.fail_after(10):
        stream = await local.connect()
        async with stream:
            await stream.send_all(b"GET /events?since=d1.1 HTTP/1.1\r\nhost: x\r\nlast-event-id: d1.6\r\n\r\n")
            news = await Followed(stream).news()
            assert [name for name, _ in news["rows"]] == ["db1"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("since", ["d0.6", "d1.99", "d1.x", "", "..", "d1.-1", pytest.param(f"d1.{'9' * 5000}", id="giant")])
async def test_a_page_of_another_daemon_is_loaded_anew(local: Server, since: str) -> None:
    """After a restart of the daemon, old numbers mean nothing: the browser is told to ask for the page."""
    with trio.fail_after(10):
        stream, events = await followed(local, since)
        async with stream:
            await events.until(b"event: reload\ndata:\n\n")


async def test_browsers_that_leave_make_room(local: Server) -> None:
    """So many follow at a time, the next is refused, and whoever leaves is noticed."""
    with trio.fail_after(20):
        streams = []
        for _ in range(site.FOLLOWERS):
            stream, events = await followed(local)
            await events.until(b": hello")
            streams.append(stream)
        assert (await local.get("/events?since=d1.6")).status == 503
        await streams.pop().aclose()
        while True:
            stream, events = await followed(local)
            streams.append(stream)
            if b"200" in await events.until(b"\r\n"):
                break
        for stream in streams:
            await stream.aclose()


# --- the server -------------------------------------------------------------------------------------------------------------------


async def test_a_bad_bind_stops_nobody() -> None:
    """A port that is taken is told, and the daemon goes on without the server."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = Server(listen=f"127.0.0.1:{other.getsockname()[1]}")
        async with server.running():
            assert server.url == ""
            assert "address already in use" in server.web.problem
            with pytest.raises(HostError, match="address already in use"):
                server.web.new_link()


async def test_the_socket_is_not_for_children(server: Server) -> None:
    """A guest that is started meanwhile does not inherit the port, nor a connection."""
    stream = await server.connect()
    async with stream:
        await server.get("/healthz")
        sockets = [fd for fd in range(3, 256) if _is_socket(fd)]
        assert len(sockets) >= 2
        assert not any(os.get_inheritable(fd) for fd in sockets)


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


async def test_the_server_ends_at_once() -> None:
    """A browser that follows, one that has asked for much and reads nothing, and one that says nothing hold nobody up."""
    server = Server(*(status(f"vm{number}") for number in range(400)))
    with trio.fail_after(10):
        async with server.running():
            idle = await server.connect()
            deaf = await server.connect()
            await deaf.send_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await deaf.receive_some(1)
            stream = await server.connect()
            await stream.send_all(
                f"GET /events?since=d1.400 HTTP/1.1\r\nhost: localhost\r\ncookie: {await cookie_of(server)}\r\n\r\n".encode()
            )
            await Followed(stream).until(b": hello")
        for each in (idle, deaf, stream):
            await each.aclose()


async def until_no_connection(server: Server) -> None:
    while server.web._streams:  # noqa: ASYNC110 - nobody is told of a connection's end
        await trio.sleep(0.01)


async def test_a_reader_that_stops_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read its answer is cut off in bounded time."""
    monkeypatch.setattr(web, "SEND_S", 0.2)
    monkeypatch.setattr(web, "IDLE_S", 0.2)
    async with Server(*(status(f"vm{number}") for number in range(600))).running() as server:
        with trio.fail_after(20):
            deaf = await server.connect()
            await deaf.send_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await deaf.receive_some(1)
            await until_no_connection(server)
            await deaf.aclose()


async def test_connections_are_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many connections the next is closed unheard, and the others are served."""
    monkeypatch.setattr(web, "CONNECTIONS", 3)
    with trio.fail_after(10):
        streams = [await server.connect() for _ in range(3)]
        await wait_all_tasks_blocked()
        assert len(server.web._streams) == 3
        extra = await server.connect()
        assert await extra.receive_some() == b""
        await streams[0].send_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200" in await streams[0].receive_some()
        for stream in (*streams, extra):
            await stream.aclose()


GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: !!\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n"
    b"sec-websocket-version: 13\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /vm/%ff%00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n" + b"y" * 100_000,
    b"GET / HTTP/1.1\r\nhost: \xff\xfe\r\ncookie: \xff\r\nauthorization: Basic \xff\r\n\r\n",
)


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_costs_only_its_sender(server: Server, garbage: bytes) -> None:
    """What is no request ends its own connection; the next client is served."""
    with trio.fail_after(20):
        stream = await server.connect()
        async with stream:
            try:
                await stream.send_all(garbage)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
    assert (await server.get("/healthz")).text == "ok\n"


@pytest.mark.parametrize("length", ["content-length: 5", "transfer-encoding: chunked"])
async def test_a_body_that_breaks_off_leaves_no_traceback(server: Server, length: str) -> None:
    """Nobody fills the log by hanging up, whatever Hypercorn was just about to send."""
    with trio.fail_after(20), capture_logs() as logged:
        for _ in range(20):
            stream = await server.connect()
            async with stream:
                await stream.send_all(f"POST / HTTP/1.1\r\nhost: localhost\r\n{length}\r\n\r\n".encode())
                await stream.send_eof()
                with suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
        await until_no_connection(server)

    assert [line for line in logged if line["log_level"] == "error"] == []


async def test_half_a_request_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says nothing, or half a request, is closed after the idle time."""
    monkeypatch.setattr(web, "IDLE_S", 0.3)
    async with Server().running() as server:
        with trio.fail_after(10):
            silent, slow = await server.connect(), await server.connect()
            await slow.send_all(b"GET /metrics HT")
            assert await silent.receive_some() == b""
            assert await slow.receive_some() == b""
            await silent.aclose()
            await slow.aclose()
