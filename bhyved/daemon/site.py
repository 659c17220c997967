"""What is served over HTTP, as an ASGI application: metrics, health, and the status page with its live events. Nothing changes anything.

The page's data comes from the board; what needs more (why, runs, console lines) from the callables in `Sources`.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog
import trio

from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.status import RunRecord, VmStatus
from bhyved.daemon import page
from bhyved.daemon.board import Board
from bhyved.daemon.gate import COOKIE, SESSION_S, Busy, Gate
from bhyved.daemon.metrics import Scrape

_log = structlog.get_logger()

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SCRAPES = 4  # at a time, each some megabytes of text on its way
FOLLOWERS = 16  # browsers that follow live
CALM_S = 0.25  # between two messages to a follower: a storm of changes is told in few
RUNS_SHOWN = 8
RUNS_COUNTED = 100  # for the sparkline: more ends a day look the same
LINES = 25  # of a console: a screen
_DIGITS = 20  # no board comes so far, and int() refuses thousands

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_HTML = "text/html; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where the site gets what it shows."""

    board: Board
    scrape: Callable[[str], Awaitable[Scrape]]
    not_ready: Callable[[], str]
    drain: Callable[[], Drain | None]
    why: Callable[[str], Sequence[str]]  # sentences
    runs: Callable[[str, int], list[RunRecord]]  # newest last
    consoles: Callable[[str, int], list[tuple[str, str]]]  # port and last lines
    utc: Callable[[], datetime]
    host: str  # its name, for titles
    began: str  # tells one daemon from the next


