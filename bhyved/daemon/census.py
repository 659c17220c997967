"""How many snapshots each guest has, and how old the newest is: counted while somebody scrapes, seldom, and after our own work.

A scrape never waits for zfs(8): it shows what was counted last and has it counted again when that is due. With nobody asking, nothing
is counted.
"""

from collections.abc import Callable, Mapping, Sequence

import structlog
import trio

from bhyved.core.errors import HostError
from bhyved.core.snapshots import Dataset, Stock, disk_paths, stock
from bhyved.core.spec import VmSpec
from bhyved.daemon.ports import Datasets

_log = structlog.get_logger()

PERIOD_S = 600.0  # snapshots of a guest are hours apart; a listing of thousands costs the host seconds


class Census:
    """Of all guests. `specs`: those that are configured."""

    def __init__(self, datasets: Datasets, specs: Callable[[], Mapping[str, VmSpec]], now: Callable[[], float]) -> None:
        self._datasets, self._specs, self._now = datasets, specs, now
        self._stocks: dict[str, Stock] = {}
        self._counted: float | None = None
        self._due = trio.Event()

    def stocks(self) -> Mapping[str, Stock]:
        """As counted last; a guest whose disks are not on ZFS has none. To be called by who shows them."""
        if self._counted is None or self._now() - self._counted >= PERIOD_S:
            self._due.set()
        return self._stocks

    def outdated(self) -> None:
        """Something of it has been changed by us: the next who asks has it counted again."""
        self._counted = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Count when it is due, until cancelled."""
        task_status.started()
        while True:
            await self._due.wait()
            self._counted = self._now()
            try:
                self._stocks = await self._count()
            except HostError as error:
                _log.info("snapshots not counted", why=str(error))
            self._due = trio.Event()

    async def _count(self) -> dict[str, Stock]:
        located = {name: await on_zfs(self._datasets, disk_paths(spec)) for name, spec in self._specs().items()}
        wanted = sorted({dataset.name for datasets in located.values() for dataset in datasets})
        found = await self._datasets.count(wanted) if wanted else {}
        return {name: stock([each.name for each in datasets], found) for name, datasets in located.items() if datasets}


async def on_zfs(datasets: Datasets, paths: Sequence[str]) -> tuple[Dataset, ...]:
    """The datasets of these disks; none where one of them is elsewhere. Raises HostError where that cannot be told."""
    try:
        return await datasets.locate(paths)
    except HostError as error:
        if error.fatal:
            return ()
        raise
