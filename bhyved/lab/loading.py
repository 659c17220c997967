"""What the stand-ins of both userland loaders share: the VM they put a kernel into, and a terminal to talk on (contract 2.1)."""

from __future__ import annotations

import errno
import os
import select
import time

from bhyved.lab.node import Node
from bhyved.lab.uart import open_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.freebsd import Settings


class VmError(Exception):
    """A call of libvmmapi failed: which, and how."""

    def __init__(self, call: str, cause: OSError) -> None:
        super().__init__(call)
        self.call = call
        self.cause = cause


def prepare(root: str, settings: Settings, name: str, memory_bytes: int) -> Node:
    """The VM as new, with memory and nothing in it. Raises VmError."""
    node = Node(root, name)
    call = "vm_create"
    try:
        try:
            node.create(settings.max_vms)
            fresh = True
        except FileExistsError:
            fresh = False
        call = "vm_open"
        node.open()
        call = "vm_reinit"
        if not fresh:
            node.reinit()
        call = "vm_setup_memory"
        if settings.memory_bytes is not None and memory_bytes > settings.memory_bytes:
            raise OSError(errno.ENOMEM, "no memory")
        node.set_memory(memory_bytes)
    except OSError as error:
        raise VmError(call, error) from None
    return node


class Terminal:
    """The loader's console: a line that is always there, or stdio."""

    def __init__(self, backend: str) -> None:
        """Raises OSError."""
        self._port = open_port(backend, stdio_taken=False, tcp=False)
        self._typed = b""

    def print(self, text: str) -> None:
        """A newline becomes CR LF. What the line does not take is lost."""
        self._port.put(text.replace("\n", "\r\n").encode())

    def key_within(self, wait_s: float) -> bool:
        """Whether somebody types within this time."""
        deadline = time.monotonic() + wait_s
        while not self._typed:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._port.fds():
                return False
            self._read(left_s)
        self._typed = b""
        return True

    def ask(self, prompt: str) -> str:
        """One line, echoed. Waits for ever, as a prompt does."""
        self.print(prompt)
        line = b""
        while True:
            while not self._typed:
                self._read(None)
            byte, self._typed = self._typed[:1], self._typed[1:]
            if byte in b"\r\n":
                self.print("\n")
                return line.decode(errors="replace").strip()
            line += byte
            self._port.put(byte)

    def close(self) -> None:
        """Give the line back."""
        self._port.close()

    def _read(self, wait_s: float | None) -> None:
        ready, _, _ = select.select(self._port.fds(), [], [], wait_s)
        for fd in ready:
            self._typed += self._port.take(fd)


def sleep_for_ever() -> None:
    """Until somebody kills it."""
    while True:
        select.select([], [], [])


def is_readable(path: str) -> bool:
    """It can be opened."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True
