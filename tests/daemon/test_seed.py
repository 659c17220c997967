"""When a guest counts as set up with its cloud-init seed, as its record says it and the host goes by it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from bhyved.core.cloudinit import CloudInit, Keys
from bhyved.core.exits import Stage
from bhyved.core.lifecycle import Poweroff, Reset
from bhyved.core.spec import Order, Ready
from bhyved.core.spec import Restart as RestartSpec
from bhyved.core.status import Phase, VmRecord
from bhyved.core.units import Duration
from bhyved.daemon.ports import Found
from tests.daemon.fakehost import FakeHost, FakeVault, Life
from tests.daemon.guestkit import Lab, guest, lab

SEED = "0123456789abcdef"


@asynccontextmanager
async def seeded(*lives: Life, **tables: Any) -> AsyncIterator[Lab]:
    """A guest whose runs are given a seed."""
    table = CloudInit(when="first", ssh_keys=(Keys("/alice.pub"),))
    async with lab(guest(cloud_init=table, **tables)) as it:
        it.machine().seed = SEED
        it.machine().lives = list(lives)
        yield it


def record(it: Lab) -> VmRecord:
    return it.guests._drivers["web1"].record


@pytest.mark.parametrize("status", [0, 1, 2], ids=["reboot", "power-off", "halt"])
async def test_a_guest_that_ends_in_order_has_been_set_up(autojump_clock: trio.abc.Clock, status: int) -> None:
    """By its own end, where nobody can ask it; the next start is told so."""
    async with seeded(Life(after_s=30, status=status), Life(), restart=RestartSpec(on_reboot="stop")) as it:
        it.start()
        await it.phase(Phase.UP)
        assert record(it).seed == ""

        await it.ran(1)
        assert record(it).seed == SEED
        await it.phase(Phase.DOWN)
        it.start()
        await it.phase(Phase.UP)

        assert it.machine().orders[-1].record.seed == SEED


async def test_a_stop_in_order_counts_too(autojump_clock: trio.abc.Clock) -> None:
    """The guest has shut down: it had come that far."""
    async with seeded(Life()) as it:
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)

        assert record(it).seed == SEED


@pytest.mark.parametrize("wish", [Poweroff(by="alice"), Reset(by="alice")], ids=["power cut", "reset"])
async def test_an_end_that_was_forced_does_not_count(autojump_clock: trio.abc.Clock, wish: Poweroff | Reset) -> None:
    """Whatever bhyve ends with: the guest may have been in the middle of it."""
    async with seeded(Life()) as it:
        it.start()
        await it.phase(Phase.UP)
        it.guests.submit("web1", wish)
        await it.ran(1)

        assert record(it).seed == ""


async def test_a_crash_does_not_count(autojump_clock: trio.abc.Clock) -> None:
    """Nor does anything else that is no end of the guest's own."""
    async with seeded(Life(after_s=30, status=3), restart=RestartSpec(on_crash="stop")) as it:
        it.start()
        await it.ran(1)

        assert record(it).seed == ""


async def test_a_run_with_install_media_does_not_count(autojump_clock: trio.abc.Clock) -> None:
    """It is the installer that has been set up; the system is by its own first run."""
    async with seeded(Life(after_s=30, status=0), Life(after_s=30)) as it:
        it.start(install=True)
        await it.ran(1)
        assert record(it).seed == ""

        await it.ran(2)
        assert record(it).seed == SEED


async def test_where_a_guest_can_be_asked_its_readiness_counts(autojump_clock: trio.abc.Clock) -> None:
    """And only that: a reboot before it is ready may be one of the first boot's own."""
    order = Order(ready=Ready(uptime=Duration(60)))
    async with seeded(Life(after_s=30, status=0), Life(), order=order) as it:
        it.start()
        await it.ran(1)
        assert record(it).seed == ""

        with trio.fail_after(3600):
            while not it.status().ready:
                await it.guests.board.wait_newer(it.guests.board.generation)
        assert record(it).seed == SEED
        await it.guests.kept("web1")
        assert it.vault.records["web1"].seed == SEED


async def test_readiness_that_is_only_given_up_does_not_count(autojump_clock: trio.abc.Clock) -> None:
    """`on-timeout = "continue"` lets others go on; that is no answer."""
    order = Order(ready=Ready(command=("/never",), timeout=Duration(10)))
    async with seeded(Life(), order=order) as it:
        it.host.command_status = 1
        it.start()
        with trio.fail_after(3600):
            while not it.status().ready:
                await it.guests.board.wait_newer(it.guests.board.generation)

        assert record(it).seed == ""


async def test_the_run_of_an_earlier_daemon_counts(autojump_clock: trio.abc.Clock) -> None:
    """Its ledger says which seed it has."""
    async with trio.open_nursery() as nursery:
        host, vault = FakeHost(nursery), FakeVault()
        machine = host.machine("web1")
        machine.lives = [Life(after_s=30)]
        spec = guest(cloud_init=CloudInit())
        machine.found = Found(run="r1", by="alice", stage=Stage.RUNNING, spec=spec, pid=4711, started=0.0, started_at=host.utc(), seed=SEED)
        it = Lab(nursery, spec, host=host, vault=vault)
        await nursery.start(it.guests.run)
        await it.ran(1)

        assert record(it).seed == SEED
        nursery.cancel_scope.cancel()


async def test_the_plan_tells_that_the_drive_has_gone(autojump_clock: trio.abc.Clock) -> None:
    """`vmctl plan` of a guest that has been set up is without it, and says so."""
    async with seeded(Life()) as it:
        before = it.guests.plan("web1")
        it.start()
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.DOWN)
        after = it.guests.plan("web1")

        assert ("port.0.path=/var/db/bhyved/cloud-init/web1.iso" in before.config, before.warnings) == (True, ())
        assert "cloud-init" not in after.config
        assert after.warnings == ("cloud-init: the guest has been set up: its seed is attached again when what is in it changes",)
