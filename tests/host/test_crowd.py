"""The gate that keeps a crowd of guests from holding up the event loop."""

import time

import trio
import trio.testing

from bhyved.host.crowd import SLICE_S, Crowd

PIECE_S = SLICE_S / 2


class Loop(trio.abc.Instrument):
    """How often the loop has looked at its sockets, and when it did last."""

    count, at = 0, 0.0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1

    def after_io_wait(self, timeout: float) -> None:
        self.at = time.perf_counter()

    def busy_s(self) -> float:
        return time.perf_counter() - self.at


async def test_a_crowd_passes_a_few_at_a_time() -> None:
    """Of fifty that come at once with work to do, no more go on between two looks at the sockets than fit into a slice."""
    loop = Loop()
    crowd, passed, order = Crowd(loop.busy_s), dict[int, int](), []

    async def come(number: int) -> None:
        await crowd.pass_through()
        passed[loop.count] = passed.get(loop.count, 0) + 1
        order.append(number)
        until = time.perf_counter() + PIECE_S
        while time.perf_counter() < until:
            pass

    trio.lowlevel.add_instrument(loop)
    try:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(come, number)
            await trio.lowlevel.checkpoint()
            first = len(order)
    finally:
        trio.lowlevel.remove_instrument(loop)

    assert sorted(order) == list(range(50))
    assert max(passed.values()) <= SLICE_S / PIECE_S + 1
    assert first <= SLICE_S / PIECE_S + 1


async def test_whoever_waits_goes_first() -> None:
    """Whoever comes later does not pass those that wait."""
    busy, order = [1.0], []
    crowd = Crowd(lambda: busy[0])

    async def come(number: int) -> None:
        await crowd.pass_through()
        order.append(number)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(come, number)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            waiting = list(order)
            busy[0] = 0.0
            nursery.start_soon(come, 3)

    assert waiting == []
    assert order == [0, 1, 2, 3]


async def test_one_that_hangs_stops_no_other() -> None:
    """Whoever has passed holds nothing, and whoever is cancelled while it waits neither."""
    busy = [0.0]
    crowd = Crowd(lambda: busy[0])

    async def hang() -> None:
        await crowd.pass_through()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(hang)
        await trio.testing.wait_all_tasks_blocked()
        busy[0] = 1.0
        with trio.move_on_after(0) as gave_up:
            await crowd.pass_through()
        busy[0] = 0.0
        with trio.fail_after(5):
            await crowd.pass_through()
        nursery.cancel_scope.cancel()

    assert gave_up.cancelled_caught
