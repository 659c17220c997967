"""Threads when the host has none to give."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio._core._thread_cache import THREAD_CACHE

from bhyved import threads
from bhyved.threads import in_thread

ROOT = Path(__file__).parents[2]
NO_STACK_BYTES = 1 << 46  # more than any host has


@pytest.fixture
def shortage() -> Iterator[None]:
    """No new thread can be started: there is no memory for its stack."""
    idle = dict(THREAD_CACHE._idle_workers)
    THREAD_CACHE._idle_workers.clear()  # of tests before
    before = threading.stack_size(NO_STACK_BYTES)
    yield
    threading.stack_size(before)
    THREAD_CACHE._idle_workers.update(idle)


@pytest.mark.usefixtures("shortage")
def test_what_python_says() -> None:
    """By these words a shortage is known."""
    with pytest.raises(RuntimeError) as error:
        threading.Thread(target=print).start()

    assert str(error.value) == threads.NONE


@pytest.mark.usefixtures("shortage")
async def test_whoever_needs_a_thread_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once, others go on meanwhile, and the work is done when the shortage is over."""
    waited, sleep = trio.Event(), trio.sleep
    pauses = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            waited.set()
        await sleep(0)

    monkeypatch.setattr(trio, "sleep", pause)
    done: list[str] = []

    async def ask() -> None:
        done.append(await in_thread("{}{}".format, "do", "ne"))

    with trio.fail_after(60), capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await waited.wait()
            assert done == []
            threading.stack_size(0)

    assert done == ["done"]
    assert set(pauses) == {threads.AGAIN_S}
    assert [line["event"] for line in logs] == ["no thread can be started"]


@pytest.mark.usefixtures("shortage")
async def test_a_wait_for_a_thread_can_be_given_up(autojump_clock: trio.abc.Clock) -> None:
    """As that for an answer."""
    began = trio.current_time()
    with trio.move_on_after(10):
        await in_thread(print)

    assert trio.current_time() - began == pytest.approx(10)


async def test_what_the_work_raises_is_its_own() -> None:
    """Also the same kind of error."""

    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await in_thread(fail)


def test_nobody_takes_a_thread_otherwise() -> None:
    """One that cannot be started would end the daemon."""
    users = [path for path in (ROOT / "bhyved").rglob("*.py") if "to_thread" in path.read_text() and "lab" not in path.parts]

    assert users == [ROOT / "bhyved/threads.py"]
