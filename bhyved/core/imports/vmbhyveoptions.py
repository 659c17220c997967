"""The options of a vm-bhyve file: lines of `key="value"`."""

import re
from collections.abc import Iterator

from bhyved.core.imports.imported import whole_number

_LINE = re.compile(r'([a-z][a-z0-9_]*)="?([^"#]*)"?\s*(#.*)?')  # at the beginning of a line, in lower case: anything else it skips
_NO = ("", "no", "off", "false", "0")


def parse(text: str) -> dict[str, str]:
    """Every option, those that are said twice as they are said last."""
    found = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.rstrip()):
            found[match[1]] = match[2].strip()
    return found


def is_yes(word: str) -> bool:
    return word.lower() not in _NO


class Options:
    """Those of one guest. What is asked for is gone afterwards, so that `left` is what nobody has heeded."""

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given

    def __contains__(self, key: str) -> bool:
        return key in self._given

    def text(self, key: str) -> str:
        """'' where it is not given."""
        return self._given.pop(key, "")

    def yes(self, key: str, default: str = "no") -> bool:
        return is_yes(self.text(key) or default)

    def number(self, key: str, default: int) -> int:
        """Raises ForeignError."""
        text = self.text(key)
        return whole_number(text, f"{key}=") if text else default

    def row(self, prefix: str) -> list[str]:
        """`prefix0`, `prefix1`, … without those that are empty."""
        found: list[str] = []
        while f"{prefix}{len(found)}" in self:
            found.append(self.text(f"{prefix}{len(found)}"))
        return [word for word in found if word]

    def left(self) -> Iterator[tuple[str, str]]:
        for key in list(self._given):
            yield key, self.text(key)
