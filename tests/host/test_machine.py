"""A guest's processes: started, watched, found again, killed, cleaned up after; with real processes and the real ps."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bhyved.core.errors import HostError, Stuck
from bhyved.core.exits import ExitKind, Outcome, Stage, classify
from bhyved.host import machine as module
from bhyved.host.machine import GuestMachine
from bhyved.host.processes import Seen
from bhyved.host.spawn import posix_spawn_makes_sessions
from tests.host.onehost import FOREVER, OneHost, end_of, guest, order, start, until_booted, until_pid
from tests.host.scripts import until

# --- one run ---------------------------------------------------------------------------------------------------------------------


async def test_one_run(host: OneHost, machine: GuestMachine) -> None:
    """A run is prepared, started, watched to its end and cleaned away: nothing of it is left."""
    await start(machine, guest(do="echo hello >&2; exit 3", network=[{"bridge": "lan0"}], disk=[{"path": str(host.disk)}]))
    outcome = await end_of(machine)

    assert (outcome.stage, outcome.status, outcome.stderr, outcome.pid) == (Stage.RUNNING, 3, "hello\n", host.pid())
    await machine.clean(final=True)
    assert not host.node().exists()
    assert sorted(path.name for path in host.interfaces.iterdir()) == ["lan0.if", "wan0.if"]
    assert not [path for path in host.directory().iterdir() if path.name not in ("pid", "exit", "begin")]


async def test_no_zombie_stays(machine: GuestMachine) -> None:
    """The keeper is reaped when the run has ended."""
    await start(machine, guest(do="exit 0"))
    keeper = machine._process._keeper
    assert keeper is not None
    await end_of(machine)

    with pytest.raises(ProcessLookupError):
        os.kill(keeper, 0)


async def test_a_keeper_is_reaped_by_whoever_drives_the_guest_at_its_end(host: OneHost, machine: GuestMachine) -> None:
    """A driver that met a bug is replaced by another, in the same process: the keeper is still its child."""
    await start(machine, guest())
    await until_pid(host)
    assert machine.find() is not None
    keeper = machine._process._keeper
    await machine.kill()
    await end_of(machine)

    assert keeper is not None
    with pytest.raises(ProcessLookupError):
        os.kill(keeper, 0)


async def test_the_pid_is_told_once(host: OneHost, machine: GuestMachine) -> None:
    """`started` is called one time, with the pid of bhyve and not of its keeper."""
    told: list[int] = []
    await start(machine, guest(do="exit 0"))
    with trio.fail_after(20):
        outcome = await machine.watch(told.append)

    assert told == [outcome.pid]
    assert machine._process._keeper not in told


async def test_the_command(host: OneHost, machine: GuestMachine) -> None:
    """bhyve gets its configuration as a file, and its name."""
    await start(machine, guest(do="exit 0"))
    await end_of(machine)

    conf = host.directory() / "bhyve.conf"
    assert [call for call in host.scripts.calls if call.startswith("bhyve ")] == [f"bhyve -k {conf} web"]
    assert conf.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("status", "node", "present"), [(1, True, True), (1, False, False), (4, False, False), (0, False, None)])
async def test_the_node_is_looked_at_where_it_matters(machine: GuestMachine, status: int, node: bool, present: bool | None) -> None:
    """For the statuses 1 and 4, and only for them, an outcome says whether the node is still there."""
    await start(machine, guest(do=f"{'' if node else 'rm $DEV/vmm/web;'} exit {status}"))

    assert (await end_of(machine)).node_present is present


async def test_stderr_is_of_this_run(machine: GuestMachine) -> None:
    """What an earlier run printed does not decide what the end of this one means."""
    for word in ("first", "second"):
        await start(machine, guest(do=f"echo {word} >&2; exit 0"))
        outcome = await end_of(machine)
        await machine.clean(final=word == "second")

    assert outcome.stderr == "second\n"


async def test_a_large_log_is_rotated_between_runs(host: OneHost, machine: GuestMachine) -> None:
    """A log of more than 1 MiB is put aside before the next run, and an outcome quotes no more than its last 64 KiB."""
    await start(machine, guest(do="head -c 2000000 /dev/zero >&2; exit 0"))
    outcome = await end_of(machine)
    await machine.clean(final=False)
    await start(machine, guest(do="echo new >&2; exit 0"))
    second = await end_of(machine)

    assert (len(outcome.stderr), second.stderr) == (64 << 10, "new\n")
    assert (host.log / "web.bhyve.log").stat().st_size == 4
    assert (host.log / "web.bhyve.log.0").stat().st_size == 2_000_000


async def test_a_loader_and_then_bhyve(host: OneHost, machine: GuestMachine) -> None:
    """A loader runs under a keeper of its own; its status and its pid are not bhyve's."""
    (host.root / "loader.do").write_text("echo loading >&2; exit 2")
    spec = guest(do="echo running >&2; exit 3", boot={"loader": "bhyveload"}, disk=[{"path": str(host.disk)}])
    await machine.prepare(order(spec))
    machine.spawn_loader(())
    loaded = await end_of(machine)
    machine.spawn_bhyve(())
    ran = await end_of(machine)

    assert (loaded.stage, loaded.status, loaded.stderr) == (Stage.LOADING, 2, "loading\n")
    assert (ran.stage, ran.status, ran.stderr) == (Stage.RUNNING, 3, "running\n")
    assert loaded.pid != ran.pid
    assert f"bhyveload -c {host.dev}/nmdm-web.1A -m 256M -d {host.disk} web" in host.scripts.calls


