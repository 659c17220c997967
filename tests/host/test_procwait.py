"""The end of processes: children, strangers, and the kqueue way of both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from bhyved.host import child
from bhyved.host.procwait import wait_gone, wait_note_exit, wait_pid
from bhyved.host.spawn import spawn
from bhyved.host.tool import run_tool
from bhyved.host.watch import EVFILT_PROC, KqueueWatch
from tests.host.fakekqueue import EpollAsKqueue, FakeProcesses, Kevent
from tests.host.scripts import Scripts

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="makes a kqueue out of epoll")


def until_zombie(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def middleman() -> subprocess.Popen[str]:
    """A child that has a child, whose pid it prints."""
    command = "sleep 1000 >/dev/null & echo $!; wait"
    return subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize(("command", "ends"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -9)])
async def test_a_child_is_reaped_with_its_status(command: str, ends: int) -> None:
    """The wait status of a child comes back and no zombie stays."""
    pid = spawn(["/bin/sh", "-c", command], {}, {})

    with trio.fail_after(10):
        assert os.waitstatus_to_exitcode(await wait_pid(pid)) == ends

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_that_ended_before_is_reaped_too() -> None:
    """Waiting for a zombie returns at once."""
    pid = spawn(["/bin/sh", "-c", "exit 7"], {}, {})
    until_zombie(pid)

    with trio.fail_after(10):
        assert os.waitstatus_to_exitcode(await wait_pid(pid)) == 7


async def test_giving_up_leaves_the_child_alone() -> None:
    """A cancelled wait neither kills nor reaps; the next one succeeds."""
    pid = spawn(["/bin/sh", "-c", "sleep 1000"], {}, {})
    with trio.move_on_after(0.05) as scope:
        await wait_pid(pid)
    assert scope.cancelled_caught

    os.kill(pid, 15)
    with trio.fail_after(10):
        assert os.waitstatus_to_exitcode(await wait_pid(pid)) == -15


async def test_a_stranger_that_ends_is_noticed() -> None:
    """The end of a process that is not our child is noticed, at once and without a poll."""
    middle = middleman()
    assert middle.stdout is not None
    stranger = int(middle.stdout.readline())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_gone, stranger, lambda: True)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(stranger, 9)

    middle.stdout.close()
    assert await trio.to_thread.run_sync(middle.wait) == 0


async def test_another_process_of_that_number_is_not_waited_for() -> None:
    """When the process turns out to be another one after we began to listen, there is nothing to wait for."""
    with trio.fail_after(10):
        assert await wait_gone(os.getpid(), lambda: False) is None


async def wait_in(fake: FakeProcesses, pid: int, ends: list[int | None], *, is_it: bool = True) -> None:
    ends.append(await wait_note_exit(fake, fake.wait_kevent, Kevent, pid, lambda: is_it))


async def test_kqueue_tells_the_status_of_a_stranger(nursery: trio.Nursery) -> None:
    """NOTE_EXIT of a process that is not a child carries its wait status (contract 8.9)."""
    fake, ends = FakeProcesses(), list[int | None]()
    fake.alive.add(42)
    nursery.start_soon(wait_in, fake, 42, ends)
    await trio.testing.wait_all_tasks_blocked()
    assert ends == []

    fake.end(42, 0x700)
    fake.deliver()
    await trio.testing.wait_all_tasks_blocked()

    assert ends == [0x700]
    assert fake.filters == set()


async def test_kqueue_and_a_zombie(nursery: trio.Nursery) -> None:
    """A process that ended just before we listened is reported by the event that comes at once."""
    fake, ends = FakeProcesses(), list[int | None]()
    fake.zombies[42] = 9
    nursery.start_soon(wait_in, fake, 42, ends)
    await trio.testing.wait_all_tasks_blocked()

    fake.deliver()
    await trio.testing.wait_all_tasks_blocked()

    assert ends == [9]


async def test_kqueue_and_a_process_that_is_gone() -> None:
    """A process that is gone altogether has no status any more; nothing is left registered."""
    fake, ends = FakeProcesses(), list[int | None]()

    await wait_in(fake, 42, ends)

    assert (ends, fake.filters) == ([None], set())


@pytest.mark.parametrize("ended", [False, True])
async def test_kqueue_and_the_wrong_process(ended: bool) -> None:
    """When the number has changed hands the filter is taken back, even if its event is already pending."""
    fake, ends = FakeProcesses(), list[int | None]()
    fake.alive.add(42)
    if ended:
        fake.end(42, 0)

    await wait_in(fake, 42, ends, is_it=False)
    fake.deliver()

    assert (ends, fake.filters) == ([None], set())


async def test_kqueue_and_cancellation() -> None:
    """A cancelled wait takes its filter back, so that no event comes that nobody waits for."""
    fake, ends = FakeProcesses(), list[int | None]()
    fake.alive.add(42)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_in, fake, 42, ends)
        await trio.testing.wait_all_tasks_blocked()
        assert fake.filters == {(42, EVFILT_PROC)}
        nursery.cancel_scope.cancel()

    fake.end(42, 0)
    fake.deliver()
    assert (ends, fake.filters) == ([], set())


@pytest.fixture
def over_kqueue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "open_watch", lambda pid: KqueueWatch(EpollAsKqueue(), Kevent, pid))


@on_linux
@pytest.mark.usefixtures("over_kqueue")
async def test_a_tool_over_kqueue(tmp_path: Path) -> None:
    """Over a kqueue, too, input, both outputs, a flood and the status of a command arrive."""
    scripts = Scripts(tmp_path)
    scripts.write("zfs", "wc -c; head -c 300000 /dev/zero >&2; exit 3")

    with trio.fail_after(10):
        result = await run_tool(scripts.tools, ["zfs"], input=b"x" * 300_000, ok=(3,))

    assert (int(result.stdout), len(result.stderr)) == (300_000, child.OUTPUT_BYTES)


@on_linux
@pytest.mark.usefixtures("over_kqueue")
async def test_input_that_nobody_reads_over_kqueue(tmp_path: Path) -> None:
    """A command that ends with its input on the way to it succeeds, though the kernel has forgotten that we waited to write."""
    scripts = Scripts(tmp_path)
    scripts.write("zfs", "exit 0")

    with trio.fail_after(10):
        result = await run_tool(scripts.tools, ["zfs"], input=b"x" * 300_000)

    assert result.status == 0


@on_linux
async def test_a_tool_that_has_gone_before_its_input_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kqueue refuses to watch a pipe that nobody reads: such a command has succeeded, too, and leaves no zombie."""
    scripts = Scripts(tmp_path)
    scripts.write("zfs", "exit 0")
    pids = []

    def open_late(pid: int) -> KqueueWatch:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        pids.append(pid)
        return KqueueWatch(EpollAsKqueue(), Kevent, pid)

    monkeypatch.setattr(child, "open_watch", open_late)
    with trio.fail_after(10):
        result = await run_tool(scripts.tools, ["zfs"], input=b"x")

    assert result.status == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@on_linux
@pytest.mark.usefixtures("over_kqueue")
async def test_a_tool_that_hangs_over_kqueue(tmp_path: Path) -> None:
    """Over a kqueue, too, a command that hangs is killed and reaped."""
    scripts = Scripts(tmp_path)
    scripts.write("zfs", f"echo $$ >{tmp_path}/pid; exec sleep 1000")

    with trio.fail_after(10), pytest.raises(Exception, match="did not end within"):
        await run_tool(scripts.tools, ["zfs"], limit_s=0.3)

    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@on_linux
def test_a_child_that_is_gone_before_we_listen() -> None:
    """kqueue's ESRCH for a child means that it has ended, not that there is nothing to reap."""

    class Gone(EpollAsKqueue):
        def control(self, changes: list[Kevent] | None, most: int, timeout: float | None = None, /) -> list[Kevent]:
            if changes and changes[0].filter == EVFILT_PROC:
                raise ProcessLookupError
            return super().control(changes, most, timeout)

    watch = KqueueWatch(Gone(), Kevent, 42)
    try:
        assert watch.ready() == (set(), True)
    finally:
        watch.close()
