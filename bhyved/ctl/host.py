"""`vmctl reload` and `vmctl drain`: what concerns all guests of the host."""

from __future__ import annotations

import sys

from bhyved.ctl.amounts import one_line
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, deadline_of, print_json
from bhyved.ctl.connection import OK, USAGE, Failure
from bhyved.ctl.status import effect, frozen, value_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def reload(asked: Asked) -> int:
    with connect(asked) as connection:
        done = connection.call("config.reload", plan=asked.has("plan") or None, prune=asked.has("prune") or None)
    if asked.has("json"):
        print_json(done)
        return OK
    for warning in done["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    lines = list(_lines(done))
    sys.stdout.write("".join(f"{line}\n" for line in lines) or "nothing changes\n")
    return OK


def _lines(done: dict[str, Any]) -> list[str]:
    planned = not done["applied"]
    lines = [f"{name}: new, " + ("starts" if name in done["starts"] else "starts when somebody starts it") for name in done["added"]]
    for name in done["removed"]:
        lines.append(f"{name}: its file has gone, {_without_file(done, name)}")
    for name, changes in done["changed"].items():
        lines += [f"{name}: {_change(change, planned=planned)}" for change in changes]
    lines += [f"bhyved: {_change(change, planned=planned)}" for change in done["daemon"]]
    return [*lines, "nothing has been changed: this is the plan"] if planned and lines else lines


def _without_file(done: dict[str, Any], name: str) -> str:
    if name in done["orphans"]:
        return "goes on as it is until `vmctl reload --prune` stops it"
    return "is stopped and forgotten" if name in done["stops"] else "is forgotten"


def _change(change: dict[str, Any], *, planned: bool) -> str:
    when = "in force at once" if planned and change["effect"] == "live" else effect(change["effect"])
    return f"{change['key']} = {one_line(value_of(change['new']))}, was {one_line(value_of(change['old']))}: {when}"


def drain(asked: Asked) -> int:
    off = asked.has("off")
    if off and (asked.is_given("for") or asked.is_given("reason") or asked.is_given("wait")):
        raise Failure(USAGE, "drain: --off ends a drain: it goes with no other option")
    deadline = deadline_of(asked)
    with connect(asked) as connection:
        done = connection.call("daemon.drain", on=not off, reason=asked.text("reason"), for_=asked.seconds("for"))
        if asked.has("json"):
            print_json(done)
        elif done["drain"] is None:
            was = done.get("was")
            print("the host is not drained" if was is None else "the drain is over: guests that are wished up start")
        else:
            print(f"drained {frozen(done['drain'])}")
            sys.stdout.flush()
        if not asked.has("wait"):
            return OK
        from bhyved.ctl.wishes import wait_for

        names = [row["name"] for row in connection.call("vm.list")["vms"]]
        return wait_for(connection, names, "down", deadline, is_quiet=asked.has("json"))
