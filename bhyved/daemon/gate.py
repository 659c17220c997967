"""Who may see what over HTTP: the Host header, passwords, and the one-time links of `vmctl web`.

Any local user reaches a loopback port, so that without proof only figures are served there. The page and the console lines need the
UNIX socket, a password, or a session that began with a link. Tokens and sessions are random, few and short-lived, and die with the daemon.
"""

import base64
import binascii
import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from ipaddress import ip_address

import trio

from bhyved.core.sha512crypt import verify
from bhyved.threads import in_thread

TOKEN_S = 120.0  # from the terminal to the browser
SESSION_S = 12 * 3600.0  # a working day
KEPT = 64  # tokens, sessions and remembered passwords, each: the oldest goes
COOKIE = "bhyved"
#: Checks wait for one thread: whoever guesses passwords keeps one processor busy and not more, and this many wait at a time.
WAITING = 8
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:@/]+))(?::[0-9]*)?")
_NOBODY = "$6$bhyved$" + "." * 86  # no password's, checked for unknown users, so that they take as long as others


class Busy(Exception):  # noqa: N818 - a state, not an error
    """Too many passwords are being checked."""


class Gate:
    """The decisions for one listener."""

    def __init__(
        self,
        *,
        is_private: bool,
        is_plain_tcp: bool,
        names: frozenset[str],
        users: Callable[[], Mapping[str, str]] | None,
        now: Callable[[], float],
    ) -> None:
        self.is_private = is_private  # a UNIX socket: the file's mode has decided already
        self.has_users = users is not None
        self._is_plain_tcp = is_plain_tcp
        self._names = names
        self._users = users
        self._now = now
        self._tokens: OrderedDict[str, float] = OrderedDict()
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._checking = trio.CapacityLimiter(1)

    def host_is_ours(self, host: str) -> bool:
        """Whether the Host header can be meant for us. A page from elsewhere whose name resolves to this host (DNS rebinding) says its own.

        With TLS the certificate sees to that, and browsers do not reach a UNIX socket.
        """
        if not self._is_plain_tcp:
            return True
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = (match[1] or match[2]).rstrip(".")
        if name == "localhost" or name in self._names:
            return True
        try:
            ip_address(name)  # nobody can have a name server answer for an address
        except ValueError:
            return False
        return True

    # --- links and sessions --------------------------------------------------------------------------------------------------

    def new_token(self) -> str:
        """A token that opens one session."""
        return self._remember(self._tokens, TOKEN_S)

    def spend(self, token: str) -> str | None:
        """The session that a token opens, once."""
        until = self._tokens.pop(token, None)
        return self._remember(self._sessions, SESSION_S) if until is not None and self._now() < until else None

    def has_session(self, cookies: str) -> bool:
        """Whether a Cookie header names a session."""
        # Not by http.cookies: what it takes for a quoted value grows with the square of its length, and anybody may send one.
        pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
        return any(name == COOKIE and self._now() < self._sessions.get(value, float("-inf")) for name, _, value in pairs)

    def _remember(self, kept: OrderedDict[str, float], seconds: float) -> str:
        secret = secrets.token_urlsafe(32)
        kept[secret] = self._now() + seconds
        while len(kept) > KEPT:
            kept.popitem(last=False)
        return secret

    # --- passwords -----------------------------------------------------------------------------------------------------------

    async def knows(self, authorization: str) -> bool:
        """Whether an Authorization header has a user's password. Raises Busy, HostError."""
        credentials = _credentials(authorization)
        if self._users is None or credentials is None:
            return False
        user, password = credentials
        crypted = self._users().get(user, _NOBODY)
        seal = hashlib.blake2b(f"{user}\0{password}".encode("utf-8", "surrogateescape"), key=self._key).digest()
        if self._known.get(seal) == crypted:  # a scrape every few seconds need not cost a check each
            return True
        if self._checking.statistics().tasks_waiting >= WAITING:
            raise Busy
        is_right = await in_thread(verify, password, crypted, limiter=self._checking)
        if not is_right:
            return False
        self._known[seal] = crypted
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return True


def _credentials(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None
