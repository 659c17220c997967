"""The stand-in of ps(1): all processes, those of the lab as FreeBSD would show them (contract 8.2).

    ps [-axww] [-o COLUMN[=TITLE],…] [-p PID,…]

`-o`, which may be repeated, takes pid, ppid, command or args, comm or ucomm, lstart, etimes, state, uid and jid.
"""

from __future__ import annotations

import os
import sys
import time

from bhyved.lab.processes import Process, command_of, process_of, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_TITLES = {"command": "COMMAND", "args": "COMMAND", "lstart": "STARTED", "etimes": "ELAPSED", "state": "STAT"}
_LEFT = ("command", "args", "comm", "ucomm", "lstart", "state")
_CSTYLE = {"\n": "n", "\r": "r", "\b": "b", "\a": "a", "\v": "v", "\f": "f"}
_CLOCK_HZ = os.sysconf("SC_CLK_TCK")


def main(root: str, argv: list[str]) -> int:
    columns: list[tuple[str, str]] = []
    pids: list[int] | None = None
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        letters = word[1:] if word.startswith("-") else word
        if letters[-1:] in ("o", "p") and rest:
            value = rest.pop(0)
            if letters[-1] == "o":
                columns += _columns(value)
            else:
                pids = [int(pid) for pid in value.split(",") if pid.isdigit()]
            letters = letters[:-1]
        if letters.strip("axwdH"):
            print(f"ps: illegal option -- {letters.strip('axwdH')[0]}\nusage: ps [-axww] [-o fmt] [-p pid]", file=sys.stderr)
            return 1
    columns = columns or [("pid", "PID"), ("command", "COMMAND")]
    unknown = [name for name, _ in columns if name not in _VALUES]
    if unknown:
        print(f"ps: {unknown[0]}: keyword not found", file=sys.stderr)
        return 1
    rows = _rows(root, [name for name, _ in columns], pids)
    _print(columns, rows)
    return 0 if rows else 1


def _columns(text: str) -> list[tuple[str, str]]:
    """`pid=,command=` or `pid,command`: names with their titles. A title may hold commas, but nobody here has one that does."""
    found = []
    for part in text.split(","):
        name, equals, title = part.partition("=")
        found.append((name, title if equals else _TITLES.get(name, name.upper())))
    return found


def _rows(root: str, names: list[str], pids: list[int] | None) -> list[list[str]]:
    chosen = processes() if pids is None else (found for pid in pids if (found := process_of(pid)))
    rows = []
    for process in sorted(chosen, key=lambda process: process.pid):
        command = command_of(root, process)
        if command is None:
            continue
        try:
            seen = _Seen(process, command)
        except (OSError, IndexError):
            continue  # it has ended meanwhile
        rows.append([_VALUES[name](seen) for name in names])
    return rows


def _print(columns: list[tuple[str, str]], rows: list[list[str]]) -> None:
    titles = [title for _, title in columns]
    lines = [*([titles] if any(titles) else []), *rows]
    widths = [max((len(line[index]) for line in lines), default=0) for index in range(len(columns))]
    for line in lines:
        cells = []
        for (name, _), cell, width in zip(columns, line, widths, strict=True):
            cells.append(cell.ljust(width) if name in _LEFT else cell.rjust(width))
        print(" ".join(cells).rstrip())


class _Seen:
    """What /proc says of a process."""

    def __init__(self, process: Process, command: str) -> None:
        with open(f"/proc/{process.pid}/stat", encoding="utf-8", errors="replace") as file:
            before, _, after = file.read().rpartition(")")
        fields = after.split()
        self.pid, self.uid = process.pid, process.uid
        self.command = "<defunct>" if fields[0] == "Z" else "".join(map(_visible, command))
        self.comm = os.path.basename(process.stand_in) or before.partition("(")[2]
        self.state = fields[0]
        self.parent = int(fields[1])
        self.start_ticks = int(fields[19])  # since the boot of the machine below

    def started(self) -> str:
        """The same at every look, as it serves to tell processes apart: so not from the clock of now."""
        with open("/proc/stat", encoding="utf-8") as file:
            booted_at = next(int(line.split()[1]) for line in file if line.startswith("btime "))
        return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(booted_at + self.start_ticks // _CLOCK_HZ))

    def elapsed_s(self) -> int:
        with open("/proc/uptime", encoding="utf-8") as file:
            return int(float(file.read().split()[0]) - self.start_ticks / _CLOCK_HZ)


def _visible(letter: str) -> str:
    """As ps's fmt.c has strvis(3) write it, so that a process is one line."""
    if letter in _CSTYLE:
        return "\\" + _CSTYLE[letter]
    return letter if letter.isprintable() or letter == "\t" else f"\\^{chr(ord(letter) & 0x1F | 0x40)}"


_VALUES: dict[str, Callable[[_Seen], str]] = {
    "pid": lambda seen: str(seen.pid),
    "ppid": lambda seen: str(seen.parent),
    "uid": lambda seen: str(seen.uid),
    "jid": lambda _: "0",
    "command": lambda seen: seen.command,
    "args": lambda seen: seen.command,
    "comm": lambda seen: seen.comm,
    "ucomm": lambda seen: seen.comm,
    "state": lambda seen: seen.state,
    "lstart": _Seen.started,
    "etimes": lambda seen: str(seen.elapsed_s()),
}
