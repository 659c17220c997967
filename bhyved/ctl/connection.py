"""The connection to the daemon: requests, answers, notifications, and what to say when there is no daemon.

Every verb opens one `Connection` and calls methods of docs/protocol.md with it. What cannot be done is a `Failure`: a sentence and an
exit status, printed by `cli.ctl`. Uses `_socket`, since `socket` itself takes longer to import than all of vmctl.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from bhyved.ctl.message import dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/var/run/bhyved/control.sock"

OK, FAILED, USAGE, UNREACHABLE, TIMED_OUT, NOT_PERMITTED, CONFIG = 0, 1, 64, 69, 75, 77, 78  # sysexits.h

#: Errors whose status is not 1, by JSON-RPC's number (docs/protocol.md).
_STATUS = {-32602: USAGE, -32001: NOT_PERMITTED, -32004: CONFIG}
#: A daemon that takes longer for a plain question hangs: even 500 files are read again within a second or two.
ANSWER_S = 60.0
_RECEIVE_BYTES = 1 << 18


class Failure(Exception):  # noqa: N818 - what a person is told
    """It was not done: the exit status, and a sentence; `lines` are printed before it. `code` is the daemon's word for it."""

    def __init__(self, status: int, text: str, *, lines: tuple[str, ...] = (), code: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.lines, self.code = status, text, lines, code


class Connection:
    """One client of the control socket. Answers may come in another order than requests, notifications in between."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._sock = _connect(path)
        self._buffer = b""
        self._number = 0
        self._early: dict[object, dict[str, Any]] = {}

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, method: str, **params: object) -> int:
        """Ask; the id that the answer will have. Keys become kebab-case, without a trailing `_`; what is None is not sent."""
        self._number += 1
        try:
            self._sock.sendall(request(self._number, method, params))
        except OSError:
            raise gone() from None
        return self._number

    def call(self, method: str, patience_s: float | None = None, /, **params: object) -> dict[str, Any]:
        """Ask, and wait for the result. Raises Failure."""
        number = self.send(method, **params)
        deadline = time.monotonic() + (ANSWER_S if patience_s is None else patience_s)
        while number not in self._early:
            message = self.read(deadline)
            if message is None:
                raise Failure(UNREACHABLE, f"bhyved does not answer at {self.path}: it hangs, or the host is very busy")
            if "id" in message:
                self._early[message["id"]] = message
        return result(self._early.pop(number))

    def read(self, deadline: float | None = None) -> dict[str, Any] | None:
        """The next message; None when none comes by `deadline` (monotonic). Raises Failure when the daemon has gone."""
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if end:
                self._buffer = rest
                return parsed(line, self.path)
            if not self._receive(deadline):
                return None

    def _receive(self, deadline: float | None) -> bool:
        """Collect until a line is complete; False: not in time. The pieces of a long answer are joined once."""
        pieces = [self._buffer]
        try:
            while b"\n" not in pieces[-1]:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._sock.settimeout(left)
                data = self._sock.recv(_RECEIVE_BYTES)
                if not data:
                    raise gone()
                pieces.append(data)
            return True
        except TimeoutError:
            return False
        except OSError:
            raise gone() from None
        finally:
            self._buffer = b"".join(pieces)


def request(number: int, method: str, params: dict[str, object]) -> bytes:
    """The line that asks."""
    sent = {key.rstrip("_").replace("_", "-"): value for key, value in params.items() if value is not None}
    return f"{dump({'jsonrpc': '2.0', 'id': number, 'method': method, 'params': sent})}\n".encode()


def parsed(line: bytes, path: str) -> dict[str, Any]:
    """A message. Raises Failure for what is none, and for an error that answers no request but concerns the whole connection."""
    try:
        message = load(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Failure(UNREACHABLE, f"what answers at {path} is no bhyved")
    if "error" in message and message.get("id") is None:
        result(message)
    return message


def result(message: dict[str, Any]) -> dict[str, Any]:
    """What an answer says. Raises Failure."""
    error = message.get("error")
    if error is None:
        answer: dict[str, Any] = message["result"]
        return answer
    data = error.get("data") or {}
    status = _STATUS.get(error["code"], FAILED)
    raise Failure(status, error["message"], lines=tuple(data.get("problems", ())), code=data.get("code", ""))


def gone() -> Failure:
    """For a connection that ended before its answer."""
    return Failure(UNREACHABLE, "bhyved has closed the connection: it has ended or is being restarted; its guests run on")


def _connect(path: str) -> socket:
    sock = socket(AF_UNIX, SOCK_STREAM)
    try:
        sock.settimeout(ANSWER_S)
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise unreachable(path, error) from None
    return sock


def unreachable(path: str, error: OSError) -> Failure:
    """Why nobody answers, and what helps."""
    from bhyved.core.errors import in_words
    from bhyved.host.hostlock import holder

    if isinstance(error, PermissionError):
        return Failure(NOT_PERMITTED, f"you may not connect to {path}")
    pid = holder(os.path.dirname(path))
    if pid is not None:
        return Failure(UNREACHABLE, f"bhyved runs (pid {pid}) but does not serve {path} yet: try again in a moment, or look into its log")
    start = "; start it with `service bhyved start`" if path == SOCKET else ""
    if isinstance(error, FileNotFoundError):
        return Failure(UNREACHABLE, f"bhyved does not run: there is no {path}{start}")
    if isinstance(error, ConnectionRefusedError):
        return Failure(UNREACHABLE, f"bhyved does not run: nobody listens at {path}; what guests it had run on{start}")
    return Failure(UNREACHABLE, f"cannot connect to {path}: {in_words(error)}{start}")
