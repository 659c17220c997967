"""The result of every reader, and what they read and say alike."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bhyved.core.units import Size

_MEGABYTES_BELOW = 1 << 20  # a bare number below it: contract 1.5


PASSWORD = "graphics: write the VNC password into a file (mode 0600) and name it in graphics.password-file"


class ForeignError(ValueError):
    """There is no guest in the text, or not all of one; the sentence is for the operator."""


class Imported(msgspec.Struct):
    """One guest: its name there (or ''), the table of a vm.d file, and what its owner should know, a sentence each."""

    name: str
    table: dict[str, Any]
    notes: list[str]


def memory(text: str) -> str:
    """A size as bhyve's -m reads it, as a size of ours. Raises ForeignError."""
    words = text.strip().upper().removesuffix("B")
    try:
        if words.isdecimal():
            return str(Size(int(words) << 20 if int(words) < _MEGABYTES_BELOW else int(words)))
        return str(Size.parse(words))
    except ValueError:
        raise ForeignError(f'{text!r} is no size of memory: it should be such as "2G"') from None


def topology(count: int, sockets: int | None, cores: int, threads: int) -> int | dict[str, int]:
    """`cpus` of a file: a bare number is so many sockets, as bhyve counts it (contract 1.5). Raises ForeignError."""
    sockets = sockets or (count if cores * threads == 1 else 0)
    if sockets * cores * threads != count:
        raise ForeignError(f"{count} vCPUs are not {sockets} sockets with {cores} cores of {threads} threads")
    if cores * threads == 1:
        return count
    return {"sockets": sockets, "cores": cores, "threads": threads}


def whole_number(text: str, what: str = "") -> int:
    """`what` stands before the value in the sentence. Raises ForeignError."""
    if not text.strip().isdecimal():
        raise ForeignError(f"{what}{text!r} should be a number")
    return int(text)


def chosen(names: Sequence[str], wanted: str) -> str:
    """Which guest of a file with several; '' is the only one. Raises ForeignError."""
    if not names:
        raise ForeignError("there is no guest in it")
    if wanted in names or (not wanted and len(names) == 1):
        return wanted or names[0]
    why = f"{wanted!r} is none of the guests in it" if wanted else f"{len(names)} guests are in it"
    raise ForeignError(f"{why}: --guest takes one of {', '.join(names)}")


def starts_there(starts: bool, where: str) -> str:
    """What is to be known of a guest that comes up with its host, or does not. `where`: the words that say so there."""
    if starts:
        return f"{where}: it starts with the host there; autostart = true is for when it no longer does"
    return f"{where}: it does not start with the host there, nor here: autostart stays false"


def starting_is_in(place: str) -> str:
    """The same, where what is read does not say it."""
    return f"whether it starts with the host there is in {place}; autostart = true is for when it no longer does"


def renamed(was: str, now: str, table: Mapping[str, Any]) -> list[str]:
    """What is to be known of a guest that bhyve has called otherwise until now."""
    notes = [f"bhyve calls it {was} there: bhyved, which looks for {now}, does not see it run; stop it there before the first start here"]
    if "uuid" not in table:
        notes.append("bhyve makes its UUID from the names of host and guest: without uuid = … it changes with the name")
    return notes


def absolute(here: str, path: str) -> str:
    """A path of somebody who sat in the directory `here`; '' stays."""
    return posixpath.normpath(posixpath.join(here, path)) if path else path


def stays_in(path: str) -> str:
    """What is to be known of a medium that was always there."""
    return f'{path} stays in its drive; with when = "install" it is there for `vmctl start --install` only'
