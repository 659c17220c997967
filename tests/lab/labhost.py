"""A lab's host as tests handle it: its tree, its tools, its null-modem pairs."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from bhyved.lab import layout, state

PATIENCE_S = 20.0


class Lab:
    """A lab without a daemon."""

    def __init__(self, root: Path, **kind: str) -> None:
        self.root = root
        layout.make(root, **kind)
        layout.boot(root)
        self._host: subprocess.Popen[bytes] | None = None

    def settle(self, **news: object) -> None:
        """Make it another kind of host in some respect: `freebsd.Settings`."""
        state.write(f"{self.root}/lab/settings.json", {**state.settings(str(self.root)), **news})

    def command(self, program: str, *words: str) -> list[str]:
        return [str(self.root / "bin" / program), *words]

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """One call of a stand-in, in the environment that the daemon gives its tools."""
        env = {"PATH": "/usr/bin:/bin", "HOME": "/", "LC_ALL": "C"}
        return subprocess.run(self.command(program, *words), env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def said(self, program: str, *words: str) -> str:
        """What a call that succeeds prints."""
        done = self.run(program, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, program: str, *words: str) -> str:
        """What a call that ends with 1 complains of."""
        done = self.run(program, *words)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr.strip()

    @contextlib.contextmanager
    def host(self) -> Iterator[int]:
        """The lab host, with a pair for the guest `web1`; its pid."""
        (self.root / "etc" / "bhyved.toml").touch()
        (self.root / "etc" / "vm.d" / "web1.toml").touch()
        with subprocess.Popen([sys.executable, "-m", "bhyved.lab.host", str(self.root)], stdout=subprocess.PIPE) as host:
            assert host.stdout is not None
            assert host.stdout.readline() == b"ready\n"
            try:
                yield host.pid
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(host.pid, signal.SIGTERM)

    def open(self, side: str, *, raw: bool = True, clocal: bool = True) -> int:
        """Side A or B of web1's first port."""
        fd = os.open(self.root / "dev" / f"nmdm-web1.1{side}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        if raw:
            tty.setraw(fd, termios.TCSANOW)
        if clocal:
            mode = termios.tcgetattr(fd)
            mode[tty.CFLAG] |= termios.CLOCAL
            termios.tcsetattr(fd, termios.TCSANOW, mode)
        return fd


def read(fd: int, size: int) -> bytes:
    """Exactly so many bytes of a line, or what came before it fell silent."""
    data = bytearray()
    while len(data) < size and select.select([fd], [], [], PATIENCE_S)[0]:
        piece = os.read(fd, size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def is_silent(fd: int) -> bool:
    """Nothing to read, not even an end."""
    return not select.select([fd], [], [], 0)[0]
