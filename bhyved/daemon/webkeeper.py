"""The HTTP server as `[metrics]` says now: a reload that changes where or how it listens ends one and opens another."""

from collections.abc import Callable

import msgspec
import trio

from bhyved.core.errors import HostError
from bhyved.core.spec import Metrics
from bhyved.daemon.web import Web

OFF = "the http server is switched off: metrics.listen is empty"


class WebKeeper:
    """Has one server, or none. `opened` is told the URL, or '' and why there is none; twice '' where there is to be none."""

    def __init__(self, make: Callable[[Metrics], Web], opened: Callable[[str, str], None]) -> None:
        self._make, self._opened = make, opened
        self._web: Web | None = None
        self._spec = Metrics(listen="")
        self._changed = trio.Event()

    async def run(self, spec: Metrics, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Started means: it serves, or has said why not."""
        self._spec = spec
        is_first = True
        while True:
            self._changed = trio.Event()
            async with trio.open_nursery() as nursery:
                self._web = self._make(self._spec) if self._spec.listen else None
                url = "" if self._web is None else await nursery.start(self._web.run)
                self._opened(url, "" if self._web is None else self._web.problem)
                if is_first:
                    is_first = False
                    task_status.started()
                await self._changed.wait()
                nursery.cancel_scope.cancel()

    def reload(self, spec: Metrics) -> None:
        """The files have been read again, certificates too. One that could not be opened is tried again."""
        same = msgspec.structs.replace(spec, vcpu_stats=self._spec.vcpu_stats) == self._spec
        has_failed = self._web is not None and bool(self._web.problem)
        self._spec = spec
        if not same or has_failed or spec.tls_cert is not None:
            self._changed.set()

    def new_link(self) -> str:
        """See `web.Web.new_link`. Raises HostError."""
        if self._web is None:
            raise HostError(OFF)
        return self._web.new_link()
