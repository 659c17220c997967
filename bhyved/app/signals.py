"""What the daemon does on a signal: HUP reads the files again, USR1 leaves the guests running, TERM and INT stop them in order.

Nothing but a signal ends a daemon that has begun, and only TERM and INT end its guests.
"""

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import trio

from bhyved.core import hostend
from bhyved.core.errors import HostError
from bhyved.daemon.events import Events
from bhyved.daemon.supervisor import Supervisor
from bhyved.host import durable
from bhyved.host.freebsd import FreeBsdHost

_log = structlog.get_logger()

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
OK, LEFT = 0, 99  # LEFT: SIGUSR1, guests run on, and the respawner starts the next daemon at once
SHUTDOWN_FILE = "shutdown"  # written by the rc script, in RUN
LEAVE_S = 10.0  # for hooks, when guests run on: whoever restarts the daemon wants the next one soon
INSIST_S = 1.0  # a second INT sooner than this is the same finger

Received = AsyncIterator[int]


class Signals:
    """Obeys them, one after the other. `run`: where the rc script tells of the end of the host."""

    def __init__(self, guests: Supervisor, events: Events, host: FreeBsdHost, run: Path) -> None:
        self._guests, self._events, self._host, self._run = guests, events, host, run

    async def obey(self, received: Received) -> int:
        """Until one of them ends the daemon; the exit status."""
        async for number in received:
            _log.info("signal", signal=signal.Signals(number).name)
            match number:
                case signal.SIGHUP:
                    await self._reload()
                case signal.SIGUSR1:
                    self._events.tell("leaving", reason="bhyved ends; its guests run on")
                    with trio.move_on_after(LEAVE_S):
                        await self._guests.hooks_done()
                    return LEFT
                case _:
                    await self.stop(number, received)
                    return OK
        raise AssertionError("the receiver of signals has no end")

    async def _reload(self) -> None:
        try:
            done = await self._guests.reload(plan_only=False, prune=False, by="SIGHUP")
        except HostError as error:
            _log.error("reload refused", problem=str(error))
            return
        for sentence in done.problems:
            _log.error("reload refused", problem=sentence)

    async def stop(self, number: int | None, received: Received) -> None:
        """Stop every guest in order, and let their hooks end; a second INT skips the grace. Repeating TERM changes nothing.

        `number`: of the signal that asks for it; None: `bhyved --stop-all`.
        """
        end, end_at = await self._host_end()
        by = f"bhyved --stop-all{end}" if number is None else f"{signal.Signals(number).name}{end}"
        stopping = self._guests.stop_all(by=by, end_at=end_at)
        began = trio.current_time()
        hooks = trio.CancelScope()
        are_down = False

        async def insist() -> None:
            async for again in received:
                if again == signal.SIGINT and trio.current_time() - began >= INSIST_S:
                    _log.warning("hooks are killed" if are_down else "grace skipped", signal="SIGINT")
                    if are_down:
                        hooks.cancel()
                    else:
                        stopping.force()
                elif again == signal.SIGUSR1:
                    _log.warning("SIGUSR1 ignored", reason="guests are being stopped")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(insist)
            await stopping.done()
            are_down = True
            if end_at is not None:
                hooks.deadline = trio.current_time() + max(0.0, end_at - time.monotonic())
            with hooks:
                await self._guests.hooks_done()
            nursery.cancel_scope.cancel()
        self._events.tell("stopped", by=by)

    async def _host_end(self) -> tuple[str, float | None]:
        """What the rc script says of the end of the host: words, and the deadline."""
        try:
            text = durable.read_plain(f"{self._run}/{SHUTDOWN_FILE}", 4096).decode(errors="replace")
        except OSError:
            return "", None
        end = hostend.parse(text)
        if end.timeout_s is None:
            return "", None
        _, init_s = await self._host.shutdown_limits()
        end_at = hostend.deadline(end, init_s, float(self._guests.daemon_spec.shutdown.margin), time.monotonic())
        return f" ({end.reason or 'shutdown'} of the host)", end_at
