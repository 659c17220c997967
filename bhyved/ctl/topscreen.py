"""The full screen of `vmctl top`: keys, and what is drawn where. What is shown is `watch`'s, and its figures those of `gauges`."""

from __future__ import annotations

import contextlib
import os
import time

from bhyved.ctl.amounts import one_line, span
from bhyved.ctl.columns import phase_colour
from bhyved.ctl.connection import OK
from bhyved.ctl.gauges import chosen
from bhyved.ctl.verbs import SORTS
from bhyved.ctl.watch import HEADS, MARKED, RIGHT, Watch, cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

HELP = "q quit  s sort  / filter  arrows scroll  space look now"
ESCAPE, ENTER, BACKSPACE = (27,), (10, 13), (8, 127)


class Screen:
    """From the first look to `q`."""

    def __init__(self, curses: ModuleType, watch: Watch, interval_s: float, sort: str) -> None:
        self._curses, self._watch, self._interval_s, self._sort = curses, watch, interval_s, sort
        self._wanted = ""  # the filter
        self._is_typing = False  # it
        self._first = 0  # of the lines that are shown
        self._colours: dict[str, int] = {}

    def run(self) -> int:
        """The exit status. The terminal is given back however this ends."""
        for name in ("LINES", "COLUMNS"):  # exported by some shells: curses would take them for the size and never look again
            os.environ.pop(name, None)
        try:
            return int(self._curses.wrapper(self._serve))
        except KeyboardInterrupt:
            return OK

    def _serve(self, window: Any) -> int:
        self._prepare()
        look_at = time.monotonic() + self._interval_s
        while True:
            self._draw(window)
            left_s = look_at - time.monotonic()
            if left_s <= 0:
                self._watch.look()
                look_at = time.monotonic() + self._interval_s
                continue
            window.timeout(int(left_s * 1000) + 1)
            key = window.getch()
            if key == ord(" ") and not self._is_typing:
                look_at = 0.0
            elif key != -1 and not self._obey(key, window.getmaxyx()[0]):
                return OK

    def _prepare(self) -> None:
        curses = self._curses
        curses.set_escdelay(25)
        with contextlib.suppress(curses.error):  # a terminal whose cursor cannot be hidden
            curses.curs_set(0)
        if curses.has_colors():
            curses.use_default_colors()
            for number, colour in enumerate(("red", "green", "yellow"), 1):
                curses.init_pair(number, getattr(curses, f"COLOR_{colour.upper()}"), -1)
                self._colours[colour] = curses.color_pair(number)
        self._colours["dim"] = curses.A_DIM

    # --- keys ----------------------------------------------------------------------------------------------------------------

    def _obey(self, key: int, height: int) -> bool:
        """Whether to go on."""
        if self._is_typing:
            self._type(key)
            return True
        curses, page = self._curses, max(1, height - 3)
        moves = {curses.KEY_DOWN: 1, curses.KEY_UP: -1, curses.KEY_NPAGE: page, curses.KEY_PPAGE: -page, curses.KEY_HOME: -(1 << 20)}
        if key in moves:
            self._first = max(0, self._first + moves[key])
        elif key == ord("s"):
            self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        elif key == ord("/"):
            self._is_typing, self._wanted = True, ""
        elif key in ESCAPE:
            self._wanted = ""
        return key != ord("q")

    def _type(self, key: int) -> None:
        if key in ENTER:
            self._is_typing = False
        elif key in ESCAPE:
            self._is_typing, self._wanted = False, ""
        elif key in BACKSPACE or key == self._curses.KEY_BACKSPACE:
            self._wanted = self._wanted[:-1]
        elif 32 <= key < 127:
            self._wanted += chr(key)

    # --- drawing -------------------------------------------------------------------------------------------------------------

    def _draw(self, window: Any) -> None:
        height, width = window.getmaxyx()
        gauges = chosen(self._watch.last, self._sort, self._wanted)
        lines = [cells(gauge) for gauge in gauges]
        self._first = min(self._first, max(0, len(lines) - max(1, height - 3)))
        widths = [max(map(len, column)) for column in zip(HEADS, *lines, strict=True)]
        window.erase()
        self._put(window, 0, 0, self._summary(), width, self._curses.A_BOLD)
        self._line(window, 1, HEADS, widths, width, dict.fromkeys(range(len(HEADS)), self._curses.A_UNDERLINE), MARKED[self._sort])
        shown = slice(self._first, self._first + height - 3)
        for row, (gauge, line) in enumerate(zip(gauges[shown], lines[shown], strict=True), 2):
            colour = self._colours.get(phase_colour(gauge.state), 0)
            self._line(window, row, line, widths, width, {1: colour})
        self._put(window, height - 1, 0, self._foot(), width, self._curses.A_REVERSE if self._watch.problem else self._curses.A_DIM)
        window.refresh()

    def _summary(self) -> str:
        guests = self._watch.last
        up = [gauge for gauge in guests if gauge.phase == "up"]
        odd = len([gauge for gauge in guests if gauge.state in ("held", "backoff", "ill")])
        cpu = sum(gauge.cpu or 0.0 for gauge in guests)
        return f"{len(guests)} guests, {len(up)} up" + (f", {odd} in trouble" if odd else "") + f"; {cpu:.1f}% of a CPU"

    def _foot(self) -> str:
        if self._is_typing:
            return f"/{self._wanted}_"
        shown = f'only "{self._wanted}" (Escape: all)  ' if self._wanted else ""
        return one_line(self._watch.problem) or f"{shown}by {self._sort}, every {span(self._interval_s)}  {HELP}"

    def _line(
        self, window: Any, row: int, line: Sequence[str], widths: Sequence[int], width: int, styles: dict[int, int], marked: int = -1
    ) -> None:
        column = 0
        for number, (cell, size) in enumerate(zip(line, widths, strict=True)):
            text = cell.rjust(size) if number in RIGHT else cell.ljust(size)
            self._put(window, row, column, text, width, styles.get(number, 0) | (self._curses.A_REVERSE if number == marked else 0))
            column += size + 2

    def _put(self, window: Any, row: int, column: int, text: str, width: int, style: int) -> None:
        if column >= width or row < 0:
            return
        with contextlib.suppress(self._curses.error):  # the last cell of the screen, and screens that have just become smaller
            window.addnstr(row, column, text, width - column, style)
