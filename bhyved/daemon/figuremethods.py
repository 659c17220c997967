"""vm.usage, daemon.metrics and web.link: the guests in figures, and the way to their page, for who comes by the control socket.

The same figures as over HTTP, which may be switched off; `app` puts the two together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bhyved.core.answers import Link, MetricsText, Usages, Used
from bhyved.core.errors import HostError
from bhyved.core.jsonrpc import REFUSED, Fault
from bhyved.core.params import ListParams, MetricsParams, NoParams
from bhyved.core.status import VmStatus
from bhyved.core.usage import Usage
from bhyved.daemon.access import Access, Handler
from bhyved.daemon.guests import Guests
from bhyved.daemon.metrics import Metrics
from bhyved.daemon.snapshots import Snapshots


@dataclass(frozen=True, kw_only=True)
class Views:
    """What else shows the guests or has something of them, and the daemon's own problems, by part: a sentence, or ''.

    `new_link` opens the page once; it raises HostError where there is no page to open.
    """

    metrics: Metrics
    new_link: Callable[[], str]
    problems: Callable[[], Mapping[str, str]]
    snapshots: Snapshots


class FigureMethods:
    """Handlers by method, as in `guestmethods`."""

    def __init__(self, guests: Guests, views: Views) -> None:
        self._guests, self._views = guests, views
        self.handlers: dict[str, Handler] = {
            "vm.usage": self._usage,
            "daemon.metrics": self._metrics,
            "web.link": self._link,
        }

    async def _usage(self, caller: Access, params: ListParams) -> Usages:
        names = caller.visible(params.names)
        statuses = [status for status in self._guests.board.all() if status.name in names]
        at_s = self._guests.now()
        usage = await self._views.metrics.measured(statuses)
        return Usages(at_s=at_s, vms=[self._used(status, usage) for status in statuses])

    def _used(self, status: VmStatus, usage: Usage) -> Used:
        process = usage.processes.get(status.name)
        traffic = [usage.taps[tap] for tap in status.taps if tap in usage.taps]
        return Used(
            name=status.name,
            cpu_s=None if process is None else process.cpu_s,
            resident_bytes=None if process is None else process.resident_bytes,
            threads=None if process is None else process.threads,
            received_bytes=sum(each.received_bytes for each in traffic),
            sent_bytes=sum(each.sent_bytes for each in traffic),
            console_bytes=sum(each.output_bytes for each in self._guests.consoles.stats(status.name)),
        )

    async def _metrics(self, caller: Access, params: MetricsParams) -> MetricsText:
        scrape = await self._views.metrics.scrape(params.accept)
        return MetricsText(content_type=scrape.content_type, text=await scrape.text())

    async def _link(self, caller: Access, params: NoParams) -> Link:
        try:
            return Link(url=self._views.new_link())
        except HostError as error:
            raise Fault(REFUSED, "no-page", str(error)) from None