async def test_grubs_files_are_for_nobody(host: OneHost, machine: GuestMachine) -> None:
    """grub-bhyve reads as nobody: the way to its files is open, while the guest's own directory is not."""
    (host.root / "loader.do").write_text("exit 0")
    spec = guest(boot={"loader": "grub", "grub": {"commands": ["linux (hd0,1)/vmlinuz"]}}, disk=[{"path": str(host.disk)}])
    before = os.umask(0o077)  # the daemon's
    try:
        await machine.prepare(order(spec))
    finally:
        os.umask(before)
    directory = host.run / "loader" / "web"

    modes = {path: path.stat().st_mode & 0o777 for path in (host.run, host.run / "loader", directory, directory / "grub.cfg")}
    assert list(modes.values()) == [0o755, 0o755, 0o755, 0o644]
    assert (directory / "device.map").read_text() == f"(hd0) {host.disk}\n"
    assert host.directory().stat().st_mode & 0o777 == 0o700
    await machine.clean(final=True)
    assert not directory.exists()


async def test_a_missing_bhyve_is_said(host: OneHost, machine: GuestMachine) -> None:
    """Without the program the start fails with a sentence, and can be cleaned up."""
    (host.scripts.bin / "bhyve").unlink()
    await machine.prepare(order(guest()))
    with pytest.raises(HostError, match=r"^bhyve was not found in "):
        machine.spawn_bhyve(())
    await machine.clean(final=True)

    assert machine.find() is None


# --- ending one ------------------------------------------------------------------------------------------------------------------


async def test_kill(host: OneHost, machine: GuestMachine) -> None:
    """A kill ends bhyve, not its keeper: 137 is written down. A second one is no error."""
    await start(machine, guest())
    await until_pid(host)
    await machine.kill()
    assert (await end_of(machine)).status == 137
    await machine.kill()
    await machine.press()


async def test_a_kill_that_comes_before_the_pid_is_not_lost(host: OneHost, machine: GuestMachine) -> None:
    """Killing a guest whose pid neither file nor ps tells yet kills it as soon as its keeper does."""
    await machine.prepare(order(guest()))
    host.scripts.write("ps", "exit 0")
    machine.spawn_bhyve(())
    await machine.kill()

    assert (await end_of(machine)).status == 137


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
@pytest.mark.parametrize("status", [0, 1, 143])
async def test_an_end_that_no_disk_has_room_for(host: OneHost, machine: GuestMachine, status: int) -> None:
    """ZFS wants room to overwrite, too: a daemon that is there knows even so how the run ended, and by which pid."""
    await machine.prepare(order(guest(do=f"while [ ! -e {host.root}/go ]; do sleep 0.01; done; exit {status}")))
    machine.spawn_bhyve(())
    pid = await until_booted(host)
    (host.directory() / "exit").unlink()
    (host.directory() / "exit").symlink_to("/dev/full")
    (host.root / "go").touch()
    outcome = await end_of(machine)

    assert (outcome.status, outcome.pid) == (status, pid)


