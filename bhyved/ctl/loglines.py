"""Console output as lines for people: put together from pieces, stripped, filtered, with name and time before them."""

from __future__ import annotations

import codecs
import sys
import time

from bhyved.core.ansi import plain
from bhyved.ctl.asking import print_json
from bhyved.ctl.columns import has_colour, painted
from bhyved.ctl.moments import stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

    from bhyved.ctl.arguments import Asked

#: A guest that never ends its line is shown all the same.
LINE_BYTES = 1 << 16
#: Marks that tell of the guest. Who looked when is in the log files and among the events.
MARKS = frozenset({"boot", "exit", "gap", "note"})
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


class LogLine:
    """A line of a guest, or a remark of bhyved's (`mark` says of which kind)."""

    __slots__ = ("at", "mark", "name", "port", "text")

    def __init__(self, name: str, port: str, text: str, at: float | None, mark: str = "") -> None:
        self.name, self.port, self.text, self.at, self.mark = name, port, text, at, mark


class Lines:
    """The lines of one console."""

    def __init__(self, name: str, port: str) -> None:
        self.name, self.port = name, port
        self.shown = ""  # of the line that has no end yet, the last time it was looked at
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._partial = ""
        self._began_at: float | None = None

    @property
    def has_partial(self) -> bool:
        """Whether something waits that has not been shown."""
        return bool(self._partial) and plain(self._partial) != self.shown

    def feed(self, data: bytes, at: float | None) -> Iterator[LogLine]:
        """The lines that `data` ends."""
        *ended, rest = self._decode(data).split("\n")
        for text in ended:
            yield self._ended(text, at)
        if rest and not self._partial:
            self._began_at = at
        self._partial += rest
        if len(self._partial) > LINE_BYTES:
            yield self._ended("", at)

    def mark(self, kind: str, text: str, at: float | None) -> Iterator[LogLine]:
        """A remark; the line that had no end is ended by it."""
        if kind in MARKS:
            yield from self.rest()
            yield LogLine(self.name, self.port, plain(text), at, kind)

    def rest(self) -> Iterator[LogLine]:
        """The line that has no end, if there is one."""
        if self._partial:
            yield self._ended("", None)

    def partial(self) -> LogLine:
        """The same, and more of it may come."""
        return LogLine(self.name, self.port, plain(self._partial), self._began_at)

    def _ended(self, text: str, at: float | None) -> LogLine:
        line = LogLine(self.name, self.port, plain(self._partial + text), self._began_at if self._partial else at)
        self._partial = ""
        return line


class Printer:
    """Puts lines of any number of consoles on standard output."""

    def __init__(self, asked: Asked, names: list[str], pattern: re.Pattern[str] | None) -> None:
        self._is_json, self._has_times, self._pattern = asked.has("json"), asked.has("timestamps"), pattern
        self.is_single = len(names) == 1 and not asked.has("all")
        self._width = max(map(len, names), default=0)
        self._colour = has_colour()
        self._consoles: dict[tuple[str, str], Lines] = {}
        self._open: Lines | None = None  # whose unfinished line the cursor stands behind

    def lines(self, name: str, port: str) -> Lines:
        """The lines of a console."""
        return self._consoles.setdefault((name, port), Lines(name, port))

    def all_lines(self) -> Iterable[Lines]:
        return self._consoles.values()

    def is_wanted(self, line: LogLine | bytes) -> bool:
        return self._pattern is None or (isinstance(line, LogLine) and not line.mark and self._pattern.search(line.text) is not None)

    def show_all(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            self.show(line)

    def show(self, line: LogLine | bytes) -> None:
        """A whole line, or raw bytes."""
        if isinstance(line, bytes):
            sys.stdout.buffer.write(line)
            return
        lines = self.lines(line.name, line.port)
        shown = lines.shown if self._open is lines and not line.mark and line.text.startswith(lines.shown) else ""
        if self._open is not None and not shown:
            sys.stdout.write("\n")
        self._open, lines.shown = None, ""
        if not self.is_wanted(line):
            return
        if self._is_json:
            at = {} if line.at is None else {"at": round(line.at, 3)}
            print_json({"name": line.name, "port": line.port, **at, "text": line.text, **({"mark": line.mark} if line.mark else {})})
        else:
            sys.stdout.write(f"{'' if shown else self._before(line)}{self._body(line)[len(shown) :]}\n")

    def show_rest(self, lines: Lines) -> None:
        """What has no line end, at the end of everything."""
        self.show_all(lines.rest())

    def show_prompt(self, lines: Lines) -> None:
        """The unfinished line of a console that has paused; only where nothing but a person can be meant."""
        line = lines.partial()
        if not self._is_json and self._pattern is None:
            begun = lines.shown if self._open is lines and line.text.startswith(lines.shown) else ""
            if self._open is not None and not begun:
                sys.stdout.write("\n")
            sys.stdout.write(line.text[len(begun) :] if begun else self._before(line) + line.text)
            sys.stdout.flush()
            self._open = lines
        lines.shown = line.text

    def _before(self, line: LogLine) -> str:
        name = "" if self.is_single else painted(line.name.ljust(self._width), _colour_of(line.name), on=self._colour) + "  "
        at = f"{stamp(time.time() if line.at is None else line.at)}  " if self._has_times else ""
        return name + at

    def _body(self, line: LogLine) -> str:
        if not line.mark:
            return line.text
        when = "" if line.at is None or self._has_times else f"{stamp(line.at)} "
        return painted(f"--- {when}{line.mark}: {line.text} ---", "dim", on=self._colour)


def _colour_of(name: str) -> str:
    return _COLOURS[sum(name.encode()) % len(_COLOURS)]
