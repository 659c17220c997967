"""What the stand-in of zfs(8) prints: `zfs list` and `zfs get`, and the properties of datasets and snapshots behind them."""

from __future__ import annotations

import os
import sys

from bhyved.lab.datasets import POOL, Pool
from bhyved.lab.freebsd import Refusal
from bhyved.lab.zfsargs import USAGE, Flags

UNITS = "BKMGTP"
BLOCK_BYTES = 16 << 10
_DEFAULTS = {"volmode": "default", "primarycache": "all", "volblocksize": str(BLOCK_BYTES), "recordsize": "131072"}
_BYTES = frozenset({"volsize", "used", "refer", "referenced", "volblocksize", "recordsize"})


def list_(pool: Pool, words: list[str], flags: Flags) -> None:
    """What can be opened is printed, also when something else cannot: that costs the exit status alone."""
    types = flags.last("t", "filesystem,volume").replace("all", "filesystem,volume,snapshot").split(",")
    columns = flags.last("o", "name,used,avail,refer,mountpoint").split(",")
    names: list[str] = []
    refused = False
    for word in words or [POOL]:
        try:
            names += _named(pool, word, flags, types, everything=not words)
        except Refusal as refusal:
            print(refusal.text, file=sys.stderr)
            refused = True
    wanted = [name for name in dict.fromkeys(names) if (_value(pool, name, "type") or "") in types or ("@" in name and name in words)]
    _table([column.upper() for column in columns], [[_shown(pool, name, column, flags) for column in columns] for name in wanted], flags)
    if refused:
        raise Refusal(1, "")


def _named(pool: Pool, word: str, flags: Flags, types: list[str], *, everything: bool) -> list[str]:
    """The datasets, and perhaps snapshots, that an argument stands for."""
    if word.startswith("/"):
        return [pool.holding(word)]
    if "@" in word:
        pool.snapshot(word)
        return [word]
    pool.get(word)
    deep = everything or "r" in flags.letters or ("snapshot" in types and "d" not in flags.values)
    return [
        each
        for name in (pool.below(word) if deep else [word])
        for each in (name, *(f"{name}@{snapshot}" for snapshot in pool.datasets[name]["snapshots"]))
    ]


def get(pool: Pool, words: list[str], flags: Flags) -> None:
    if len(words) < 2:
        raise Refusal(USAGE, "missing dataset argument")
    columns = flags.last("o", "name,property,value,source").split(",")
    rows = []
    for name in words[1:]:
        if "@" in name:
            pool.snapshot(name)
        pool.get(name.partition("@")[0])
        for key in _keys(pool, name) if words[0] == "all" else words[0].split(","):
            cells = {"name": name, "property": key, "value": _shown(pool, name, key, flags), "source": "-"}
            rows.append([cells.get(column, "-") for column in columns])
    _table([column.upper() for column in columns], rows, flags)


def _keys(pool: Pool, full: str) -> list[str]:
    """`all`: zfs's own properties first, then those of users."""
    name, _, snapshot = full.partition("@")
    known = pool.datasets[name]["snapshots"][snapshot]["properties"] if snapshot else pool.datasets[name]
    own = {"type", *(() if snapshot else _DEFAULTS), *(key for key in known if ":" not in key)}
    users = {key for key in (*known, *pool.datasets[name]) if ":" in key}
    return [key for key in (*sorted(own), *sorted(users)) if _value(pool, full, key) is not None]


def _value(pool: Pool, full: str, key: str) -> str | None:
    """A property of a dataset or snapshot; None: it has none."""
    name, _, snapshot = full.partition("@")
    if key == "name":
        return full
    if snapshot:
        return _of_snapshot(pool, name, snapshot, key)
    dataset = pool.datasets[name]
    value = pool.mountpoint(name) if key == "mountpoint" else dataset.get(key, _DEFAULTS.get(key))
    if key in ("used", "refer", "referenced") and dataset["type"] == "volume":
        value = os.stat(pool.file(name)).st_blocks * 512
    return None if value is None or key == "snapshots" else str(value)


def _of_snapshot(pool: Pool, name: str, snapshot: str, key: str) -> str | None:
    taken = pool.datasets[name]["snapshots"][snapshot]
    match key:
        case "type":
            return "snapshot"
        case "createtxg":
            return str(taken["txg"])
        case "creation":
            return str(taken["creation"])
        case "userrefs":
            return "0"
        case "clones":
            return ",".join(pool.clones(name, snapshot))
        case "used" | "refer" | "referenced":
            path = pool.file(name, snapshot)
            return str(os.stat(path).st_blocks * 512 if os.path.exists(path) else 0)
    # User properties of the dataset are its snapshots' too.
    value = taken["properties"].get(key, pool.datasets[name].get(key) if ":" in key else None)
    return None if value is None else str(value)


def _shown(pool: Pool, full: str, key: str, flags: Flags) -> str:
    value = _value(pool, full, key)
    if value is None or (value == "" and key != "clones"):
        return "-"
    if "p" not in flags.letters and key in _BYTES and value.isdigit():
        power = max(0, min(len(UNITS) - 1, (int(value).bit_length() - 1) // 10))
        return f"{int(value) / (1 << (10 * power)):.3g}{UNITS[power]}"
    return value


def _table(titles: list[str], rows: list[list[str]], flags: Flags) -> None:
    if not rows:
        return
    if "H" in flags.letters:
        for row in rows:
            print("\t".join(row))
        return
    widths = [max(len(line[index]) for line in [titles, *rows]) for index in range(len(titles))]
    for line in [titles, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
