"""A suspended guest in three files, and its way back (contract 6): only in labs whose settings say `snapshots`.

`F` has the size of the memory, `F.kern` what the engine has of the guest, `F.meta` is JSON with what bhyve takes from it. A sim guest that
comes back waits for its power button and has what was typed on its console and not ended yet; a qemu guest boots anew.
"""

from __future__ import annotations

import json
import time

from bhyved.lab.freebsd import Refusal, Settings
from bhyved.lab.script import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.node import State
    from bhyved.lab.tree import Tree

_DEVICES = b"devices\n"
_BEFORE_DECEMBER_2025, _SINCE = 0, 5  # exit statuses: contract 1.7.1


def write(file: str, vm: str, known: State, *, engine: bytes = b"", takes_s: float = 0.0) -> None:
    """`takes_s`: how long, as a large guest on a slow disk. Raises OSError."""
    meta = {"name": vm, "ncpus": known.active_cpus, "topology": known.topology, "memsize": known.memory_bytes}
    parts = {f"{file}.kern": _DEVICES + engine, file: b"", f"{file}.meta": json.dumps(meta).encode() + b"\n"}
    outs = {path: open(path, "wb") for path in parts}  # noqa: SIM115 - all are made before the first is written
    outs[file].truncate(known.memory_bytes)
    time.sleep(takes_s)
    for path, out in outs.items():
        out.write(parts[path])
        out.close()


def name_in(file: str) -> str | None:
    """The VM's name, as `-r` without a name needs it."""
    try:
        with open(f"{file}.meta", encoding="utf-8") as meta:
            name: str = json.load(meta)["name"]
    except (OSError, ValueError, KeyError):
        return None
    return name


def configure(tree: Tree, file: str) -> None:
    """CPUs and memory are those that the guest had. Raises Refusal."""
    try:
        with open(f"{file}.meta", encoding="utf-8") as text:
            meta = json.load(text)
        with open(file, "rb"), open(f"{file}.kern", "rb"):
            pass
        for key, number in zip(("cpus", "sockets", "cores", "threads"), meta["topology"], strict=True):
            tree.set(key, str(number))
        tree.set("memory.size", f"{meta['memsize'] >> 20}M")
    except (OSError, ValueError, KeyError):
        raise Refusal(1, f"Failed to read checkpoint info from file: '{file}'.") from None


def resumed() -> list[Step]:
    """What a sim guest does when it is back."""
    return [Step("acpi", word="on"), Step("wait")]


def typed_in(file: str) -> bytes:
    """What had been typed on its console."""
    with open(f"{file}.kern", "rb") as devices:
        return devices.read().removeprefix(_DEVICES)


def status(settings: Settings) -> int:
    """What bhyve ends with when it has been suspended."""
    return _SINCE if settings.release == "main" else _BEFORE_DECEMBER_2025
