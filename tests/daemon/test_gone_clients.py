"""Clients that vanish when they have asked, and before they are answered."""

from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from bhyved.core.config import Loaded
from bhyved.core.jsonrpc import Request
from bhyved.core.methods import METHODS
from bhyved.core.room import HostMemory
from bhyved.core.spec import DaemonSpec, Disk
from bhyved.core.status import Phase
from bhyved.core.values import AbsPath
from bhyved.daemon.access import Access
from bhyved.daemon.figuremethods import Views
from bhyved.daemon.requests import Requests
from tests.daemon.controlkit import ROOT, Served, served
from tests.daemon.controlkit import guest as served_guest
from tests.daemon.fakezfs import ZVOLS
from tests.daemon.guestkit import guest, lab

#: What a change needs besides the guests it is about.
EXTRA: dict[str, dict[str, Any]] = {"daemon.drain": {"on": True}}
#: Without those of a guest's console or snapshots, which these guests have not.
CHANGES = sorted(method for method, about in METHODS.items() if about.changes and about.of != "guest")


async def ask_and_go(daemon: Served, method: str, names: list[str]) -> None:
    """A request whose connection is cut when the first await comes."""
    about = {"names": names} if METHODS[method].of == "guests" else {}
    requests = Requests(daemon.guests, daemon.guests.views)
    with trio.CancelScope() as scope:
        scope.cancel()
        await requests.answer(Access(daemon.guests, ROOT, 0), Request(1, method, about | EXTRA.get(method, {})))


@pytest.mark.parametrize("method", CHANGES)
async def test_a_change_is_told_though_nobody_waits_for_the_answer(tmp_path, method, monkeypatch):
    """What has begun is seen through, and who asked is in the log and in the events; of what takes long, that it was asked for."""
    monkeypatch.chdir(tmp_path)
    names = [f"web{number}" for number in range(20)]
    async with served(tmp_path, *(served_guest(name, disk=(Disk(path=AbsPath(f"{ZVOLS}{name}")),)) for name in names)) as daemon:
        with capture_logs() as logs:
            await ask_and_go(daemon, method, names)
        events = daemon.guests.events.since(0)

    assert [(line["event"], line["method"], line["uid"]) for line in logs] == [("asked", method, 0)]
    asked = [event.vm for event in events if event.event == "asked"]
    assert asked == (names if METHODS[method].of == "guests" and not METHODS[method].waits else [""])


async def test_a_reload_is_whole_though_whoever_asked_for_it_has_gone(autojump_clock: trio.abc.Clock) -> None:
    """The new guest is looked after, and what is in force is one configuration."""
    files = Loaded(daemon=DaemonSpec(start_parallel=7), vms={"web1": guest(autostart=True), "new1": guest("new1", autostart=True)})
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        it.files.loaded = files
        memory = it.host.memory

        async def slowly() -> HostMemory:
            await trio.sleep(1)
            return await memory()

        it.host.memory = slowly  # type: ignore[method-assign]
        requests = Requests(it.guests, Views(metrics=None, new_link=None, problems=None, snapshots=None))  # type: ignore[arg-type]
        with trio.move_on_after(0.5):
            await requests.answer(Access(it.guests, ROOT, 0), Request(1, "config.reload", {}))

        assert it.guests.daemon_spec.start_parallel == 7
        await it.phase(Phase.UP, "new1")
        assert [event.event for event in it.journal.events if event.event in ("reloaded", "asked")] == ["reloaded", "asked"]
