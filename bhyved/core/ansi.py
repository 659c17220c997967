"""Guest output as plain text: escape sequences never reach a terminal by way of `log`, `why` or the page.

A guest decides what it prints; a terminal obeys what it reads (titles, clipboard, key remaps). So everything but text, tabs and line
ends is taken out, by ECMA-48's grammar rather than by a list of known sequences.
"""

import re

_SEQUENCE = re.compile(
    r"(?:\x1b[PX^_\]k]|[\x90\x98\x9d\x9e\x9f])"  # DCS, SOS, OSC, PM, APC and screen's title, with their strings:
    r"[^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\|\x9c)?"  # bounded and on one line, or an unfinished one would swallow the log
    r"|(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?"  # CSI
    r"|\x1b[ -/]{0,8}[0-~]?"  # two- and three-character sequences
)
# C0 but tab and newline, DEL, C1; and the marks that turn the direction of text around, with which a log can be made to read wrongly.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BYTE_SEQUENCE = re.compile(
    rb"\x1b[PX^_\]k][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)?|\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]?"
    rb"|\x1b[ -/]{0,8}[0-~]?|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]"
)


def plain(text: str) -> str:
    """`text` without escape sequences and control characters; Backspace and Return overwrite, as they do on paper."""
    text = _SEQUENCE.sub("", text)
    lines = text.split("\n")
    return "\n".join(_CONTROL.sub("", _overwritten(line.rstrip("\r"))) for line in lines)


def plain_bytes(data: bytes) -> bytes:
    """`data` without escape sequences and control bytes but tab and newline: for matching a pattern in a stream."""
    return _BYTE_SEQUENCE.sub(b"", data)


def decode(data: bytes) -> str:
    """Guest bytes as text: UTF-8, and U+FFFD for what is none."""
    return data.decode("utf-8", "replace")


def _overwritten(line: str) -> str:
    if "\b" not in line and "\r" not in line:
        return line
    cells: list[str] = []
    column = 0
    for character in line:
        if character == "\b":
            column = max(0, column - 1)
        elif character == "\r":
            column = 0
        else:
            cells[column : column + 1] = [character]
            column += 1
    return "".join(cells)
