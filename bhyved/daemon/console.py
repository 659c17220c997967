"""The consoles of all guests: a hub for each recorded port, for as long as the guest is configured.

consoles = Consoles(ports, tell, time.time)                           # app
await nursery.start(consoles.run)                                     # before the supervisor
consoles.open(name, consoles_of(name, spec, …))                       # guest added or its file changed; idempotent
await consoles.ready(name)                                            # before a start: lines open, or their hubs say why not
consoles.mark(name, "boot", "run 7 by autostart", run=order.run)      # before the loader
since = consoles.settle(name)                                         # before spawn_bhyve: offsets by port
machine.spawn_bhyve(consoles.fds(name))                               # the keeper inherits side B
await consoles.first_byte(name, since)                                # starting -> up
await consoles.hub(name, "com1").wait_for(pattern, since["com1"])     # ready
consoles.mark(name, "exit", exit.text)
consoles.close(name)                                                  # guest forgotten
"""

from collections.abc import Callable, Mapping, Sequence

import structlog
import trio

from bhyved.core.console import ConsoleSpec, ConsoleStats, MarkKind
from bhyved.core.errors import HostError
from bhyved.daemon.consoleports import ConsolePorts, Shared, Tell
from bhyved.daemon.hub import ConsoleHub
from bhyved.daemon.rawsocket import serve_raw
from bhyved.threads import in_thread

_log = structlog.get_logger()

#: A line opens at once or not at all; a socket of bhyve's is not waited for.
READY_S = 5.0


class _Entry:
    """A hub and what ends it."""

    def __init__(self, hub: ConsoleHub) -> None:
        self.hub = hub
        self.scope = trio.CancelScope()
        self.over = trio.Event()


class Consoles:
    """Every hub, by guest and port."""

    def __init__(self, ports: ConsolePorts, tell: Tell, clock: Callable[[], float]) -> None:
        self._shared = Shared(ports=ports, tell=tell, clock=clock)
        self._guests: dict[str, dict[str, _Entry]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the consoles until cancelled. Guests may be added before and while it runs."""
        async with trio.open_nursery() as pumping:
            pumping.start_soon(self._shared.pump.run)
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for entries in self._guests.values():
                        for entry in entries.values():
                            nursery.start_soon(self._keep, entry)
                    task_status.started()
                    await trio.sleep_forever()
            finally:
                self._nursery = None
                self._shared.pump.stop()

    async def _keep(self, entry: _Entry) -> None:
        try:
            with entry.scope:
                if not entry.hub.spec.socket:
                    await entry.hub.run()
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve_raw, entry.hub)
                    await entry.hub.run()
        except Exception as error:
            # One console's bug is not the others', nor their guests'.
            _log.exception("console ended", vm=entry.hub.name, port=entry.hub.port)
            entry.hub.broken(error)
        finally:
            entry.over.set()

    # --- for supervisor and driver -------------------------------------------------------------------------------------------

    def open(self, name: str, specs: Sequence[ConsoleSpec]) -> None:
        """Have exactly these consoles for a guest. A changed one begins anew, and its viewers come back to it."""
        had = self._guests.get(name, {})
        entries = {}
        for number, spec in enumerate(specs):
            old = had.pop(spec.port, None)
            if old is not None and old.hub.spec == spec:
                entries[spec.port] = old
                continue
            hub = ConsoleHub(name, spec, self._shared, first=number == 0)
            entries[spec.port] = _Entry(hub)
            if self._nursery is not None:
                self._nursery.start_soon(self._replace, old, entries[spec.port])
            elif old is not None:
                old.scope.cancel()
        for gone in had.values():
            gone.scope.cancel()
        self._guests[name] = entries

    async def _replace(self, old: _Entry | None, new: _Entry) -> None:
        """One after the other: two hubs on one line would share its bytes between them."""
        if old is not None:
            old.scope.cancel()
            await old.over.wait()
        await self._keep(new)

    def close(self, name: str) -> None:
        """The guest is forgotten: its viewers are sent off, its ring goes, its log stays."""
        for entry in self._guests.pop(name, {}).values():
            entry.scope.cancel()
            if self._nursery is not None:
                self._nursery.start_soon(self._forget, entry)

    async def _forget(self, entry: _Entry) -> None:
        await entry.over.wait()
        hub = entry.hub
        if hub.port in self._guests.get(hub.name, {}):
            return  # the guest has come back meanwhile
        try:
            await in_thread(self._shared.ports.forget, hub.name, hub.spec)
        except HostError as error:
            self._shared.tell(hub.name, "console-trouble", {"port": hub.port, "reason": str(error)})

    async def ready(self, name: str) -> None:
        """Return when each line of the guest has been opened or has refused, within READY_S."""
        with trio.move_on_after(READY_S):
            for hub in self.hubs(name):
                await hub.opened()

    def mark(self, name: str, kind: MarkKind, text: str, *, run: str = "") -> None:
        """Write a mark on every console of the guest. `boot` and `exit` begin and end a run."""
        for hub in self.hubs(name):
            hub.mark(kind, text, run=run)

    def settle(self, name: str) -> dict[str, int]:
        """Record what the lines hold now, and return the offset after it, by port."""
        return {hub.port: hub.settle() for hub in self.hubs(name)}

    def fds(self, name: str) -> list[int]:
        """The B sides that are open: a keeper that inherits them keeps them raw while no daemon lives."""
        return [fd for hub in self.hubs(name) if (fd := hub.fd) is not None]

    async def first_byte(self, name: str, since: Mapping[str, int]) -> None:
        """Return when any console of the guest has said something since. Without a console: never."""
        while not any(hub.offset > since.get(hub.port, hub.offset) for hub in self.hubs(name)):
            event = trio.Event()
            for hub in self.hubs(name):
                hub.listen(event)
            await event.wait()

    # --- for control and metrics ---------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(self._guests)

    def hubs(self, name: str) -> list[ConsoleHub]:
        """The guest's hubs, in the order of its file."""
        return [entry.hub for entry in self._guests.get(name, {}).values()]

    def hub(self, name: str, port: str = "") -> ConsoleHub | None:
        """The hub of a port; without one, the guest's first console."""
        hubs = self.hubs(name)
        return next((hub for hub in hubs if hub.port == port or not port), None)

    def stats(self, name: str) -> tuple[ConsoleStats, ...]:
        return tuple(hub.stats() for hub in self.hubs(name))

    async def flushed(self) -> None:
        """Return when the log files hold what has been read by now, as far as they can be written."""
        await self._shared.pump.flushed()
