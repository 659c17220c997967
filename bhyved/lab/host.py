"""The lab host: the process that is the lab's kernel, as far as a kernel must live on between the calls of tools.

It relays the null-modem pairs (`lab.nmdm`) and answers the tools (`lab.ask`), one line each:

    pairs       make the pairs that configured guests lack: ok, or why not
    missing     ok when none lacks one, else the name of the first that does

A session of its own keeps it clear of ^C; it outlives the daemon, as FreeBSD's kernel would. Its end is the end of a boot: the
pairs go, and whoever starts it again gives the lab another boot id. `python -m bhyved.lab.host DIR`; it prints `ready` and ends on TERM.
"""

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from bhyved.core.assigned import nmdm_path
from bhyved.core.devices import Serial
from bhyved.core.selfcheck import GUEST
from bhyved.host import configfiles
from bhyved.lab import ask
from bhyved.lab.nmdm import Relay

_LINE_BYTES = 256
_BACKLOG = 64


class HostLock:
    """Held by the one lab host of a root; goes with it however it ends."""

    def __init__(self, root: Path) -> None:
        self.path = root / "lab" / "host.pid"

    def take(self) -> bool:
        """Become the lab host; False: there is one. Never released but by the end of the process."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return True

    def holder(self) -> int | None:
        """The pid of the lab host; None: there is none."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(fd)
        return None


class LabHost:
    """Pairs, tools and the signal to end, in one loop that sleeps while nothing happens."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._relay = Relay(root / "dev")
        self._waker, woken = socket.socketpair()
        self._waker.setblocking(False)
        woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(woken, selectors.EVENT_READ, None)
        self._selector.register(self._relay, selectors.EVENT_READ, self._relay.turn)
        self._listener = self._listen()

    def run(self) -> None:
        """Until SIGTERM."""
        signal.set_wakeup_fd(self._waker.fileno())
        signal.signal(signal.SIGTERM, lambda *_: None)
        with contextlib.closing(self._relay):
            os.write(1, b"ready\n")  # in one piece: who waits for it goes away after the first
            while True:
                for key, _ in self._selector.select():
                    if key.data is None:
                        Path(ask.socket_path(str(self._root))).unlink(missing_ok=True)
                        return
                    key.data()

    def _listen(self) -> socket.socket:
        path = Path(ask.socket_path(str(self._root)))
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        return listener

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._answer(client))

    def _answer(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        with client, contextlib.suppress(OSError):
            question = client.recv(_LINE_BYTES).decode(errors="replace").strip()
            client.sendall(f"{self._said(question)}\n".encode())

    def _said(self, question: str) -> str:
        if question == "missing":
            return next((name for name in self._wanted() if not self._relay.has(name)), "ok")
        if question == "pairs":
            try:
                for name in self._wanted():
                    self._relay.make(name)
            except OSError as error:
                return error.strerror or str(error)
            return "ok"
        return "Invalid argument"

    def _wanted(self) -> Iterator[str]:
        """The pairs of all configured guests, and of the selftest's; of a guest whose file is broken, that of its first port."""
        yield f"-{GUEST}.1"
        found = configfiles.read(str(self._root / "etc" / "bhyved.toml"))
        for guest in found.files.guests:
            spec = found.loaded.vms.get(guest)
            for port in spec.serial if spec is not None else (Serial(),):
                if port.mode in ("managed", "external"):
                    side_a = Path(port.device or nmdm_path(guest, port.port, str(self._root / "dev")))
                    if side_a.parent == self._root / "dev" and side_a.name.startswith("nmdm"):
                        yield side_a.name.removeprefix("nmdm").removesuffix("A")


def main(argv: list[str]) -> int:
    root = Path(argv[0])
    if not HostLock(root).take():
        print(f"a lab host of {root} runs already", file=sys.stderr)
        return 1
    LabHost(root).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
