"""Waiting for a pattern in a stream of console output, whatever pieces it arrives in."""

import re

from bhyved.core.ansi import plain_bytes

#: How far back a match may begin. A prompt is a line; this bounds what one search may cost.
WINDOW_BYTES = 4096


class Watch:
    """Feed it the output in order; `found` turns true at the first match. Escape sequences between the letters do not hide one."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self._window = b""
        self.found = False

    def feed(self, data: bytes) -> bool:
        """Whether the pattern has been seen by now."""
        if self.found:
            return True
        # The window is kept as it came: an escape sequence cut in two by a read becomes whole again with the next.
        # A piece longer than the window is searched as a whole: nothing of a flood goes unseen.
        searched = self._window + data
        self.found = self._pattern.search(plain_bytes(searched)) is not None
        self._window = searched[-WINDOW_BYTES:]
        return self.found
