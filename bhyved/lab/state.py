"""What the lab's stand-ins remember between two calls: one small JSON file a thing, below DIR/lab.

Every stand-in is a process of its own that lives for milliseconds: this module, like all that they use, imports only what is cheap.
"""

from __future__ import annotations

import fcntl
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(path: str) -> dict[str, Any] | None:
    """The object in a file; None: there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            said: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    return said


def write(path: str, said: dict[str, Any]) -> None:
    """Replace a file as a whole: whoever reads sees the old or the new one."""
    fresh = f"{path}.{os.getpid()}"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump(said, file)
    os.replace(fresh, path)


def settings(root: str) -> dict[str, Any]:
    """What kind of host the lab is: DIR/lab/settings.json. `freebsd.Settings` names what bhyve and its loaders heed."""
    return read(f"{root}/lab/settings.json") or {}


def names(directory: str) -> list[str]:
    """The things that have a file NAME.json in `directory`."""
    try:
        return sorted(name[:-5] for name in os.listdir(directory) if name.endswith(".json"))
    except FileNotFoundError:
        return []


class Locked:
    """`with Locked(root, "net"):` - one process at a time looks at and changes these things."""

    def __init__(self, root: str, what: str) -> None:
        self._path = f"{root}/lab/{what}.lock"
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def is_held(path: str) -> bool:
    """Whether a process has a lock on the file. Two who ask at once may see each other. Raises OSError where there is no file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
