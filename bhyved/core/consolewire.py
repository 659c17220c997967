"""What console requests and their answers look like on the control socket. docs/protocol.md is written from these."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bhyved.core.console import MarkKind

Where = Annotated[int, Meta(ge=0)] | Literal["boot", "all", "end"]
Lines = Annotated[int, Meta(ge=0, le=100_000)]

#: Output in one answer of `console.log`.
PAGE_BYTES = 1 << 18
#: `console.wait-for` and `vm.wait` hold a connection for at most a day.
WAIT_MAX_S = 86_400.0


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Requests are strict: a misspelt key is an error, not a default."""


class OfConsole(Params, frozen=True, kw_only=True):
    """Which console. Without a port, the guest's first."""

    name: str
    port: str = ""


class AttachParams(OfConsole, frozen=True, kw_only=True):
    """`console.attach`: after the answer, the connection speaks frames."""

    since: Where = "end"
    lines: Lines | None = None  # instead of `since`: so many lines back
    stream: str = ""  # of the session that is resumed: `since` counts that stream's bytes
    read_only: bool = False
    steal: bool = False


class AttachResult(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The answer. `offset` is where output begins; `stream` names the count it belongs to."""

    frames: int = 1
    name: str
    port: str
    stream: str
    offset: int
    end: int
    running: bool
    writer: str
    viewers: tuple[str, ...]
    problem: str


class TailParams(Params, frozen=True, kw_only=True):
    """`console.tail`: output of any number of guests as notifications, for as long as the connection lasts."""

    names: tuple[str, ...] = ()  # empty: all that the caller may read
    port: str = ""
    since: Where = "end"
    lines: Lines | None = None
    strip: bool = True


class TailResult(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Which consoles follow."""

    consoles: tuple[tuple[str, str], ...]  # name, port


class LogParams(OfConsole, frozen=True, kw_only=True):
    """`console.log`: a page of what was recorded."""

    since: Where = "all"
    lines: Lines | None = None
    boot: Annotated[int, Meta(le=0)] | None = None  # 0: the present or last run, -1 the one before
    since_time: float | None = None  # unix time
    until: Annotated[int, Meta(ge=0)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_BYTES)] = PAGE_BYTES
    strip: bool = True
    raw: bool = False  # `data` in base64 instead of `text`


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="kebab"):
    """A stretch of output, a mark, or a gap of `lost` bytes before `offset`."""

    offset: int
    at: float | None = None
    text: str = ""
    data: str = ""
    mark: MarkKind | None = None
    lost: int = 0


class LogResult(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One page. With `more`, ask again with `since` = `next` and the same `until`."""

    name: str
    port: str
    stream: str
    records: tuple[LogRecord, ...]
    next: int
    until: int | None
    more: bool


class WaitParams(OfConsole, frozen=True, kw_only=True):
    """`console.wait-for`: a plain text, since a pattern of a stranger's could hold up the daemon."""

    text: Annotated[str, Meta(min_length=1, max_length=1000)]
    since: Where = "boot"
    timeout: Annotated[float, Meta(gt=0, le=WAIT_MAX_S)] = 60.0


class WaitResult(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Whether it was printed, and the console's offset by then."""

    found: bool
    offset: int


class SendParams(OfConsole, frozen=True, kw_only=True):
    """`console.send`: type something."""

    text: Annotated[str, Meta(max_length=1 << 16)]
    steal: bool = False  # even while somebody else has the keyboard


class SendResult(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """How many bytes were taken: fewer than given when the guest does not read."""

    taken: int
    offset: int  # of the console before: what is printed from here on may be the answer
