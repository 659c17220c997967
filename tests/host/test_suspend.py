"""A guest's state on its way to the disk and back, with sh scripts in the place of bhyve and bhyvectl."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from bhyved.core.errors import HostError
from bhyved.core.exits import Outcome, Stage
from bhyved.core.spec import VmSpec
from bhyved.core.status import VmRecord
from bhyved.host import statefiles, suspending
from bhyved.host.machine import GuestMachine
from tests.host.onehost import OneHost, end_of, guest, order, start, until_booted
from tests.host.scripts import until
from tests.host.test_seed import MAKEFS

#: Ends as `go` says, once it is there; what `words` says it prints first.
BHYVE = "while [ ! -e $HERE/go ]; do sleep 0.01; done; cat $HERE/words >&2 2>/dev/null; exit $(cat $HERE/go)"
BHYVECTL = """
[ $1 = --usage ] && { echo 'Usage: bhyvectl [--suspend=<value>]' >&2; exit 1; }
name=${1#--vm=} file=${2#--suspend=}
case $2 in
--destroy) rm $DEV/vmm/$name;;
--suspend=*) eval "$(cat $HERE/suspend.do)";;
esac
exit 0
"""
WRITES = "truncate -s 16M $file; echo kernel >$file.kern; echo '{}' >$file.meta;"
SUCCEEDS = f"{WRITES} rm $DEV/vmm/$name; echo 5 >$HERE/go.new; mv $HERE/go.new $HERE/go"


@pytest.fixture
def able(host: OneHost) -> OneHost:
    """A host whose bhyve saves guests."""
    host.scripts.write("bhyvectl", f"DEV={host.dev} HERE={host.root}\n{BHYVECTL}")
    (host.root / "suspend.do").write_text(SUCCEEDS)
    (host.root / "words").touch()
    return host


def able_guest(host: OneHost, **more: Any) -> VmSpec:
    return guest(do=BHYVE, memory="16M", disk=[{"path": str(host.disk), "model": "ahci-hd"}], **more)


def where(host: OneHost) -> set[str]:
    """Which of the directories there are."""
    directory = host.db / "suspend" / "web"
    return set(os.listdir(directory)) if directory.exists() else set()


async def suspended(host: OneHost, machine: GuestMachine, **more: Any) -> Outcome:
    """A guest that has been started and suspended."""
    await start(machine, able_guest(host, **more))
    await until_booted(host)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.suspend, "alice")
            outcome = await machine.watch(lambda pid: None)
            nursery.cancel_scope.cancel()
    return outcome


async def end_with(host: OneHost, machine: GuestMachine, status: int, words: str = "") -> Outcome:
    """Let the bhyve that runs end."""
    (host.root / "words").write_text(words)
    (host.root / "go").write_text(str(status))
    return await end_of(machine)


async def resumed(host: OneHost, machine: GuestMachine) -> None:
    """A suspended guest that has been started again."""
    await suspended(host, machine)
    await machine.clean(final=True)
    (host.root / "go").unlink()
    await start(machine, able_guest(host))
    await until_booted(host)


async def test_a_state_is_saved_and_given_to_the_next_bhyve(able: OneHost, machine: GuestMachine) -> None:
    """In a directory of root's alone; it leaves `saved` before bhyve has it, and is gone when the guest runs."""
    outcome = await suspended(able, machine)
    saved = able.db / "suspend" / "web" / "saved"
    assert (outcome.status, outcome.saved, outcome.unsaved) == (5, str(saved), "")
    assert {path.name for path in saved.iterdir()} == {"state", "state.kern", "state.meta", "about.json"}
    assert saved.stat().st_mode & 0o777 == 0o700
    await machine.clean(final=True)
    shown = machine.suspended()
    assert shown is not None
    assert (shown.by, shown.path, shown.doubtful) == ("alice", str(saved), False)
    (able.root / "go").unlink()

    prepared = await machine.prepare(order(able_guest(able)))
    assert prepared.resumed == shown
    assert where(able) == {"resuming"}
    machine.spawn_bhyve(())
    await until_booted(able)
    assert f"bhyve -k {able.directory()}/bhyve.conf -r {saved.parent}/resuming/state web" in able.scripts.calls
    await machine.spent()
    assert (where(able), machine.suspended()) == (set(), None)
    await end_with(able, machine, 1)


