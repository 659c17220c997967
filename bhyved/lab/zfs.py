"""The stand-in of zfs(8) and of the little of zpool(8) that is asked: contract 5.7.

    zfs create [-ps] [-V SIZE] [-o PROPERTY=VALUE] DATASET      zfs destroy [-r] DATASET | DATASET@SNAPSHOT
    zfs snapshot [-r] DATASET@NAME …                            zfs rollback [-r] DATASET@NAME
    zfs clone DATASET@NAME DATASET                              zfs set PROPERTY=VALUE … DATASET
    zfs list [-Hpr] [-t TYPE,…] [-o COLUMN,…] [DATASET …]       zfs get [-Hp] [-o COLUMN,…] PROPERTY,… DATASET …
    zpool list [-H] [-o name]

One pool, zroot. `DIR/lab/zfs.json` has the datasets; a volume is a sparse file in DIR/lab/zvol, a snapshot of it a copy. Its link in
DIR/dev/zvol appears a moment after the command has ended, as on FreeBSD: `zvol_delay_s` of the lab's settings, 0.05 s.
"""

from __future__ import annotations

import os
import sys

from bhyved.lab import state
from bhyved.lab.datasets import POOL, Pool, copy, remove
from bhyved.lab.freebsd import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

USAGE = 2
_UNITS = "BKMGTP"
_BLOCK_BYTES = 16 << 10
_DEFAULTS = {"volmode": "default", "primarycache": "all", "volblocksize": str(_BLOCK_BYTES), "recordsize": "131072"}


def main(root: str, argv: list[str]) -> int:
    verb = _VERBS.get(argv[0] if argv else "")
    try:
        if verb is None:
            raise Refusal(USAGE, f"unrecognized command '{argv[0]}'" if argv else "missing command")
        words, flags = _options(argv[1:], "tVo")
        with state.Locked(root, "zfs"):
            pool = Pool(root)
            verb(pool, words, flags)
            pool.save()
        pool.link_later()
    except Refusal as refusal:
        print(refusal.text, file=sys.stderr)
        return refusal.status
    return 0


def zpool(root: str, argv: list[str]) -> int:
    del root
    if argv[:4] == ["list", "-H", "-o", "health"] and len(argv) == 5:
        if argv[4] != POOL:
            print(f"cannot open '{argv[4]}': no such pool", file=sys.stderr)
            return 1
        print("ONLINE")
        return 0
    if argv[:1] != ["list"]:
        print("usage: zpool list [-H] [-o property[,...]]", file=sys.stderr)
        return USAGE
    print(POOL)
    return 0


class _Flags:
    """Options: letters, and those with a value."""

    def __init__(self) -> None:
        self.letters = ""
        self.values: dict[str, list[str]] = {}

    def last(self, letter: str, default: str) -> str:
        return self.values.get(letter, [default])[-1]


def _options(argv: list[str], with_value: str) -> tuple[list[str], _Flags]:
    words, flags, rest = [], _Flags(), list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        for index, letter in enumerate(word[1:], 1):
            if letter in with_value:
                value = word[index + 1 :] or (rest.pop(0) if rest else "")
                flags.values.setdefault(letter, []).append(value)
                break
            flags.letters += letter
    return words, flags


def _size(text: str) -> int:
    number, unit = text.upper().removesuffix("B"), "B"
    if number[-1:] in _UNITS:
        number, unit = number[:-1], number[-1]
    try:
        size = int(float(number) * (1 << (10 * _UNITS.index(unit))))
    except ValueError:
        raise Refusal(1, f"bad volume size '{text}'") from None
    if size <= 0 or size % _BLOCK_BYTES:
        raise Refusal(1, f"'volsize' must be a multiple of volume block size ({_BLOCK_BYTES >> 10}K)")
    return size


