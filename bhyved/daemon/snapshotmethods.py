"""vm.snapshot, vm.snapshots, vm.snapshot-delete and vm.rollback: what people ask of `daemon.snapshots`."""

from collections.abc import Awaitable
from typing import TypeVar

import trio

from bhyved.core import snapshots as naming
from bhyved.core.answers import Answers, Done, RolledBack, SnapshotAnswer, SnapshotList, Told
from bhyved.core.errors import HostError
from bhyved.core.jsonrpc import REFUSED, Fault
from bhyved.core.params import OfGuest, RollbackParams, SnapshotDeleteParams, SnapshotParams
from bhyved.core.rights import Right
from bhyved.core.snapshots import Refused
from bhyved.daemon.access import Access, Handler
from bhyved.daemon.guests import Guests
from bhyved.daemon.snapshots import Snapshots

_T = TypeVar("_T")


class SnapshotMethods:
    """Handlers by method, as in `guestmethods`."""

    def __init__(self, guests: Guests, snapshots: Snapshots) -> None:
        self._guests, self._snapshots = guests, snapshots
        self.handlers: dict[str, Handler] = {
            "vm.snapshot": self._take,
            "vm.snapshots": self._list,
            "vm.snapshot-delete": self._delete,
            "vm.rollback": self._roll_back,
        }

    async def _take(self, caller: Access, params: SnapshotParams) -> Answers:
        """One guest after the other, all by one name."""
        name = naming.default_name(self._guests.utc()) if params.snapshot is None else params.snapshot
        _check_name(name)
        names = caller.guests(Right.OPERATE) if params.all else list(dict.fromkeys(params.names))
        answers: list[Told] = []
        for vm in names:
            answers.append(await self._taken(caller, vm, name))
            await trio.lowlevel.checkpoint()
        return Answers(answers=answers)

    async def _taken(self, caller: Access, vm: str, name: str) -> Told:
        fault = caller.refusal(Right.OPERATE, vm)
        if fault is not None:
            return Told(name=vm, ok=False, code=fault.code, text=fault.text)
        try:
            return await _or_fault(self._snapshots.take(vm, name, by=caller.peer.name))
        except Fault as refused:
            code, text = refused.code, refused.text
        status = self._guests.board.get(vm)
        return SnapshotAnswer(name=vm, ok=False, code=code, text=text, phase=None if status is None else status.phase)

    async def _list(self, caller: Access, params: OfGuest) -> SnapshotList:
        return await _or_fault(self._snapshots.listed(params.name))

    async def _delete(self, caller: Access, params: SnapshotDeleteParams) -> Done:
        parts = await _or_fault(self._snapshots.find(params.name, params.snapshot))
        if any(part.vm != params.name for part in parts):
            caller.require_over(Right.ADMIN, params.name)  # a guest's owner may undo what bhyved took, and nothing else
        return Done(text=await _or_fault(self._snapshots.destroy(params.name, params.snapshot, by=caller.peer.name)))

    async def _roll_back(self, caller: Access, params: RollbackParams) -> RolledBack:
        _check_name(params.snapshot)
        going = self._snapshots.roll_back(params.name, params.snapshot, destroy_newer=params.destroy_newer, by=caller.peer.name)
        text, changes = await _or_fault(going)
        return RolledBack(text=text, config_changes=changes)


def _check_name(name: str) -> None:
    problem = naming.name_problem(name)
    if problem:
        raise Fault(REFUSED, "bad-name", problem)


async def _or_fault(asked: Awaitable[_T]) -> _T:
    try:
        return await asked
    except Refused as refused:
        raise Fault(REFUSED, refused.code, refused.text) from None
    except HostError as error:
        raise Fault(REFUSED, "host", str(error)) from None
