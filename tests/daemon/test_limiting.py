"""`[limits]` over the life of a guest, in virtual time: from its first moment on, over reloads and restarts of the daemon."""

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.boot import Boot
from bhyved.core.config import Loaded
from bhyved.core.exits import Stage
from bhyved.core.limits import Limits
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.status import Phase, VmRecord
from bhyved.daemon.ports import Found
from tests.daemon.fakehost import NOON, FakeHost, FakeVault, Life
from tests.daemon.guestkit import Lab, guest, lab

PCPU, DISK = Limits(pcpu=150), Limits(readiops=1000)


async def reload(it: Lab, spec: VmSpec) -> None:
    it.files.loaded = Loaded(daemon=DaemonSpec(), vms={spec.name: spec})
    await it.guests.reload(plan_only=False, prune=False, by="alice")
    await trio.testing.wait_all_tasks_blocked()


def limited(it: Lab) -> list[str]:
    return [what for what in it.machine().did if what.startswith("limit")]


def found(spec: VmSpec, stage: Stage = Stage.RUNNING) -> Found:
    return Found(run="r1", by="alice", stage=stage, spec=spec, pid=1, started=-100.0, started_at=NOON)


async def test_each_run_has_its_limits(autojump_clock: trio.abc.Clock) -> None:
    """Rules go with their process, so that the run after a reboot is given them anew."""
    async with lab(guest(limits=PCPU)) as it:
        it.machine().lives = [Life(after_s=10.0, status=0), Life()]
        it.start()
        await it.ran(1)
        await it.phase(Phase.UP)
        await trio.testing.wait_all_tasks_blocked()

        assert limited(it) == ["limit pcpu 150"] * 2
        assert [event.reason for event in it.journal.events if event.event == "limited"] == ["pcpu 150"] * 2


async def test_without_limits_nothing_is_run(autojump_clock: trio.abc.Clock) -> None:
    """Not even to see whether there are rules."""
    async with lab(guest()) as it:
        it.start()
        await it.phase(Phase.UP)
        await reload(it, guest(cpus=it.guests.spec("web1").cpus))  # type: ignore[union-attr]
        assert limited(it) == []


async def test_a_reload_changes_limits_at_once(autojump_clock: trio.abc.Clock) -> None:
    """They come, become others and go while the guest runs; one that is down is left alone."""
    async with lab(guest()) as it:
        await reload(it, guest(limits=PCPU))
        assert limited(it) == []
        await reload(it, guest())
        it.start()
        await it.phase(Phase.UP)
        for limits in (PCPU, DISK, None):
            await reload(it, guest(limits=limits))
        await reload(it, guest())

        assert limited(it) == ["limit pcpu 150", "limit readiops 1000", "limit None"]
        assert not it.status().config_changed


@pytest.mark.parametrize(
    ("limits", "limited_run", "expected"),
    [(PCPU, "", ["limit pcpu 150"]), (None, "r1", ["limit None"]), (None, "r0", []), (PCPU, "r1", ["limit pcpu 150"])],
)
async def test_the_next_daemon_sees_to_a_run_that_it_takes_up(
    limits: Limits | None, limited_run: str, expected: list[str], autojump_clock: trio.abc.Clock
) -> None:
    """The one before may have been killed before it could, or the file have changed since."""
    vault = FakeVault()
    vault.records["web1"] = VmRecord(limited_run=limited_run)
    async with trio.open_nursery() as nursery:
        host = FakeHost(nursery)
        host.machine("web1").found = found(guest())
        async with lab(guest(limits=limits), host=host, vault=vault) as it:
            await it.phase(Phase.UP)
            await trio.testing.wait_all_tasks_blocked()

            assert limited(it) == expected
        nursery.cancel_scope.cancel()


async def test_that_there_are_rules_is_on_record(autojump_clock: trio.abc.Clock) -> None:
    """Before the first of them is made: else a daemon that comes after a kill would not take away what the file no longer says."""
    vault = FakeVault()
    async with lab(guest(limits=PCPU), vault=vault) as it:
        it.start()
        run = (await it.phase(Phase.UP)).run
        await it.guests.saved()

        assert vault.records["web1"].limited_run == run


async def test_limits_that_do_not_hold_are_shown(autojump_clock: trio.abc.Clock) -> None:
    """The guest runs on, an event and its row say why, and a reload that mends it takes that back."""
    async with lab(guest(limits=PCPU)) as it:
        it.machine().limit_fails = "`rctl` failed: no"
        it.start()
        await it.phase(Phase.UP)
        await trio.testing.wait_all_tasks_blocked()
        assert it.status().unlimited == "`rctl` failed: no"
        assert [event.reason for event in it.journal.events if event.event == "limits-failed"] == ["`rctl` failed: no"]

        it.machine().limit_fails = ""
        await reload(it, guest(limits=DISK))
        assert (it.status().phase, it.status().unlimited) == (Phase.UP, "")


async def test_no_loader_is_limited(autojump_clock: trio.abc.Clock) -> None:
    """It is bhyve's process that counts."""
    async with lab(guest(limits=PCPU, boot=Boot(loader="bhyveload"))) as it:
        it.machine().loader = [(5.0, 0)]
        it.start()
        await it.phase(Phase.LOADING)
        await trio.testing.wait_all_tasks_blocked()
        assert limited(it) == []
        await it.phase(Phase.UP)
        await trio.testing.wait_all_tasks_blocked()

        assert limited(it) == ["limit pcpu 150"]


async def test_a_run_that_ends_meanwhile_needs_none(autojump_clock: trio.abc.Clock) -> None:
    """Nothing is told of rules that went with their process."""
    async with lab(guest(limits=PCPU)) as it:

        async def slowly(limits: Limits | None) -> None:
            await trio.sleep(60)

        it.machine().limit = slowly  # type: ignore[method-assign]
        it.machine().lives = [Life(after_s=10.0, status=1)]
        it.start()
        await it.phase(Phase.UP)
        await it.phase(Phase.DOWN)
        await trio.sleep(100)

        assert not [event for event in it.journal.events if event.event in ("limited", "limits-failed")]
        assert msgspec.structs.asdict(it.status())["unlimited"] == ""