@pytest.mark.parametrize(("ignore", "status"), [(True, 7), (False, 143)])
async def test_an_early_press(host: OneHost, machine: GuestMachine, ignore: bool, status: int) -> None:
    """A press before the guest has ACPI on does nothing, unless the configuration wants bhyve's own way: then it dies."""
    await start(machine, guest(do=f": >{host.root}/ready; {FOREVER}; exit 7", stop={"ignore-early-term": ignore}))
    await until((host.root / "ready").exists)
    await until_pid(host)
    await machine.press()
    if ignore:
        go = os.open(host.dev / "never", os.O_RDWR)
        os.write(go, b"\n")
        os.close(go)

    assert (await end_of(machine)).status == status


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
@pytest.mark.parametrize("way", ["posix_spawn", "popen"])
async def test_no_process_can_be_made(host: OneHost, machine: GuestMachine, way: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start fails in words, nobody holds the guest's FIFO, and when the shortage is over the same guest starts."""
    if way == "popen":
        monkeypatch.setattr("bhyved.host.spawn.posix_spawn_makes_sessions", lambda: False)
    elif not posix_spawn_makes_sessions():
        pytest.skip("posix_spawn makes no sessions here")

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    await machine.prepare(order(guest(do="exit 3")))
    with monkeypatch.context() as scarce:
        scarce.setattr(os, "posix_spawn", refuse)
        scarce.setattr(subprocess, "_fork_exec", refuse)
        with pytest.raises(HostError, match=f"^.*/bhyve could not be started: {os.strerror(number).lower()}$") as told:
            machine.spawn_bhyve(())
        assert not told.value.fatal
        with pytest.raises(HostError, match=f"could not be run: {os.strerror(number).lower()}$"):
            await machine.force("poweroff")
    assert not machine._liveness.is_held()

    await machine.clean(final=True)
    await start(machine, guest(do="exit 3"))
    assert (await end_of(machine)).status == 3


async def test_the_keeper_can_make_no_process(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a failed start with its remedy, and no guest whose end nobody knows."""
    host.scripts.write("scarce-sh", 'echo - 1<>"$6"; echo "keeper: 0: Cannot fork" >&2; exit 2')
    monkeypatch.setattr("bhyved.host.keeper.SH", str(host.scripts.bin / "scarce-sh"))
    await start(machine, guest())
    end = classify(await end_of(machine), was_up=False, asked=False)

    assert end.kind is ExitKind.START_ERROR
    assert "kern.maxproc" in end.hint


async def test_killing_the_keeper_too(host: OneHost, machine: GuestMachine) -> None:
    """When keeper and bhyve are killed, the end comes and nobody knows how."""
    await start(machine, guest())
    pid, keeper = await until_pid(host), machine._process._keeper
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)

    assert (await end_of(machine)).status is None


async def _until_killed(machine: GuestMachine) -> Outcome:
    """Its end, which comes when it is killed and not before."""
    outcomes: list[Outcome] = []

    async def watch() -> None:
        outcomes.append(await end_of(machine))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_all_tasks_blocked(0.3)
            assert outcomes == []
            await machine.kill()
    return outcomes[0]


async def test_a_guest_without_its_keeper_is_still_a_guest(host: OneHost, machine: GuestMachine) -> None:
    """While bhyve lives the run goes on, keeper or not, and it can be killed."""
    await start(machine, guest())
    pid = await until_pid(host)
    assert machine._process._keeper is not None
    os.kill(machine._process._keeper, signal.SIGKILL)

    outcome = await _until_killed(machine)

    assert (outcome.status, outcome.pid) == (None, pid)


async def test_a_cancelled_watch_leaves_the_guest_alone(host: OneHost, machine: GuestMachine) -> None:
    """A daemon that stops watching kills nobody; the next watch sees the same run."""
    await start(machine, guest())
    pid = await until_pid(host)
    with trio.move_on_after(0.05):
        await machine.watch(lambda pid: None)
    os.kill(pid, 0)
    await machine.kill()

    assert (await end_of(machine)).status == 137


async def test_title(host: OneHost, machine: GuestMachine) -> None:
    """The title counts, of this pid and of this name, with or without what ps puts behind it."""
    await start(machine, guest())
    pid = await until_pid(host)
    with trio.move_on_after(0.05):
        await machine.watch(lambda pid: None)
    answers = []
    for shown in (
        f"{pid} 0 0 bhyve: web1 (bhyve)",
        f"{pid + 1} 0 0 bhyve: web (bhyve)",
        f"{pid} 0 0 bhyve: web",
        f" {pid} 0 0 bhyve: web (bhyve)",
    ):
        host.scripts.write("ps", f"echo '{shown}'")
        machine._site.processes._seen_at = float("-inf")
        answers.append(await machine.title_is_set())

    assert answers == [False, False, True, True]


async def test_a_pid_that_has_changed_hands_gets_no_signal(host: OneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A found guest's pid is checked before it is killed: what ps shows under it now is spared."""
    first = host.daemon().machine("web")
    await start(first, guest())
    pid = await until_pid(host)
    host.die(first)
    second = host.daemon().machine("web")
    assert second.find() is not None
    sent: list[tuple[int, int]] = []
    host.scripts.write("ps", f"echo '{pid} 0 0 vi web'")
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
        await second.kill()
        await second.press()
    assert sent == []
    host.scripts.write("ps", f"echo '{pid} 0 0 bhyve: web (bhyve)'")
    second._site.processes._seen_at = float("-inf")
    await second.kill()

    assert (await end_of(second)).status == 137


async def test_a_signal_is_for_the_run_that_it_was_meant_for(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a guest without a keeper of ours was looked for it ended, and its next run has begun: that one gets nothing."""
    await start(machine, guest())
    pid = await until_pid(host)
    process, sent = machine._process, []
    keeper, process._keeper = process._keeper, None

    async def next_run(max_age_s: float = 0.0) -> Seen:
        await trio.lowlevel.checkpoint()
        process.begins(Stage.RUNNING, process.trace)
        return Seen({pid: "bhyve: web"})

    monkeypatch.setattr(process._processes, "look_soon", next_run)
    monkeypatch.setattr("bhyved.host.guestprocess._send", lambda *what: sent.append(what))
    for signalled in (process.press, process.kill):
        process.begins(Stage.RUNNING, process.trace)
        await signalled()

    assert sent == []
    monkeypatch.undo()
    process._keeper = keeper
    await machine.kill()
    await end_of(machine)


async def test_forcing_and_nmi(host: OneHost, machine: GuestMachine) -> None:
    """Power-off, reset and NMI are bhyvectl's, one action a call."""
    await start(machine, guest())
    await until_pid(host)
    await until(host.node().exists)
    await machine.force("poweroff")
    await machine.force("reset")
    await machine.inject_nmi()

    assert host.scripts.calls[-3:] == [f"bhyvectl --vm=web --{action}" for action in ("force-poweroff", "force-reset", "inject-nmi")]


# --- the next daemon -------------------------------------------------------------------------------------------------------------


async def test_nothing_to_find(machine: GuestMachine) -> None:
    """A guest that never ran is not found."""
    assert machine.find() is None


async def test_a_start_that_was_interrupted_at_its_beginning(host: OneHost) -> None:
    """A daemon killed before the ledger leaves a FIFO that nobody holds: no run, and nothing of it stays."""
    host.directory().mkdir()
    os.mkfifo(host.directory() / "alive")

    assert host.daemon().machine("web").find() is None
    assert list(host.directory().iterdir()) == []


async def test_a_running_guest_is_found(host: OneHost) -> None:
    """The next daemon knows the run, its spec, its pid and its taps, and sees its end."""
    spec = guest(network=[{"bridge": "lan0"}], graphics={})
    first = host.daemon().machine("web")
    prepared = await first.prepare(order(spec, run="r7", by="alice", install=True))
    first.spawn_bhyve(())
    pid = await until_pid(host)
    host.die(first)
    second = host.daemon().machine("web")
    found = second.find()

    assert found is not None
    assert (found.run, found.by, found.stage, found.pid, found.install) == ("r7", "alice", Stage.RUNNING, pid, True)
    assert (found.spec, found.taps, found.vnc) == (spec, prepared.taps, prepared.vnc)
    assert found.started is not None
    os.kill(pid, signal.SIGKILL)
    outcome = await end_of(second)
    assert (outcome.status, outcome.pid) == (137, pid)
    await second.clean(final=True)
    assert not host.node().exists()
    assert sorted(path.name for path in host.interfaces.iterdir()) == ["lan0.if", "wan0.if"]


async def test_a_guest_that_ended_meanwhile(host: OneHost) -> None:
    """An end that no daemon saw is told by the next one, with the time when it was."""
    first = host.daemon().machine("web")
    await start(first, guest(do="echo bye >&2; exit 1"))
    host.die(first)
    await until(lambda: (host.directory() / "exit").read_text().strip())
    second = host.daemon().machine("web")
    found = second.find()

    assert found is not None
    assert found.stage is Stage.RUNNING
    outcome = await end_of(second)
    assert (outcome.status, outcome.stderr, outcome.node_present) == (1, "bye\n", True)
    assert outcome.at is not None
    assert outcome.at.timestamp() == pytest.approx((host.directory() / "exit").stat().st_mtime)


async def test_an_end_is_told_once(host: OneHost) -> None:
    """After the clean-up of an ended run that shall restart, a new daemon finds an interrupted start, not the same end again."""
    first = host.daemon().machine("web")
    await start(first, guest(do="exit 0"))
    await end_of(first)
    await first.clean(final=False)
    second = host.daemon().machine("web")
    found = second.find()

    assert found is not None
    assert found.stage is Stage.PREPARING
    outcome = await end_of(second)
    assert (outcome.stage, outcome.status) == (Stage.PREPARING, None)


DAEMON = """
import sys, trio
from pathlib import Path
from tests.host.onehost import OneHost, guest, order
host = OneHost.__new__(OneHost)
root = Path(sys.argv[1])
host.root, host.run, host.db, host.log, host.dev = root, root / "run", root / "db", root / "log", root / "dev"
from tests.host.scripts import Scripts
host.scripts = Scripts(root)
async def main():
    machine = host.daemon().machine("web")
    await machine.prepare(order(guest()))
    machine.spawn_bhyve(())
    await machine.watch(lambda pid: print(pid, flush=True))
trio.run(main)
"""


async def test_a_daemon_that_is_really_killed(host: OneHost) -> None:
    """kill -9 of the process that started a guest leaves it to the next one, which learns its true status."""
    with subprocess.Popen([sys.executable, "-c", DAEMON, str(host.root)], stdout=subprocess.PIPE, text=True) as daemon:  # noqa: ASYNC220 - it begins in a moment
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        daemon.kill()
    machine = host.daemon().machine("web")
    found = machine.find()

    assert found is not None
    assert (found.stage, found.pid) == (Stage.RUNNING, pid)
    await machine.kill()
    assert (await end_of(machine)).status == 137


async def test_a_start_that_was_interrupted_while_preparing(host: OneHost) -> None:
    """A daemon killed before any spawn leaves a ledger: the next one finds a start without a process, and cleans it up."""
    first = host.daemon().machine("web")
    await first.prepare(order(guest(network=[{"bridge": "lan0"}])))
    host.die(first)
    second = host.daemon().machine("web")
    found = second.find()

    assert found is not None
    assert found.stage is Stage.PREPARING
    assert (await end_of(second)).stage is Stage.PREPARING
    await second.clean(final=True)
    assert sorted(path.name for path in host.interfaces.iterdir()) == ["lan0.if", "wan0.if"]
    assert host.daemon().machine("web").find() is None


async def test_a_start_that_was_interrupted_before_the_keeper(host: OneHost) -> None:
    """Blank files without anybody at work are no run."""
    first = host.daemon().machine("web")
    await first.prepare(order(guest()))
    first._traces[Stage.RUNNING].allocate(1.0, 0)
    host.die(first)
    found = host.daemon().machine("web").find()

    assert found is not None
    assert found.stage is Stage.PREPARING


async def test_a_loader_that_ended_while_no_daemon_watched(host: OneHost) -> None:
    """The next daemon sees the loader's end and starts bhyve with what the first one prepared."""
    (host.root / "loader.do").write_text("exit 0")
    first = host.daemon().machine("web")
    await first.prepare(order(guest(do="exit 3", boot={"loader": "bhyveload"}, disk=[{"path": str(host.disk)}])))
    first.spawn_loader(())
    host.die(first)
    await until(lambda: (host.directory() / "loader.exit").read_text().strip())
    second = host.daemon().machine("web")
    found = second.find()

    assert found is not None
    assert found.stage is Stage.LOADING
    assert (await end_of(second)).status == 0
    second.spawn_bhyve(())
    assert (await end_of(second)).status == 3


async def test_a_host_command_of_a_dead_daemon_is_waited_for(host: OneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon was doing to the guest when it was killed is over before the next one touches the guest."""
    monkeypatch.setattr(module, "_HELD_S", 0.1)
    host.node().parent.mkdir()
    host.node().touch()
    host.scripts.write("bhyvectl", f"read go <>{host.dev}/never; rm {host.node()}")
    first = host.daemon().machine("web")
    second = host.daemon().machine("web")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.prepare, order(guest()))
            await until(lambda: any(call.startswith("bhyvectl") for call in host.scripts.calls))
            host.die(first)
            second._site.ledgers._read("web")
            found = second.find()
            assert found is not None
            assert found.stage is Stage.PREPARING
            with pytest.raises(Stuck, match=r"^a process still works for web: .*/alive is held open$"):
                await second.clean(final=True)
            second.find()
            go = os.open(host.dev / "never", os.O_RDWR)
            os.write(go, b"\n")
            os.close(go)
            await second.watch(lambda pid: None)
            nursery.cancel_scope.cancel()
    assert not host.node().exists()


async def test_a_fifo_that_was_removed(host: OneHost) -> None:
    """Without its FIFO a guest is watched by its pid, and its status is still known."""
    first = host.daemon().machine("web")
    await start(first, guest())
    pid = await until_pid(host)
    host.die(first)
    (host.directory() / "alive").unlink()
    second = host.daemon().machine("web")
    found = second.find()

    assert found is not None
    assert (found.stage, found.pid) == (Stage.RUNNING, pid)
    outcome = await _until_killed(second)

    assert outcome.pid == pid
    assert outcome.status in (137, None)  # the keeper may be a moment behind


@pytest.mark.parametrize(("seen", "status"), [(0x0000, 0), (0x0100, 1), (0x0009, 137), (None, None)])
async def test_the_end_of_a_guest_with_neither_fifo_nor_keeper(
    host: OneHost, seen: int | None, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes its status down; where the system tells it, as FreeBSD does, it counts."""
    first = host.daemon().machine("web")
    await start(first, guest(do="exit 3"))
    await end_of(first)
    (host.directory() / "exit").write_text("")  # what a keeper that is killed leaves
    (host.directory() / "alive").unlink()
    second = host.daemon().machine("web")
    pids = iter([host.pid(), None])

    async def survivor() -> int | None:
        return next(pids)

    async def gone(pid: int, is_it: object) -> int | None:
        return seen

    assert second.find() is not None
    monkeypatch.setattr(second._process, "survivor", survivor)
    monkeypatch.setattr(module, "wait_gone", gone)

    assert (await end_of(second)).status == status


async def test_a_fifo_that_was_made_anew(host: OneHost) -> None:
    """A FIFO that nobody holds does not declare a guest dead that ps shows, also while a daemon watches another."""
    first = host.daemon().machine("web")
    await start(first, guest())
    pid = await until_pid(host)
    host.die(first)
    (host.directory() / "alive").unlink()
    os.mkfifo(host.directory() / "alive")
    second = host.daemon().machine("web")
    assert second.find() is not None

    outcome = await _until_killed(second)

    assert outcome.pid == pid
    assert outcome.status in (137, None)  # the keeper may be a moment behind


async def test_files_that_were_removed(host: OneHost) -> None:
    """Without pid file and exit file a guest that lives is found by what ps shows."""
    first = host.daemon().machine("web")
    await start(first, guest())
    pid = await until_booted(host)
    host.die(first)
    for name in ("pid", "exit"):
        (host.directory() / name).unlink()
    second = host.daemon().machine("web")
    found = second.find()

    assert found is not None
    assert (found.stage, found.pid) == (Stage.RUNNING, pid)
    await second.kill()
    assert (await end_of(second)).pid == pid


@pytest.mark.parametrize("text", ["", "no toml [", "version = 1\nrun = 3\n", "version = 99\n"])
async def test_a_ledger_that_cannot_be_read_loses_no_guest(host: OneHost, text: str) -> None:
    """A guest that lives is found without its record, and can be stopped; once it is gone it is not found again."""
    first = host.daemon().machine("web")
    await start(first, guest())
    pid = await until_booted(host)
    host.die(first)
    (host.directory() / "run.toml").write_text(text)
    daemon = host.daemon()
    second = daemon.machine("web")
    found = second.find()

    assert found is not None
    assert (found.stage, found.pid, found.spec) == (Stage.RUNNING, pid, None)
    assert daemon.ledgers() == ["web"]
    await second.kill()
    assert (await end_of(second)).status == 137
    assert host.node().exists()
    await second.clean(final=True)
    assert not host.node().exists()  # and with it the guest's memory
    assert host.daemon().machine("web").find() is None

    host.node().touch()  # somebody else's by now
    await second.clean(final=True)
    assert host.node().exists()


async def test_a_newer_bhyveds_ledger_is_not_written_over(host: OneHost) -> None:
    """After a downgrade the guest is not started over a record that this version does not understand."""
    host.directory().mkdir()
    (host.directory() / "run.toml").write_text("version = 2\n")
    machine = host.daemon().machine("web")

    with pytest.raises(HostError, match=r"run.toml is of a newer bhyved \(format 2, this one knows 1\)") as refused:
        await machine.prepare(order(guest()))
    assert refused.value.fatal
    assert (host.directory() / "run.toml").read_text() == "version = 2\n"


async def test_a_ledger_of_another_boot_is_history(host: OneHost) -> None:
    """After a reboot of the host nothing is found, and the guest starts over what is left in its directory."""
    first = host.daemon().machine("web")
    await start(first, guest(do="exit 3"))
    await end_of(first)
    machine = host.daemon(boot="f" * 32).machine("web")

    assert machine.find() is None
    await start(machine, guest(do="exit 5"))
    assert (await end_of(machine)).status == 5


async def test_two_guests_do_not_keep_each_other_alive(host: OneHost) -> None:
    """A guest that was started while another's FIFO was open here does not hold that FIFO."""
    daemon = host.daemon()
    web, db = daemon.machine("web"), daemon.machine("db")
    await web.prepare(order(guest("web", do="exit 3")))
    await start(db, guest("db"))
    web.spawn_bhyve(())

    assert (await end_of(web)).status == 3
    await db.kill()
    assert (await end_of(db)).status == 137


async def test_no_second_run_over_a_living_one(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start over a guest that still lives is refused before anything is changed."""
    monkeypatch.setattr(module, "_HELD_S", 0.1)
    await start(machine, guest())
    pid = await until_booted(host)
    with pytest.raises(Stuck, match=rf"^its bhyve \(pid {pid}\) still works for web"):
        await machine.prepare(order(guest()))
    with pytest.raises(Stuck):
        await machine.clean(final=True)

    assert host.node().exists()
    os.kill(pid, 0)