async def test_a_guest_is_suspended_again(able: OneHost, machine: GuestMachine) -> None:
    """Also before anybody has noticed that it runs on from the state before: there is one state of a guest, the newest."""
    await resumed(able, machine)
    assert where(able) == {"resuming"}
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.suspend, "bob")
            assert (await machine.watch(lambda pid: None)).saved
            nursery.cancel_scope.cancel()
    await machine.clean(final=True)

    shown = machine.suspended()
    assert (where(able), shown is not None and shown.by) == ({"saved"}, "bob")


async def test_a_resumed_guest_waits_for_no_viewer(able: OneHost, machine: GuestMachine) -> None:
    """It is no first run, whoever has asked for it."""
    spec = able_guest(able, graphics={"wait": True}, input=[])
    await start(machine, spec)
    await until_booted(able)
    conf = able.directory() / "bhyve.conf"
    assert ".wait=" in conf.read_text()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.suspend, "alice")
            await machine.watch(lambda pid: None)
            nursery.cancel_scope.cancel()
    await machine.clean(final=True)
    prepared = await machine.prepare(order(spec, first=True))

    assert prepared.resumed is not None
    assert ".wait=" not in conf.read_text()


async def test_a_suspend_begins_with_nothing(able: OneHost, machine: GuestMachine) -> None:
    """Parts of another one, which could not be removed then, do not become parts of this."""
    (able.root / "suspend.do").write_text(SUCCEEDS.replace("echo '{}' >$file.meta;", ""))
    await start(machine, able_guest(able))
    await until_booted(able)
    half = able.db / "suspend" / "web" / "saving"
    half.mkdir(parents=True)
    (half / "state.meta").write_text("{}")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.suspend, "alice")
            assert (await machine.watch(lambda pid: None)).unsaved.endswith("state.meta: no such file or directory")
            nursery.cancel_scope.cancel()


async def test_before_december_2025_it_ends_with_0(able: OneHost, machine: GuestMachine) -> None:
    """The files tell."""
    (able.root / "suspend.do").write_text(SUCCEEDS.replace("echo 5", "echo 0"))
    outcome = await suspended(able, machine)

    assert (outcome.status, outcome.saved) == (0, str(able.db / "suspend" / "web" / "saved"))


async def test_a_reboot_in_the_very_moment_is_a_reboot(able: OneHost, machine: GuestMachine) -> None:
    """Status 0, and the node is still there: it was not the suspend that ended the run, whatever bhyve had written by then."""
    (able.root / "suspend.do").write_text(SUCCEEDS.replace("rm $DEV/vmm/$name;", "").replace("echo 5", "echo 0"))
    outcome = await suspended(able, machine)
    await machine.clean(final=True)

    assert (outcome.status, outcome.saved, outcome.unsaved, outcome.node_present) == (0, "", "", True)
    assert where(able) == set()


@pytest.mark.parametrize(
    ("writes", "lacks"),
    [
        (WRITES.replace("16M", "15M"), "less than the guest's memory"),
        (WRITES.replace("echo kernel", ":"), "state.kern is empty"),
        (WRITES.replace("'{}'", "'{'"), "state.meta is no JSON"),
        (WRITES.replace("echo '{}' >$file.meta", ":"), "state.meta: no such file or directory"),
    ],
)
async def test_half_a_state_is_none(able: OneHost, machine: GuestMachine, writes: str, lacks: str) -> None:
    """Whatever the exit status says."""
    (able.root / "suspend.do").write_text(SUCCEEDS.replace(WRITES, writes))
    outcome = await suspended(able, machine)
    await machine.clean(final=True)

    assert outcome.saved == ""
    assert outcome.unsaved.endswith(lacks)
    assert where(able) == set()


