"""vmctl at a terminal of the test: a pty whose both ends stay open, so that its settings can be looked at before and after."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ctl.played import PATIENCE_S


class Person:
    """Sits at the terminal: types, and reads what is on it."""

    def __init__(self, words: list[str], socket: Path, term: str) -> None:
        self._master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        environment = {**os.environ, "TERM": term, "BHYVED_SOCKET": str(socket)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bhyved.cli.ctl", *words],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=environment,
            start_new_session=True,
        )
        self.screen = b""
        self._read = 0

    def sees(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until it is on the screen, behind what was seen before."""
        deadline = time.monotonic() + PATIENCE_S
        while (match := re.compile(pattern, re.DOTALL).search(self.screen, self._read)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} is not on the screen: {self.screen[self._read :]!r}"
            ready, _, _ = select.select([self._master], [], [], 1.0)
            if ready:
                self.screen += os.read(self._master, 1 << 16)
        self._read = match.end()
        return match

    def types(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def signals(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    @property
    def is_raw(self) -> bool:
        return not self.settings[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def status(self) -> int:
        """Of vmctl, which is ending; what it still says is read."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"vmctl does not end: {self.screen!r}"
            self._drain(0.05)
        while self._drain(0.0):
            pass
        return self.process.returncode

    def _drain(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if ready:
            self.screen += os.read(self._master, 1 << 16)
        return bool(ready)

    def goes(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@contextmanager
def person(socket: Path, *words: str, term: str = "dumb") -> Iterator[Person]:
    sitting = Person(list(words), socket, term)
    try:
        yield sitting
    finally:
        sitting.goes()
