"""File systems of a guest that stand still for a moment, and go on whatever happens.

That a guest may be frozen is in its record on disk before its agent is asked, so that a daemon that comes after one that was killed
thaws it: the agent itself would keep it frozen for ever.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from bhyved.core.status import Phase
from bhyved.daemon.agent import FREEZE_S, AgentError
from bhyved.daemon.run import Run
from bhyved.daemon.standing import Standing

THAW_TRIES = 3
THAW_S = 10.0
PAUSE_S = 1.0
REMEDY = "its file systems may still be frozen: thaw them inside it (fsfreeze -u), or reset it"


class Frozen(msgspec.Struct, frozen=True):
    """Whether file systems are, and why not; a guest without an agent needs no reason."""

    is_frozen: bool = False
    why: str = ""


class Freezing:
    """One guest's."""

    def __init__(self, standing: Standing) -> None:
        self._of = standing

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[Frozen]:
        """Freeze what the guest's agent can freeze, and thaw it at the end."""
        of, run = self._of, self._of.run
        path = "" if run is None else of.agent_path(run)
        if run is None or of.life.phase is not Phase.UP or not path:
            yield Frozen()
            return
        with trio.CancelScope(shield=True):  # bounded by the agent's limits: once it is asked, the guest has to be thawed
            why, said = await self._freeze(run, path)
        try:
            yield Frozen(is_frozen=not why, why=why)
        finally:
            if said:
                with trio.CancelScope(shield=True):  # bounded by the tries
                    await self._thaw(run, path)

    @property
    def may_be_left(self) -> bool:
        """A daemon that was killed may have left the present run frozen."""
        return self._of.run is not None and self._of.record.frozen_run == self._of.run.id

    async def thaw_left(self) -> None:
        """Thaw what was left so."""
        of, run = self._of, self._of.run
        if run is None:
            return
        of.chronicle.tell("warning", "an earlier daemon may have left its file systems frozen: they are thawed")
        await self._thaw(run, of.agent_path(run))

    async def _freeze(self, run: Run, path: str) -> tuple[str, bool]:
        """Why nothing is frozen, or ''; and whether the agent was asked at all."""
        asked = False
        try:
            async with self._of.agent.visit(path) as visit:
                await visit.sync()
                await self._note(run.id)
                asked = True
                count = await visit.ask("guest-fsfreeze-freeze", FREEZE_S)
        except AgentError as error:
            return str(error), asked
        return ("" if isinstance(count, int) and count > 0 else "its agent has frozen nothing"), asked

    async def _thaw(self, run: Run, path: str) -> None:
        why = ""
        for number in range(THAW_TRIES):
            if number:
                await trio.sleep(PAUSE_S)
            if self._of.run is not run:
                break  # it has ended, and its file systems with it
            try:
                async with self._of.agent.visit(path) as visit:
                    await visit.sync()
                    # The agent does one thing after the other: also a guest that is still busy freezing is thawed.
                    await visit.ask("guest-fsfreeze-thaw", THAW_S)
                why = ""
                break
            except AgentError as error:
                why = str(error)
        if why:
            self._of.chronicle.tell("thaw-failed", f"{why}; {REMEDY}")
        else:
            await self._note("")

    async def _note(self, run: str) -> None:
        """On disk when this returns, unless the disk will not take it."""
        of = self._of
        of.record = msgspec.structs.replace(of.record, frozen_run=run)
        of.keep()
        await of.kept()
