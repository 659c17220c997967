"""`vmctl status` and `vmctl show`: one guest on a few lines, all of a guest, or the daemon."""

from __future__ import annotations

import sys

from bhyved.ctl.amounts import counted, moment, one_line, size, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, print_json
from bhyved.ctl.columns import has_colour, painted, pairs, phase_colour
from bhyved.ctl.connection import OK
from bhyved.ctl.message import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Row = dict[str, Any]


def show_status(asked: Asked) -> int:
    with connect(asked) as connection:
        if not asked.names:
            info, rows = connection.call("daemon.info"), connection.call("vm.list")["vms"]
            if asked.has("json"):
                print_json(info)
            else:
                sys.stdout.write(_daemon(info, rows))
            return OK
        for number, name in enumerate(asked.names):
            row = connection.call("vm.list", names=[name])["vms"][0]
            if asked.has("json"):
                print_json(row)
            else:
                sys.stdout.write(("\n" if number else "") + headline(row) + pairs(_entries(row)))
    return OK


def show_all(asked: Asked) -> int:
    with connect(asked) as connection:
        for number, name in enumerate(asked.names):
            shown = connection.call("vm.show", name=name)
            if asked.has("json"):
                print_json(shown)
            else:
                sys.stdout.write(("\n" if number else "") + _shown(shown))
    return OK


def _daemon(info: Row, rows: list[Row]) -> str:
    phases: dict[str, int] = {}
    for row in rows:
        phases[row["phase"]] = phases.get(row["phase"], 0) + 1
    counts = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items(), key=lambda item: -item[1]))
    you = info["you"]
    drain = info["drain"]
    entries = [
        ("since", f"{moment(info['started-at'])} UTC, for {span(info['uptime-s'])}"),
        ("guests", f"{info['guests']}: {counts}" if rows else "none that you may see"),
        *_memory(info["memory"]),
        ("closing", "yes: guests are being stopped" if info["closing"] else ""),
        ("drained", "" if drain is None else frozen(drain)),
        *(("problem", one_line(problem)) for problem in info["problems"]),
        ("you", f"{you['user']} (uid {you['uid']}), {_role(you)}"),
    ]
    return f"bhyved {info['version']} runs, pid {info['pid']}\n{pairs(entries)}"


def _memory(memory: Row | None) -> Iterator[tuple[str, str]]:
    """What of the host's memory guests have, and what is left for those that start by themselves."""
    if memory is None:
        return
    total, limit, wired_limit = memory["total-bytes"], memory["limit-bytes"], memory["wired-limit-bytes"]
    has = "not known how much" if total is None else size(total)
    if limit is None:
        yield "memory", f"{has}; guests have {size(memory['guests-bytes'])}{', overcommit = true' if memory['overcommit'] else ''}"
    else:
        left = f"{size(memory['free-bytes'])} left for starts, {size(memory['reserve-bytes'])} reserved"
        yield "memory", f"{has}; guests have {size(memory['guests-bytes'])} of {size(limit)}, {left}"
    if memory["wired-bytes"]:
        yield "wired", f"guests have {size(memory['wired-bytes'])}" + ("" if wired_limit is None else f" of {size(wired_limit)}")


def _role(you: Row) -> str:
    owns = f"owner of {', '.join(you['owns'])}" if you["owns"] else ""
    roles = {"root": "may do everything", "operator": "operator", "reader": "may look", "none": ""}
    return " and ".join(filter(None, (roles.get(you["role"], you["role"]), owns))) or "may do nothing here"


def frozen(hold: Row) -> str:
    """A hold or a drain: by whom, since and until when, why."""
    until = f", until {moment(hold['until-at'])} UTC" if hold.get("until-at") else ""
    reason = f": {one_line(hold['reason'])}" if hold.get("reason") else ""
    return f"by {hold['by']} since {moment(hold['since-at'])} UTC{until}{reason}"


