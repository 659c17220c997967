"""The command line of the stand-in of zfs(8): words and options in any order."""

from __future__ import annotations

USAGE = 2
WITH_VALUE = "tVod"


class Flags:
    """Options: letters, and those with a value."""

    def __init__(self) -> None:
        self.letters = ""
        self.values: dict[str, list[str]] = {}

    def last(self, letter: str, default: str) -> str:
        return self.values.get(letter, [default])[-1]


def options(argv: list[str]) -> tuple[list[str], Flags]:
    words, flags, rest = [], Flags(), list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        for index, letter in enumerate(word[1:], 1):
            if letter in WITH_VALUE:
                value = word[index + 1 :] or (rest.pop(0) if rest else "")
                flags.values.setdefault(letter, []).append(value)
                break
            flags.letters += letter
    return words, flags
