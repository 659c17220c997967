"""Keeps one guest's record on disk: the newest one, however fast it changes.

What somebody wishes is saved at once. Counts and times wait a moment for what changes next, unless somebody waits for them: the end of
a run and the start of the next are one write instead of four, and none that the start has to share the processor with.

A disk that takes nothing is told of once, and tried again for as long as it refuses. One that hangs holds nobody up who waits `in_time`.
"""

from collections.abc import Awaitable, Callable, Iterable

import trio

from bhyved.core.errors import HostError
from bhyved.core.status import VmRecord
from bhyved.daemon.ports import Vault

LATER_S = 0.1
SAVE_S = 5.0  # for what is kept to get to disk, before what must not be without it
AGAIN_S = 30.0  # a full disk tells nobody when it has room again


class Saving:
    """The saving of one guest's record."""

    def __init__(self, vault: Vault, name: str, tell: Callable[[str, str], None]) -> None:
        self._vault, self._name, self._tell = vault, name, tell
        self._newest: VmRecord | None = None
        self._saved: VmRecord | None = None
        self._changed, self._hurry, self._done = trio.Event(), trio.Event(), trio.Event()
        self._busy = False

    def put(self, record: VmRecord) -> None:
        """This is what is to be kept."""
        if self._newest is None or _wish(record) != _wish(self._newest):
            self._hurry.set()
        self._newest = record
        self._changed.set()

    async def done(self) -> None:
        """Return when what was put is on disk, or has refused to go there."""
        while self._changed.is_set() or self._busy:
            self._hurry.set()
            await self._done.wait()

    async def run(self) -> None:
        """Save until cancelled."""
        trouble = ""
        while True:
            with trio.move_on_after(AGAIN_S if trouble else float("inf")):
                await self._changed.wait()
                with trio.move_on_after(LATER_S):
                    await self._hurry.wait()
            self._changed, self._hurry, self._busy = trio.Event(), trio.Event(), True
            record = self._newest
            if record is None or record == self._saved:
                trouble = ""
            else:
                try:
                    await self._vault.save(self._name, record)
                except HostError as error:
                    if str(error) != trouble:
                        self._tell("save-failed", str(error))
                    trouble = str(error)
                else:
                    self._saved, trouble = record, ""
            self._busy = False
            done, self._done = self._done, trio.Event()
            done.set()


async def in_time(waits: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Return when all of these have, or cannot in the time that a disk is given."""
    with trio.move_on_after(SAVE_S):
        for wait in waits:
            await wait()


def _wish(record: VmRecord) -> tuple[object, ...]:
    return record.desired, record.desired_boot, record.hold, record.held
