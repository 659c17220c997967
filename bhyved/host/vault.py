"""The guests' records on disk: DB/vm/NAME.json, each whole or as it was before, also after a host crash.

JSON and not TOML, since nobody edits them and 500 of them are read before the daemon answers. A record of a newer bhyved is left alone:
its guest gets an empty one, and what is to be kept of it is refused until the newer bhyved is back. A broken one is set aside.

Saves that come together are written together: one thread, one directory sync, the newest record of each guest.
"""

import contextlib
import os

import msgspec
import trio

from bhyved.core.errors import HostError
from bhyved.core.status import RECORD_VERSION, VmRecord
from bhyved.core.values import name_problem
from bhyved.host import durable

_SUFFIX = ".json"
_SIZE_LIMIT = 1 << 20  # a record has a few kilobytes


class _Version(msgspec.Struct):
    version: int = 1


class FileVault:
    """Satisfies `daemon.ports.Vault`. `problems`: what the last `load` found, a sentence each."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.problems: list[str] = []
        self._foreign: set[str] = set()  # of a newer bhyved
        self._waiting: dict[str, VmRecord] = {}
        self._batch: _Batch | None = None

    def load(self) -> dict[str, VmRecord]:
        """Every guest's record. Blocks; called once, at start. Never raises for what is there."""
        self.problems, records = [], {}
        try:
            entries = sorted(os.listdir(self._directory))
        except OSError as error:
            self.problems.append(f"{self._directory} cannot be read: {durable.why(error)}; every guest begins without a record")
            return {}
        for entry in entries:
            name = entry.removesuffix(_SUFFIX)
            if durable.is_leftover(entry):
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._directory}/{entry}")
            elif entry.endswith(_SUFFIX) and not name_problem(name):
                record = self._read(name)
                if record is not None:
                    records[name] = record
        return records

    def _read(self, name: str) -> VmRecord | None:
        path = self._path(name)
        try:
            data = durable.read_plain(path, _SIZE_LIMIT)
            version = msgspec.json.decode(data, type=_Version).version
            if version > RECORD_VERSION:
                self._foreign.add(name)
                newer = f"{path} is of a newer bhyved (version {version}, this one reads {RECORD_VERSION})"
                self.problems.append(f"{newer}: it is left alone, and {name} begins without a record")
                return None
            return msgspec.json.decode(data, type=VmRecord)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            why = durable.why(error) if isinstance(error, OSError) else f"is no record: {error}"
            self.problems.append(f"{path} {why}; {self._set_aside(name)}")
            return None

    def _set_aside(self, name: str) -> str:
        path = self._path(name)
        for number in range(1, 100):
            aside = f"{self._directory}/{name}.bad-{number}"
            if not os.path.lexists(aside):
                try:
                    os.rename(path, aside)
                except OSError as error:
                    return f"it could not be set aside ({durable.why(error)}), and {name} begins without a record"
                return f"it is kept as {aside}, and {name} begins without a record"
        return f"{name} begins without a record"

    async def save(self, name: str, record: VmRecord) -> None:
        """Durable when this returns. Raises HostError."""
        if name in self._foreign:
            raise HostError(f"{self._path(name)} is of a newer bhyved and is not written over")
        self._waiting[name] = record
        if self._batch is None:
            self._batch = batch = _Batch()
            await trio.lowlevel.checkpoint()  # whoever else is about to save joins
            self._batch = None
            waiting, self._waiting = self._waiting, {}
            files = {self._path(each): msgspec.json.encode(what) for each, what in waiting.items()}
            with trio.CancelScope(shield=True):  # others wait for it, and half of it is no use to anybody
                batch.failed = await trio.to_thread.run_sync(durable.replace_all, files)
            batch.over.set()
        else:
            batch = self._batch
            await batch.over.wait()
        error = batch.failed.get(self._path(name))
        if error is not None:
            raise HostError(f"{self._path(name)} could not be written: {durable.why(error)}")

    async def forget(self, name: str) -> None:
        """The guest is no longer configured. Raises HostError."""
        if name in self._foreign:
            return
        try:
            await trio.to_thread.run_sync(_remove, self._path(name))
        except OSError as error:
            raise HostError(f"{self._path(name)} could not be removed: {durable.why(error)}") from None

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}{_SUFFIX}"


class _Batch:
    """Saves that are written together."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.failed: dict[str, OSError] = {}


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    durable.sync_directory(os.path.dirname(path))
