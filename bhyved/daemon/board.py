"""The status board: the newest `VmStatus` of every guest, written by drivers, read and waited for by everybody else.

Nothing here decides anything. A reader that wants to follow keeps the `generation` it has seen and waits for a newer one; it never
misses the latest state, and may miss states in between.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec
import trio

from bhyved.core.rowtext import RowText
from bhyved.core.status import VmStatus


class Board:
    """What is visible of all guests."""

    def __init__(self) -> None:
        self._generation = 0
        self._statuses: dict[str, VmStatus] = {}
        self._names: list[str] | None = None  # sorted; None: to be sorted again
        self._texts: dict[str, RowText] = {}  # of those that have not changed since somebody asked
        self._removed: dict[str, int] = {}
        self._changed = trio.Event()

    @property
    def generation(self) -> int:
        """The generation of the latest change."""
        return self._generation

    def publish(self, status: VmStatus) -> VmStatus:
        """Show `status`, with a generation of its own."""
        self._generation += 1
        shown = msgspec.structs.replace(status, generation=self._generation)
        if status.name not in self._statuses:
            self._names = None
        self._statuses[status.name] = shown
        self._texts.pop(status.name, None)
        self._removed.pop(status.name, None)
        self._stir()
        return shown

    def remove(self, name: str) -> None:
        """The guest is no longer configured."""
        if self._statuses.pop(name, None) is not None:
            self._generation += 1
            self._removed[name] = self._generation
            self._names = None
            self._texts.pop(name, None)
            self._stir()

    @property
    def statuses(self) -> Mapping[str, VmStatus]:
        """Every guest's by its name, as it is from moment to moment."""
        return MappingProxyType(self._statuses)

    def get(self, name: str) -> VmStatus | None:
        return self._statuses.get(name)

    def all(self) -> list[VmStatus]:
        """Every guest, by name."""
        return [self._statuses[name] for name in self.names()]

    def names(self) -> list[str]:
        """Of every guest, sorted. Not to be changed."""
        if self._names is None:
            self._names = sorted(self._statuses)
        return self._names

    def rows(self, names: Iterable[str], now: float) -> list[bytes]:
        """The rows of these guests as JSON, at `now` (monotonic)."""
        return [self._text(name).at(now) for name in names]

    def _text(self, name: str) -> RowText:
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = RowText(self._statuses[name])
        return text

    def newer(self, generation: int) -> tuple[list[VmStatus], list[str]]:
        """What has changed since, and which guests have gone."""
        changed = [status for status in self._statuses.values() if status.generation > generation]
        return changed, [name for name, at in self._removed.items() if at > generation]

    async def wait_newer(self, generation: int) -> int:
        """Wait until something is newer than `generation`; the present one."""
        while self._generation <= generation:
            await self._changed.wait()
        return self._generation

    def _stir(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
