"""Any history of a console: output, viewers that read or stall, boots and daemon restarts in any order.

Each viewer is given a subsequence of what the guest printed, with every gap where it is and as large as it is; ring and log agree with
the guest to the byte.
"""

import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import trio
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.console import Output
from bhyved.host.logreader import LogReader
from tests.daemon.consolekit import Client, Daemon, attached
from tests.daemon.guestline import GuestLine
from tests.fuzz import examples

SMALL = {"first_bytes": 600, "latest_bytes": 1800}  # a ring that a few steps overrun

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("print"), st.integers(1, 900)),
        st.tuples(st.just("flood"), st.integers(20_000, 60_000)),
        st.tuples(st.just("attach"), st.sampled_from([0, 1, 2])),  # all, boot, end
        st.tuples(st.just("stall"), st.sampled_from([0, 2])),
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("boot"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=14,
)


class Story:
    """One console's history, and what each of its viewers must have seen of it."""

    def __init__(self, root: Path, line: GuestLine) -> None:
        self.root, self.line = root, line
        self.printed = b""
        self.viewers: list[tuple[int, Client]] = []

    async def print(self, daemon: Daemon, size: int) -> None:
        start = len(self.printed)
        data = bytes(33 + (start + i) % 90 for i in range(size))  # never what came before it: a byte out of place is seen
        self.printed += data
        await self.line.say(data)
        while daemon.hub.offset < len(self.printed):
            event = trio.Event()
            daemon.hub.listen(event)
            if daemon.hub.offset < len(self.printed):
                await event.wait()

    async def play(self, steps: Sequence[Step]) -> None:
        rest = list(steps)
        while True:
            async with Daemon(self.root, self.line.path, **SMALL).running() as daemon, AsyncExitStack() as viewing:
                self.viewers = []
                ended = await self._life(daemon, rest, viewing)
                await self._see(daemon)
            if ended:
                break
        await self._look_at_what_is_kept()

    async def _life(self, daemon: Daemon, rest: list[Step], viewing: AsyncExitStack) -> bool:
        """Play until the daemon is killed (False) or nothing is left to play."""
        while rest:
            step, number = rest.pop(0)
            match step:
                case "print" | "flood":
                    await self.print(daemon, number)
                case "attach" | "stall":
                    since = ("all", "boot", "end")[number]
                    buffer = 2048 if step == "stall" else 0
                    client = await viewing.enter_async_context(attached(daemon, since=since, may_write=False, buffer=buffer))
                    assert client.next is not None
                    self.viewers.append((client.next, client))
                case "read" if self.viewers:
                    client = self.viewers[number % len(self.viewers)][1]
                    with trio.move_on_after(0):
                        await client.read()
                case "boot":
                    daemon.consoles.mark("web1", "boot", f"run {len(rest)}", run=f"r{len(rest)}")
                case "restart":
                    return False
        return True

    async def _see(self, daemon: Daemon) -> None:
        """Everybody reads to the end: what came, and what is said to be missing, is all that was printed since."""
        for since, client in self.viewers:
            while client.next != len(self.printed):
                assert await client.read()
            missing = sorted((gap.offset, gap.offset + gap.size) for gap in client.gaps)
            expected, at = b"", since
            for start, stop in missing:
                expected += self.printed[at:start]
                at = stop
            assert client.output == expected + self.printed[at:]
        kept = [(piece.offset, bytes(piece.data)) for piece in daemon.hub.ring.read(0)]
        assert all(self.printed[offset : offset + len(data)] == data for offset, data in kept)
        assert not self.printed or kept[-1][0] + len(kept[-1][1]) == len(self.printed)
        await daemon.consoles.flushed()

    async def _look_at_what_is_kept(self) -> None:
        page = LogReader(self.root / "log" / "web1.console.log").read(0, 1 << 30)
        assert b"".join(record.data for record in page.records if isinstance(record, Output)) == self.printed


async def _tell(root: Path, steps: Sequence[Step]) -> None:
    line = GuestLine(root / "nmdm-web1.1B")
    try:
        with trio.fail_after(30):
            await Story(root, line).play(steps)
    finally:
        line.close()


@examples(25)
@given(steps=STEPS)
def test_viewers_ring_and_log_agree_with_the_guest(steps: list[Step]) -> None:
    """Whatever happens to viewers and daemon, no byte is repeated, none is lost unsaid."""
    with tempfile.TemporaryDirectory(prefix="bhc") as root:
        trio.run(_tell, Path(root), steps)
