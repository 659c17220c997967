"""When a guest counts as ready: one question of `[order] ready`, asked until it is answered or its time is up.

The console is waited for. The others are polled, since no system tells when a port opens or a command would succeed: at PERIOD_S.
A question is answered by '', which is yes, or by why not, in words.
"""

import os
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


Question = Callable[[], Awaitable[str]]


class Questions:
    """Asks one guest."""

    def __init__(self, name: str, consoles: Consoles, commands: Commands, run_as: str, agent: Agent, agent_path: str) -> None:
        self._name, self._consoles, self._commands, self._run_as = name, consoles, commands, run_as
        self._agent, self._agent_path = agent, agent_path

    async def ready(self, ready: Ready, since: int, uptime_s: float, no: Callable[[str], None]) -> bool:
        """Whether the guest became ready in time. `since`: the console's offset where its run began; `uptime_s`: how long it runs.

        `no` is told why, each time it is not ready.
        """
        if ready.uptime is not None:
            await trio.sleep(max(0.0, float(ready.uptime) - uptime_s))
            return True
        with trio.move_on_after(float(ready.timeout)):
            await self._wait(ready, since, no)
            return True
        return False

    async def _wait(self, ready: Ready, since: int, no: Callable[[str], None]) -> None:
        if ready.console is not None:
            hubs = self._consoles.hubs(self._name)
            if not hubs:
                await trio.sleep_forever()  # no console, no answer: on-timeout decides
            await hubs[0].wait_for(re.compile(ready.console.encode()), since)
            return
        (question,) = self._questions(ready).values()
        while why := await question():
            no(why)
            await trio.sleep(PERIOD_S)

    async def round(self, health: Health) -> dict[str, str]:
        """The answers to every probe but the console's, asked one after the other."""
        return {probe: await question() for probe, question in self._questions(health).items()}

    def _questions(self, table: Ready | Health) -> dict[str, Question]:
        found: dict[str, Question] = {}
        if table.tcp is not None:
            address, port = split_endpoint(table.tcp)
            found["tcp"] = lambda: _connects(address, port)
        if table.ping is not None:
            ping = ("ping", "-n", "-c", "1", "-t", str(int(ASK_S)), str(table.ping))  # ping(8): -t is the time limit in seconds
            found["ping"] = lambda: self._succeeds(ping, "no answer")
        if table.command is not None:
            argv = tuple(map(str, table.command))
            found["command"] = lambda: self._succeeds(argv)
        if table.agent:
            found["agent"] = lambda: self._agent.problem(self._agent_path)
        return found

    async def _succeeds(self, argv: tuple[str, ...], why_not: str = "") -> str:
        try:
            ran = await self._commands.run(argv, limit_s=ASK_S, env={"BHYVED_VM": self._name}, run_as=self._run_as)
        except HostError as error:
            return str(error)
        if ran.status == 0:
            return ""
        if why_not:
            return why_not
        ended = f"it did not end within {ASK_S:g} s" if ran.status is None else f"it ended with status {ran.status}"
        return f"{ended}: {ran.text}" if ran.text else ended


async def _connects(address: str, port: int) -> str:
    with trio.move_on_after(ASK_S):
        try:
            stream = await trio.open_tcp_stream(address, port)
        except OSError as error:
            return _cause(error)
        await trio.aclose_forcefully(stream)
        return ""
    return f"no answer within {ASK_S:g} s"


def _cause(error: OSError) -> str:
    """trio's words are those of addresses, which we know; why is behind them."""
    causes = error.__cause__.exceptions if isinstance(error.__cause__, BaseExceptionGroup) else (error.__cause__,)
    found = next((cause for cause in (*causes, error) if isinstance(cause, OSError) and cause.errno), None)
    return str(error) if found is None or found.errno is None else os.strerror(found.errno).lower()