def headline(row: Row) -> str:
    """`web1: up for 2h5m, ready`."""
    phase = painted(row["phase"], phase_colour("ill" if row["ill"] else row["phase"]), on=has_colour())
    seconds = row["phase_s"] if row["uptime_s"] is None or row["phase"] != "up" else row["uptime_s"]
    words = [f"{row['name']}: {phase} for {span(seconds)}"]
    if row["phase"] == "up":
        words.append("ready" if row["ready"] else "not ready yet")
    if row["ill"]:
        words.append(painted("ill", "red", on=has_colour()))
    if row["adopted"]:
        words.append("taken up from an earlier bhyved")
    return ", ".join(words) + "\n"


def _entries(row: Row) -> list[tuple[str, str]]:
    last, restarts = row["last_exit"], row["restarts"]
    return [
        ("reason", one_line(row["reason"])),
        ("waits", one_line(row["waiting_for"])),
        ("ill", one_line(row["ill"])),
        ("not ready", one_line(row["unready"])),
        ("unlimited", one_line(row["unlimited"])),
        ("file", "has gone: the guest goes on as it is" if row["orphaned"] else ""),
        ("changes", f"wait for another run: vmctl show {row['name']} lists them" if row["config_changed"] else ""),
        ("wished", row["desired"] + (", starts with the host" if row["autostart"] else "")),
        ("suspended", "" if row["suspended"] is None else _suspended(row["suspended"])),
        ("next start", "" if row["next_start_in_s"] is None else f"in {span(row['next_start_in_s'])}"),
        ("attempts", row["attempts"]),
        ("on hold", "" if row["hold"] is None else frozen(row["hold"])),
        ("process", "" if row["pid"] is None else f"pid {row['pid']}, run {row['run']}"),
        ("machine", f"{counted(row['cpus'], 'CPU')}, {size(row['memory_bytes'])}"),
        ("consoles", ", ".join(row["serials"])),
        ("vnc", row["vnc"]),
        ("taps", ", ".join(row["taps"])),
        ("restarts", f"{restarts['reboot']} reboots, {restarts['crash']} crashes, {restarts['start_failure']} failed starts"),
        ("forced stops", str(row["forced_stops"] or "")),
        ("last exit", "" if last is None else f"{moment(last['at'])} UTC: {one_line(last['text']) or last['kind']}"),
    ]


def _suspended(state: Row) -> str:
    by = f" by {state['by']}" if state["by"] else ""
    doubt = ", in doubt: a resume of it was cut short" if state["doubtful"] else ""
    return f"since {moment(state['at'])} UTC{by}, in {state['path']}{doubt}"


def _shown(shown: Row) -> str:
    lines = [headline(shown["vm"])]
    for change in shown["changes"]:
        lines.append(f"  {change['key']}: {value_of(change['new'])} instead of {value_of(change['old'])}, {effect(change['effect'])}\n")
    lines += [f"\n{key} = {value_of(value)}" for key, value in flat(shown["spec"])]
    lines.append("\n")
    for console in shown["consoles"]:
        problem = f"; {one_line(console['problem'])}" if console["problem"] else ""
        writer = f"; {console['writer']} has the keyboard" if console["writer"] else ""
        state = "open" if console["open"] else "not open"
        lines.append(
            f"\nconsole {console['port']}: {state}, {size(console['offset'])} recorded, {console['viewers']} watching{writer}{problem}"
        )
    return "".join(lines) + ("\n" if shown["consoles"] else "")


_EFFECTS = {
    "live": "in force already",
    "next-guest-reboot": "from its next run on",
    "next-cold-start": "when it is stopped and started",
    "refused": "when bhyved is restarted, which guests outlive",
}


def effect(word: str) -> str:
    """When a change of the configuration is in force."""
    return _EFFECTS.get(word, word)


def flat(table: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Keys as messages name them: `disk[0].path`. Empty tables and lists are left out."""
    if isinstance(table, dict):
        for key, value in table.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(table, list) and any(isinstance(item, dict) for item in table):
        for number, item in enumerate(table):
            yield from flat(item, f"{prefix}[{number}]")
    elif table != []:
        yield prefix, table


def value_of(value: object) -> str:
    """As TOML would have it, without what is not given."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {value_of(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(value_of, value))}]"
    return "nothing" if value is None else dump(value)
