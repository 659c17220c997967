"""A guest's state on disk, DB/suspend/NAME: three directories of which at most one has a state that counts.

    saving     bhyve writes into it; worth nothing until its run has ended
    saved      whole, and durable: the next start resumes it
    resuming   a bhyve was given it, and the guest has not been seen running

A state may be used once only: a guest that has run has changed its disks, and its old memory over them would destroy them. So it leaves
`saved` before bhyve is started, durably, and comes back only when the end of that bhyve proves that no vCPU has run. What is in
`resuming` when nobody knows (the host went down) is in doubt, and nothing resumes it by itself. Blocking: call it in a thread.
"""

import contextlib
import os
import shutil
from datetime import UTC, datetime

import msgspec

from bhyved.core.errors import HostError, in_words
from bhyved.core.saved import SAVED_VERSION, DiskMark, SavedState
from bhyved.core.status import Suspension
from bhyved.host.durable import read_plain, replace, sync_directory, sync_file
from bhyved.host.hostlock import make_directory
from bhyved.host.toolbox import Tools

_STATE = "state"  # what bhyve and bhyvectl are given (contract 6.3)
_PARTS = ("", ".kern", ".meta")
_ABOUT = "about.json"


class StateFiles:
    """One guest's."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._saving, self.saved, self.resuming = (f"{directory}/{name}" for name in ("saving", "saved", "resuming"))

    # --- what there is -------------------------------------------------------------------------------------------------------

    def shown(self) -> Suspension | None:
        """The state that the next start would resume. A few system calls, none of which waits."""
        for path in (self.saved, self.resuming):
            if os.path.isdir(path):
                try:
                    about = self.about(path)
                    return Suspension(at=about.at, by=about.by, path=path, doubtful=path == self.resuming)
                except HostError:
                    return Suspension(at=_made_at(path), by="", path=path, doubtful=path == self.resuming)
        return None

    def about(self, path: str) -> SavedState:
        """What is remembered of it. Raises HostError, `fatal`."""
        file = f"{path}/{_ABOUT}"
        try:
            text = read_plain(file)
            version = msgspec.json.decode(text, type=_Version).version
            if version > SAVED_VERSION:
                raise HostError(f"{file} is of a newer bhyved (format {version}, this one knows {SAVED_VERSION})", fatal=True)
            return msgspec.json.decode(text, type=SavedState)
        except OSError as error:
            raise HostError(f"{file}: {in_words(error)}", fatal=True) from None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise HostError(f"{file} cannot be read: {error}", fatal=True) from None

    def lacks(self, path: str, memory_bytes: int) -> str:
        """What is missing of bhyve's three files in a directory; '' when they are whole (contract 6.3)."""
        sizes = {}
        for part in _PARTS:
            try:
                sizes[part] = os.lstat(f"{path}/{_STATE}{part}").st_size
            except OSError as error:
                return f"{path}/{_STATE}{part}: {in_words(error)}"
        if sizes[""] < memory_bytes:
            return f"{path}/{_STATE} has {sizes['']} bytes, which is less than the guest's memory"
        if not sizes[".kern"]:
            return f"{path}/{_STATE}.kern is empty"
        try:
            msgspec.json.decode(read_plain(f"{path}/{_STATE}.meta"))
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return f"{path}/{_STATE}.meta is no JSON"
        return ""

    @staticmethod
    def file(path: str) -> str:
        """What `bhyve -r` is given."""
        return f"{path}/{_STATE}"

    # --- on its way to the disk ----------------------------------------------------------------------------------------------

    def begin(self, needed_bytes: int) -> None:
        """Make room. Whatever is there of earlier is of no use to a guest that has run since. Raises HostError."""
        self.discard()
        try:
            for path in (os.path.dirname(self._directory), self._directory, self._saving):
                make_directory(path, 0o700)
            found = os.statvfs(self._saving)
        except OSError as error:
            raise HostError(f"{self._saving}: {in_words(error)}") from None
        free_bytes = found.f_bavail * found.f_frsize
        if free_bytes < needed_bytes:
            raise HostError(
                f"{self._directory} has {free_bytes >> 20} MiB free, and the guest's state needs {needed_bytes >> 20} MiB: "
                "make room, or mount a larger file system there"
            )

    @property
    def wanted(self) -> str:
        """What bhyvectl is given."""
        return self.file(self._saving)

    def written_bytes(self) -> int | None:
        """How far bhyve has come; None: it has not begun."""
        sizes = []
        for part in _PARTS:
            with contextlib.suppress(OSError):
                sizes.append(os.lstat(f"{self.wanted}{part}").st_size)
        return sum(sizes) if sizes else None

    def keep(self, about: SavedState, memory_bytes: int) -> str:
        """The run has ended suspended: from now on its state counts, whatever happens to the host. Returns what it lacks, or ''.

        Again, after a daemon that was killed at it, it does what is left to do.
        """
        with contextlib.suppress(HostError):
            if self.about(self.saved).run == about.run:
                return ""
        lacks = self.lacks(self._saving, memory_bytes)
        if lacks:
            return lacks
        try:
            for part in _PARTS:
                sync_file(f"{self.wanted}{part}")
            replace(f"{self._saving}/{_ABOUT}", msgspec.json.encode(about))
            os.rename(self._saving, self.saved)
            sync_directory(self._directory)
        except OSError as error:
            return f"{self._saving}: {in_words(error)}"
        return ""

    @property
    def is_begun(self) -> bool:
        """Whether something of a suspend is there that did not come to its end."""
        return os.path.isdir(self._saving)

    def give_up(self) -> None:
        """Nothing came of the suspend."""
        self._remove(self._saving)

    # --- on its way back -----------------------------------------------------------------------------------------------------

    def take(self) -> None:
        """A bhyve is about to be given it. Raises HostError."""
        try:
            os.rename(self.saved, self.resuming)
            sync_directory(self._directory)
        except OSError as error:
            raise HostError(f"{self.saved}: {in_words(error)}") from None

    def give_back(self) -> None:
        """The guest has not run: it is as good as before. A host that dies now finds it in doubt."""
        with contextlib.suppress(OSError):
            os.rename(self.resuming, self.saved)

    def spent(self) -> bool:
        """The guest has run. False: there is nothing of it any more."""
        is_there = os.path.isdir(self.resuming)
        self._remove(self.resuming)
        return is_there

    def discard(self) -> None:
        """Throw everything away, for good: a guest is about to run beside it. Raises HostError where something stays."""
        self._remove(self._saving)
        for path in filter(os.path.lexists, (self.saved, self.resuming)):
            try:
                os.rename(path, self._saving)  # in one step, to where it counts for nothing; its gigabytes may take their time to go
                sync_directory(self._directory)
            except OSError as error:
                raise HostError(f"{path} cannot be thrown away: {in_words(error)}; it would be resumed some day") from None
            self._remove(self._saving)

    @staticmethod
    def _remove(*paths: str) -> None:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)


class _Version(msgspec.Struct):
    version: int


def disk_marks(paths: list[str]) -> dict[str, DiskMark]:
    """Disk images as they are now. Devices and what cannot be looked at are left out."""
    marks = {}
    for path in paths:
        with contextlib.suppress(OSError):
            if os.path.isfile(path):
                found = os.stat(path)
                marks[path] = DiskMark(found.st_size, found.st_mtime_ns)
    return marks


def bhyve_mark(tools: Tools) -> str:
    """bhyve as it is now: another one has another mark, also where boot environments come and go; '' without one."""
    try:
        found = os.stat(tools.path("bhyve"))
    except (OSError, HostError):
        return ""
    return f"{found.st_size}:{found.st_mtime_ns}"


def _made_at(path: str) -> datetime:
    try:
        return datetime.fromtimestamp(os.lstat(path).st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)
