"""`vmctl log`: what consoles have recorded, and with -f what they print from now on, over every restart of guest and daemon."""

from __future__ import annotations

import re
import select
import sys
import time
from binascii import a2b_base64
from collections import deque

from bhyved.core.frames import Gap
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, socket_of
from bhyved.ctl.connection import FAILED, OK, UNREACHABLE, USAGE, Connection, Failure
from bhyved.ctl.line import Happened, Line, Lost, Printed
from bhyved.ctl.loglines import Lines, LogLine, Printer
from bhyved.ctl.moments import since as moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    Where = dict[str, int | float | str]
    Console = tuple[str, str]

FOLLOWED_LINES = 10
#: A line without an end is shown when nothing has come for so long: a prompt.
PROMPT_S = 0.3
#: Between attempts to find a daemon that is being restarted.
AGAIN_S = 1.0


def show_log(asked: Asked) -> int:
    if asked.has("raw") and (
        asked.has("all") or len(asked.names) > 1 or asked.has("json") or asked.is_given("grep") or asked.has("timestamps")
    ):
        raise Failure(USAGE, "log: --raw is of one guest, without --grep, --timestamps and --json")
    if asked.is_given("boot") and asked.is_given("since"):
        raise Failure(USAGE, "log: give --boot or --since, not both")
    where = _where(asked)
    with connect(asked) as connection:
        names = asked.names or [row["name"] for row in connection.call("vm.list")["vms"] if row["serials"]]
        printer = Printer(asked, names, _pattern(asked))
        if not asked.has("follow"):
            return max((_print_log(connection, asked, name, where, printer) for name in names), default=OK)
        if not printer.is_single:
            return _follow_many(asked, where, printer)
        name = names[0]
        port, stream, end = _print_pages(connection, asked, name, asked.text("port") or "", where, printer)
    return _follow_one(asked, Line(socket_of(asked), name, port, read_only=True, since=end, stream=stream), printer)


def _pattern(asked: Asked) -> re.Pattern[str] | None:
    word = asked.text("grep")
    try:
        return None if word is None else re.compile(word)
    except re.error as error:
        raise Failure(USAGE, f'--grep "{word}" is no regular expression: {error}') from None


def _where(asked: Asked) -> Where:
    """Where to begin. The daemon counts lines itself where it is asked for nothing else."""
    if asked.is_given("boot"):
        back = asked.number("boot") or 0
        if back > 0:
            raise Failure(USAGE, "log: --boot is 0 for the present or last run, -1 for the one before")
        return {"boot": back}
    word = asked.text("since")
    if word is not None:
        return {"since_time": moment(word)}
    last = _last(asked)
    return {} if last is None or asked.is_given("grep") else {"lines": last}


def _last(asked: Asked) -> int | None:
    """How many lines are wanted, marks included, which the daemon does not count. None: all."""
    lines = asked.number("lines")
    is_placed = asked.is_given("boot") or asked.is_given("since")
    return FOLLOWED_LINES if lines is None and asked.has("follow") and not is_placed else lines


def _print_log(connection: Connection, asked: Asked, name: str, where: Where, printer: Printer) -> int:
    """What is recorded of one guest. Of several, one without a console is no reason to stop."""
    try:
        port, _, end = _print_pages(connection, asked, name, asked.text("port") or "", where, printer)
    except Failure as failure:
        if printer.is_single or failure.status == UNREACHABLE:
            raise
        print(f"vmctl: {name}: {failure.text}", file=sys.stderr)
        return FAILED
    if printer.is_single and not end:
        print(f"{name} has printed nothing on {port} yet", file=sys.stderr)
    return OK


def _print_pages(connection: Connection, asked: Asked, name: str, port: str, where: Where, printer: Printer) -> tuple[str, str, int]:
    """Port, stream and the offset at which it ends."""
    last = None if asked.has("raw") else _last(asked)
    kept: deque[LogLine | bytes] = deque(maxlen=last)
    ask: dict[str, Any] = {**where}
    while True:
        page = connection.call("console.log", name=name, port=port or None, raw=True, **ask)
        lines = printer.lines(name, page["port"])
        for record in page["records"]:
            for line in _of_record(lines, record, is_raw=asked.has("raw")):
                if last is None:
                    printer.show(line)
                elif printer.is_wanted(line):
                    kept.append(line)
        if not page["more"]:
            break
        ask = {"since": page["next"], "until": page["until"]}
    for line in kept:
        printer.show(line)
    if not asked.has("follow"):
        printer.show_rest(lines)
    sys.stdout.flush()
    return page["port"], page["stream"], page["next"]


