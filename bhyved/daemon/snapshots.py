"""Snapshots of guests: taken, listed, destroyed, and gone back to. `snapshotmethods` is how people ask for it.

What no run may meet is done while the guest's turn to start is barred: whoever starts it meanwhile waits, and is told for what. A
rollback of several disks cannot be one step, so that it is a hold on disk as well: behind a daemon that was killed in the middle, no
automation starts a guest with disks of two times.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from typing import Protocol

import trio

from bhyved.core import snapshots
from bhyved.core.answers import SnapshotAnswer, SnapshotList
from bhyved.core.errors import HostError
from bhyved.core.lifecycle import Answer, Release, SetHold, Wish
from bhyved.core.snapshots import IDLE, Consistency, Dataset, Refused, Seen
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import Hold, Phase, VmStatus
from bhyved.daemon.board import Board
from bhyved.daemon.census import on_zfs
from bhyved.daemon.events import Events
from bhyved.daemon.freezing import Frozen
from bhyved.daemon.ports import Datasets

UNFINISHED = "a rollback was begun and not finished: roll back again"
TAKE_S = 60.0  # a transaction group of a busy pool takes seconds
FROZEN_S = 10.0  # the guest's programs stand still meanwhile


class Barred(Protocol):
    """What is asked of the guests; the supervisor is it."""

    @property
    def board(self) -> Board: ...

    @property
    def events(self) -> Events: ...

    @property
    def daemon_spec(self) -> DaemonSpec: ...

    def utc(self) -> datetime: ...

    def names(self) -> list[str]: ...

    def spec(self, name: str) -> VmSpec | None: ...

    def started_spec(self, name: str) -> VmSpec | None: ...

    def submit(self, name: str, wish: Wish) -> Answer: ...

    def bar(self, name: str, why: str) -> None: ...

    def unbar(self, name: str) -> None: ...

    def frozen(self, name: str) -> AbstractAsyncContextManager[Frozen]: ...

    async def kept(self, *names: str) -> None: ...


class Snapshots:
    """Of all guests. Methods raise Refused for what is not to be done, and HostError for what the host would not do."""

    def __init__(self, guests: Barred, datasets: Datasets, changed: Callable[[], None]) -> None:
        self._guests, self._datasets, self._changed = guests, datasets, changed
        self._busy: dict[str, str] = {}

    async def take(self, vm: str, name: str, *, by: str) -> SnapshotAnswer:
        """One of all its disks."""
        with self._at_work(vm, f"a snapshot of it, {name}, to be taken"):
            datasets = await self._located(vm)
            if any(each.name == name and not each.is_bookmark for each in await self._datasets.look(datasets)):
                raise Refused("exists", f"{vm} has a snapshot {name} already")
            async with self._guests.frozen(vm) as frozen:
                how = await self._take(vm, name, datasets, is_frozen=frozen.is_frozen, by=by)
        text = f"snapshot {name} taken: {how}, {_disks(datasets)}"
        if how is Consistency.PER_POOL:
            text += f", which are in {len(snapshots.by_pool(datasets))} pools and were taken one pool after the other"
        if frozen.why:
            text += f" ({frozen.why})"
        self._tell("snapshot", vm, text, by, snapshot=name, consistency=how)
        phase = self._status(vm).phase
        return SnapshotAnswer(name=vm, ok=True, code="accepted", text=text, phase=phase, snapshot=name, consistency=how)

    async def _take(self, vm: str, name: str, datasets: tuple[Dataset, ...], *, is_frozen: bool, by: str) -> Consistency:
        status = self._status(vm)
        how = snapshots.consistency(status, is_frozen=is_frozen, pools=len(snapshots.by_pool(datasets)))
        idle = status.phase in IDLE
        if idle:  # what it is called stays true: nothing starts it before it is taken
            self._guests.bar(vm, f"waiting for a snapshot of it, {name}, to be taken")
        try:
            with trio.CancelScope(shield=True):  # bounded by the command's own limit
                found = snapshots.properties(status, self._spec(vm), how, by)
                await self._datasets.snapshot(datasets, name, found, limit_s=FROZEN_S if is_frozen else TAKE_S)
        finally:
            if idle:
                self._guests.unbar(vm)
        return how

    async def listed(self, vm: str) -> SnapshotList:
        """Those of all its disks, oldest first."""
        datasets = await self._located(vm)
        found = snapshots.of_guest(vm, datasets, await self._datasets.look(datasets))
        return SnapshotList(name=vm, datasets=tuple(each.name for each in datasets), snapshots=found)

    async def find(self, vm: str, wanted: str) -> list[Seen]:
        """What `destroy` would destroy."""
        datasets = await self._located(vm)
        return snapshots.to_destroy(vm, datasets, await self._datasets.look(datasets), wanted)

    async def destroy(self, vm: str, wanted: str, *, by: str) -> str:
        """One of bhyved's by its name, any other one in full; a sentence."""
        with self._at_work(vm, f"its snapshot {wanted} to be destroyed"), trio.CancelScope(shield=True):
            parts = await self.find(vm, wanted)
            for part in parts:
                await self._datasets.destroy(part.full)
        text = f"snapshot {wanted} of {vm} destroyed"
        self._tell("snapshot-deleted", vm, text, by, snapshot=wanted)
        return text

    async def roll_back(self, vm: str, name: str, *, destroy_newer: bool, by: str) -> tuple[str, tuple[str, ...]]:
        """All its disks: a sentence, and the keys of its configuration that were different then."""
        why = f"waiting for its rollback to {name}"
        with self._at_work(vm, f"its rollback to {name}"), self._down(vm, why), trio.CancelScope(shield=True):
            datasets = await self._located(vm)
            targets = snapshots.to_roll_back(vm, datasets, await self._datasets.look(datasets), name, destroy_newer=destroy_newer)
            self._refuse_other_memory(vm, targets)
            await self._look_around(vm, datasets)
            await self._go_back(vm, targets, destroy_newer=destroy_newer, by=by)
        changes = snapshots.config_changes(targets[0].config, self._spec(vm)) if targets[0].vm == vm else ()
        text = f"{vm} is rolled back to {name}: {_disks(datasets)}"
        if changes:
            text += f"; its configuration was different then: {', '.join(changes)}"
        self._tell("rollback", vm, text, by, snapshot=name)
        return text, changes

    async def _go_back(self, vm: str, targets: list[Seen], *, destroy_newer: bool, by: str) -> None:
        hold = self._status(vm).hold
        interim = Hold(by=by, reason=UNFINISHED, since_at=self._guests.utc(), until_at=None)
        self._guests.submit(vm, SetHold(hold=interim))
        await self._guests.kept(vm)
        done: list[str] = []
        for target in targets:
            try:
                await self._datasets.roll_back(vm, target.full, destroy_newer=destroy_newer)
            except HostError as error:
                if not done:
                    self._hold_again(vm, hold, by)
                    raise
                why = f"{', '.join(done)} went back, {target.dataset} did not: {error}; {vm} is held: {UNFINISHED}"
                self._tell("rollback-failed", vm, why, by)
                raise HostError(why) from None
            done.append(target.dataset)
        self._hold_again(vm, hold, by)

    def _hold_again(self, vm: str, hold: Hold | None, by: str) -> None:
        """As before; a hold that an unfinished rollback had left is over."""
        before = None if hold is not None and hold.reason == UNFINISHED else hold
        self._guests.submit(vm, Release(by=by) if before is None else SetHold(hold=before))

    # --- what must be so -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _at_work(self, vm: str, what: str) -> Iterator[None]:
        """One thing at a time is done to the disks of a guest."""
        if vm in self._busy:
            raise Refused("busy", f"{vm} waits for {self._busy[vm]}: try again when that is done")
        self._busy[vm] = what
        try:
            yield
        finally:
            del self._busy[vm]
            self._changed()

    @contextmanager
    def _down(self, vm: str, why: str) -> Iterator[None]:
        """The guest is down, and stays so."""
        status = self._status(vm)
        if status.phase is not Phase.DOWN:
            raise Refused("not-down", f"{vm} is {status.phase}: its disks go back only while it is down: vmctl stop {vm}")
        self._guests.bar(vm, why)
        try:
            yield
        finally:
            self._guests.unbar(vm)

    def _refuse_other_memory(self, vm: str, targets: Sequence[Seen]) -> None:
        """The memory of a suspended guest fits its disks as they were then, and no older ones."""
        suspended = self._status(vm).suspended
        if suspended is not None and any(target.at_s < int(suspended.at.timestamp()) for target in targets):
            text = (
                f"{vm} is suspended, and its memory would not fit disks from before that: boot it first (vmctl start --cold), and stop it"
            )
            raise Refused("suspended", text)

    async def _look_around(self, vm: str, datasets: tuple[Dataset, ...]) -> None:
        """Nothing else must go back along with the disks."""
        names = {dataset.name for dataset in datasets}
        shared: dict[str, dict[str, str]] = {name: {} for name in names}
        for other in self._guests.names():
            specs = [spec for spec in (self._guests.spec(other), self._guests.started_spec(other)) if spec is not None and other != vm]
            for path in dict.fromkeys(path for spec in specs for path in snapshots.disk_paths(spec)):
                for dataset in await on_zfs(self._datasets, [path]):
                    if dataset.name in names:
                        shared[dataset.name][path] = other
        paths = self._guests.daemon_spec.paths
        for dataset in datasets:
            why = snapshots.stands_in_the_way(dataset, shared[dataset.name], map(str, (paths.run, paths.db, paths.log)))
            if why:
                raise Refused("shared-dataset", why)

    async def _located(self, vm: str) -> tuple[Dataset, ...]:
        spec = self._spec(vm)
        paths = snapshots.disk_paths(spec)
        if not paths:
            raise Refused("no-disks", f"{vm} has no disk that it may write")
        return await self._datasets.locate(paths)

    def _spec(self, vm: str) -> VmSpec:
        """What it runs with, or else what its file says."""
        spec = self._guests.started_spec(vm) or self._guests.spec(vm)
        if spec is None:
            raise Refused("no-file", f"{vm} has no configuration file: which disks it has is not known")
        return spec

    def _status(self, vm: str) -> VmStatus:
        status = self._guests.board.get(vm)
        if status is None:
            raise Refused("no-such-guest", f'there is no guest "{vm}"')
        return status

    def _tell(self, event: str, vm: str, reason: str, by: str, **data: str) -> None:
        self._guests.events.tell(event, vm=vm, phase=None, reason=reason, by=by, **data)


def _disks(datasets: tuple[Dataset, ...]) -> str:
    count = sum(len(dataset.disks) for dataset in datasets)
    whole = [dataset.name for dataset in datasets if dataset.mountpoint]
    text = "1 disk" if count == 1 else f"{count} disks"
    return f"{text}, with all that is in {' and '.join(whole)}" if whole else text
