"""The images with guests' cloud-init seeds, DB/cloud-init/NAME.iso.

makefs(8) of the base system makes it, anew only when what is to be in it has changed: an image tells by itself what it was made of
(`seed.marked`). It is 0600 and what it is made of lies in the guest's own directory, for as long as makefs works: there may be secrets.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable

import trio

from bhyved.core.errors import HostError, in_words
from bhyved.core.seed import LABEL, Files, fingerprint_in, makefs, marked
from bhyved.core.seed import fingerprint as fingerprint_of
from bhyved.host.durable import read_plain, remove, sync_directory, sync_file, write_plain
from bhyved.host.hostlock import make_directory
from bhyved.host.ownedfile import LIMIT_BYTES
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Tools
from bhyved.threads import in_thread

_SUFFIX, _NEW = ".iso", ".new-"
_MAKE_S = 60.0  # it writes less than a megabyte, on a disk that may be busy
_IMAGE_BYTES = 8 * LIMIT_BYTES
#: ECMA-119 8.4: the primary volume descriptor is in sector 16, and the volume's name in bytes 41 to 72 of it.
_DESCRIPTOR, _MAGIC, _NAME = 16 * 2048, slice(1, 6), slice(40, 72)


def image(db: str, name: str) -> str:
    """Where a guest's is."""
    return f"{db}/cloud-init/{name}{_SUFFIX}"


def fingerprint(path: str) -> str:
    """Of which seed the image at `path` is; '' when there is none. Reads less than a megabyte."""
    try:
        return fingerprint_in(read_plain(path, _IMAGE_BYTES))
    except OSError:
        return ""


def label_in(data: bytes) -> str:
    """The volume's name in an image; '' where it is no image of ISO 9660."""
    descriptor = data[_DESCRIPTOR : _DESCRIPTOR + 2048]
    return descriptor[_NAME].decode("latin-1").strip(" \0") if descriptor[_MAGIC] == b"CD001" else ""


class Images:
    """Those of this host. What there is was looked for when the daemon began: a guest that has none costs the disk no look."""

    def __init__(self, db: str, tools: Tools) -> None:
        """Blocks."""
        self._db, self._tools = db, tools
        self._there: set[str] = set()  # or may be
        with contextlib.suppress(OSError):  # what cannot be listed cannot be removed either
            self._there |= {entry.removeprefix(_NEW).removesuffix(_SUFFIX) for entry in os.listdir(f"{db}/cloud-init")}

    def path(self, name: str) -> str:
        """Where a guest's is."""
        return image(self._db, name)

    async def make(self, name: str, seed: Files, *, scratch: str, pass_fd: int) -> None:
        """Have an image of this seed. `scratch`: a directory of the guest's own to work in. Raises HostError, Stuck."""
        self._there.add(name)
        path, fresh = self.path(name), self._fresh(name)
        if await in_thread(fingerprint, path) == fingerprint_of(seed):
            return
        try:
            await _on_disk(functools.partial(_lay_out, seed, scratch, fresh), path)
            await run_tool(self._tools, makefs(fresh, scratch), limit_s=_MAKE_S, pass_fd=pass_fd)
            await _on_disk(functools.partial(_put, fresh, path), path)
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(_clear, scratch, fresh)

    def drop(self, name: str, *, scratch: str) -> None:
        """No image, and nothing that a daemon has left which was killed while it made one. Raises HostError."""
        if name in self._there:
            _clear(scratch, self._fresh(name))
            remove(self.path(name))
            self._there.discard(name)

    def _fresh(self, name: str) -> str:
        directory, entry = os.path.split(self.path(name))
        return f"{directory}/{_NEW}{entry}"


async def _on_disk(work: Callable[[], None], path: str) -> None:
    try:
        await in_thread(work)
    except OSError as error:
        raise HostError(f"the cloud-init seed {path} cannot be made: {in_words(error)}") from None


def _lay_out(seed: Files, scratch: str, fresh: str) -> None:
    """The files for makefs, and before them the image's own: it has its mode from the beginning, and tells the next daemon of them."""
    _clear(scratch, fresh)
    make_directory(os.path.dirname(fresh), 0o700)
    make_directory(scratch, 0o700)
    for name, data in {fresh: b"", **{f"{scratch}/{name}": data for name, data in marked(seed).items()}}.items():
        write_plain(name, data, os.O_EXCL)


def _put(fresh: str, path: str) -> None:
    """In the place of the old one, which a guest that runs keeps open."""
    with open(fresh, "r+b") as file:
        if label_in(file.read(_DESCRIPTOR + 2048)).lower() != LABEL:
            raise HostError(f"what makefs made is no ISO 9660 image with the label {LABEL}")
        # makefs has capitals only (cd9660_arguments_set_string); the first nuageinit looks for /dev/iso9660/cidata alone (rc.d/nuageinit).
        file.seek(_DESCRIPTOR + _NAME.start)
        file.write(LABEL.encode())
    os.chmod(fresh, 0o600)
    sync_file(fresh)
    os.rename(fresh, path)
    sync_directory(os.path.dirname(path))


def _clear(scratch: str, fresh: str) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    remove(fresh)
