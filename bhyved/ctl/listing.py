"""`vmctl list`: the verb that runs most often, so that nothing it needs is imported that it does not use."""

from __future__ import annotations

import sys

from bhyved.ctl.amounts import moment, one_line, size, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, print_json
from bhyved.ctl.columns import phase_colour, table
from bhyved.ctl.connection import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADS = ("NAME", "PHASE", "UPTIME", "RESTARTS", "CPUS", "MEMORY", "REASON")
_RIGHT = frozenset({2, 3, 4, 5})
_SPARE = (4, 5, 3, 2)  # what a guest has does not change; why it is not up must be seen
_GOING_ON = frozenset({"preparing", "loading", "starting", "up", "stopping", "killing", "cleaning"})


def show_list(asked: Asked) -> int:
    with connect(asked) as connection:
        answer = connection.call("vm.list", names=asked.names or None)
    rows = answer["vms"]
    if asked.has("json"):
        print_json(answer)
    elif asked.has("quiet"):
        sys.stdout.write("".join([f"{row['name']}\n" for row in rows]))
    elif rows:
        colours = [phase_colour("ill" if row["ill"] else row["phase"]) for row in rows]
        sys.stdout.write(table(_HEADS, [_cells(row) for row in rows], right=_RIGHT, colours=colours, spare=_SPARE))
    else:
        print("no guests", file=sys.stderr)
    return OK


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['phase']} (ill)" if row["ill"] else row["phase"],
        "-" if row["uptime_s"] is None else span(row["uptime_s"]),
        str(restarts(row)),
        str(row["cpus"]),
        size(row["memory_bytes"]),
        remark(row),
    )


def restarts(row: dict[str, Any]) -> int:
    """Whatever they were for."""
    counts = row["restarts"]
    total: int = counts["reboot"] + counts["crash"] + counts["start_failure"]
    return total


def standing(phase: str) -> str:
    """A phase behind "is"."""
    return "in backoff" if phase == "backoff" else phase


def remark(row: dict[str, Any]) -> str:
    """What is not as it should be: why a guest is not up, and what a person should know of one that is."""
    hold = row["hold"]
    told = {"ill": row["ill"], "not ready": row["unready"], "limits do not hold": row["unlimited"]}
    if row["phase"] == "up" and hold is None and not (row["config_changed"] or row["orphaned"] or any(told.values())):
        return ""
    words = [f"{what}: {why}" for what, why in told.items() if why]
    if row["phase"] != "up":
        words.append(row["waiting_for"] or row["reason"])
        if row["next_start_in_s"] is not None:
            words.append(f"next start in {span(row['next_start_in_s'])}")
        if row["phase"] != "held" and row["attempts"] not in row["reason"]:  # of one that is held, the reason says what was over its limit
            words.append(row["attempts"])
    if hold is not None:
        until = f"until {moment(hold['until-at'])} UTC" if hold["until-at"] else ""
        if row["phase"] == "held":  # there, the reason says the rest
            words.append(until)
        else:
            words.append(" ".join(filter(None, (f"on hold by {hold['by']}", until))) + (f": {hold['reason']}" if hold["reason"] else ""))
    if row["orphaned"] and row["phase"] in _GOING_ON:  # of others the reason says it
        words.append("orphaned-config: its file has gone")
    if row["config_changed"]:
        words.append("configuration changed")
    return one_line("; ".join(filter(None, words)))