class Site:
    """The application."""

    def __init__(self, sources: Sources, gate: Gate, *, is_tls: bool) -> None:
        self._sources = sources
        self._gate = gate
        self._cookie = f"; Path=/; HttpOnly; SameSite=Strict; Max-Age={SESSION_S:.0f}{'; Secure' if is_tls else ''}"
        self._scraping = trio.CapacityLimiter(SCRAPES)
        self._following = trio.CapacityLimiter(FOLLOWERS)
        self._sparks: dict[str, tuple[object, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        answer = _Answer(send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["method"] not in ("GET", "HEAD"):
            await answer.text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", [(b"allow", b"GET, HEAD")])
        elif not self._gate.host_is_ours(headers.get("host", "")):
            await answer.text(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that was asked for; use its address or its own name")
        else:
            await self._route(scope, headers, receive, answer)

    async def _route(self, scope: Scope, headers: Mapping[str, str], receive: Receive, answer: "_Answer") -> None:
        path, query = scope["path"], parse_qs(scope["query_string"].decode("latin-1"))
        if path == "/healthz":
            await answer.text(HTTPStatus.OK, "ok")
        elif path == "/readyz":
            why = self._sources.not_ready()
            await answer.text(HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK, why or "ready")
        elif path == "/login":
            await self._login(scope, query.get("token", [""])[0], answer)
        elif path == "/metrics":
            if not self._gate.has_users or await self._may(headers, answer):
                await self._metrics(headers.get("accept", ""), answer)
        elif path in ("/", "/events") or path.startswith("/vm/"):
            if self._gate.is_private or await self._may(headers, answer):
                await self._show(path, query, headers, receive, answer)
        else:
            await answer.text(HTTPStatus.NOT_FOUND, "there is /metrics, /healthz, /readyz and the status page at /")

    async def _may(self, headers: Mapping[str, str], answer: "_Answer") -> bool:
        """Whether the caller has proved who they are; otherwise they have been answered."""
        if self._gate.has_session(headers.get("cookie", "")):
            return True
        try:
            if await self._gate.knows(headers.get("authorization", "")):
                return True
        except Busy:
            await answer.text(HTTPStatus.SERVICE_UNAVAILABLE, "too many passwords are being checked", [(b"retry-after", b"1")])
            return False
        except HostError as error:
            _log.warning("no password can be checked", why=str(error))
            await answer.text(HTTPStatus.SERVICE_UNAVAILABLE, "no password can be checked at present; the daemon's log says why")
            return False
        if self._gate.has_users:
            challenge = [(b"www-authenticate", b'Basic realm="bhyved", charset="UTF-8"')]
            await answer.text(HTTPStatus.UNAUTHORIZED, "a user and a password are needed", challenge)
        else:
            await answer.text(HTTPStatus.FORBIDDEN, "this page is opened by the link that `vmctl web` prints; /metrics is open")
        return False

    async def _login(self, scope: Scope, token: str, answer: "_Answer") -> None:
        # HEAD must not use a link up: it comes from programs that look at links, not from the person who was given it.
        session = self._gate.spend(token) if scope["method"] == "GET" else None
        if session is None:
            await answer.text(HTTPStatus.FORBIDDEN, "this link has been used or is too old; `vmctl web` prints another")
        else:
            cookie = f"{COOKIE}={session}{self._cookie}".encode()
            await answer.text(HTTPStatus.SEE_OTHER, "", [(b"location", b"/"), (b"set-cookie", cookie)])

    async def _metrics(self, accept: str, answer: "_Answer") -> None:
        try:
            self._scraping.acquire_nowait()
        except trio.WouldBlock:
            await answer.text(HTTPStatus.SERVICE_UNAVAILABLE, "too many scrapes at a time", [(b"retry-after", b"1")])
            return
        try:
            scrape = await self._sources.scrape(accept)
            await answer.stream(scrape.content_type, scrape.pieces())
        finally:
            self._scraping.release()

    # --- the page ------------------------------------------------------------------------------------------------------------

    async def _show(
        self, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str], receive: Receive, answer: "_Answer"
    ) -> None:
        if path == "/events":
            await self._follow(headers.get("last-event-id") or query.get("since", [""])[0], receive, answer)
            return
        if path == "/":
            await self._overview(answer)
            return
        name = path.removeprefix("/vm/")
        status = self._sources.board.get(name)
        if status is None:
            await answer.text(HTTPStatus.NOT_FOUND, "there is no such guest")
            return
        inner = page.detail(self._sources.why(name), self._sources.runs(name, RUNS_SHOWN), self._sources.consoles(name, LINES))
        if query.get("part") == ["detail"]:
            await answer.html(inner)
        else:
            await answer.html(page.guest(self._sources.host, status, inner, self._spark(status), self._sources.utc()))

    async def _overview(self, answer: "_Answer") -> None:
        board = self._sources.board
        stamp, statuses, now = self._stamp(board.generation), board.all(), self._sources.utc()
        groups = []
        for each in statuses:
            groups.append(page.group(each, self._spark(each), now))
            await trio.lowlevel.checkpoint()
        await answer.html(page.overview(self._sources.host, groups, counts=page.counts(statuses, self._sources.drain()), stamp=stamp))

    async def _follow(self, since: str, receive: Receive, answer: "_Answer") -> None:
        """Server-sent events until the browser goes."""
        try:
            self._following.acquire_nowait()
        except trio.WouldBlock:
            await answer.text(HTTPStatus.SERVICE_UNAVAILABLE, "too many browsers follow")
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_gone, receive, nursery.cancel_scope)
                await self._tell(since, answer)
                nursery.cancel_scope.cancel()
        finally:
            self._following.release()

    @staticmethod
    async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _tell(self, since: str, answer: "_Answer") -> None:
        board = self._sources.board
        await answer.begin("text/event-stream")
        began, _, generation = since.rpartition(".")
        is_number = generation.isdecimal() and len(generation) < _DIGITS
        if began != self._sources.began or not is_number or int(generation) > board.generation:
            await answer.piece("event: reload\ndata:\n\n")  # the page is of another daemon
            await answer.end()
            return
        seen = int(generation)
        await answer.piece(": hello\n\n")
        while True:
            latest = await board.wait_newer(seen)
            changed, gone = board.newer(seen)
            now = self._sources.utc()
            rows = [(status.name, page.group(status, self._spark(status), now)) for status in changed]
            news = {"now": now.timestamp(), "rows": rows, "gone": gone, "counts": page.counts(board.all(), self._sources.drain())}
            await answer.piece(f"id: {self._stamp(latest)}\nevent: guests\ndata: {json.dumps(news)}\n\n")
            seen = latest
            await trio.sleep(CALM_S)

    def _stamp(self, generation: int) -> str:
        return f"{self._sources.began}.{generation}"

    def _spark(self, status: VmStatus) -> str:
        """Made anew when a run has ended, or an hour has."""
        if status.last_exit is None:
            return ""
        now = self._sources.utc()
        key = (status.last_exit, now.date(), now.hour)
        made = self._sparks.get(status.name)
        if made is None or made[0] != key:
            made = key, page.sparkline(self._sources.runs(status.name, RUNS_COUNTED), now)
            self._sparks[status.name] = made
        return made[1]


class _Answer:
    """One response."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def text(self, status: HTTPStatus, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        await self._whole(status, _TEXT, f"{sentence}\n", headers)

    async def html(self, text: str) -> None:
        await self._whole(HTTPStatus.OK, _HTML, text, [(b"content-security-policy", page.POLICY.encode())])

    async def _whole(self, status: HTTPStatus, content_type: str, text: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        body = text.encode("utf-8", "replace")
        await self._begin(status, content_type, [*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self, content_type: str, pieces: Iterable[str]) -> None:
        await self.begin(content_type)
        for piece in pieces:
            await self.piece(piece)
            await trio.lowlevel.checkpoint()
        await self.end()

    async def begin(self, content_type: str) -> None:
        await self._begin(HTTPStatus.OK, content_type)

    async def piece(self, text: str) -> None:
        await self._send({"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, status: HTTPStatus, content_type: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        head = [(b"content-type", content_type.encode()), *_HEADERS, *headers]
        await self._send({"type": "http.response.start", "status": status.value, "headers": head})
