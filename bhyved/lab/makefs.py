"""The stand-in of makefs(8), for ISO 9660: `makefs -t cd9660 [-o OPTION,…] IMAGE DIRECTORY`.

It refuses what makefs refuses, has xorriso or genisoimage write the image, and gives the volume the label that makefs would: in capitals,
whatever it was asked for. Source: usr.sbin/makefs/makefs.c and cd9660.c of freebsd-src.
"""

from __future__ import annotations

import getopt
import os
import subprocess
import sys

from bhyved.lab.freebsd import Refusal, err, errx

_LETTERS = "B:b:Dd:f:F:M:m:N:O:o:pR:s:S:t:T:xZ"
_TYPES = ("ffs", "cd9660", "msdos", "zfs")
#: What stands alone, and what stands for it.
_FLAGS = ("rockridge", "R", "no-trailing-padding", "allow-deep-trees", "allow-max-name", "allow-multidot", "omit-trailing-period")
_TEXTS = {"label": "Disk Label", "L": "Disk Label"}
_LABEL_CHARS = 32
#: Where those that write images here are; FreeBSD's own PATH has nothing of them.
_PATH = "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"
_WRITERS = {"xorriso": ("-as", "mkisofs"), "genisoimage": (), "mkisofs": ()}


def main(root: str, argv: list[str]) -> int:
    del root
    try:
        _make(argv)
    except Refusal as refusal:
        print(refusal.text, file=sys.stderr)
        return refusal.status
    return 0


def _make(argv: list[str]) -> None:
    try:
        options, words = getopt.getopt(argv, _LETTERS)
    except getopt.GetoptError as error:
        raise _usage(f"{error.msg}") from None
    kind, label, rockridge = "ffs", "", False
    for letter, value in options:
        if letter == "-t":
            if value not in _TYPES:
                raise errx(1, f"Unknown fs type `{value}'.", "makefs")
            kind = value
        elif letter == "-o" and kind == "cd9660":
            for option in value.split(","):
                name, text = _option(option)
                label = text if name in _TEXTS else label
                rockridge |= name in ("rockridge", "R")
    if len(words) < 2:
        raise _usage("")
    if kind != "cd9660":
        raise errx(1, f"the lab makes cd9660 only, not {kind}", "makefs")
    image, directory = words[:2]
    if not os.path.isdir(directory):
        raise err(1, f"Can't stat `{directory}'", FileNotFoundError(2, ""), "makefs")
    _write(image, directory, label.upper(), rockridge=rockridge)


def _option(text: str) -> tuple[str, str]:
    if not text:
        raise errx(1, "Empty option", "makefs")
    name, equals, value = text.partition("=")
    if name in _FLAGS:
        return name, ""
    if not equals:
        raise _usage(f"Option `{name}' doesn't contain a value")
    if name not in _TEXTS:
        raise _usage(f"Unknown option `{name}'")
    if len(value) > _LABEL_CHARS:
        raise _usage(f"error: The {_TEXTS[name]} must be at most 32 characters long")
    if not all(char == "_" or (char.isascii() and char.isalnum()) for char in value):
        raise _usage(f"error: The {_TEXTS[name]} must be composed of d-characters")
    return name, value


def _usage(said: str) -> Refusal:
    usage = "usage: makefs [-DxZ] [-o fs-options] [-t fs-type] image-file directory | manifest [extra-directory ...]"
    return Refusal(1, f"makefs: {said}\n{usage}" if said else usage)


def _write(image: str, directory: str, label: str, *, rockridge: bool) -> None:
    program = next((path for name in _WRITERS if (path := _found(name))), "")
    if not program:
        raise errx(1, f"the lab makes images with {', '.join(_WRITERS)}, and none of them is installed", "makefs")
    words = [program, *_WRITERS[os.path.basename(program)], "-quiet", "-V", label or "NONE"]
    done = subprocess.run(
        [*words, *(["-R"] if rockridge else []), "-o", image, directory],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise errx(1, f"{os.path.basename(program)}: {done.stderr.strip()}", "makefs")


def _found(name: str) -> str:
    paths = (os.path.join(directory, name) for directory in _PATH.split(":"))
    return next((path for path in paths if os.access(path, os.X_OK)), "")
