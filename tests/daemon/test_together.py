"""Blocking jobs of one moment, done by one thread."""

import threading

import pytest
import trio
import trio.testing

from bhyved.daemon.together import MOST, Together


async def test_who_comes_together_is_served_together() -> None:
    """In the order of coming, by one thread after the other, and each gets what its own job returned."""
    together: Together[int] = Together()
    gate, threads, done, got = threading.Event(), set[int](), list[int](), dict[int, int]()

    def job(number: int) -> int:
        gate.wait()
        threads.add(threading.get_ident())
        done.append(number)
        return number * 2

    async def ask(number: int) -> None:
        got[number] = await together.run(lambda: job(number))

    async with trio.open_nursery() as nursery:
        for number in range(MOST + 1):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()  # tasks of one moment begin in any order
        gate.set()

    assert done == list(range(MOST + 1))
    assert got == {number: number * 2 for number in done}
    assert len(threads) <= 3  # the first came alone


async def test_a_job_that_fails_is_its_own_callers() -> None:
    """The others get what they came for."""
    together: Together[int] = Together()
    gate = threading.Event()
    got = []

    async def ask(number: int) -> None:
        got.append(await together.run(lambda: 1 // number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(together.run, lambda: int(gate.wait()))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, 1)
        nursery.start_soon(ask, -1)
        nursery.start_soon(_expect_failure, together)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()

    assert sorted(got) == [-1, 1]


async def _expect_failure(together: Together[int]) -> None:
    with pytest.raises(ZeroDivisionError):
        await together.run(lambda: 1 // 0)


async def test_a_caller_that_is_cancelled_leaves_the_others_theirs() -> None:
    """Whoever does the work does it to the end."""
    together: Together[int] = Together()
    gate = threading.Event()
    got = []

    async def ask() -> None:
        got.append(await together.run(lambda: 7))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_stuck, scope, gate)
            nursery.start_soon(ask)
            await together.run(lambda: int(gate.wait()))

    assert got == [7]


async def _cancel_when_stuck(scope: trio.CancelScope, gate: threading.Event) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
    gate.set()