# --- failures -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("echo 'connect() failed: No such file or directory' >&2; exit 2", "bhyve does not listen at /var/run/bhyve"),
        (f"{WRITES} echo 'Could not pause devices' >>LOG", "Could not pause devices"),
    ],
)
async def test_a_suspend_that_fails(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch, does: str, why: str) -> None:
    """The guest goes on, the reason is bhyve's, nothing is left, and the next one is judged by what it says itself."""
    monkeypatch.setattr(suspending, "_QUIET_S", 0.3)
    (able.root / "suspend.do").write_text(does.replace("LOG", str(able.log / "web.bhyve.log")))
    await start(machine, able_guest(able))
    await until_booted(able)
    with trio.fail_after(20):
        assert why in await machine.suspend("alice")
    assert where(able) == set()
    found = able.daemon().machine("web").find()
    assert found is not None
    assert not found.suspending

    (able.root / "suspend.do").write_text(SUCCEEDS)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.suspend, "alice")
            assert (await machine.watch(lambda pid: None)).saved
            nursery.cancel_scope.cancel()


async def test_a_bhyve_that_writes_nothing_more(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and should it come to its end after all, its state counts."""
    monkeypatch.setattr(suspending, "_STALL_S", 0.5)
    (able.root / "suspend.do").write_text(WRITES)
    await start(machine, able_guest(able))
    await until_booted(able)
    with trio.fail_after(20):
        assert "may yet end" in await machine.suspend("alice")

    assert (await end_with(able, machine, 5)).saved


async def test_what_bhyve_says_before_it_ends_is_no_failure(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has ended, how it ended counts, however long that takes to be told."""
    monkeypatch.setattr(suspending, "_QUIET_S", 0.1)
    words = f"echo 'Failed to tell' >>{able.log}/web.bhyve.log;"
    (able.root / "suspend.do").write_text(f"{words} {SUCCEEDS}")
    await start(machine, able_guest(able))
    await until_booted(able)
    with trio.move_on_after(1.0) as scope:
        await machine.suspend("alice")
    assert scope.cancelled_caught

    assert (await end_of(machine)).saved


async def test_a_bhyve_that_does_not_begin(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request got lost."""
    monkeypatch.setattr(suspending, "_BEGIN_S", 0.3)
    (able.root / "suspend.do").write_text(":")
    await start(machine, able_guest(able))
    await until_booted(able)
    with trio.fail_after(20):
        assert "has not begun to write" in await machine.suspend("alice")

    await end_with(able, machine, 1)


async def test_where_there_is_no_room(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """bhyve is not even asked."""
    monkeypatch.setattr(suspending, "_MORE_BYTES", 1 << 60)
    await start(machine, able_guest(able))
    await until_booted(able)
    with pytest.raises(HostError, match="MiB free, and the guest's state needs"):
        await machine.suspend("alice")

    assert not any("--suspend" in call for call in able.scripts.calls)
    await end_with(able, machine, 1)


async def test_who_cannot_be_suspended(host: OneHost, machine: GuestMachine) -> None:
    """A bhyve that no snapshots were built into, devices that have no state, install media."""
    await start(machine, able_guest(host))
    with pytest.raises(HostError, match="WITH_BHYVE_SNAPSHOT"):
        await machine.check_suspend()
    (host.root / "go").write_text("1")
    await end_of(machine)
    await machine.clean(final=True)

    await start(machine, guest(do=BHYVE, disk=[{"path": str(host.disk), "model": "nvme"}], sound={}))
    with pytest.raises(HostError, match=r'model = "nvme".*\[sound\]'):
        await machine.check_suspend()
    await end_of(machine)
    await machine.clean(final=True)

    await start(machine, able_guest(host), install=True)
    with pytest.raises(HostError, match="install media"):
        await machine.check_suspend()
    await end_of(machine)


# --- the daemon dies in between -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before bhyve is asked", "before it has ended", "before its state was kept", "before it was told"])
async def test_a_daemon_that_is_killed_during_a_suspend(
    able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """At any moment the next one finds the guest, or its state, and never neither."""
    monkeypatch.setattr(suspending, "_QUIET_S", 0.3)
    late = {"before bhyve is asked": "exec sleep 60", "before it has ended": WRITES}.get(moment, SUCCEEDS)
    (able.root / "suspend.do").write_text(late)
    await start(machine, able_guest(able))
    pid = await until_booted(able)

    def asked() -> bool:
        return any("--suspend=" in call for call in able.scripts.calls)

    with trio.move_on_after(20) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.suspend, "alice")
            await until(asked)
            if moment == "before it was told":
                await machine.watch(lambda pid: None)
            elif moment == "before its state was kept":
                await until(lambda: not psutil.pid_exists(pid) or machine._traces[Stage.RUNNING].end())
            elif moment == "before it has ended":
                await until((able.db / "suspend" / "web" / "saving" / "state.meta").exists)
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    able.die(machine)

    later = able.daemon().machine("web")
    found = later.find()
    assert found is not None
    assert (found.stage, found.suspending) == (Stage.RUNNING, True)
    if moment == "before bhyve is asked":
        with trio.fail_after(20):
            assert "has not begun" in await later.suspend("alice")
        assert (where(able), later.find().suspending) == (set(), False)  # type: ignore[union-attr]
        (able.root / "go").write_text("1")
        await end_of(later)
        return
    if moment == "before it has ended":
        (able.root / "go").write_text("5")
    outcome = await end_of(later)
    await later.clean(final=True)

    assert (outcome.saved, where(able)) == (str(able.db / "suspend" / "web" / "saved"), {"saved"})
    assert json.loads((able.db / "suspend" / "web" / "saved" / "about.json").read_text())["by"] == "alice"


async def test_the_ledger_of_a_run_is_never_away(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced in one step: a daemon that dies in between must not lose what runs."""
    removed: list[str] = []
    unlink = os.unlink

    def noted(path: str, **more: Any) -> None:
        removed.append(str(path))
        unlink(path, **more)

    await start(machine, able_guest(able))
    await until_booted(able)
    monkeypatch.setattr(os, "unlink", noted)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.suspend, "alice")
            await machine.watch(lambda pid: None)
            nursery.cancel_scope.cancel()

    assert not any(path.endswith("run.toml") for path in removed)


# --- the way back ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "left"),
    [
        (1, "Failed to restore VM memory.", {"saved"}),
        (4, "Device emulation initialization error: No such file or directory", {"saved"}),
        (71, "could not activate CPU 0", {"saved"}),
        (1, "", set()),
        (0, "", set()),
        (3, "", set()),
        (137, "", {"resuming"}),
    ],
)
async def test_what_becomes_of_a_state_that_was_given_to_bhyve(
    able: OneHost, machine: GuestMachine, status: int, words: str, left: set[str]
) -> None:
    """Kept when the guest cannot have run, gone when it has, and in doubt when nobody knows."""
    await resumed(able, machine)
    await end_with(able, machine, status, words)
    await machine.clean(final=True)

    assert where(able) == left
    shown = machine.suspended()
    assert (shown is not None and shown.doubtful) is (left == {"resuming"})


