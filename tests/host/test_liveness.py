"""The liveness FIFO: only the event counts, and only those hold it who were given it."""

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from bhyved.core.errors import HostError
from bhyved.host.liveness import Liveness, Watch
from bhyved.host.spawn import reap, spawn


@pytest.fixture
def fifo(tmp_path: Path) -> Liveness:
    os.mkfifo(tmp_path / "alive.never")  # reading it waits for ever
    return Liveness(str(tmp_path / "alive"))


def watched(fifo: Liveness) -> Watch:
    watch = fifo.watch()
    assert watch is not None
    return watch


def hold(fifo: Liveness, command: str = "read never <>$0") -> int:
    """A child that has the writing end as 3."""
    alive = fifo.open_writer()
    try:
        return spawn(["/bin/sh", "-c", command, f"{fifo.path}.never"], {3: alive}, {"PATH": "/usr/bin:/bin"})
    finally:
        os.close(alive)


async def test_the_end_is_an_event(fifo: Liveness) -> None:
    """While a process holds the FIFO nothing is told; when it is killed, the end is, at once."""
    holder = hold(fifo)
    watch = watched(fifo)
    ended = trio.Event()

    async def wait() -> None:
        await watch.wait_end(lambda data: None)
        ended.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.05)
            assert not ended.is_set()
            assert watch.is_held()
            os.kill(holder, signal.SIGKILL)
    reap(holder)
    watch.close()


async def test_who_comes_after_the_end_is_told_too(fifo: Liveness) -> None:
    """A watcher that opens the FIFO when nobody holds it any more does not wait for ever."""
    reap(hold(fifo, "exit 0"))
    watch = watched(fifo)

    assert not watch.is_held()
    with trio.fail_after(10):
        await watch.wait_end(lambda data: None)
    watch.close()


async def test_grandchildren_count(fifo: Liveness) -> None:
    """The end comes when the last descendant that inherited the FIFO has ended, not when the first has."""
    heard: list[bytes] = []
    alive = fifo.open_writer()
    watch = watched(fifo)
    reap(spawn(["/bin/sh", "-c", "(read go; echo ended >&3) <$0 & exit 0", f"{fifo.path}.never"], {3: alive}, {"PATH": "/usr/bin:/bin"}))
    os.close(alive)

    assert watch.is_held()
    go = os.open(f"{fifo.path}.never", os.O_RDWR)
    os.write(go, b"go\n")
    with trio.fail_after(10):
        await watch.wait_end(heard.append)
    assert heard == [b"ended\n"]
    os.close(go)
    watch.close()


async def test_what_is_written_is_heard_whole_and_is_no_end(fifo: Liveness) -> None:
    """Lines that come in pieces arrive in order; the end comes after the last of them."""
    heard: list[bytes] = []
    with trio.fail_after(10):
        holder = hold(fifo, "printf 'pid ' >&3; sleep 0.05; echo 12 >&3")
        watch = watched(fifo)
        await watch.wait_end(heard.append)
    reap(holder)
    watch.close()

    assert b"".join(heard) == b"pid 12\n"


async def test_unrelated_children_do_not_hold_it(fifo: Liveness) -> None:
    """A child that was started while the writing end was open here, but not given it, does not keep the guest alive."""
    alive = fifo.open_writer()
    others = [spawn(["/bin/sh", "-c", "read never <>$0", f"{fifo.path}.never"], {}, {"PATH": "/usr/bin:/bin"})]
    popen = subprocess.Popen(["/bin/sh", "-c", "read never <>$0", f"{fifo.path}.never"])  # noqa: ASYNC220 - it is not waited for
    try:
        watch = watched(fifo)
        assert watch.is_held()
        os.close(alive)

        with trio.fail_after(10):
            await watch.wait_end(lambda data: None)
        watch.close()
    finally:
        for pid in (*others, popen.pid):
            os.kill(pid, signal.SIGKILL)
        reap(others[0])
        popen.wait()


async def test_another_round(fifo: Liveness) -> None:
    """The same reading end serves a loader and then bhyve: a new holder takes the end back."""
    alive = fifo.open_writer()
    watch = watched(fifo)
    os.close(alive)
    assert not watch.is_held()

    alive = fifo.open_writer()
    assert watch.is_held()
    os.close(alive)
    assert not watch.is_held()
    watch.close()


async def test_held_still(fifo: Liveness, autojump_clock: trio.testing.MockClock) -> None:
    """Whoever holds it for longer than the limit holds it still; a copy that is closed meanwhile is no holder."""
    assert await fifo.is_held_still(1) is False
    alive = fifo.open_writer()
    assert await fifo.is_held_still(1) is True

    async def let_go() -> None:
        await trio.sleep(0.5)
        os.close(alive)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        assert await fifo.is_held_still(1) is False


def test_no_fifo_no_watch(fifo: Liveness) -> None:
    """Where there is no FIFO, nobody holds it; something else in its place is refused, not opened."""
    assert fifo.watch() is None
    assert fifo.is_held() is False
    Path(fifo.path).write_text("")

    assert fifo.watch() is None
    with pytest.raises(HostError, match=r"/alive is no FIFO; remove it$"):
        fifo.open_writer()


@pytest.mark.parametrize("opens", [0, 1])
def test_too_many_open_files_say_nothing_of_the_fifo(fifo: Liveness, opens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be looked at nobody must take a guest for dead; and no descriptor is lost by it."""
    alive = fifo.open_writer()
    left, really, fds = [True] * opens, os.open, len(os.listdir("/dev/fd"))

    def scarce(path: str, flags: int, *more: int) -> int:
        if path == fifo.path and not (left and left.pop()):
            raise OSError(errno.EMFILE, "Too many open files")
        return really(path, flags, *more)

    monkeypatch.setattr(os, "open", scarce)
    with pytest.raises(HostError, match=r"^it cannot be told whether the guest runs: .*/alive: too many open files$"):
        fifo.watch()
    left += [True] * opens
    with pytest.raises(HostError):
        fifo.is_held()
    monkeypatch.undo()

    assert len(os.listdir("/dev/fd")) == fds
    assert fifo.is_held()
    os.close(alive)


def test_a_link_is_not_followed(fifo: Liveness, tmp_path: Path) -> None:
    """A symbolic link in the place of the FIFO is refused."""
    os.mkfifo(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", fifo.path)

    assert fifo.watch() is None
    with pytest.raises(HostError):
        fifo.open_writer()


async def test_who_comes_after_an_end_that_was_seen_holds_it(fifo: Liveness, autojump_clock: trio.testing.MockClock) -> None:
    """What was found free is held again as soon as somebody has been given it, and free again with its end."""
    alive = fifo.open_writer()
    watch = watched(fifo)
    os.close(alive)
    with trio.fail_after(10):
        await watch.wait_end(lambda data: None)
    assert await fifo.is_held_still(1) is False

    alive = fifo.open_writer()
    assert await fifo.is_held_still(1) is True

    os.close(alive)
    assert await fifo.is_held_still(1) is False
    watch.close()
