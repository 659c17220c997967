"""`vmctl create --image`: a system that is installed already, as clouds have them, written onto the disk that was made for it."""

from __future__ import annotations

import os
import stat

from bhyved.core.errors import in_words
from bhyved.ctl.connection import FAILED, USAGE, Failure

#: How images begin that no disk begins like, what they are, and what makes a plain one of them.
_OTHERS = (
    (b"QFI\xfb", "qcow2", "qemu-img convert -O raw"),
    (b"KDMV", "VMDK", "qemu-img convert -O raw"),
    (b"vhdxfile", "VHDX", "qemu-img convert -O raw"),
    (b"\xfd7zXZ\0", "packed with xz", "unxz"),
    (b"\x1f\x8b", "packed with gzip", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unzstd"),
)
_CHUNK = 1 << 20
_SECTOR = 512  # a volume takes whole ones only


class Image:
    """A plain ("raw") image. Raises Failure where the file is none, or cannot be read."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        try:
            with open(self.path, "rb") as file:
                found, beginning = os.fstat(file.fileno()), file.read(16)
        except OSError as error:
            raise Failure(FAILED, f"create: the image {self.path}: {in_words(error)}") from None
        if not stat.S_ISREG(found.st_mode) or not beginning:
            raise Failure(FAILED, f"create: the image {self.path} is {'empty' if stat.S_ISREG(found.st_mode) else 'no file'}")
        for magic, kind, remedy in _OTHERS:
            if beginning.startswith(magic):
                raise Failure(FAILED, f"create: the image {self.path} is {kind}, and a plain one is needed: {remedy}")
        self.size = found.st_size

    def check_fits(self, disk: str, size: int) -> None:
        """Raises Failure when a disk of that size is too small."""
        from bhyved.core.units import Size

        if size < self.size:
            least = Size((self.size + (1 << 20) - 1) >> 20 << 20)
            raise Failure(USAGE, f"create: the disk {disk} must have {least} at least: that is the size of the image {self.path}")

    def write_to(self, disk: str) -> None:
        """Onto a disk that is new, and so reads as zeros where nothing was written. Raises OSError."""
        from bhyved.host.durable import write_whole

        with open(self.path, "rb") as image, open(os.open(disk, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0) as out:
            while chunk := image.read(_CHUNK):
                if any(chunk):
                    write_whole(out.fileno(), chunk + bytes(-len(chunk) % _SECTOR))
                else:
                    out.seek(len(chunk), os.SEEK_CUR)
            os.fsync(out.fileno())