def _settings(words: list[str]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise Refusal(USAGE, f"missing '=' for property=value argument {word}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _create(pool: Pool, words: list[str], flags: _Flags) -> None:
    (name,) = _exactly(words, 1)
    if "p" in flags.letters:
        for length in range(1, name.count("/")):
            parent = "/".join(name.split("/")[: length + 1])
            if parent not in pool.datasets:
                pool.add(parent, {"type": "filesystem"})
    properties = _settings(flags.values.get("o", []))
    if "V" not in flags.values:
        pool.add(name, {"type": "filesystem", **properties})
        return
    size = _size(flags.last("V", ""))
    pool.add(name, {"type": "volume", "volsize": size, **properties})
    with open(pool.file(name), "xb") as volume:
        volume.truncate(size)
    pool.appearing.append(name)


def _destroy(pool: Pool, words: list[str], flags: _Flags) -> None:
    (full,) = _exactly(words, 1)
    if "@" in full:
        name, snapshot = pool.snapshot(full)
        del pool.datasets[name]["snapshots"][snapshot]
        remove(pool.file(name, snapshot))
        return
    pool.get(full)
    children = pool.below(full)
    if "r" not in flags.letters and (len(children) > 1 or pool.get(full)["snapshots"]):
        raise Refusal(1, f"cannot destroy '{full}': {'volume' if pool.get(full)['type'] == 'volume' else 'filesystem'} has children")
    for name in children:
        for snapshot in pool.datasets[name]["snapshots"]:
            remove(pool.file(name, snapshot))
        remove(pool.link(name))
        remove(pool.file(name))
        del pool.datasets[name]


def _snapshot(pool: Pool, words: list[str], flags: _Flags) -> None:
    if not words:
        raise Refusal(USAGE, "missing snapshot argument")
    targets = []
    for full in words:
        name, at, snapshot = full.partition("@")
        if not at or not snapshot:
            raise Refusal(USAGE, f"cannot create snapshot '{full}': missing '@' delimiter in snapshot name")
        pool.get(name)
        targets += [(each, snapshot) for each in (pool.below(name) if "r" in flags.letters else [name])]
    for name, snapshot in targets:  # all or none: contract 5.7's backups rely on one instant
        if snapshot in pool.datasets[name]["snapshots"]:
            raise Refusal(1, f"cannot create snapshot '{name}@{snapshot}': dataset already exists")
    for name, snapshot in targets:
        snapshots = pool.datasets[name]["snapshots"]
        snapshots[snapshot] = max(snapshots.values(), default=0) + 1
        if pool.datasets[name]["type"] == "volume":
            copy(pool.file(name), pool.file(name, snapshot))


def _rollback(pool: Pool, words: list[str], flags: _Flags) -> None:
    (full,) = _exactly(words, 1)
    name, snapshot = pool.snapshot(full)
    snapshots = pool.datasets[name]["snapshots"]
    newer = [other for other, number in snapshots.items() if number > snapshots[snapshot]]
    if newer and "r" not in flags.letters:
        listed = "\n".join(f"{name}@{other}" for other in newer)
        text = f"cannot rollback to '{full}': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following"
        raise Refusal(1, f"{text} snapshots and bookmarks:\n{listed}")
    for other in newer:
        del snapshots[other]
        remove(pool.file(name, other))
    if pool.datasets[name]["type"] == "volume":
        copy(pool.file(name, snapshot), pool.file(name))


def _clone(pool: Pool, words: list[str], flags: _Flags) -> None:
    del flags
    full, target = _exactly(words, 2)
    name, snapshot = pool.snapshot(full)
    origin = pool.datasets[name]
    pool.add(target, {**{key: value for key, value in origin.items() if key != "snapshots"}, "origin": full})
    if origin["type"] == "volume":
        copy(pool.file(name, snapshot), pool.file(target))
        pool.appearing.append(target)


def _set(pool: Pool, words: list[str], flags: _Flags) -> None:
    del flags
    *settings, name = words or [""]
    properties: dict[str, Any] = dict(_settings(settings))
    dataset = pool.get(name)
    if "volsize" in properties and dataset["type"] == "volume":
        properties["volsize"] = _size(properties["volsize"])
        os.truncate(pool.file(name), properties["volsize"])
    dataset.update(properties)


def _list(pool: Pool, words: list[str], flags: _Flags) -> None:
    types = flags.last("t", "filesystem,volume").replace("all", "filesystem,volume,snapshot").split(",")
    columns = flags.last("o", "name,used,avail,refer,mountpoint").split(",")
    names: list[str] = []
    for word in words or [POOL]:
        if "@" in word:
            pool.snapshot(word)
            names.append(word)
            continue
        pool.get(word)
        everything = not words or "r" in flags.letters or "snapshot" in types
        names += _with_snapshots(pool, pool.below(word) if everything else [word])
    wanted = [name for name in names if (_value(pool, name, "type") or "") in types or "@" in name in words]
    rows = [[_shown(pool, name, column, flags) for column in columns] for name in wanted]
    _table([column.upper() for column in columns], rows, flags)


def _with_snapshots(pool: Pool, names: list[str]) -> list[str]:
    return [each for name in names for each in (name, *(f"{name}@{snapshot}" for snapshot in pool.datasets[name]["snapshots"]))]


def _get(pool: Pool, words: list[str], flags: _Flags) -> None:
    if len(words) < 2:
        raise Refusal(USAGE, "missing dataset argument")
    columns = flags.last("o", "name,property,value,source").split(",")
    rows = []
    for name in words[1:]:
        if "@" in name:
            pool.snapshot(name)
        pool.get(name.partition("@")[0])
        for key in words[0].split(","):
            cells = {"name": name, "property": key, "value": _shown(pool, name, key, flags), "source": "-"}
            rows.append([cells.get(column, "-") for column in columns])
    _table([column.upper() for column in columns], rows, flags)


def _value(pool: Pool, full: str, key: str) -> str | None:
    """A property of a dataset or snapshot; None: it has none."""
    name, _, snapshot = full.partition("@")
    if key == "name":
        return full
    if key == "type" and snapshot:
        return "snapshot"
    value = pool.datasets[name].get(key, _DEFAULTS.get(key))
    if key in ("used", "refer", "referenced") and pool.datasets[name]["type"] == "volume":
        value = os.stat(pool.file(name, snapshot)).st_blocks * 512
    return None if value is None or key == "snapshots" else str(value)


def _shown(pool: Pool, full: str, key: str, flags: _Flags) -> str:
    value = _value(pool, full, key)
    if value is None:
        return "-"
    if "p" not in flags.letters and key in ("volsize", "used", "refer", "referenced", "volblocksize", "recordsize") and value.isdigit():
        power = max(0, min(len(_UNITS) - 1, (int(value).bit_length() - 1) // 10))
        return f"{int(value) / (1 << (10 * power)):.3g}{_UNITS[power]}"
    return value


def _table(titles: list[str], rows: list[list[str]], flags: _Flags) -> None:
    if "H" in flags.letters:
        for row in rows:
            print("\t".join(row))
        return
    widths = [max(len(line[index]) for line in [titles, *rows]) for index in range(len(titles))]
    for line in [titles, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _exactly(words: list[str], count: int) -> list[str]:
    if len(words) != count:
        raise Refusal(USAGE, "too many arguments" if len(words) > count else "missing argument")
    return words


_VERBS: dict[str, Callable[[Pool, list[str], _Flags], None]] = {
    "create": _create,
    "destroy": _destroy,
    "snapshot": _snapshot,
    "rollback": _rollback,
    "clone": _clone,
    "set": _set,
    "list": _list,
    "get": _get,
}
