"""A scrape: metrics of all configured guests and of the daemon, made from the status board at the moment somebody asks.

Nothing is counted in passing and nothing ticks: counts live in the guests' statuses. The guests' part is rendered in slices with
room for others in between, the daemon's by prometheus_client.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import structlog
import trio
from prometheus_client.exposition import choose_encoder

from bhyved.core.console import ConsoleStats
from bhyved.core.daemonfacts import DaemonFacts
from bhyved.core.errors import HostError
from bhyved.core.exposition import Page, Seen
from bhyved.core.series import GUEST_METRICS
from bhyved.core.snapshots import Stock
from bhyved.core.status import ACTIVE, VmStatus
from bhyved.core.usage import Own, Usage, Vcpus
from bhyved.daemon.board import Board
from bhyved.daemon.collector import DaemonCollector
from bhyved.daemon.loopwatch import LoopWatch
from bhyved.threads import in_thread

_log = structlog.get_logger()

#: Guests rendered in one piece: about 2 ms.
SLICE = 16
#: Each look at the vCPUs costs a process, so that a scrape starts at most so many, for the guests looked at longest ago.
VCPU_LOOKS = 32
#: And no guest is looked at more often, however many scrape.
VCPU_AGE_S = 10.0


class Measuring(Protocol):
    """The host's accounting; implemented by `host.usage`."""

    def measure(self, pids: Mapping[str, int], taps: Iterable[str]) -> Usage:
        """Processes by guest, taps by name. Blocks: call it in a thread."""

    def own(self) -> Own:
        """The daemon itself."""

    async def vcpus(self, name: str) -> Vcpus:
        """bhyvectl's counters of a running guest. Raises HostError."""


class ConsoleFigures(Protocol):
    """What `Consoles` offers here."""

    def stats(self, name: str) -> tuple[ConsoleStats, ...]: ...


class Scrape:
    """One answer: its content type, and its text in pieces."""

    def __init__(self, content_type: str, page: Page, rest: str, *, openmetrics: bool) -> None:
        self.content_type = content_type
        self._page, self._rest, self._openmetrics = page, rest, openmetrics

    def pieces(self) -> Iterator[str]:
        """Bounded pieces: whoever sends them lets others run in between."""
        yield from self._page.pieces(openmetrics=self._openmetrics)
        yield self._rest

    async def text(self) -> str:
        """All of it in one, with room for others in between."""
        text = []
        for piece in self.pieces():
            text.append(piece)
            await trio.lowlevel.checkpoint()
        return "".join(text)


class Metrics:
    """Makes scrapes."""

    def __init__(
        self,
        board: Board,
        consoles: ConsoleFigures,
        measuring: Measuring,
        facts: Callable[[], DaemonFacts],
        loop: LoopWatch,
        *,
        now: Callable[[], float],
        vcpu_stats: bool = False,
        stocks: Callable[[], Mapping[str, Stock]] = dict,
    ) -> None:
        self._board, self._consoles, self._measuring, self._facts, self._loop = board, consoles, measuring, facts, loop
        self._stocks = stocks
        self._now = now  # CLOCK_MONOTONIC, as in the statuses
        self.vcpu_stats = vcpu_stats
        self._vcpus: dict[str, tuple[float, Vcpus]] = {}
        self._one = trio.Lock()  # many that scrape at once are served one after the other

    async def scrape(self, accept: str = "") -> Scrape:
        """The metrics of this moment, in the format that the Accept header asks for."""
        try:
            encoder, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number: anybody's header may have one
            encoder, content_type = choose_encoder("")
        async with self._one:
            statuses = self._board.all()
            usage = await self.measured(statuses)
            if self.vcpu_stats:
                await self._look_at_vcpus(statuses)
            stocks = self._stocks()
            page = Page(GUEST_METRICS)
            offset_s = time.time() - self._now()
            for number, status in enumerate(statuses):
                page.add(self._seen(status, usage, offset_s, stocks.get(status.name)))
                if number % SLICE == SLICE - 1:
                    await trio.lowlevel.checkpoint()
            collector = DaemonCollector(self._facts(), statuses, self._loop, self._measuring.own())
        return Scrape(content_type, page, encoder(collector).decode(), openmetrics=content_type.startswith("application/openmetrics-text"))

    async def measured(self, statuses: list[VmStatus]) -> Usage:
        """What the host says of those that run."""
        pids = {status.name: status.pid for status in statuses if status.pid is not None}
        taps = [tap for status in statuses if status.pid is not None for tap in status.taps]
        if not pids:
            return Usage()
        return await in_thread(self._measuring.measure, pids, taps)

    def _seen(self, status: VmStatus, usage: Usage, offset_s: float, stock: Stock | None) -> Seen:
        return Seen(
            status=status,
            unix_offset_s=offset_s,
            consoles=self._consoles.stats(status.name),
            process=usage.processes.get(status.name),
            taps=usage.taps,
            vcpus=self._vcpus.get(status.name, (0.0, Vcpus()))[1],
            stock=stock,
        )

    async def _look_at_vcpus(self, statuses: list[VmStatus]) -> None:
        """Bring the oldest figures up to date, one guest after the other."""
        live = {status.name for status in statuses if status.phase in ACTIVE and status.pid is not None}
        self._vcpus = {name: kept for name, kept in self._vcpus.items() if name in live}
        due = self._now() - VCPU_AGE_S
        ages = {name: self._vcpus[name][0] if name in self._vcpus else float("-inf") for name in sorted(live)}
        for name in sorted((name for name, at in ages.items() if at <= due), key=lambda name: ages[name])[:VCPU_LOOKS]:
            try:
                found = await self._measuring.vcpus(name)
            except HostError as error:
                _log.debug("no vcpu counters", vm=name, why=str(error))
                found = Vcpus()
            self._vcpus[name] = (self._now(), found)
