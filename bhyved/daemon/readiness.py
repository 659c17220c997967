"""When a guest counts as ready: one question of `[order] ready`, asked until it is answered or its time is up.

The console is waited for. The others are polled, since no system tells when a port opens or a command would succeed: at PERIOD_S.
"""

import re
from collections.abc import Awaitable, Callable

import trio

from bhyved.core.errors import HostError
from bhyved.core.spec import Health, Ready
from bhyved.core.values import split_endpoint
from bhyved.daemon.agent import Agent
from bhyved.daemon.console import Consoles
from bhyved.daemon.ports import Commands

PERIOD_S = 1.0  # between two questions to a guest that is not ready yet
ASK_S = 5.0  # for one answer


Question = Callable[[], Awaitable[bool]]


class Questions:
    """Asks one guest."""

    def __init__(self, name: str, consoles: Consoles, commands: Commands, run_as: str, agent: Agent, agent_path: str) -> None:
        self._name, self._consoles, self._commands, self._run_as = name, consoles, commands, run_as
        self._agent, self._agent_path = agent, agent_path

    async def ready(self, ready: Ready, since: int, uptime_s: float) -> bool:
        """Whether the guest became ready in time. `since`: the console's offset where its run began; `uptime_s`: how long it runs."""
        if ready.uptime is not None:
            await trio.sleep(max(0.0, float(ready.uptime) - uptime_s))
            return True
        with trio.move_on_after(float(ready.timeout)):
            await self._wait(ready, since)
            return True
        return False

    async def _wait(self, ready: Ready, since: int) -> None:
        if ready.console is not None:
            hubs = self._consoles.hubs(self._name)
            if not hubs:
                await trio.sleep_forever()  # no console, no answer: on-timeout decides
            await hubs[0].wait_for(re.compile(ready.console.encode()), since)
            return
        (question,) = self._questions(ready).values()
        await _poll(question)

    async def round(self, health: Health) -> dict[str, bool]:
        """Every probe but the console's, one after the other: which of them has succeeded."""
        return {probe: await question() for probe, question in self._questions(health).items()}

    def _questions(self, table: Ready | Health) -> dict[str, Question]:
        found: dict[str, Question] = {}
        if table.tcp is not None:
            address, port = split_endpoint(table.tcp)
            found["tcp"] = lambda: _connects(address, port)
        if table.ping is not None:
            ping = ("ping", "-n", "-c", "1", "-t", str(int(ASK_S)), str(table.ping))  # ping(8): -t is the time limit in seconds
            found["ping"] = lambda: self._succeeds(ping)
        if table.command is not None:
            argv = tuple(map(str, table.command))
            found["command"] = lambda: self._succeeds(argv)
        if table.agent:
            found["agent"] = lambda: self._agent.answers(self._agent_path)
        return found

    async def _succeeds(self, argv: tuple[str, ...]) -> bool:
        try:
            ran = await self._commands.run(argv, limit_s=ASK_S, env={"BHYVED_VM": self._name}, run_as=self._run_as)
        except HostError:
            return False
        return ran.status == 0


async def _poll(question: Question) -> None:
    while not await question():  # noqa: ASYNC110 - nobody here could set an event
        await trio.sleep(PERIOD_S)


async def _connects(address: str, port: int) -> bool:
    with trio.move_on_after(ASK_S):
        try:
            stream = await trio.open_tcp_stream(address, port)
        except OSError:
            return False
        await trio.aclose_forcefully(stream)
        return True
    return False
