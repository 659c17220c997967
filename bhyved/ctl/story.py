"""`vmctl why` and `vmctl history`: what was, and what followed from it."""

from __future__ import annotations

import sys

from bhyved.ctl.amounts import moment, one_line, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, print_json
from bhyved.ctl.columns import has_colour, painted, table, wrapped
from bhyved.ctl.connection import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INDENT, _HINT = "  ", "hint:"
RUNS = 3
LAST = 20
#: What a guest and its bhyve said last: enough for a panic, not for a boot.
QUOTED_LINES = 8
#: Ends that need no more words than they have.
_PLAIN_ENDS = frozenset({"reboot", "poweroff", "halt", "suspended", "destroyed"})


def why(asked: Asked) -> int:
    wanted = asked.number("runs")
    with connect(asked) as connection:
        for number, name in enumerate(asked.names):
            told = connection.call("vm.why", name=name, runs=RUNS if wanted is None else wanted)
            if asked.has("json"):
                print_json(told)
            else:
                sys.stdout.write(("\n" if number else "") + _why(told))
    return OK


def _why(told: dict[str, Any]) -> str:
    on = has_colour()
    first, *rest = map(one_line, told["sentences"])
    text = painted(wrapped(first), "bold", on=on) + "\n" + "".join(f"{wrapped(sentence, _INDENT)}\n" for sentence in rest)
    if told["hint"]:
        hint = wrapped(f"{_HINT} {one_line(told['hint'])}", _INDENT)
        text += hint.replace(_HINT, painted(_HINT, "cyan", on=on), 1) + "\n"
    runs = told["runs"]
    if runs:
        rows = [(moment(run["began-at"]), span(run["uptime-s"]), one_line(run["text"]), one_line(run["decision"])) for run in runs]
        text += "\n" + table(("BEGAN (UTC)", "RAN", "END", "THEN"), rows, right=frozenset({1}))
        if runs[-1]["kind"] not in _PLAIN_ENDS:
            text += _quoted("bhyve said last", runs[-1].get("stderr", "")) + _quoted("its console said last", runs[-1].get("console", ""))
    return text


def _quoted(head: str, words: str) -> str:
    lines = [line for line in map(one_line, words.split("\n")) if line][-QUOTED_LINES:]
    return f"\n{head}:\n" + "".join(f"  {line}\n" for line in lines) if lines else ""


def history(asked: Asked) -> int:
    wanted = asked.number("last")
    with connect(asked) as connection:
        for name in asked.names:
            told = connection.call("vm.history", name=name, last=LAST if wanted is None else wanted)
            if asked.has("json"):
                for run in told["runs"]:
                    print_json(run)
                continue
            prefix = f"{name}: " if len(asked.names) > 1 else ""
            sys.stdout.write("".join(f"{prefix}{one_line(line)}\n" for line in told["lines"]))
            if not told["lines"]:
                print(f"{name} has no history yet", file=sys.stderr)
    return OK
