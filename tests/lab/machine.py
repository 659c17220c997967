"""A guest of the qemu engine as tests handle it: power it on, read and type on com1, wait for its end."""

import select
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from bhyved.lab.qemu import QemuGuest
from bhyved.lab.qemu_devices import Surroundings
from bhyved.lab.qemu_machine import QEMU, Payload

# Generous: the boot sector needs 0.2 s and Linux 2 s on an idle machine, but tests run beside other tests.
BOOT_SECTOR_S, LINUX_S, UEFI_S = 20.0, 60.0, 120.0


def need_qemu() -> None:
    """Skip, by name, where QEMU is not installed."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (package qemu-system-x86)")


class Machine:
    """One run of one guest. Close it, whatever happened."""

    def __init__(
        self, config: Mapping[str, str], scratch: Path, *, patience_s: float = BOOT_SECTOR_S, payload: Payload | None = None
    ) -> None:
        """`config` needs no bridges; memory is 16M unless it says otherwise."""
        scratch.mkdir()
        self.patience_s = patience_s
        self.printed = ""
        self.guest = QemuGuest({"memory.size": "16M", **config}, Surroundings(vm="web1"), scratch, payload)

    def power_on(self) -> "Machine":
        """Start it, with com1 connected."""
        self.guest.start((1,))
        return self

    def wait_for(self, text: str) -> str:
        """Read com1 until `text` has come since the last `type`; everything printed since then."""
        deadline = time.monotonic() + self.patience_s
        while text not in self.printed:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.com1], [], [], max(0.0, left))
            assert ready, f"no {text!r} within {self.patience_s} s, but {self.printed!r}"
            assert self._reads(), f"the guest ended before {text!r}, after {self.printed!r}"
        return self.printed

    def type(self, text: str) -> None:
        """Send `text` to com1, and wait for nothing printed before it any more."""
        self.printed = ""
        self.com1.sendall(text.encode())

    def ended(self) -> int:
        """Wait for the guest's end; bhyve's exit status for it."""
        outcome = self._outcome_within(self.patience_s)
        assert outcome is not None, f"still running after {self.patience_s} s; it said {self.printed!r}"
        self.guest.close()
        return outcome

    def runs_for(self, seconds: float) -> bool:
        """The guest does not end within `seconds`."""
        return self._outcome_within(seconds) is None

    def _outcome_within(self, seconds: float) -> int | None:
        """Reads com1 meanwhile: a guest whose words nobody takes waits with each of them."""
        deadline = time.monotonic() + seconds
        watched: list[QemuGuest | socket.socket] = [self.guest, self.com1]
        while (left := deadline - time.monotonic()) > 0:
            outcome = self.guest.outcome()
            if outcome is not None:
                return outcome
            ready, _, _ = select.select(watched, [], [], min(left, self.guest.wait_at_most_s()))
            if self.com1 in ready and not self._reads():
                watched.remove(self.com1)
        return None

    def _reads(self) -> bool:
        """Take what has been printed; False: there will be no more."""
        received = self.com1.recv(4096)
        self.printed += received.decode(errors="replace")
        return bool(received)

    @property
    def com1(self) -> socket.socket:
        """The guest's first serial port."""
        return self.guest.com[1]

    def close(self) -> None:
        """Cut the power if it is still on."""
        self.guest.close()
        for port in self.guest.com.values():
            port.close()
