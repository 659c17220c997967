"""The stand-in of zfs(8) and of the little of zpool(8) that is asked: contract 5.7.

    zfs create [-ps] [-V SIZE] [-o PROPERTY=VALUE] DATASET      zfs destroy [-r] DATASET | DATASET@SNAPSHOT
    zfs snapshot [-r] [-o PROPERTY=VALUE] DATASET@NAME …        zfs rollback [-r] DATASET@NAME
    zfs clone DATASET@NAME DATASET                              zfs set PROPERTY=VALUE … DATASET
    zfs list [-Hpr] [-d 1] [-t …] [-o …] [DATASET | /PATH …]       zfs get [-Hp] [-o COLUMN,…] PROPERTY,… DATASET …
    zpool list [-H] [-o name]

One pool, zroot. `DIR/lab/zfs.json` has the datasets; a volume is a sparse file in DIR/lab/zvol, a file system with a mount point of its
own the directory there, and a snapshot a copy. A volume's link in DIR/dev/zvol appears a moment after the command has ended, as on
FreeBSD: `zvol_delay_s` of the lab's settings, 0.05 s.
"""

from __future__ import annotations

import os
import sys

from bhyved.lab import state
from bhyved.lab.datasets import POOL, Pool, copy, remove
from bhyved.lab.freebsd import Refusal
from bhyved.lab.zfsargs import USAGE, Flags, options
from bhyved.lab.zfsprint import BLOCK_BYTES, UNITS, get, list_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def main(root: str, argv: list[str]) -> int:
    verb = _VERBS.get(argv[0] if argv else "")
    try:
        if verb is None:
            raise Refusal(USAGE, f"unrecognized command '{argv[0]}'" if argv else "missing command")
        words, flags = options(argv[1:])
        with state.Locked(root, "zfs"):
            pool = Pool(root)
            verb(pool, words, flags)
            pool.save()
        pool.link_later()
    except Refusal as refusal:
        if refusal.text:
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


def _size(text: str) -> int:
    number, unit = text.upper().removesuffix("B"), "B"
    if number[-1:] in UNITS:
        number, unit = number[:-1], number[-1]
    try:
        size = int(float(number) * (1 << (10 * UNITS.index(unit))))
    except ValueError:
        raise Refusal(1, f"bad volume size '{text}'") from None
    if size <= 0 or size % BLOCK_BYTES:
        raise Refusal(1, f"'volsize' must be a multiple of volume block size ({BLOCK_BYTES >> 10}K)")
    return size


def _settings(words: list[str]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise Refusal(USAGE, f"missing '=' for property=value argument {word}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _create(pool: Pool, words: list[str], flags: Flags) -> None:
    (name,) = _exactly(words, 1)
    if "p" in flags.letters:
        for length in range(1, name.count("/")):
            parent = "/".join(name.split("/")[: length + 1])
            if parent not in pool.datasets:
                pool.add(parent, {"type": "filesystem"})
    properties = _settings(flags.values.get("o", []))
    if "V" not in flags.values:
        pool.add(name, {"type": "filesystem", **properties})
        if pool.mountpoint(name) != "none":
            os.makedirs(pool.mountpoint(name), exist_ok=True)
        return
    size = _size(flags.last("V", ""))
    pool.add(name, {"type": "volume", "volsize": size, **properties})
    with open(pool.file(name), "xb") as volume:
        volume.truncate(size)
    pool.appearing.append(name)


def _destroy(pool: Pool, words: list[str], flags: Flags) -> None:
    (full,) = _exactly(words, 1)
    if "@" in full:
        name, snapshot = pool.snapshot(full)
        clones = pool.clones(name, snapshot)
        if clones:
            listed = "\n".join(clones)
            raise Refusal(
                1, f"cannot destroy '{full}': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\n{listed}"
            )
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


def _snapshot(pool: Pool, words: list[str], flags: Flags) -> None:
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
    properties = _settings(flags.values.get("o", []))
    for name, snapshot in targets:
        pool.take(name, snapshot, properties)


def _rollback(pool: Pool, words: list[str], flags: Flags) -> None:
    (full,) = _exactly(words, 1)
    name, snapshot = pool.snapshot(full)
    snapshots = pool.datasets[name]["snapshots"]
    newer = [other for other, taken in snapshots.items() if taken["txg"] > snapshots[snapshot]["txg"]]
    if newer and "r" not in flags.letters:
        listed = "\n".join(f"{name}@{other}" for other in newer)
        text = f"cannot rollback to '{full}': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following"
        raise Refusal(1, f"{text} snapshots and bookmarks:\n{listed}")
    clones = [clone for other in newer for clone in pool.clones(name, other)]
    if clones:
        text = f"cannot rollback to '{full}': clones of previous snapshots exist\nuse '-R' to force deletion of the following clones"
        raise Refusal(1, f"{text} and dependents:\n" + "\n".join(clones))
    for other in newer:
        del snapshots[other]
        remove(pool.file(name, other))
    pool.restore(name, snapshot)


def _clone(pool: Pool, words: list[str], flags: Flags) -> None:
    del flags
    full, target = _exactly(words, 2)
    name, snapshot = pool.snapshot(full)
    origin = pool.datasets[name]
    pool.add(target, {**{key: value for key, value in origin.items() if key != "snapshots"}, "origin": full})
    if origin["type"] == "volume":
        copy(pool.file(name, snapshot), pool.file(target))
        pool.appearing.append(target)


def _set(pool: Pool, words: list[str], flags: Flags) -> None:
    del flags
    *settings, name = words or [""]
    properties: dict[str, Any] = dict(_settings(settings))
    dataset = pool.get(name)
    if "volsize" in properties and dataset["type"] == "volume":
        properties["volsize"] = _size(properties["volsize"])
        os.truncate(pool.file(name), properties["volsize"])
    dataset.update(properties)


def _exactly(words: list[str], count: int) -> list[str]:
    if len(words) != count:
        raise Refusal(USAGE, "too many arguments" if len(words) > count else "missing argument")
    return words


_VERBS: dict[str, Callable[[Pool, list[str], Flags], None]] = {
    "create": _create,
    "destroy": _destroy,
    "snapshot": _snapshot,
    "rollback": _rollback,
    "clone": _clone,
    "set": _set,
    "list": list_,
    "get": get,
}
