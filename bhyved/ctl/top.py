"""`vmctl top`: what the guests use, live. On a terminal a full screen by curses(3), elsewhere the same table again and again."""

from __future__ import annotations

import os
import sys
import time

from bhyved.ctl.amounts import span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import print_json
from bhyved.ctl.columns import phase_colour, table
from bhyved.ctl.connection import OK, USAGE, Failure
from bhyved.ctl.gauges import chosen
from bhyved.ctl.watch import HEADS, RIGHT, Watch, cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

INTERVAL_S = 2.0
LEAST_S = 0.2  # a look at 200 guests costs the daemon some milliseconds


def top(asked: Asked) -> int:
    interval_s = asked.seconds("interval")
    interval_s = INTERVAL_S if interval_s is None else interval_s
    if interval_s < LEAST_S:
        raise Failure(USAGE, f"top: --interval is at least {span(LEAST_S)}")
    count, sort = asked.number("count"), asked.text("sort") or "cpu"
    curses = None if asked.has("json") or asked.has("plain") or count is not None else _curses()
    with Watch(asked) as watch:
        if curses is None:
            return _repeat(watch, interval_s, count, sort, is_json=asked.has("json"))
        from bhyved.ctl.topscreen import Screen

        watch.look()  # what is wrong from the start is said on a screen that stays
        return Screen(curses, watch, interval_s, sort).run()


def _curses() -> ModuleType | None:
    """The library, where there is one and the terminal is one that it knows."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    try:
        import curses
    except ImportError:  # an interpreter that was built without
        return None
    try:
        curses.setupterm(os.environ.get("TERM") or "unknown", sys.stdout.fileno())
    except curses.error:
        return None
    return curses


def _repeat(watch: Watch, interval_s: float, count: int | None, sort: str, *, is_json: bool) -> int:
    number = 0
    while count is None or number < count:
        if number:
            time.sleep(interval_s)
        gauges = chosen(watch.look(), sort, "")
        if is_json:
            print_json({"version": 1, "at": time.time(), "vms": [gauge.data() for gauge in gauges]})
        else:
            colours = [phase_colour(gauge.state) for gauge in gauges]
            heading = f"\n{watch.problem}\n" if watch.problem else "\n" if number else ""
            sys.stdout.write(heading + table(HEADS, [cells(gauge) for gauge in gauges], right=RIGHT, colours=colours))
        sys.stdout.flush()
        number += 1
    return OK
