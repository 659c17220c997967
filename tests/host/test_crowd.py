"""The gate that keeps a crowd of guests from holding up the event loop."""

import trio
import trio.testing

from bhyved.host.crowd import Crowd


class Looks(trio.abc.Instrument):
    """How often the loop has looked at its sockets."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_a_crowd_passes_a_few_at_a_time() -> None:
    """Of a hundred that come at once, no more than a handful go on between two looks at the sockets, and all do in the end."""
    crowd, looks, passed = Crowd(), Looks(), dict[int, int]()

    async def come() -> None:
        await crowd.pass_through()
        passed[looks.count] = passed.get(looks.count, 0) + 1

    trio.lowlevel.add_instrument(looks)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(come)
    finally:
        trio.lowlevel.remove_instrument(looks)

    assert sum(passed.values()) == 100
    assert max(passed.values()) <= 8


async def test_one_that_hangs_stops_no_other() -> None:
    """Whoever has passed holds nothing."""
    crowd = Crowd()

    async def hang() -> None:
        await crowd.pass_through()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(hang)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await crowd.pass_through()
        nursery.cancel_scope.cancel()
