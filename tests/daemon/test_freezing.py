"""File systems frozen by the guest's agent, played over a real socket: always thawed, also behind a daemon that was killed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.devices import Disk, VirtioConsole
from bhyved.core.errors import HostError
from bhyved.core.exits import Stage
from bhyved.core.spec import AGENT_PORT, VmSpec
from bhyved.core.status import Phase, VmRecord
from bhyved.core.values import AbsPath, SocketPath, Text
from bhyved.daemon import agent, freezing
from bhyved.daemon.ports import Found
from bhyved.daemon.snapshots import Snapshots
from tests.daemon.fakehost import FakeHost
from tests.daemon.fakezfs import ZVOLS, FakeDatasets
from tests.daemon.guestkit import Lab, guest, lab
from tests.host.scripts import until

PORT = Text(AGENT_PORT)


class PlayedAgent:
    """bhyve's socket with an agent behind it: one client at a time, a second is closed at once (contract 3.2)."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.is_frozen = False
        self.silent: set[str] = set()  # commands that are done and not answered
        self.refused: set[str] = set()  # commands that are refused
        self.file_systems = 2
        self.turned_away = 0
        self._busy = False

    async def serve(self, path: Path, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.socket.socket(trio.socket.AF_UNIX) as listener:
            await listener.bind(str(path))
            listener.listen()
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    sock, _ = await listener.accept()
                    nursery.start_soon(self._client, trio.SocketStream(sock))

    async def _client(self, stream: trio.SocketStream) -> None:
        async with stream:
            if self._busy:
                self.turned_away += 1
                return
            self._busy = True
            try:
                await self._talk(stream)
            except trio.BrokenResourceError:
                pass
            finally:
                self._busy = False

    async def _talk(self, stream: trio.SocketStream) -> None:
        buffer = b""
        await stream.send_all(b'{"return": 7}\n{"ret')  # what it still had to say to somebody else
        while data := await stream.receive_some():
            buffer += data
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                answer = self._answer(json.loads(line.rpartition(b"\xff")[2]))
                if answer:
                    await stream.send_all(answer)

    def _answer(self, request: dict[str, Any]) -> bytes:
        command = request["execute"]
        if command == "guest-sync-delimited":
            return b'\xff{"return": %d}\n' % request["arguments"]["id"]
        self.did.append(command.removeprefix("guest-").removeprefix("fsfreeze-"))
        if command in self.refused:
            return b'{"error": {"class": "GenericError", "desc": "not\\u001b now"}}\n'
        if command == "guest-fsfreeze-freeze":
            self.is_frozen = True
        if command == "guest-fsfreeze-thaw":
            self.is_frozen = False
        return b"" if command in self.silent else b'{"return": %d}\n' % self.file_systems


def spec(path: Path) -> VmSpec:
    return guest(
        disk=(Disk(path=AbsPath(f"{ZVOLS}zroot/a")),), virtio_console=(VirtioConsole(name=PORT, path=SocketPath(str(path / "ga.sock"))),)
    )


@asynccontextmanager
async def up(path: Path, **options: Any) -> AsyncIterator[tuple[Lab, PlayedAgent, Snapshots, FakeDatasets]]:
    """A guest that is up, with an agent."""
    async with lab(spec(path), **options) as it, trio.open_nursery() as nursery:
        played = PlayedAgent()
        await nursery.start(played.serve, path / "ga.sock")
        it.start()
        await it.phase(Phase.UP)
        datasets = FakeDatasets()
        yield it, played, Snapshots(it.guests, datasets, lambda: None), datasets
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real sockets, and so real time: limits that a test can wait for."""
    monkeypatch.setattr(agent, "ASK_S", 2.0)
    monkeypatch.setattr(freezing, "FREEZE_S", 0.2)
    monkeypatch.setattr(freezing, "THAW_S", 0.2)
    monkeypatch.setattr(freezing, "PAUSE_S", 0.01)


async def test_a_guest_is_frozen_for_its_snapshot(tmp_path: Path) -> None:
    """While the snapshot is taken, and not for longer; the snapshot says so."""
    async with up(tmp_path) as (it, played, snapshots, datasets):
        datasets.on_snapshot = lambda: seen.append(played.is_frozen)
        seen: list[bool] = []

        told = await snapshots.take("web1", "one", by="bob")

        assert (told.consistency, seen, played.is_frozen) == ("frozen", [True], False)
        assert played.did == ["freeze", "thaw"]
        assert it.vault.records["web1"].frozen_run == ""


async def test_a_snapshot_that_fails_leaves_no_guest_frozen(tmp_path: Path) -> None:
    """Nor does one whose caller has gone."""
    async with up(tmp_path) as (_, played, snapshots, datasets):

        def fail() -> None:
            raise HostError("out of space")

        datasets.on_snapshot = fail
        with pytest.raises(HostError, match="out of space"):
            await snapshots.take("web1", "one", by="bob")
        assert not played.is_frozen

        with trio.CancelScope() as scope:
            datasets.on_snapshot = scope.cancel
            await snapshots.take("web1", "two", by="bob")
        assert not played.is_frozen
        assert played.did == ["freeze", "thaw"] * 2


async def test_whoever_goes_while_a_guest_is_being_frozen_leaves_it_thawed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent has been asked and has not answered yet."""
    monkeypatch.setattr(freezing, "FREEZE_S", 1.0)
    async with up(tmp_path) as (it, played, snapshots, _):
        played.silent.add("guest-fsfreeze-freeze")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def take() -> None:
                await snapshots.take("web1", "one", by="bob")

            await until(lambda: played.is_frozen)
            nursery.cancel_scope.cancel()

        assert not played.is_frozen
        assert played.did == ["freeze", "thaw"]
        assert it.vault.records["web1"].frozen_run == ""


@pytest.mark.parametrize("how", ["silent", "refused"])
async def test_an_agent_that_does_not_freeze(tmp_path: Path, how: str) -> None:
    """The snapshot is what a power cut leaves, and says why; whatever was frozen all the same is thawed."""
    async with up(tmp_path) as (it, played, snapshots, _):
        getattr(played, how).add("guest-fsfreeze-freeze")

        told = await snapshots.take("web1", "one", by="bob")

        why = {"silent": "did not answer guest-fsfreeze-freeze within 0.2 s", "refused": "refuses guest-fsfreeze-freeze: not? now"}[how]
        assert told.consistency == "crash-consistent"
        assert f"(its agent {why})" in told.text
        assert not played.is_frozen
        assert it.vault.records["web1"].frozen_run == ""


async def test_an_agent_that_freezes_nothing(tmp_path: Path) -> None:
    """A guest without a file system that it could freeze is not called frozen."""
    async with up(tmp_path) as (_, played, snapshots, _):
        played.file_systems = 0

        assert (await snapshots.take("web1", "one", by="bob")).consistency == "crash-consistent"


async def test_a_guest_without_its_agent(tmp_path: Path) -> None:
    """The port is there and nobody behind it: nothing is asked, so that nothing has to be thawed."""
    async with lab(spec(tmp_path)) as it:
        it.start()
        await it.phase(Phase.UP)

        told = await Snapshots(it.guests, FakeDatasets(), lambda: None).take("web1", "one", by="bob")

        assert told.consistency == "crash-consistent"
        assert "its agent cannot be reached" in told.text
        assert [event.event for event in it.journal.events if event.event.endswith("-failed")] == []


async def test_a_guest_that_does_not_thaw_is_told_of(tmp_path: Path) -> None:
    """With what to do about it; the next daemon tries again."""
    async with up(tmp_path) as (it, played, snapshots, _):
        played.refused.add("guest-fsfreeze-thaw")

        await snapshots.take("web1", "one", by="bob")

        (event,) = [event for event in it.journal.events if event.event == "thaw-failed"]
        assert "fsfreeze -u" in event.reason
        assert played.did == ["freeze", "thaw", "thaw", "thaw"]
        assert it.vault.records["web1"].frozen_run == it.status().run


async def test_the_daemon_after_a_killed_one_thaws(tmp_path: Path, nursery: trio.Nursery) -> None:
    """That a guest may be frozen is on disk before it is; a guest in another run is not bothered."""
    async with up(tmp_path) as (it, played, snapshots, datasets):
        datasets.gate = trio.Event()
        nursery.start_soon(lambda: snapshots.take("web1", "one", by="bob"))
        await until(lambda: played.is_frozen)
        record = it.vault.records["web1"]
        assert record.frozen_run == it.status().run

        for run, thawed in (("other", False), (record.frozen_run, True)):
            played.is_frozen = True
            second = await after(tmp_path, nursery, record, run)
            if thawed:
                await until(lambda: not played.is_frozen)
            else:
                await second.phase(Phase.UP)
                await trio.testing.wait_all_tasks_blocked()
            assert played.is_frozen is not thawed
        datasets.gate.set()


async def after(path: Path, nursery: trio.Nursery, record: VmRecord, run: str) -> Lab:
    """A daemon that finds a run of an earlier one."""
    host = FakeHost(nursery)
    found = Found(run=run, by="alice", stage=Stage.RUNNING, spec=spec(path), pid=7, started=0.0, started_at=host.utc())
    host.machine("web1").found = found
    second = Lab(nursery, spec(path), host=host)
    second.vault.records["web1"] = msgspec.structs.replace(record)
    second = Lab(nursery, spec(path), host=host, vault=second.vault)
    await nursery.start(second.guests.run)
    return second


async def test_probes_wait_their_turn(tmp_path: Path, nursery: trio.Nursery) -> None:
    """bhyve would close a second client: a health probe during a freeze would take the guest as ill."""
    played, visitor = PlayedAgent(), agent.Agent()
    await nursery.start(played.serve, tmp_path / "ga.sock")
    path = str(tmp_path / "ga.sock")
    answers: list[str] = []

    async def probe() -> None:
        answers.append(await visitor.problem(path))

    async with visitor.visit(path) as visit:
        await visit.sync()
        nursery.start_soon(probe)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
    await until(lambda: answers)

    assert answers == [""]
    assert played.turned_away == 0
