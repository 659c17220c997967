"""The processes of the machine below, seen as those of the lab: `/proc`, with the stand-ins under the names of what they stand for.

A lab is a host of its own: other labs on the same machine have guests of the same names, so their stand-ins and whatever has one of
those among its words (a keeper) are not seen here.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Stand-ins that stay, and so can be found.
LASTING = ("bhyve", "bhyveload", "grub-bhyve")


class Process:
    """One process, as it was when it was looked at."""

    def __init__(self, pid: int, uid: int, argv: list[str]) -> None:
        self.pid = pid
        self.uid = uid
        self.argv = argv

    @property
    def stand_in(self) -> str:
        """The launcher that it came from (`launchers.write`); empty: none."""
        return self.argv[2] if len(self.argv) > 2 and self.argv[1] == "-IS" else ""


def processes() -> Iterator[Process]:
    """All processes."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            process = process_of(int(entry))
            if process is not None:
                yield process


def process_of(pid: int) -> Process | None:
    """One process; None: it is gone, or not for this user to see."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read()
    except OSError:
        return None
    return Process(pid, uid, os.fsdecode(words).rstrip("\0").split("\0") if words else [])


def command_of(root: str, process: Process) -> str | None:
    """Its command as FreeBSD's ps(1) would show it in this lab; None: it is another lab's."""
    here = f"{root}/bin/"
    stand_in = process.stand_in
    if not stand_in.startswith(here):
        return None if _is_elsewhere(here, process.argv) else " ".join(process.argv) or f"[{_comm(process.pid)}]"
    try:
        with open(f"{root}/lab/title/{process.pid}", encoding="utf-8") as file:
            return f"{file.read().strip()} ({os.path.basename(stand_in)})"
    except FileNotFoundError:
        return " ".join((os.path.basename(stand_in), *process.argv[3:]))


def _is_elsewhere(here: str, argv: list[str]) -> bool:
    """Whether it is, or keeps, a stand-in of another lab."""
    ends = tuple(f"/bin/{name}" for name in LASTING)
    return any(word.endswith(ends) and not word.startswith(here) for word in argv)


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"
