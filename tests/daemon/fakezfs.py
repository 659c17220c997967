"""ZFS as a test plays it: volumes by their paths, snapshots in a dictionary."""

from collections.abc import Callable, Mapping, Sequence

import trio

from bhyved.core.errors import HostError
from bhyved.core.snapshots import BY, CONFIG, CONSISTENCY, VM, Dataset, Seen

ZVOLS = "/dev/zvol/"


class FakeDatasets:
    """Satisfies `daemon.ports.Datasets`. `hindered`: what a rollback of this dataset fails with; `gate`: what everything waits for."""

    def __init__(self) -> None:
        self.taken: list[Seen] = []
        self.did: list[str] = []
        self.counts = 0
        self.hindered: dict[str, str] = {}
        self.on_snapshot: Callable[[], object] = lambda: None
        self.gate = trio.Event()
        self.gate.set()

    async def locate(self, paths: Sequence[str]) -> tuple[Dataset, ...]:
        await trio.lowlevel.checkpoint()
        for path in paths:
            if not path.startswith(ZVOLS):
                raise HostError(f"disk {path} is not on ZFS", fatal=True)
        return tuple(Dataset(name=path.removeprefix(ZVOLS), disks=(path,)) for path in paths)

    async def look(self, datasets: Sequence[Dataset]) -> list[Seen]:
        await trio.lowlevel.checkpoint()
        names = [dataset.name for dataset in datasets]
        return [seen for seen in self.taken if seen.dataset in names]

    async def count(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        self.counts += 1
        await self.gate.wait()
        return {name: {seen.name: seen.at_s for seen in self.taken if seen.dataset == name} for name in names}

    async def snapshot(self, datasets: Sequence[Dataset], name: str, properties: Mapping[str, str], *, limit_s: float) -> None:
        await self.gate.wait()
        self.on_snapshot()
        for dataset in datasets:
            self.add(f"{dataset.name}@{name}", **properties)

    def add(self, full: str, at_s: int = 0, **properties: str) -> None:
        """A snapshot, newer than all others."""
        dataset, _, name = full.partition("@")
        txg = len(self.taken) + 1
        vm, how, by, config = (properties.get(key, "") for key in (VM, CONSISTENCY, BY, CONFIG))
        self.taken.append(Seen(dataset=dataset, name=name, txg=txg, at_s=at_s or txg, vm=vm, consistency=how, by=by, config=config))

    async def destroy(self, full: str) -> None:
        await trio.lowlevel.checkpoint()
        self.did.append(f"destroy {full}")
        self.taken = [seen for seen in self.taken if seen.full != full]

    async def roll_back(self, vm: str, full: str, *, destroy_newer: bool) -> None:
        await self.gate.wait()
        dataset = full.partition("@")[0]
        if dataset in self.hindered:
            raise HostError(self.hindered[dataset])
        self.did.append(f"rollback {full}{' -r' if destroy_newer else ''}")
