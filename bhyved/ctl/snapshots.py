"""`vmctl snapshot` and `vmctl rollback`: the disks of guests as they were."""

from __future__ import annotations

import sys
import time

from bhyved.ctl.amounts import one_line, size, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, guests_of, print_json
from bhyved.ctl.columns import table
from bhyved.ctl.connection import OK, USAGE, Connection, Failure
from bhyved.ctl.wishes import show_answers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: zfs(8) may take a minute for each guest, where its pool is busy.
PATIENCE_S = 3600.0
_HEADS = ("NAME", "AGE", "CONSISTENCY", "USED", "DISKS", "REMARK")
_RIGHT = frozenset({1, 3})


def snapshot(asked: Asked) -> int:
    """Take one, list them, or destroy one."""
    wanted = [option for option in ("name", "list", "delete") if asked.is_given(option)]
    if len(wanted) > 1:
        raise Failure(USAGE, f"snapshot: --{wanted[0]} does not go with --{wanted[1]}")
    if asked.has("all") and wanted and wanted != ["name"]:
        raise Failure(USAGE, f"snapshot: --{wanted[0]} wants the names of guests, not --all")
    with connect(asked) as connection:
        if asked.has("list"):
            return _list(connection, asked)
        if asked.is_given("delete"):
            return _delete(connection, asked)
        answers = connection.call("vm.snapshot", PATIENCE_S, snapshot=asked.text("name"), **guests_of(asked))["answers"]
    return show_answers(asked, answers)


def _list(connection: Connection, asked: Asked) -> int:
    for number, name in enumerate(asked.names):
        told = connection.call("vm.snapshots", PATIENCE_S, name=name)
        if asked.has("json"):
            print_json(told)
            continue
        if len(asked.names) > 1:
            print(("\n" if number else "") + f"{name}:")
        if told["snapshots"]:
            rows = [_cells(each, len(told["datasets"])) for each in told["snapshots"]]
            sys.stdout.write(table(_HEADS, rows, right=_RIGHT))
        else:
            print(f"{name} has no snapshots", file=sys.stderr)
    return OK


def _cells(snapshot: dict[str, Any], datasets: int) -> tuple[str, ...]:
    has = len(snapshot["datasets"])
    remarks = []
    if snapshot["missing"]:
        remarks.append(f"not of {', '.join(snapshot['missing'])}: cannot be rolled back to")
    if not snapshot["own"]:
        remarks.append("not by bhyved")
    return (
        one_line(snapshot["name"]),
        span(max(0.0, time.time() - snapshot["at-s"])),
        snapshot["consistency"],
        size(snapshot["used-bytes"]),
        str(has) if has == datasets else f"{has} of {datasets}",
        one_line("; ".join(remarks)),
    )


def _delete(connection: Connection, asked: Asked) -> int:
    if len(asked.names) != 1:
        raise Failure(USAGE, "snapshot: --delete takes one guest")
    told = connection.call("vm.snapshot-delete", PATIENCE_S, name=asked.names[0], snapshot=asked.text("delete"))
    if asked.has("json"):
        print_json(told)
    else:
        print(one_line(told["text"]))
    return OK


def rollback(asked: Asked) -> int:
    name, snapshot = asked.names
    with connect(asked) as connection:
        newer = asked.has("destroy-newer") or None
        told = connection.call("vm.rollback", PATIENCE_S, name=name, snapshot=snapshot, destroy_newer=newer)
    if asked.has("json"):
        print_json(told)
    else:
        print(one_line(told["text"]))
    return OK
