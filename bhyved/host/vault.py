"""The guests' records on disk: DB/vm/NAME.json, each whole or as it was before, also after a host crash.

A guest that is forgotten loses with its record the image of its cloud-init seed too: there may be secrets in it.

JSON and not TOML, since nobody edits them and 500 of them are read before the daemon answers. A record of a newer bhyved is left alone:
its guest gets an empty one, and what is to be kept of it is refused until the newer bhyved is back. A broken one is set aside.

There is one writer at a time. What is to be saved meanwhile is collected, and written by the next one in one go: one thread, one sync of
the directory, the newest record of each guest.
"""

import contextlib
import os
from collections.abc import Mapping

import msgspec
import trio

from bhyved.core.errors import HostError, in_words
from bhyved.core.status import RECORD_VERSION, VmRecord
from bhyved.core.values import name_problem
from bhyved.host import durable
from bhyved.host.seed import image
from bhyved.threads import in_thread

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
        self._next = _Batch()
        self._writing = trio.Lock()

    def load(self) -> dict[str, VmRecord]:
        """Every guest's record. Blocks; called once, at start. Never raises for what is there."""
        self.problems, records = [], {}
        try:
            entries = sorted(os.listdir(self._directory))
        except OSError as error:
            self.problems.append(f"{self._directory} cannot be read: {in_words(error)}; every guest begins without a record")
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
            why = in_words(error) if isinstance(error, OSError) else f"is no record: {error}"
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
                    return f"it could not be set aside ({in_words(error)}), and {name} begins without a record"
                return f"it is kept as {aside}, and {name} begins without a record"
        return f"{name} begins without a record"

    async def save(self, name: str, record: VmRecord) -> None:
        """Durable when this returns, or a newer record of the guest is. Raises HostError."""
        await self._change(name, record)

    async def forget(self, name: str) -> None:
        """The guest is no longer configured. Raises HostError."""
        await self._change(name, None)

    async def _change(self, name: str, record: VmRecord | None) -> None:
        if name in self._foreign:
            raise HostError(f"{self._path(name)} is of a newer bhyved and is left alone")
        batch = self._next
        batch.changes[name] = record
        async with self._writing:  # after a checkpoint at least: whoever else is about to save joins
            if not batch.taken:
                batch.taken, self._next = True, _Batch()
                with trio.CancelScope(shield=True):  # others wait for it, and two writers must not meet in one file
                    batch.failed = await in_thread(self._write, batch.changes)
        assert batch.failed is not None, "the writer of this batch has failed, and said so where it was"
        error = batch.failed.get(name)
        if error is not None:
            verb = "written" if record is not None else "removed"
            raise HostError(f"{self._path(name)} could not be {verb}: {in_words(error)}")

    def _write(self, changes: Mapping[str, VmRecord | None]) -> dict[str, OSError]:
        """In a thread. Those that failed."""
        names = {self._path(name): name for name in changes}
        files = {path: msgspec.json.encode(record) for path, name in names.items() if (record := changes[name]) is not None}
        failed = {names[path]: error for path, error in durable.replace_all(files).items()} if files else {}
        gone = [name for name, record in changes.items() if record is None]
        for name in gone:
            try:
                for path in (image(os.path.dirname(self._directory), name), self._path(name)):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
            except OSError as error:
                failed[name] = error
        if gone:
            try:
                durable.sync_directory(self._directory)
            except OSError as error:
                failed |= dict.fromkeys(gone, error)
        return failed

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}{_SUFFIX}"


class _Batch:
    """Changes that are written together; None: the guest is forgotten."""

    def __init__(self) -> None:
        self.changes: dict[str, VmRecord | None] = {}
        self.taken = False
        self.failed: dict[str, OSError] | None = None
