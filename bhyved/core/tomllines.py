"""On which line of a TOML file a key stands: `tomllib` does not tell. `config` asks when there are problems to report.

For texts that tomllib accepts. What stands in an inline table or an array has the line of the statement that it is in.
"""

import re
import tomllib

from bhyved.core.decode import Path

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_WORD = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*(\.?)""")
_PIECE = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'(?:[^']|'(?!\'\'))*'{3,5}'''
    r"""|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*|[\[\]{}\n]|[^"'\#\[\]{}\n]+""",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Path, int]:
    """The line of each table and each key, the first being 1."""
    found = _Scan(text)
    found.run()
    return found.lines


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """That of a value, or of the innermost thing around it that the file has; None: it has nothing of it."""
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), None)


class _Scan:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._arrays: dict[Path, int] = {}  # of tables: the index of the last one

    def run(self) -> None:
        table: Path = ()
        while self._take(_BLANK) is not None and self._at < len(self._text):
            brackets = next((mark for mark in ("[[", "[") if self._text.startswith(mark, self._at)), "")
            self._at += len(brackets)
            words = self._words()
            if not words:
                return  # no TOML after all
            if brackets:
                table = self._header(words, is_array=brackets == "[[")
            else:
                self._note(table, words)
            self._skip_statement()

    def _take(self, wanted: re.Pattern[str]) -> re.Match[str] | None:
        match = wanted.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            self._line += match[0].count("\n")
        return match

    def _words(self) -> tuple[str, ...]:
        """A key, which may have dots."""
        words: list[str] = []
        while (match := self._take(_WORD)) is not None:
            word = match[1]
            words.append(str(tomllib.loads(f"key = {word}")["key"]) if word[0] in "\"'" else word)
            if not match[2]:
                break
        return tuple(words)

    def _header(self, words: tuple[str, ...], *, is_array: bool) -> Path:
        path: Path = ()
        for word in words[:-1]:
            path = self._within((*path, word))
        last: Path = (*path, words[-1])
        if not is_array:
            last = self._within(last)
        else:
            self.lines.setdefault(last, self._line)
            self._arrays[last] = self._arrays.get(last, -1) + 1
            last = self._within(last)
        self.lines[last] = self._line
        return last

    def _within(self, path: Path) -> Path:
        return (*path, self._arrays[path]) if path in self._arrays else path

    def _note(self, table: Path, words: tuple[str, ...]) -> None:
        for length in range(1, len(words) + 1):
            self.lines.setdefault((*table, *words[:length]), self._line)

    def _skip_statement(self) -> None:
        """The rest of it, to the end of its last line."""
        depth = 0
        while (match := self._take(_PIECE)) is not None:
            depth += (match[0] in ("[", "{")) - (match[0] in ("]", "}"))
            if match[0] == "\n" and depth <= 0:
                return
