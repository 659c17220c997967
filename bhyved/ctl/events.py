"""`vmctl events`: what has happened, and what happens; a daemon that is restarted meanwhile is waited for, and nothing is missed."""

from __future__ import annotations

import sys
import time
from collections import deque

from bhyved.ctl.amounts import moment, one_line
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, print_json
from bhyved.ctl.columns import has_colour, painted, phase_colour
from bhyved.ctl.connection import OK, UNREACHABLE, Connection, Failure
from bhyved.ctl.message import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Event = dict[str, Any]
    Show = Callable[[Event], None]

LAST, LAST_FOLLOWED = 50, 10
#: Between attempts to find a daemon that is being restarted: a second is nothing to a person, and nothing to the host.
AGAIN_S = 1.0


def show_events(asked: Asked) -> int:
    show: Show = print_json if asked.has("json") else _print
    with connect(asked) as connection:
        seen = _kept(connection, asked, show)
        if not asked.has("follow"):
            return OK
        _follow(connection, asked, seen, show)
    while True:
        try:
            with connect(asked) as connection:
                _follow(connection, asked, seen, show)
        except Failure as failure:
            if failure.status != UNREACHABLE:
                raise
        time.sleep(AGAIN_S)


def _kept(connection: Connection, asked: Asked, show: Show) -> list[int]:
    """Show what is kept, and return a cell with the number of the newest event."""
    where = _since(asked)
    last = asked.number("last")
    if last is None and not asked.is_given("since"):
        last = LAST_FOLLOWED if asked.has("follow") else LAST
    events: deque[Event] = deque(maxlen=last)
    newest: int = connection.call("events.subscribe", **where, names=_names(asked), follow=False)["next"]
    while (message := connection.read()) is not None:
        method, params = message.get("method"), message.get("params", {})
        if method == "event":
            events.append(params)
        elif method == "lost" and asked.is_given("since"):
            _say_lost(params)
        elif method == "end":
            break
    for event in events:
        show(event)
    sys.stdout.flush()
    return [newest]


def _names(asked: Asked) -> list[str] | None:
    """Whose events; None: everybody's."""
    vm = asked.text("vm")
    return asked.names + ([] if vm is None else [vm]) or None


def _since(asked: Asked) -> dict[str, int | float]:
    word = asked.text("since")
    if word is None:
        return {"since": 0}
    if word.isascii() and word.isdigit():
        return {"since": int(word)}
    from bhyved.ctl.moments import since

    return {"since_time": since(word)}


def _follow(connection: Connection, asked: Asked, seen: list[int], show: Show) -> None:
    """Show what happens until the daemon goes."""
    try:
        connection.call("events.subscribe", since=seen[0], names=_names(asked))
        while (message := connection.read()) is not None:
            params = message.get("params", {})
            if message.get("method") == "event":
                seen[0] = params["seq"]
                show(params)
                sys.stdout.flush()
            elif message.get("method") == "lost":
                _say_lost(params)
    except Failure as failure:
        if failure.status != UNREACHABLE:
            raise
        print("bhyved has gone; waiting for the next", file=sys.stderr)


def _say_lost(params: Event) -> None:
    sys.stdout.flush()
    if "count" in params:
        print(f"{params['count']} events before number {params['next']} are no longer kept", file=sys.stderr)
    else:
        print(f"events before number {params['next']} may be missing; nobody knows how many", file=sys.stderr)


def _print(event: Event) -> None:
    sys.stdout.write(line(event) + "\n")


def line(event: Event) -> str:
    """One event for people."""
    on = has_colour()
    phase = event.get("phase")
    what = phase if event["event"] == "phase" and phase else event["event"]
    words = [moment(event["at"]), event.get("vm") or "-", painted(what, phase_colour(what) if what == phase else "", on=on)]
    text = "  ".join(words)
    if event.get("reason"):
        text += f"  {one_line(event['reason'])}"
    if event.get("by") and event["by"] not in (event.get("reason") or ""):
        text += f", by {one_line(event['by'])}"
    data = [f"{key}={_word(value)}" for key, value in (event.get("data") or {}).items() if value is not None]
    return f"{text}  {' '.join(data)}" if data else text


def _word(value: object) -> str:
    """As JSON has it, but for the quotes of a text."""
    return one_line(value) if isinstance(value, str) else one_line(dump(value))
