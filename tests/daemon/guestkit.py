"""A supervisor over a fake host in virtual time, as the driver and supervisor tests use it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from bhyved.core.assigned import Target
from bhyved.core.config import Loaded
from bhyved.core.lifecycle import Answer, Start, Stop
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import Phase, VmRecord, VmStatus
from bhyved.daemon.around import Around
from bhyved.daemon.board import Board
from bhyved.daemon.events import Events
from bhyved.daemon.guests import About
from bhyved.daemon.hooks import Hooks
from bhyved.daemon.supervisor import Supervisor
from tests.daemon.fakehost import FakeDrainFile, FakeHost, FakeJournal, FakeMachine, FakeVault


class NoConsoles:
    """Stands where `Consoles` stands, for guests without a console: nothing real is in flight when time jumps."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, str, str]] = []

    def open(self, name: str, specs: Sequence[object]) -> None:
        return

    def close(self, name: str) -> None:
        return

    async def ready(self, name: str) -> None:
        await trio.lowlevel.checkpoint()

    def mark(self, name: str, kind: str, text: str, *, run: str = "") -> None:
        self.marks.append((name, kind, text))

    def settle(self, name: str) -> dict[str, int]:
        return {}

    def fds(self, name: str) -> list[int]:
        return []

    def hubs(self, name: str) -> list[Any]:
        return []

    async def first_byte(self, name: str, since: Mapping[str, int]) -> None:
        await trio.sleep_forever()


class FakeFiles:
    """The configuration files, as a test says they are."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.accepted = 0

    def read(self) -> Loaded:
        return self.loaded

    def accept(self) -> None:
        self.accepted += 1


class Lab:
    """One daemon's guests."""

    def __init__(self, nursery: trio.Nursery, *specs: VmSpec, daemon: DaemonSpec = DaemonSpec(), **options: Any) -> None:  # noqa: B008 - frozen
        self.host: FakeHost = options.pop("host", None) or FakeHost(nursery)
        broken: dict[str, str] = options.pop("broken", {})
        self.vault: FakeVault = options.pop("vault", None) or FakeVault()
        self.drain_file: FakeDrainFile = options.pop("drain_file", None) or FakeDrainFile()
        self.journal = FakeJournal(self.host.utc)
        self.consoles = NoConsoles()
        self.around = Around(
            host=self.host,
            vault=self.vault,
            drain_file=self.drain_file,
            journal=self.journal,
            commands=self.host,
            consoles=self.consoles,  # type: ignore[arg-type]
            board=Board(),
            events=(events := Events(self.journal)),
            hooks=Hooks(self.host, events, daemon.hooks, None),
            spec=daemon,
            rng=lambda: 0.0,
            host_id="h1",
            **{"target": Target(), **options},
        )
        self.files = FakeFiles(Loaded(daemon=daemon, vms={spec.name: spec for spec in specs}))
        about = About(
            version="0", config="/etc/bhyved.toml", boot=self.host.boot, pid=1, started_at=self.host.utc(), started=self.host.monotonic()
        )
        self.guests = Supervisor(self.around, self.files, about, self.files.loaded, broken=broken, records=self.vault.load())
        self.guests._reloading.read_s = float("inf")  # in a real thread, beside which virtual time may jump

    def machine(self, name: str = "web1") -> FakeMachine:
        return self.host.machine(name)

    def status(self, name: str = "web1") -> VmStatus:
        status = self.guests.board.get(name)
        assert status is not None
        return status

    def start(self, name: str = "web1", **options: Any) -> Answer:
        return self.guests.submit(name, Start(by="alice", **options))

    def stop(self, name: str = "web1", **options: Any) -> Answer:
        return self.guests.submit(name, Stop(by="alice", **options))

    async def phase(self, phase: Phase | str, name: str = "web1", *, within_s: float = 7200.0) -> VmStatus:
        """Wait until the guest is in a phase."""
        with trio.fail_after(within_s):
            while True:
                generation = self.guests.board.generation
                if self.status(name).phase == phase:
                    return self.status(name)
                assert not self.status(name).reason.startswith("internal error"), self.status(name).reason
                await self.guests.board.wait_newer(generation)

    async def ran(self, count: int, name: str = "web1") -> None:
        """Wait until so many runs have been recorded."""
        while len([record for record in self.journal.records if record.vm == name]) < count:
            await self.guests.board.wait_newer(self.guests.board.generation)


@asynccontextmanager
async def lab(*specs: VmSpec, **options: Any) -> AsyncIterator[Lab]:
    """A running supervisor; cancelled at the end, as by kill -9."""
    async with trio.open_nursery() as nursery:
        made = Lab(nursery, *specs, **options)
        await nursery.start(made.guests.run)
        yield made
        nursery.cancel_scope.cancel()


def guest(name: str = "web1", **tables: Any) -> VmSpec:
    """A guest without devices that starts only when it is told to."""
    return VmSpec(**{"name": name, "autostart": False, "serial": (), **tables})


__all__ = ["FakeFiles", "Lab", "VmRecord", "guest", "lab"]
