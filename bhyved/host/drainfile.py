"""A drain of the host on disk, DB/drain.json: it holds for the next daemon too, until it is taken back or the host boots again.

Satisfies `daemon.ports.DrainFile`. A file of a newer bhyved is left alone and drains nothing: a drain stops guests, and none may be stopped
for what nobody here can read.
"""

import os

import msgspec
import trio

from bhyved.core.drain import Drain
from bhyved.core.errors import HostError, in_words
from bhyved.host import durable
from bhyved.threads import in_thread

VERSION = 1
_SIZE_LIMIT = 1 << 16


class _Version(msgspec.Struct):
    version: int = 1


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    boot: str
    drain: Drain


class HostDrainFile:
    """One file. `problem`: what `load` found, a sentence, or ''."""

    def __init__(self, db: str, boot: str) -> None:
        self._path, self._boot = f"{db}/drain.json", boot
        self._newer = False
        self.problem = ""

    def load(self) -> Drain | None:
        """The drain of this boot. Blocks; called once, at start. Never raises for what is there."""
        try:
            data = durable.read_plain(self._path, _SIZE_LIMIT)
            version = msgspec.json.decode(data, type=_Version).version
            if version > VERSION:
                self._newer = True
                self.problem = (
                    f"{self._path} is of a newer bhyved (version {version}, this one reads {VERSION}): the host is taken as not drained"
                )
                return None
            kept = msgspec.json.decode(data, type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            why = in_words(error) if isinstance(error, OSError) else f"is no drain: {error}"
            self.problem = f"{self._path} {why}: the host is taken as not drained"
            return None
        return kept.drain if kept.boot == self._boot else None

    async def save(self, drain: Drain | None) -> None:
        """Durable when this returns. Raises HostError."""
        if self._newer:
            raise HostError(f"{self._path} is of a newer bhyved and is left alone")
        try:
            with trio.CancelScope(shield=True):  # two writers must not meet in one file
                await in_thread(self._write, drain)
        except OSError as error:
            raise HostError(f"{self._path} could not be written: {in_words(error)}") from None

    def _write(self, drain: Drain | None) -> None:
        if drain is not None:
            durable.replace(self._path, msgspec.json.encode(_Kept(boot=self._boot, drain=drain)))
            return
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return
        durable.sync_directory(os.path.dirname(self._path))
