"""Frames: what a connection speaks after `console.attach` has been answered.

One byte of kind, four of length (big-endian), then the payload. Bytes go in, frames come out; the caller owns the socket.

    D  daemon to client   offset (8 bytes) and guest output
    G  daemon to client   offset (8), how many bytes are missing from there on (8), why (text)
    E  daemon to client   a JSON object: what happened to the guest, the line or the other viewers
    I  client to daemon   keystrokes
    W  client to daemon   ask for the keyboard; empty, or `steal`
"""

import struct
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

_HEADER = struct.Struct(">cI")
_OFFSET = struct.Struct(">Q")
_GAP = struct.Struct(">QQ")
HEADER_BYTES = _HEADER.size

#: A frame's payload: larger than anything we send (64 KiB and an offset), small enough that a wrong length is noticed at once.
PAYLOAD_MAX = 1 << 20


class Kind(Enum):
    """What a frame carries."""

    DATA = b"D"
    GAP = b"G"
    EVENT = b"E"
    INPUT = b"I"
    WRITE = b"W"


class FrameError(ValueError):
    """The other side does not speak frames."""


class Frame(NamedTuple):
    kind: Kind
    payload: bytes


class Gap(NamedTuple):
    """Bytes that did not reach a viewer."""

    offset: int
    size: int
    why: str


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind.value, len(payload)) + payload


def data_header(offset: int, size: int) -> bytes:
    """What goes before `size` bytes of output: the caller writes both with one call and copies nothing."""
    return _HEADER.pack(Kind.DATA.value, _OFFSET.size + size) + _OFFSET.pack(offset)


def gap(missing: Gap) -> bytes:
    return frame(Kind.GAP, _GAP.pack(missing.offset, missing.size) + missing.why.encode())


def parse_data(payload: bytes) -> tuple[int, bytes]:
    if len(payload) < _OFFSET.size:
        raise FrameError("a data frame without its offset")
    return _OFFSET.unpack_from(payload)[0], payload[_OFFSET.size :]


def parse_gap(payload: bytes) -> Gap:
    if len(payload) < _GAP.size:
        raise FrameError("a gap frame without its numbers")
    offset, size = _GAP.unpack_from(payload)
    return Gap(offset, size, payload[_GAP.size :].decode(errors="replace"))


class Parser:
    """Collects bytes into frames. After a FrameError nothing more can be made of the connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes."""
        self._buffer += data
        while len(self._buffer) >= HEADER_BYTES:
            letter, size = _HEADER.unpack_from(self._buffer)
            if size > PAYLOAD_MAX:
                raise FrameError(f"a frame of {size} bytes is longer than {PAYLOAD_MAX}")
            try:
                kind = Kind(letter)
            except ValueError:
                raise FrameError(f"a frame of unknown kind {letter!r}") from None
            if len(self._buffer) < HEADER_BYTES + size:
                return
            payload = bytes(self._buffer[HEADER_BYTES : HEADER_BYTES + size])
            del self._buffer[: HEADER_BYTES + size]
            yield Frame(kind, payload)
