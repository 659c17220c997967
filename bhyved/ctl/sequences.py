"""Escape sequences in a stream: kept whole over the pieces it comes in, and the questions among them taken out of a replay."""

from __future__ import annotations

import re

#: The beginning of a sequence, up to the end of what there is.
_OPEN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[PX^_\]k][^\x07\x1b]*\x1b?|[ -/]*)\Z")
#: Longer ones are not waited for: what is held back is not seen.
_HELD_BYTES = 256

# A terminal answers these, and its answer is typed into the guest. Asked long ago, it is answered to whoever reads now: a shell.
_QUESTION = re.compile(
    rb"\x05|\x1bZ"  # ENQ, DECID
    rb"|\x1b\[[?>=]?[0-9;]*[cnx]"  # DA, DSR, DECREQTPARM
    rb"|\x1b\[\??[0-9;]*\$p|\x1b\[>[0-9;]*q|\x1b\[\?u"  # DECRQM, XTVERSION, keyboard flags
    rb"|\x1b\[(?:1[1-9]|2[01])(?:;[0-9]*)*t"  # reports of window and title
    rb"|\x1bP[$+]q[^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\][^\x07\x1b]*\?(?:\x07|\x1b\\)"  # DECRQSS, XTGETTCAP; colours and clipboard
)


class Whole:
    """Feed it a stream in pieces; what comes out does not end within a sequence."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        open_ = _OPEN.search(data, max(0, len(data) - _HELD_BYTES))
        if open_ is None:
            self._held = b""
            return data
        self._held = data[open_.start() :]
        return data[: open_.start()]

    def rest(self) -> bytes:
        """What was held back, when nothing more comes."""
        rest, self._held = self._held, b""
        return rest


def without_questions(data: bytes) -> bytes:
    """Whole sequences of a replay, without those that a terminal answers."""
    return _QUESTION.sub(b"", data)
