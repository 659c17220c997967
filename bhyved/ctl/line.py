"""One console over the control socket, for as long as somebody wants it: attached, and attached again when the daemon was restarted.

Nothing here waits. The caller polls `fileno`, calls `receive` when there is something to read, `flush` when there is room, and
`again` when `retry_s` has passed. Output is exact: the daemon is asked for what comes behind the last byte that was received.
"""

from __future__ import annotations

import json
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from bhyved.core.frames import FrameError, Gap, Kind, Parser, frame, parse_data, parse_gap
from bhyved.ctl.connection import NOT_PERMITTED, UNREACHABLE, USAGE, Failure, gone, parsed, request, result, unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: Between attempts to come back: at once, since a restart takes a moment; then less often, since a stop may be for good.
AGAIN_FIRST_S, AGAIN_LAST_S = 0.05, 1.0
#: Keystrokes that may wait for a daemon that does not read.
TYPED_BYTES = 1 << 16
_RECEIVE_BYTES = 1 << 18
#: Answers that a daemon gives which has only just begun.
_NOT_YET = ("not-ready", "too-many-connections")


def place(word: str | None) -> tuple[int | str | None, int | None]:
    """`--since` as the wire has it: a place, or lines back."""
    if word is None or word in ("boot", "all", "end"):
        return word, None
    digits = word.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise Failure(USAGE, f'--since is boot, all, end, an offset, or -20 for 20 lines back, not "{word}"')
    return (int(word), None) if digits == word else (None, int(digits))


class Opened:
    """Attached: what the daemon says of the console. `again`: it was lost before."""

    def __init__(self, about: dict[str, Any], *, again: bool) -> None:
        self.about, self.again = about, again


class Printed:
    """Output of the guest."""

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset, self.data = offset, data


class Happened:
    """What became of the guest, the line or the other viewers."""

    def __init__(self, event: dict[str, Any]) -> None:
        self.event = event


class Lost:
    """The daemon has gone. The line is tried again."""


Item = Opened | Printed | Happened | Gap | Lost


class Line:
    """Where to begin is `since` (a place as docs/protocol.md has it) or `lines` back."""

    def __init__(
        self,
        path: str,
        name: str,
        port: str = "",
        *,
        read_only: bool = False,
        steal: bool = False,
        since: int | str | None = None,
        lines: int | None = None,
        stream: str = "",
    ) -> None:
        self.name, self.port = name, port
        self.offset = 0
        self._path, self._read_only, self._steal = path, read_only, steal
        self._since, self._lines, self._stream = since, lines, stream
        self._sock: socket | None = None
        self._unsent = bytearray()
        self._early = bytearray()
        self._answer = bytearray()
        self._frames: Parser | None = None
        self._is_known = False
        self._delay_s = AGAIN_FIRST_S
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether what is typed goes somewhere."""
        return self._frames is not None

    def fileno(self) -> int | None:
        return None if self._sock is None else self._sock.fileno()

    @property
    def wants_room(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._unsent)

    @property
    def retry_s(self) -> float | None:
        """Until `again` should be called; None: it need not be."""
        return None if self._sock is not None else max(0.0, self._retry_at - time.monotonic())

    def open(self) -> None:
        """For the first time. Raises Failure when nobody is there."""
        try:
            self._connect()
        except OSError as error:
            raise unreachable(self._path, error) from None

    def again(self) -> None:
        """Try to come back, without waiting for it. Raises Failure when that has become pointless."""
        try:
            self._connect()
        except PermissionError as error:
            raise unreachable(self._path, error) from None
        except OSError:
            self._wait()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock, self._frames = None, None
        self._unsent.clear()
        self._answer.clear()

    def _connect(self) -> None:
        sock = socket(AF_UNIX, SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(self._path)  # a full queue is EAGAIN, and tried again
        except OSError:
            sock.close()
            raise
        params: dict[str, object] = {"name": self.name, "port": self.port or None, "read_only": self._read_only or None}
        if self._is_known:
            params |= {"since": self.offset, "stream": self._stream}
        else:
            params |= {"since": self._since, "lines": self._lines, "stream": self._stream or None, "steal": self._steal or None}
        self._sock = sock
        self._unsent += request(1, "console.attach", params)
        self.flush()

    def _wait(self) -> None:
        self._retry_at = time.monotonic() + self._delay_s
        self._delay_s = min(self._delay_s * 2, AGAIN_LAST_S)

    # --- what comes ----------------------------------------------------------------------------------------------------------

    def receive(self) -> Iterator[Item]:
        """What has come. Raises Failure when the daemon refuses, or was never there."""
        if self._sock is None:
            return
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            yield from self._lose()
            return
        try:
            if self._frames is None:
                yield from self._attach(data)
            else:
                yield from self._read(self._frames, data)
        except FrameError as error:
            raise Failure(UNREACHABLE, f"what answers at {self._path} is no bhyved: {error}") from None

    def _lose(self) -> Iterator[Item]:
        was_open = self.is_open
        self.close()
        if not self._is_known:
            raise gone()
        self._wait()
        if was_open:
            yield Lost()

    def _attach(self, data: bytes) -> Iterator[Item]:
        self._answer += data
        line, end, rest = bytes(self._answer).partition(b"\n")
        if not end:
            return
        self._answer.clear()
        try:
            about = result(parsed(line, self._path))
        except Failure as failure:
            if not self._is_known or failure.code not in _NOT_YET:
                raise
            self.close()
            self._wait()
            return
        again, self._is_known = self._is_known, True
        self._stream, self.offset, self.port = about["stream"], about["offset"], about["port"]
        self._delay_s = AGAIN_FIRST_S
        self._frames = Parser()
        self._unsent += self._early
        self._early.clear()
        self.flush()
        yield Opened(about, again=again)
        yield from self._read(self._frames, rest)

    def _read(self, frames: Parser, data: bytes) -> Iterator[Item]:
        for each in frames.feed(data):
            if each.kind is Kind.DATA:
                offset, output = parse_data(each.payload)
                self.offset = offset + len(output)
                yield Printed(offset, output)
            elif each.kind is Kind.GAP:
                gap = parse_gap(each.payload)
                self.offset = gap.offset + gap.size
                yield gap
            elif each.kind is Kind.EVENT:
                yield Happened(json.loads(each.payload))

    # --- what goes -----------------------------------------------------------------------------------------------------------

    def type(self, keys: bytes) -> bool:
        """Send keystrokes, those that come before the first answer behind it; False: there is nobody who takes them."""
        waiting = self._unsent if self._is_known else self._early
        if (self._is_known and not self.is_open) or len(waiting) + len(keys) > TYPED_BYTES:
            return False
        waiting += frame(Kind.INPUT, keys)
        if self.is_open:
            self.flush()
        return True

    def take_keyboard(self) -> None:
        """From whoever has it."""
        if self._read_only:
            raise Failure(NOT_PERMITTED, "this session is read-only")
        if self.is_open:
            self._unsent += frame(Kind.WRITE, b"steal")
            self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room. That the daemon has gone is found by `receive`."""
        while self._sock is not None and self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except (BlockingIOError, InterruptedError, BrokenPipeError, ConnectionResetError):
                return
            del self._unsent[:sent]