def _of_record(lines: Lines, record: dict[str, Any], *, is_raw: bool) -> Iterator[LogLine | bytes]:
    data = a2b_base64(record.get("data", ""))
    if is_raw:
        yield data
        return
    if record.get("lost"):
        yield from lines.mark("gap", f"{record['lost']} bytes are missing here", record.get("at"))
    if record.get("mark"):
        yield from lines.mark(record["mark"], record.get("text", ""), record.get("at"))
    yield from lines.feed(data, record.get("at"))


# --- one console: its line ------------------------------------------------------------------------------------------------------


def _follow_one(asked: Asked, line: Line, printer: Printer) -> NoReturn:
    """From where the pages ended, byte for byte. Ends only by a signal, or when the daemon refuses."""
    lines = printer.lines(line.name, line.port)
    line.open()
    while True:
        poll, fileno, retry_s = select.poll(), line.fileno(), line.retry_s
        if fileno is not None:
            poll.register(fileno, select.POLLIN | (select.POLLOUT if line.wants_room else 0))
        wait_s = PROMPT_S if lines.has_partial else retry_s
        if not poll.poll(None if wait_s is None else wait_s * 1000 + 1) and lines.has_partial:
            printer.show_prompt(lines)
        line.flush()
        for item in line.receive():
            if isinstance(item, Printed):
                for each in [item.data] if asked.has("raw") else lines.feed(item.data, time.time()):
                    printer.show(each)
            elif isinstance(item, Gap):
                printer.show_all(lines.mark("gap", f"{item.size} bytes are missing here: {item.why}", time.time()))
            elif isinstance(item, Happened):
                event = item.event
                printer.show_all(lines.mark(event["event"], str(event.get("text", "")), event.get("at")))
            elif isinstance(item, Lost):
                print("bhyved has gone; waiting for it", file=sys.stderr)
        sys.stdout.flush()
        if line.retry_s == 0.0:
            line.again()


# --- many consoles: one connection ----------------------------------------------------------------------------------------------


def _follow_many(asked: Asked, where: Where, printer: Printer) -> int:
    """Follow first and read what came before then, so that nothing falls between the two; what comes twice is told by its offset."""
    at: dict[Console, int] = {}
    while True:
        try:
            with connect(asked) as tail, connect(asked) as pages:
                told = tail.call("console.tail", names=asked.names or None, port=asked.text("port"), strip=False)
                for name, port in told["consoles"]:
                    known = at.get((name, port))
                    _, _, at[name, port] = _print_pages(pages, asked, name, port, where if known is None else {"since": known}, printer)
                _tail(tail, at, printer)
        except Failure as failure:
            if failure.status != UNREACHABLE or not at:
                raise
        print("bhyved has gone; waiting for it", file=sys.stderr)
        time.sleep(AGAIN_S)


def _tail(tail: Connection, at: dict[Console, int], printer: Printer) -> None:
    """Show what comes until the daemon goes. Raises Failure then."""
    while True:
        busy = [lines for lines in printer.all_lines() if lines.has_partial]
        message = tail.read(time.monotonic() + PROMPT_S if busy else None)
        if message is None:
            for lines in busy:
                printer.show_prompt(lines)
            continue
        method, params = message.get("method"), message.get("params", {})
        console = (params.get("name", ""), params.get("port", ""))
        lines = printer.lines(*console)
        if method == "console.output":
            end = params["offset"] + params["size"]
            new = end - max(at.get(console, 0), params["offset"])
            if new > 0:
                at[console] = end
                printer.show_all(lines.feed(params["text"].encode()[-new:], time.time()))
        elif method == "console.gap":
            at[console] = params["offset"] + params["size"]
            printer.show_all(lines.mark("gap", f"{params['size']} bytes are missing here: {params['why']}", time.time()))
        elif method == "console.event":
            printer.show_all(lines.mark(params["event"], str(params.get("text", "")), params.get("at")))
        sys.stdout.flush()
