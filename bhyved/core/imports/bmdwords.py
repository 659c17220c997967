"""The words of bmd.conf(5): strings, variables, sums and marks (bmd's conflex.l), each with its line."""

import re

import msgspec

from bhyved.core.imports.imported import ForeignError

_WAITING = 100  # operators and parentheses that a sum may leave open
_WORD = r"[A-Za-z0-9_!%&\-.:<>?@\[\]^`|~]+"
_ESCAPE = r"\\(?:x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|(?s:.))"
_LEXEME = re.compile(
    rf"""(?P<blank>[ \t\r\n]+|\#[^\n]*|//[^\n]*|/\*(?s:.*?)\*/)|(?P<expression>\$\(\()|(?P<mark>\+=|[,;={{}}()])|(?P<word>{_WORD})
    |(?P<escape>{_ESCAPE})|(?P<single>'(?:[^'\\]|\\(?s:.))*')|(?P<double>"(?:[^"\\]|\\(?s:.))*")
    |\$(?P<name>[A-Za-z_][A-Za-z_0-9]*)|\$\{{(?P<braced>[^\n{{}}]+)\}}|(?P<other>[$*+\\]|/(?!\*))""",
    re.VERBOSE,
)
_INSIDE = re.compile(
    rf"(?P<expression>\$\(\()|\$(?P<name>[A-Za-z_][A-Za-z_0-9]*)|\$\{{(?P<braced>[^\n\"{{}}]+)\}}|(?P<escape>{_ESCAPE})|(?P<word>[^$\\]+|\$)"
)
_TERM = re.compile(
    r"[ \t]*(?:(?P<number>0x[0-9a-fA-F]+|[0-9]+)|(?P<mark>[-+*/%()])|\$(?P<name>[A-Za-z_][A-Za-z_0-9]*)|\$\{(?P<braced>[^\n{}]+)\})"
)
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,15}|[0-9]{1,18}")  # a long of C
_END = re.compile(r"[ \t]*\)\)")
_C = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2}


class Variable(msgspec.Struct, frozen=True):
    name: str


class Sum(msgspec.Struct, frozen=True):
    """Postfix: numbers, variables, and the operators + - * / % and ~, which is the minus of one value."""

    terms: tuple[int | Variable | str, ...]


class Word(msgspec.Struct, frozen=True):
    """A mark of punctuation, or, without one, a piece of a value. `is_bare`: it was not quoted, so that it may be a word of the grammar."""

    mark: str
    piece: str | Variable | Sum
    is_bare: bool
    line: int


def place(file: str, line: int) -> str:
    return f"{file} line {line}" if file else f"line {line}"


def words(text: str, file: str) -> list[Word]:
    """Comments and blanks are gone. Raises ForeignError."""
    found: list[Word] = []
    at, line = 0, 1
    while at < len(text):
        match = _LEXEME.match(text, at)
        if match is None:
            raise ForeignError(f"{place(file, line)}: {_what(text[at])}")
        kind, source, at = str(match.lastgroup), match[0], match.end()
        if kind == "expression":
            expression, at = _expression(text, at, place(file, line))
            found.append(Word("", expression, False, line))
            source = text[match.start() : at]
        elif kind == "mark":
            found.append(Word(source, "", False, line))
        elif kind == "double":
            found += [Word("", piece, False, line) for piece in _inside(source[1:-1], place(file, line))]
        elif kind != "blank":
            found.append(Word("", _piece(kind, match), kind in ("word", "other"), line))
        line += source.count("\n")
    return found


def _what(letter: str) -> str:
    opened = {"'": "a string has no end", '"': "a string has no end", "/": "a comment has no end", "$": "a variable has no end"}
    return opened.get(letter, f"{letter!r} must be quoted")


def _piece(kind: str, match: re.Match[str]) -> str | Variable:
    if kind in ("name", "braced"):
        return Variable(match[kind])
    return _unescaped(match[0][1:-1] if kind == "single" else match[0]) if kind in ("single", "escape") else match[0]


def _inside(text: str, where: str) -> list[str | Variable | Sum]:
    """The pieces of a double-quoted string; an empty one has one, which is empty."""
    found: list[str | Variable | Sum] = [] if text else [""]
    at = 0
    while at < len(text):
        match = _INSIDE.match(text, at)
        if match is None:
            raise ForeignError(f"{where}: {_what(text[at])}")
        at = match.end()
        if match.lastgroup == "expression":
            expression, at = _expression(text, at, where)
            found.append(expression)
        else:
            found.append(_piece(str(match.lastgroup), match))
    return found


def _unescaped(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        word = match[0][1:]
        if word[0] == "x" and len(word) > 1:
            return chr(int(word[1:], 16))
        return chr(int(word, 8) & 0xFF) if word[0] in "01234567" else _C.get(word, word)

    return re.sub(_ESCAPE, plain, text)


def _expression(text: str, at: int, where: str) -> tuple[Sum, int]:
    """From behind `$((` to behind `))`, by precedence."""
    terms: list[int | Variable | str] = []
    waiting: list[str] = []
    wants_value = True
    while True:
        if not wants_value and "(" not in waiting and (end := _END.match(text, at)):
            return Sum((*terms, *reversed(waiting))), end.end()
        match = _TERM.match(text, at)
        if match is None or len(waiting) > _WAITING:
            break
        at, mark = match.end(), match["mark"]
        if mark is None and wants_value:
            terms.append(Variable(match["name"] or match["braced"]) if match["number"] is None else number(match["number"], f"{where}: "))
            wants_value = False
        elif mark == "(" and wants_value:
            waiting.append(mark)
        elif mark == "-" and wants_value:
            waiting.append("~")
        elif mark == ")" and not wants_value and "(" in waiting:
            while (operator := waiting.pop()) != "(":
                terms.append(operator)
        elif mark in _BINDS and not wants_value:
            while waiting and waiting[-1] != "(" and _BINDS.get(waiting[-1], 3) >= _BINDS[mark]:
                terms.append(waiting.pop())
            waiting.append(mark)
            wants_value = True
        else:
            break
    raise ForeignError(f"{where}: there is no $((sum)) that could be worked out")


def number(text: str, what: str) -> int:
    """As C reads it, with base 0. `what` stands before the text in the sentence. Raises ForeignError."""
    digits = text.removeprefix("-")
    try:
        if not _NUMBER.fullmatch(digits):
            raise ValueError
        value = int(digits, 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10)
    except ValueError:
        raise ForeignError(f"{what}{text!r}, which is no number") from None
    return -value if text.startswith("-") else value
