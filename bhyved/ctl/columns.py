"""Tables and colour: nothing but aligned words, cut to the terminal's width, and colour only where a person looks."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SGR = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36", "bold": "1", "dim": "2"}

#: Characters of the last column that are worth more than a spare one: reasons begin with what matters.
LAST_LEAST = 24

#: Phases, and the illness of one that is up, by what they mean for an operator.
PHASE_COLOURS = {"up": "green", "ill": "red", "held": "red", "backoff": "red", "down": "dim"}


def has_colour() -> bool:
    """On a terminal that can, unless NO_COLOR says otherwise."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb") and sys.stdout.isatty()


def painted(text: str, colour: str, *, on: bool) -> str:
    return f"\x1b[{_SGR[colour]}m{text}\x1b[m" if on and text and colour else text


def phase_colour(phase: str) -> str:
    """Yellow is what passes."""
    return PHASE_COLOURS.get(phase, "yellow")


def width() -> int | None:
    """Of the terminal; None where output is no terminal, and nothing is cut."""
    if not sys.stdout.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[int] = frozenset(),
    colours: Sequence[str] = (),
    spare: Sequence[int] = (),
) -> str:
    """Rows under their heads. `right`: columns of numbers. `colours`: one a row, for its second column.

    `spare`: columns behind the second that a narrow terminal does without, the least needed first.
    """
    limit, on = width(), has_colour()
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    shown = list(range(len(widths)))
    for column in spare if limit is not None else ():
        if sum(widths[at] + 2 for at in shown[:-1]) + min(widths[-1], LAST_LEAST) <= (limit or 0):
            break
        shown.remove(column)
    shape = "  ".join([f"%{widths[at]}s" if at in right else f"%-{widths[at]}s" for at in shown])
    lines = []
    for number, row in enumerate((heads, *rows)):
        line = (shape % tuple([row[at] for at in shown])).rstrip()
        if limit is not None and len(line) > limit:
            line = line[: limit - 1] + "…"
        if on and number and colours:
            line = _with_colour(line, widths, row[1], colours[number - 1])
        lines.append(painted(line, "bold", on=on) if not number else line)
    return "\n".join(lines) + "\n"


def wrapped(sentence: str, indent: str = "") -> str:
    """A sentence behind its indent, broken between words where a terminal would break it within one."""
    limit = width()
    if limit is None or len(indent) + len(sentence) <= limit:
        return indent + sentence
    from textwrap import fill

    return fill(sentence, limit, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False)


def _with_colour(line: str, widths: Sequence[int], cell: str, colour: str) -> str:
    """The second column painted, if the cut has left it whole."""
    start = widths[0] + 2
    end = start + len(cell)
    return f"{line[:start]}{painted(line[start:end], colour, on=True)}{line[end:]}" if len(line) >= end else line


def pairs(entries: Sequence[tuple[str, str]]) -> str:
    """Names and values, a line each; empty values are left out."""
    shown = [(name, value) for name, value in entries if value]
    size = max((len(name) for name, _ in shown), default=0)
    return "".join(f"  {name.ljust(size)}  {value}\n" for name, value in shown)