async def test_a_state_that_no_bhyve_was_given_is_as_good_as_before(able: OneHost, machine: GuestMachine) -> None:
    """The start ended before that: by this daemon or by the next."""
    await suspended(able, machine)
    await machine.clean(final=True)
    await machine.prepare(order(able_guest(able)))
    assert where(able) == {"resuming"}
    able.die(machine)
    later = able.daemon().machine("web")
    assert later.find() is not None
    await later.clean(final=True)

    assert where(able) == {"saved"}


async def test_a_daemon_that_is_killed_at_the_very_spawn(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keeper's files are there, and no keeper: no bhyve was given the state."""
    await suspended(able, machine)
    await machine.clean(final=True)
    await machine.prepare(order(able_guest(able)))

    def killed(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("bhyved.host.machine.spawn_keeper", killed)
    with pytest.raises(KeyboardInterrupt):
        machine.spawn_bhyve(())
    able.die(machine)
    later = able.daemon().machine("web")
    found = later.find()
    assert found is not None
    assert found.stage is Stage.PREPARING
    await later.clean(final=True)

    assert where(able) == {"saved"}


async def test_a_keeper_that_cannot_be_started(able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is as good as before."""
    await suspended(able, machine)
    await machine.clean(final=True)
    await machine.prepare(order(able_guest(able)))

    def refuse(*_: object, **__: object) -> int:
        raise HostError("out of processes")

    monkeypatch.setattr("bhyved.host.machine.spawn_keeper", refuse)
    with pytest.raises(HostError, match="out of processes"):
        machine.spawn_bhyve(())

    assert where(able) == {"saved"}


async def test_when_keeper_and_bhyve_are_killed_nobody_knows(able: OneHost, machine: GuestMachine) -> None:
    """Then the guest may have run: its state is in doubt, also for the next daemon."""
    await resumed(able, machine)
    keeper = machine._process._keeper
    assert keeper is not None
    os.kill(keeper, 9)
    os.kill(able.alive_pid(), 9)
    able.die(machine)
    later = able.daemon().machine("web")
    assert later.find() is not None
    assert (await end_of(later)).status is None
    await later.clean(final=True)

    assert where(able) == {"resuming"}


async def test_a_resume_is_taken_up_by_the_next_daemon(able: OneHost, machine: GuestMachine) -> None:
    """Who sees it running uses the state up."""
    await resumed(able, machine)
    able.die(machine)
    later = able.daemon().machine("web")
    found = later.find()
    assert found is not None
    assert found.resumes
    await later.spent()

    assert where(able) == set()
    await end_with(able, later, 1)


async def test_after_the_host_has_gone_down_in_a_resume_its_state_is_in_doubt(able: OneHost, machine: GuestMachine) -> None:
    """Nothing resumes it by itself, whoever knows better renames it, and a cold start throws it away."""
    await resumed(able, machine)
    os.kill(able.alive_pid(), 9)
    await end_of(machine)
    able.die(machine)
    booted = able.daemon("f" * 32).machine("web")
    assert booted.find() is None
    with pytest.raises(HostError, match="its saved state cannot be resumed: a resume of it was cut short") as caught:
        await booted.prepare(order(able_guest(able)))
    assert caught.value.fatal
    await booted.prepare(order(able_guest(able), cold=True))

    assert (where(able), booted.suspended()) == (set(), None)


async def test_a_cold_start_begins_when_the_state_is_gone_for_good(
    able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that crashes while the guest runs must not find it again: its memory is older than what is on the disks by then."""
    await suspended(able, machine)
    await machine.clean(final=True)
    synced = []

    def note(path: str) -> None:
        synced.append((path, where(able)))

    monkeypatch.setattr(statefiles, "sync_directory", note)
    await machine.prepare(order(able_guest(able), cold=True))

    assert [path for path, there in synced if not there & {"saved", "resuming"}] == [str(able.db / "suspend/web")]
    assert where(able) == set()


@pytest.mark.parametrize("doubtful", [False, True], ids=["saved", "resuming"])
async def test_a_state_that_cannot_be_thrown_away_keeps_the_guest_down(
    able: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch, doubtful: bool
) -> None:
    """As where the file system has become read-only: beside a guest that runs it would be resumed by the start after next."""
    await suspended(able, machine)
    await machine.clean(final=True)
    directory = able.db / "suspend/web"
    if doubtful:
        (directory / "saved").rename(directory / "resuming")
    there = where(able)

    def refuse(path: str, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        patched.setattr(os, "unlink", refuse)
        patched.setattr(os, "rmdir", refuse)
        with pytest.raises(HostError, match=rf"^{directory}/{'|'.join(there)} cannot be thrown away: read-only file system"):
            await machine.prepare(order(able_guest(able), cold=True))

    assert where(able) == there
    await machine.prepare(order(able_guest(able), cold=True))
    assert where(able) == set()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("memory", r"the configuration has changed since \(memory\)"),
        ("disk", "disk.img has been written to since"),
        ("bhyve", "bhyve has been upgraded since"),
        ("install", "install media"),
        ("state", "state has 1 bytes"),
        ("version", "of a newer bhyved"),
        ("devices", "its devices would be elsewhere"),
    ],
)
async def test_a_state_that_does_not_fit_is_refused(able: OneHost, machine: GuestMachine, change: str, why: str) -> None:
    """By name of what has changed, and with the way out; the state stays."""
    await suspended(able, machine)
    await machine.clean(final=True)
    saved = able.db / "suspend" / "web" / "saved"
    spec, more = able_guest(able), {}
    match change:
        case "memory":
            spec = guest(do=BHYVE, memory="32M", disk=[{"path": str(able.disk), "model": "ahci-hd"}])
        case "disk":
            able.disk.write_bytes(b"changed")
        case "bhyve":
            path = able.scripts.bin / "bhyve"
            path.write_text(path.read_text() + "\n# newer\n")
        case "install":
            more = {"install": True}
        case "state":
            (saved / "state").write_bytes(b"x")
        case "version":
            about = json.loads((saved / "about.json").read_text())
            (saved / "about.json").write_text(json.dumps(about | {"version": 2}))
        case "devices":
            about = json.loads((saved / "about.json").read_text())
            (saved / "about.json").write_text(json.dumps(about | {"devices": ["pci.0.31.0.device=ahci"]}))
    with pytest.raises(HostError, match=why) as caught:
        await machine.prepare(order(spec, **more))

    assert caught.value.fatal
    assert "vmctl start --cold web" in str(caught.value) or change == "version"
    await machine.clean(final=True)
    assert where(able) == {"saved"}


async def test_a_change_that_devices_do_not_see_is_none(able: OneHost, machine: GuestMachine) -> None:
    """How a guest is restarted or stopped may change while it is suspended."""
    await suspended(able, machine)
    await machine.clean(final=True)
    prepared = await machine.prepare(order(able_guest(able, autostart=False, stop={"timeout": "90s", "ignore-early-term": False})))

    assert prepared.resumed is not None


async def test_what_a_host_left_that_went_down_in_a_suspend(able: OneHost, machine: GuestMachine) -> None:
    """Half a state takes a guest's memory of disk space: the next start removes it."""
    half = able.db / "suspend" / "web" / "saving"
    half.mkdir(parents=True)
    (half / "state").write_bytes(b"x")
    assert machine.suspended() is None
    assert (await machine.prepare(order(able_guest(able)))).resumed is None

    assert where(able) == set()


async def test_a_resumed_guest_has_the_seed_it_had(able: OneHost, machine: GuestMachine, tmp_path: Path) -> None:
    """Its devices are those of its state, also when it has been set up meanwhile; another seed in the drive would be another medium."""
    able.scripts.write("makefs", f"HERE={tmp_path}{MAKEFS}")
    script = tmp_path / "user-data"
    script.write_text("#!/bin/sh\n")
    more = {"cloud-init": {"when": "first", "user-data": str(script)}}
    await suspended(able, machine, **more)
    seed = machine._ledger.seed if machine._ledger is not None else ""
    await machine.clean(final=True)
    script.write_text("#!/bin/sh\ntrue\n")
    with pytest.raises(HostError, match="what its cloud-init seed is made of has changed since: put that back"):
        await machine.prepare(order(able_guest(able, **more), record=VmRecord(seed=seed)))

    script.write_text("#!/bin/sh\n")
    prepared = await machine.prepare(order(able_guest(able, **more), record=VmRecord(seed=seed)))

    assert prepared.resumed is not None
    assert prepared.seed == seed != ""
    assert f"port.0.path={able.db}/cloud-init/web.iso" in (able.directory() / "bhyve.conf").read_text()
