"""When a guest counts as ready: one question of `[order] ready`, asked until it is answered or its time is up.

The console is waited for. The others are polled, since no system tells when a port opens or a command would succeed: at PERIOD_S.
"""

import contextlib
import re
from collections.abc import Awaitable, Callable

import trio

from bhyved.core.errors import HostError
from bhyved.core.spec import Ready
from bhyved.core.values import split_endpoint
from bhyved.daemon.console import Consoles
from bhyved.daemon.ports import Commands

PERIOD_S = 1.0  # between two questions to a guest that is not ready yet
ASK_S = 5.0  # for one answer
_AGENT_PORT = "org.qemu.guest_agent.0"


class Questions:
    """Asks one guest."""

    def __init__(self, name: str, consoles: Consoles, commands: Commands, run_as: str, agent_path: str = "") -> None:
        self._name, self._consoles, self._commands, self._run_as = name, consoles, commands, run_as
        self._agent_path = agent_path

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
        await _poll(self._question(ready))

    def _question(self, ready: Ready) -> Callable[[], Awaitable[bool]]:
        if ready.tcp is not None:
            address, port = split_endpoint(ready.tcp)
            return lambda: _connects(address, port)
        if ready.ping is not None:
            argv: tuple[str, ...] = (
                "ping",
                "-n",
                "-c",
                "1",
                "-t",
                str(int(ASK_S)),
                str(ready.ping),
            )  # ping(8): -t is the time limit in seconds
            return lambda: self._succeeds(argv)
        if ready.command is not None:
            argv = tuple(map(str, ready.command))
            return lambda: self._succeeds(argv)
        return lambda: agent_answers(self._agent_path)

    async def _succeeds(self, argv: tuple[str, ...]) -> bool:
        try:
            ran = await self._commands.run(argv, limit_s=ASK_S, env={"BHYVED_VM": self._name}, run_as=self._run_as)
        except HostError:
            return False
        return ran.status == 0


async def _poll(question: Callable[[], Awaitable[bool]]) -> None:
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


async def agent_answers(path: str) -> bool:
    """Whether the QEMU guest agent behind a virtio-console socket answers `guest-ping`.

    bhyve takes one client and a client must read (contract 3.2): one short visit, that takes all that comes.
    """
    with trio.move_on_after(ASK_S), contextlib.suppress(OSError):
        async with await trio.open_unix_socket(path) as stream:
            # 0xff makes the agent forget half a request of whoever came before (guest-sync-delimited).
            await stream.send_all(b'\xff{"execute":"guest-ping"}\n')
            received = b""
            while b'"return"' not in received:
                data = await stream.receive_some(4096)
                if not data or len(received) > 1 << 16:
                    return False
                received += data
            return True
    return False


def agent_port() -> str:
    """The virtio-console port that the QEMU guest agent listens at in the guest."""
    return _AGENT_PORT
