"""Console requests that have one plain answer: `console.log`, `console.wait-for`, `console.send`. For scripts, and for `nc -U`."""

import base64
import codecs
import re
from collections.abc import Callable

import trio

from bhyved.core.ansi import plain
from bhyved.core.console import Mark, Output, Page
from bhyved.core.consolewire import LogParams, LogRecord, LogResult, SendParams, SendResult, WaitParams, WaitResult
from bhyved.core.errors import HostError
from bhyved.daemon.attach import Refused, find_hub, offset_of
from bhyved.daemon.console import Consoles
from bhyved.daemon.hub import ConsoleHub
from bhyved.threads import in_thread


async def log(consoles: Consoles, params: LogParams) -> LogResult:
    """A page of what a console has recorded: from the log files, or from the ring where there are none. Raises Refused."""
    hub = await find_hub(consoles, params.name, params.port)
    if await hub.logged():
        try:
            since, until = await in_thread(_bounds, hub, params, abandon_on_cancel=True)
            page = await in_thread(hub.reader().read, since, params.limit, abandon_on_cancel=True)
        except HostError as error:
            raise Refused("log-unreadable", str(error)) from None
    else:
        since, until = _ring_bounds(hub, params), params.until
        page = _from_ring(hub, since, params.limit)
    page = _cut(page, until)
    return LogResult(
        name=hub.name,
        port=hub.port,
        stream=hub.ring.stream,
        records=_records(page, params),
        next=page.next,
        until=until,
        more=page.more,
    )


def _bounds(hub: ConsoleHub, params: LogParams) -> tuple[int, int | None]:
    """From which offset to which; runs in a thread."""
    reader, until = hub.reader(), params.until
    if params.boot is not None:
        boots = reader.boots()
        if len(boots) < 1 - params.boot:
            kept = {0: "no run", 1: "1 run: --boot 0"}.get(len(boots), f"{len(boots)} runs: --boot 0 to {1 - len(boots)}")
            raise HostError(f"the console log of {hub.name} has {kept}")
        place = len(boots) - 1 + params.boot
        return boots[place], boots[place + 1] if place + 1 < len(boots) else until
    if params.since_time is not None:
        found = reader.offset_at(params.since_time)
        return (hub.offset if found is None else found), until
    if params.lines is not None:
        return reader.line_offset(params.lines, hub.offset if until is None else until), until
    return (0 if params.since == "all" else offset_of(hub, params.since)), until


def _ring_bounds(hub: ConsoleHub, params: LogParams) -> int:
    """The same without a log: the ring knows the present run and no times."""
    if params.boot is not None and params.boot < 0:
        raise Refused("no-log", f"{hub.name} has no log of {hub.port}: only the present run is kept")
    if params.since_time is not None:
        raise Refused("no-log", f"{hub.name} has no log of {hub.port}: what is kept has no times")
    return hub.ring.run_start if params.boot is not None else offset_of(hub, params.since, params.lines)


def _from_ring(hub: ConsoleHub, since: int, limit: int) -> Page:
    records: list[Output | Mark] = []
    left = limit
    for piece in hub.ring.read(since):
        data = piece.data[:left]
        if data:
            records.append(Output(piece.offset, data, 0.0))
            left -= len(data)
    last = records[-1] if records else None
    at = last.offset + len(last.data) if isinstance(last, Output) else since
    return Page(records, at, more=at < hub.offset and bool(records))


def _cut(page: Page, until: int | None) -> Page:
    """Nothing from `until` on. The mark there belongs to what follows, unless it is the exit of what is asked for."""
    if until is None or (page.next < until and page.more):
        return page
    records: list[Output | Mark] = []
    for record in page.records:
        if isinstance(record, Output):
            data = record.data[: max(0, until - record.offset)]
            if data:
                records.append(record._replace(data=data))
        elif record.offset < until:
            records.append(record)
        elif record.offset == until:
            if record.kind == "boot":
                break
            records.append(record)
    return Page(records, min(page.next, until), more=False)


def _records(page: Page, params: LogParams) -> tuple[LogRecord, ...]:
    # One decoder for the page: a character may be cut in two by the end of a read.
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    clean: Callable[[str], str] = plain if params.strip else str
    return tuple(_record(record, params, decode, clean) for record in page.records)


def _record(record: Output | Mark, params: LogParams, decode: Callable[[bytes], str], clean: Callable[[str], str]) -> LogRecord:
    at = record.at or None
    if isinstance(record, Mark):
        return LogRecord(offset=record.offset, at=at, mark=record.kind, text=record.text, lost=record.lost)
    if params.raw:
        return LogRecord(offset=record.offset, at=at, data=base64.b64encode(record.data).decode())
    return LogRecord(offset=record.offset, at=at, text=clean(decode(bytes(record.data))))


async def wait_for(consoles: Consoles, params: WaitParams) -> WaitResult:
    """Whether a text is printed in time. Raises Refused."""
    hub = await find_hub(consoles, params.name, params.port)
    with trio.move_on_after(params.timeout) as waiting:
        await hub.wait_for(re.compile(re.escape(params.text.encode())), offset_of(hub, params.since))
    return WaitResult(found=not waiting.cancelled_caught, offset=hub.offset)


async def send(consoles: Consoles, params: SendParams) -> SendResult:
    """Type something, unless somebody else has the keyboard. Raises Refused."""
    hub = await find_hub(consoles, params.name, params.port)
    if hub.writer is not None and not params.steal:
        raise Refused("keyboard-busy", f"{hub.writer.who} has the keyboard of {hub.name}'s {hub.port}")
    offset = hub.settle()
    return SendResult(taken=hub.send(params.text.encode()), offset=offset)
