"""The qemu engine under the stand-in bhyve: what `qemu.QemuGuest` does, as an `Engine`.

What it boots: the kernel of `lab.kernel` (or the one that grub was told to load), else the guest's own disks, if one of them can boot,
else a bootrom that is no firmware, else the 512-byte guest, on a disk that the lab keeps for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from bhyved.lab import guest512
from bhyved.lab.engine import Engine
from bhyved.lab.freebsd import BHYVE_ERROR, Refusal, Settings
from bhyved.lab.qemu import QemuGuest
from bhyved.lab.qemu_devices import RefusedError, Surroundings, pci_devices
from bhyved.lab.qemu_machine import ROM_BYTES, Payload, has_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.board import Board
    from bhyved.lab.knobs import Knobs
    from bhyved.lab.tree import Tree
    from bhyved.lab.vnc import Screen

_CHUNK = 65536
_BOOT_SIGNATURE = (510, b"\x55\xaa")  # of a sector that a BIOS boots
_FIRMWARE = ("bootrom", "bootvars", "lpc.bootrom", "lpc.bootvars")
_LAB_DISK = "pci.255.0.0"  # the qemu engine finds it a free slot


class QemuEngine(Engine):
    """One QEMU."""

    def __init__(self, root: str, settings: Settings, tree: Tree, knobs: Knobs, board: Board, loaded: dict[str, str]) -> None:
        """`loaded`: the kernel that a loader was told to boot."""
        self._board = board
        self._scratch = Path(root, "lab", "scratch", board.vm)
        config = tree.flat()
        payload = _payload(knobs, loaded)
        can_boot = _can_boot(config)
        if payload is not None or not can_boot:
            for name in _FIRMWARE:
                config.pop(name, None)
        if payload is None and not can_boot:
            config |= {f"{_LAB_DISK}.device": "virtio-blk", f"{_LAB_DISK}.path": _lab_disk(root, board.vm), f"{_LAB_DISK}.bootindex": "0"}
        around = Surroundings(
            vm=board.vm,
            taps=frozenset(board.taps if settings.network == "real" else ()),
            sockets={path: listener.fileno() for path, listener in board.sockets.items()},
            ram_disk=self._ram_disk,
        )
        self._guest = QemuGuest(config, around, self._scratch, payload)

    def start(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        numbers = tuple(int(name[3:]) for name in self._board.ports if name.startswith("com"))
        try:
            self._guest.start(numbers, self._board.tpm)
        except (RefusedError, OSError) as error:
            raise Refusal(BHYVE_ERROR, str(error)) from None
        for wire in self._guest.com.values():
            wire.setblocking(False)

    def fds(self) -> tuple[int, ...]:
        return (self._guest.fileno(), *(wire.fileno() for wire in self._guest.com.values() if wire.fileno() >= 0))

    def wait_s(self) -> float | None:
        return self._guest.wait_at_most_s()

    def step(self) -> int | None:
        self._relay()
        return self._guest.outcome()

    def typed(self, port: str, data: bytes) -> None:
        wire = self._guest.com.get(int(port[3:]) if port.startswith("com") else 0)
        if wire is not None:
            with contextlib.suppress(OSError):  # the guest does not read, and its FIFO is full
                wire.send(data)

    def has_acpi(self) -> bool:
        return self._guest.has_acpi()

    def press(self) -> None:
        self._guest.press()

    def show(self, screen: Screen) -> None:
        viewer = screen.viewer()
        if viewer is not None:
            self._guest.show(viewer)
            screen.release()

    def close(self) -> None:
        self._guest.close()
        self._relay()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _relay(self) -> None:
        """QEMU must never wait for a reader: that would stop the guest, which bhyve does not do."""
        for number, wire in self._guest.com.items():
            while wire.fileno() >= 0:
                try:
                    data = wire.recv(_CHUNK)
                except BlockingIOError:
                    break
                except OSError:
                    data = b""
                if not data:
                    wire.close()  # QEMU has ended
                    break
                self._board.ports[f"com{number}"].put(data)

    def _ram_disk(self, device: str, megabytes: int) -> str:
        path = self._scratch / f"{device}.ram"
        with path.open("wb") as disk:
            disk.truncate(megabytes << 20)
        return str(path)


def _payload(knobs: Knobs, loaded: dict[str, str]) -> Payload | None:
    kernel = knobs.get("kernel")
    if kernel is not None:
        return Payload(kernel, knobs.get("initrd"), knobs.get("append") or "")
    if "kernel" in loaded:
        return Payload(loaded["kernel"], loaded.get("initrd"), loaded.get("append", ""))
    return None


def _can_boot(config: dict[str, str]) -> bool:
    """A CD, or a disk whose first sector says so, as a GPT's does too; or a small bootrom that is a program of its own."""
    bootrom = config.get("bootrom") or config.get("lpc.bootrom")
    if bootrom is not None and os.path.getsize(bootrom) < ROM_BYTES and has_code(bootrom):
        return True
    for device in pci_devices(config):
        for options in (device.options, *device.below("port").values()):
            path = options.get("path", "")
            if (
                device.model in ("virtio-blk", "nvme", "ahci")
                and os.path.exists(path)
                and (options.get("type") == "cd" or _is_bootable(path))
            ):
                return True
    return False


def _is_bootable(path: str) -> bool:
    offset, signature = _BOOT_SIGNATURE
    with open(path, "rb") as disk:
        disk.seek(offset)
        return disk.read(len(signature)) == signature


def _lab_disk(root: str, vm: str) -> str:
    path = Path(root, "lab", "disk", f"{vm}.img")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        guest512.make_disk(path)
    return str(path)
