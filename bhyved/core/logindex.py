"""The index beside a console log: where in the file which byte of the console is, when it came, and what bhyved wrote in between.

The log itself is for people and their tools: what the guest printed, with a readable line for every mark. A guest can print such lines too;
only the index is evidence. It is one JSON object a line, written *before* what it describes, so that after a kill the file's length says
how far things went:

    {"v":1,"ino":7340,"stamped":false,"stream":"9f3c…"}     head: the log file it belongs to
    {"p":0,"o":4096,"t":1764000000.25}                      at file position 0 is byte 4096 of the console, written then
    {"p":120,"o":4216,"t":…,"n":61,"m":"boot","x":"run 7"}  61 bytes of ours at 120; the console goes on behind them
"""

import re
from typing import Annotated, Literal

import msgspec

from bhyved.core.console import MarkKind

VERSION = 1
#: Between two samples of time while output flows: what `--timestamps` can tell apart.
SAMPLE_S = 1.0


#: `2026-11-23T18:00:00.123Z ` before each line of a log with timestamps.
STAMP = re.compile(rb"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
STAMP_BYTES = 25

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
_YEAR_9999 = 253402300799  # later than that is no time


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of an index."""

    v: int = VERSION
    ino: int
    stamped: bool = False
    stream: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One further line: a mark if `m` is set, else a sample of time."""

    p: Count
    o: Count
    t: Annotated[float, msgspec.Meta(ge=0, le=_YEAR_9999)]
    n: Count = 0
    m: MarkKind | Literal[""] = ""
    x: str = ""
    lost: Count = 0  # bytes of the console missing before this offset


_encoder = msgspec.json.Encoder()
_entry = msgspec.json.Decoder(Entry)
_head = msgspec.json.Decoder(Head)


def encode(line: Head | Entry) -> bytes:
    return _encoder.encode(line) + b"\n"


def decode_head(line: bytes) -> Head | None:
    """None: not an index of ours, or of a later version."""
    try:
        head = _head.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return head if head.v == VERSION else None


def decode_entry(line: bytes) -> Entry | None:
    """None: a line that was damaged."""
    try:
        return _entry.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def mark_line(at: str, kind: str, text: str, *, line_start: bool) -> bytes:
    """What a person reads in the log."""
    words = " ".join(text.split())
    return (b"" if line_start else b"\n") + f"--- {at} {kind}: {words} ---\n".encode()


def stamped(data: bytes | bytearray, stamp: bytes, *, line_start: bool) -> bytes:
    """`data` with `stamp` before each line that begins in it."""
    body = re.sub(rb"\n(?=.)", lambda _: b"\n" + stamp, data, flags=re.DOTALL)
    return stamp + body if line_start and data else bytes(body)


def unstamped(data: bytes, *, line_start: bool) -> bytes:
    """What the guest printed, of a stretch of a log with timestamps; `line_start`: whether the stretch begins a line.

    Every line of such a file begins with a stamp of ours, so one that the guest prints itself comes second and stays.
    """
    if line_start:
        return STAMP.sub(b"", data)
    first, end, rest = data.partition(b"\n")
    return first + end + STAMP.sub(b"", rest)
