"""The health of one guest while it is ready: asks its probes in rounds, and says when it is ill and when it is well again.

Opt-in (`[health]`), and the only thing in the daemon that wakes up for a guest that does nothing.
"""

import re
from collections.abc import Awaitable, Callable

import trio

from bhyved.core.errors import HostError
from bhyved.core.health import Course, Turn, after_round, sentence
from bhyved.core.spec import Health
from bhyved.daemon.console import Consoles
from bhyved.daemon.ports import Machine
from bhyved.daemon.readiness import Questions

Ill = Callable[[str], Awaitable[None]]

_GLANCE_S = 0.1  # to look for a heartbeat in what the console has kept


class HealthWatch:
    """One guest's. `ill` is called with why, `well` with nothing; `start` has an async function run as a task."""

    def __init__(
        self, name: str, consoles: Consoles, machine: Machine, *, ill: Ill, well: Callable[[], None], start: Callable[..., None]
    ) -> None:
        self._name, self._consoles, self._machine, self._ill, self._well = name, consoles, machine, ill, well
        self._start = start
        self._exits: int | None = None  # at the last look
        self._scope = trio.CancelScope()

    def begin(self, spec: Health, questions: Questions) -> None:
        """Watch from now until `over`, which may come before the task has begun; it takes the place of the watch before."""
        self._scope.cancel()
        self._scope = trio.CancelScope()
        self._start(self._watch, self._scope, spec, questions)

    async def _watch(self, scope: trio.CancelScope, spec: Health, questions: Questions) -> None:
        with scope:
            await trio.sleep(float(spec.grace))
            course, since, self._exits = Course(), self._console_end(), None
            if spec.vcpus:
                await self._standing_still()
            while True:
                await trio.sleep(float(spec.period))
                answers = await questions.round(spec)
                if spec.console is not None:
                    answers["console"] = await self._beat(spec.console, since)
                    since = self._console_end()
                if spec.vcpus:
                    answers["vcpus"] = await self._standing_still()
                course, turn = after_round(spec, course, answers)
                if turn is Turn.ILL:
                    await self._ill(sentence(spec, answers))
                elif turn is Turn.WELL:
                    self._well()

    def over(self) -> None:
        """The run has ended, or nobody wants to know any more."""
        self._scope.cancel()

    async def _standing_still(self) -> str:
        """Why the guest's processors seem not to have run since the last look, or ''."""
        try:
            before, self._exits = self._exits, await self._machine.vm_exits()
        except HostError as error:
            return str(error)
        return "no processor of the guest has run since the last look" if self._exits == before else ""

    def _console_end(self) -> int:
        hubs = self._consoles.hubs(self._name)
        return hubs[0].ring.end if hubs else 0

    async def _beat(self, pattern: str, since: int) -> str:
        hubs = self._consoles.hubs(self._name)
        if not hubs:
            return "the guest has no recorded console"
        with trio.move_on_after(_GLANCE_S):
            await hubs[0].wait_for(re.compile(pattern.encode()), since)
            return ""
        return f'nothing new like "{pattern}"'
