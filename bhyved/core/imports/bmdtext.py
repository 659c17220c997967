"""The grammar of bmd.conf(5), that of jail.conf(5) with templates (bmd's confparse.y).

    global { $images = /vm; }    template NAME(argument = default) { KEY = VALUE; }    vm NAME { .apply NAME(VALUE); KEY += VALUE, VALUE; }

What a value comes to is known only where a template is applied, by `bmd`.
"""

import re
from typing import NoReturn

import msgspec

from bhyved.core.imports.bmdwords import Sum, Variable, Word, place, words
from bhyved.core.imports.imported import ForeignError

_OPENING = re.compile(
    r"""^[ \t]*(?:(?:vm|template)\s+(?:"[^"\n]*"|'[^'\n]*'|[^\s{}();=]{1,99})\s*(?:\([^{}]{0,999}\))?|global)\s*\{|^[ \t]*\.include\b""",
    re.MULTILINE,
)


class Value(msgspec.Struct, frozen=True):
    pieces: tuple[str | Variable | Sum, ...]
    where: str  # "line 7", "/etc/bmd.d/web line 7"


class Assignment(msgspec.Struct, frozen=True):
    """`KEY = VALUE, …;` and `$NAME = VALUE;`."""

    key: str
    is_variable: bool
    adds: bool
    values: tuple[Value, ...]
    where: str


class Application(msgspec.Struct, frozen=True):
    """`.apply TEMPLATE(VALUE, …), …;`"""

    templates: tuple[tuple[Value, tuple[Value, ...]], ...]
    where: str


class Section(msgspec.Struct, frozen=True):
    """`vm`, `template` or `global`, with the owner of the file that it stands in."""

    kind: str
    name: str
    arguments: tuple[tuple[str, Value], ...]
    body: tuple[Assignment | Application, ...]
    where: str
    owner: str


class Include(msgspec.Struct, frozen=True):
    pattern: Value


def looks_like(text: str) -> bool:
    """Whether a section begins in it, or another file is read."""
    return _OPENING.search(text) is not None


def parse(text: str, file: str, owner: str) -> list[Section | Include]:
    """`file`: as a place is called before its line, '' for the first. Raises ForeignError."""
    reader = _Reader(words(text, file), file, owner)
    found: list[Section | Include] = []
    while not reader.is_done:
        found.append(reader.section())
    return found


class _Reader:
    """Sections out of words."""

    def __init__(self, words: list[Word], file: str, owner: str) -> None:
        self._words, self._file, self._owner = words, file, owner
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at >= len(self._words)

    def section(self) -> Section | Include:
        where = self._where
        word = self._text("vm, template, global or .include")
        if word == ".include":
            pattern = self._value()
            self._mark(";")
            return Include(pattern)
        if word not in ("vm", "template", "global"):
            self._refuse("vm, template, global or .include", word, where)
        name = "" if word == "global" else self._text(f"the name of the {word}")
        arguments = self._arguments() if word == "template" and self._takes("(") else ()
        self._mark("{")
        body = []
        while not self._takes("}"):
            body.append(self._statement())
        return Section(word, name, arguments, tuple(body), where, self._owner)

    def _arguments(self) -> tuple[tuple[str, Value], ...]:
        found = []
        while True:
            name = self._text("the name of an argument")
            found.append((name, self._value() if self._takes("=") else Value((), self._where)))
            if not self._takes(","):
                self._mark(")")
                return tuple(found)

    def _statement(self) -> Assignment | Application:
        where, first = self._where, self._next()
        if first.piece == ".apply" and first.is_bare:
            templates = [self._target()]
            while self._takes(","):
                templates.append(self._target())
            self._mark(";")
            return Application(tuple(templates), where)
        is_variable = isinstance(first.piece, Variable)
        key = first.piece.name if isinstance(first.piece, Variable) else first.piece
        if first.mark or not isinstance(key, str):
            self._refuse("a key", first.mark or "a sum", where)
        adds = self._takes("+=")
        if not adds:
            self._mark("=")
        values = [self._value()]
        while self._takes(","):
            values.append(self._value())
        self._mark(";")
        return Assignment(str(key), is_variable, adds, tuple(values), where)

    def _target(self) -> tuple[Value, tuple[Value, ...]]:
        name, arguments = self._value(), []
        if self._takes("("):
            arguments.append(self._value())
            while self._takes(","):
                arguments.append(self._value())
            self._mark(")")
        return name, tuple(arguments)

    def _value(self) -> Value:
        where, pieces = self._where, []
        while not self.is_done and not self._words[self._at].mark:
            pieces.append(self._next().piece)
        return Value(tuple(pieces), where)

    # --- one word ------------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        at = min(self._at, len(self._words) - 1)
        return place(self._file, self._words[at].line if self._words else 1)

    def _next(self) -> Word:
        if self.is_done:
            raise ForeignError(f"{self._where}: the file ends inside of a section")
        self._at += 1
        return self._words[self._at - 1]

    def _text(self, wanted: str) -> str:
        where, found = self._where, self._next()
        if found.mark or not isinstance(found.piece, str):
            self._refuse(wanted, found.mark or "a variable", where)
        return str(found.piece)

    def _takes(self, mark: str) -> bool:
        if not self.is_done and self._words[self._at].mark == mark:
            self._at += 1
            return True
        return False

    def _mark(self, mark: str) -> None:
        where, found = self._where, self._next()
        if found.mark != mark:
            self._refuse(repr(mark), found.mark or (found.piece if isinstance(found.piece, str) else "a variable"), where)

    def _refuse(self, wanted: str, found: str, where: str) -> NoReturn:
        raise ForeignError(f"{where}: {found!r} stands where {wanted} should")
