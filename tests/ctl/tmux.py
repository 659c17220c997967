"""A real terminal: tmux without anybody in front of it. What is on its screen is text, whatever escape sequences brought it there."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

TMUX = shutil.which("tmux")
needs_tmux = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")

PATIENCE_S = 60.0
LOOK_S = 0.05


class Pane:
    """One window with one program. It stays after the program's end, so that its last words can be read."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "s"
        self.status = directory / "status"

    def tmux(self, *words: str) -> str:
        assert TMUX is not None
        done = subprocess.run([TMUX, "-S", str(self._socket), *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, f"tmux {words}: {done.stderr}"
        return done.stdout

    def type(self, text: str) -> None:
        """As from a keyboard; Return is `\\r`."""
        self.tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """By tmux's names: Up, Enter, C-c."""
        self.tmux("send-keys", *keys)

    def screen(self, *, all: bool = False) -> str:
        """What is to be seen, or with what has scrolled away too."""
        return self.tmux("capture-pane", "-p", "-J", *(("-S", "-") if all else ()))

    def until(self, pattern: str, *, all: bool = False, patience_s: float = PATIENCE_S) -> str:
        """The screen, as soon as a regular expression is found in it."""
        deadline = time.monotonic() + patience_s
        while re.search(pattern, shown := self.screen(all=all), re.MULTILINE) is None:
            assert time.monotonic() < deadline, f"not within {patience_s:g} s: {pattern!r}\n{shown}"
            time.sleep(LOOK_S)  # a terminal tells nobody that it has changed
        return shown

    def title(self) -> str:
        return self.tmux("display-message", "-p", "#{pane_title}").strip()

    def ended(self) -> int:
        """The program's exit status, as soon as its shell has written it down. tmux itself does not always notice an end."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.status.exists() or not (status := self.status.read_text()).endswith("\n"):
            assert time.monotonic() < deadline, f"it does not end:\n{self.screen()}"
            time.sleep(LOOK_S)
        return int(status)


@contextmanager
def terminal(*argv: str, env: Mapping[str, str] = {}, width: int = 100, height: int = 30, term: str = "tmux-256color") -> Iterator[Pane]:
    """A program in a terminal of its own; gone afterwards."""
    assert TMUX is not None
    with tempfile.TemporaryDirectory(prefix="bht") as directory:  # short: a socket's path has 103 bytes
        config = Path(directory) / "tmux.conf"
        config.write_text(f'set -g remain-on-exit on\nset -g default-terminal "{term}"\nset -g history-limit 20000\nset -g escape-time 0\n')
        pane = Pane(Path(directory))
        program = shlex.join(["env", *(f"{name}={value}" for name, value in env.items()), *argv])
        command = f"trap : INT; {program}; echo $? >{pane.status}"
        start = [TMUX, "-S", str(pane._socket), "-f", str(config), "new-session", "-d", "-x", str(width), "-y", str(height), command]
        subprocess.run(start, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, timeout=PATIENCE_S)
        try:
            yield pane
        finally:
            pane.tmux("kill-server")
