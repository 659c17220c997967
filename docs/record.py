"""Records the session of docs/guide/console.md: what a terminal really shows, as a cast for asciinema and as a picture.

    python docs/record.py       # writes docs/guide/pictures/console.cast and console.svg

A shell in a pty is typed at; the lab behind it has a real guest, a boot sector in QEMU. Needs QEMU and tmux, which draws the picture.
"""

import contextlib
import html
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from demo import BIN, PATIENCE_S, QEMU, Demo

PICTURES = Path(__file__).parent / "guide/pictures"
COLUMNS, ROWS = 104, 44
KEY_S = 0.04  # a person types so fast
PAUSE_S = 1.2  # nobody wants to watch longer pauses
COLOURS = {"30": "#3b4048", "31": "#e06c75", "32": "#98c379", "33": "#e5c07b", "34": "#61afef", "35": "#c678dd", "36": "#56b6c2"}


class Session:
    """A shell, and everything that it has shown, with the times."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.shown: list[tuple[float, bytes]] = []
        self._text = b""
        self._seen = 0
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execve("/bin/sh", ["sh"], environment)
        termios.tcsetwinsize(self._terminal, (ROWS, COLUMNS))
        self.until(r"# ")

    def until(self, pattern: str) -> None:
        """Wait until it shows this behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        while (match := re.compile(pattern.encode(), re.DOTALL).search(self._text, self._seen)) is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"record: {pattern!r} is not shown: {self._text[self._seen :]!r}")
            self._read(0.1)
        self._seen = match.end()

    def watch(self, seconds: float) -> None:
        """Look on."""
        self._read(seconds)

    def _read(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._terminal], [], [], left)[0]:
                data = os.read(self._terminal, 1 << 16)
                self.shown.append((time.monotonic(), data))
                self._text += data

    def type(self, keys: str) -> None:
        for key in keys:
            os.write(self._terminal, key.encode())
            self._read(KEY_S)

    def command(self, line: str) -> None:
        """A command, and the prompt behind it."""
        self.type(f"{line}\r")
        self.until(r"\r\n# \Z")

    def end(self) -> None:
        os.kill(self.pid, signal.SIGHUP)
        os.close(self._terminal)
        os.waitpid(self.pid, 0)


def play(demo: Demo, session: Session) -> None:
    """The story."""
    session.command("vmctl list")
    session.type("vmctl console web1 --since boot\r")
    session.until("boot 1 clean.*> ")
    session.type("uname\r")
    session.until("uname.*> ")
    session.type("r")  # the guest reboots
    session.until("boot 2 clean.*> ")
    session.watch(2 * PAUSE_S)
    demo.kill_daemon()
    session.until("bhyved has gone")
    demo.start()
    session.until("bhyved is back")
    session.type("go on\r")
    session.until("go on.*> ")
    session.type("\r~.")
    session.until(r"left.*# \Z")
    session.command("vmctl log web1 -n 6")
    session.command("vmctl history web1")


def cast(session: Session) -> str:
    """asciicast v2, with pauses cut short."""
    lines = [json.dumps({"version": 2, "width": COLUMNS, "height": ROWS, "title": "vmctl console"})]
    at_s, before = 0.0, session.shown[0][0]
    for moment, data in session.shown:
        at_s += min(moment - before, PAUSE_S)
        before = moment
        lines.append(json.dumps([round(at_s, 3), "o", data.decode(errors="replace")]))
    return "\n".join(lines) + "\n"


def drawn(session: Session) -> list[str]:
    """The lines of the terminal at the end, with colours: tmux knows what a terminal makes of the bytes."""
    with tempfile.TemporaryDirectory(prefix="bhr") as directory:
        raw = Path(directory) / "raw"
        raw.write_bytes(b"".join(data for _, data in session.shown))
        tmux = ["tmux", "-S", f"{directory}/s"]
        show = f"stty raw; cat {shlex.quote(str(raw))}; touch {directory}/done; exec sleep 60"
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        subprocess.run([*tmux, "-f", "/dev/null", "new-session", "-d", *size, show], check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
        try:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                lines = subprocess.run([*tmux, "capture-pane", "-p", "-e", "-S", "-"], check=True, capture_output=True, text=True).stdout
                if Path(directory, "done").exists() and lines.rstrip().endswith("#"):
                    return lines.rstrip().splitlines()
                if time.monotonic() > deadline:
                    raise SystemExit(f"record: the picture is not whole: {lines}")
                time.sleep(0.05)
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)


def svg(lines: list[str]) -> str:
    """Text on a dark ground."""
    width, height = COLUMNS * 8.4 + 32, len(lines) * 19 + 32
    rows = [f'<text x="16" y="{30 + 19 * number}">{_spans(line)}</text>' for number, line in enumerate(lines) if line.strip()]
    style = "text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#c8ccd4;white-space:pre}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}">'
    return "\n".join([head, f"<style>{style}</style>", '<rect width="100%" height="100%" rx="8" fill="#22252b"/>', *rows, "</svg>\n"])


def _spans(line: str) -> str:
    out, style = "", ""
    for text, codes in re.findall(r"([^\x1b]+)|\x1b\[([\d;]*)m", line):
        if text:
            out += f"<tspan{style}>{html.escape(text)}</tspan>" if style else html.escape(text)
            continue
        numbers = [number for number in codes.split(";") if number]
        weight = ' font-weight="bold"' if "1" in numbers else ' opacity=".6"' if "2" in numbers else ""
        fill = next((f' fill="{COLOURS[number]}"' for number in numbers if number in COLOURS), "")
        style = weight + fill
    return out


def main() -> int:
    for tool in (QEMU, "tmux"):
        if shutil.which(tool) is None:
            raise SystemExit(f"record: {tool} is not installed")
    demo = Demo(Path(tempfile.mkdtemp(prefix="bhd")), "qemu")
    try:
        demo.write("web1", "A boot sector.")
        demo.write("db1", "Another.", autostart=False)
        demo.start()
        path = f"{BIN}:{os.environ['PATH']}"
        socket = str(demo.root / "run/control.sock")
        session = Session({"PATH": path, "TERM": "xterm-256color", "PS1": "# ", "LC_ALL": "C.UTF-8", "BHYVED_SOCKET": socket})
        try:
            play(demo, session)
        finally:
            session.end()
    finally:
        with contextlib.suppress(Exception):
            demo.clean()
    (PICTURES / "console.cast").write_text(cast(session))
    (PICTURES / "console.svg").write_text(svg(drawn(session)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
