"""A drain of the host: every guest is stopped and none is started, until that is taken back or its time is over.

The supervisor asks it before each start. It is kept on disk, so that it also holds for the next daemon of the same boot.
"""

from collections.abc import Callable
from datetime import datetime

import structlog
import trio

from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.lifecycle import Answer
from bhyved.core.status import utc_text
from bhyved.daemon.events import Events
from bhyved.daemon.ports import DrainFile
from bhyved.daemon.saving import AGAIN_S

_log = structlog.get_logger()


class Draining:
    """The one drain, or none. `began` and `over` are called when guests are to be stopped, and when they may start again."""

    def __init__(
        self, file: DrainFile, events: Events, utc: Callable[[], datetime], *, began: Callable[[Drain], None], over: Callable[[], None]
    ) -> None:
        self._file, self._events, self._utc = file, events, utc
        self._began, self._over = began, over
        self.drain = self._saved = self._settled = file.load()  # settled: on disk, or refused there
        self._trouble = ""
        self._changed, self._done = trio.Event(), trio.Event()

    @property
    def refusal(self) -> Answer | None:
        """What a start is told, while there is a drain."""
        if self.drain is None:
            return None
        why = f": {self.drain.reason}" if self.drain.reason else ""
        return Answer(False, "draining", f"{self.drain.by} has drained this host{why}; `vmctl drain --off` ends that")

    def set(self, drain: Drain | None, by: str = "") -> None:
        """Another drain in place of this one, or the end of it: by whom."""
        was, self.drain = self.drain, drain
        self._changed.set()
        if drain is not None:
            _log.info("drain", by=drain.by, reason=drain.reason, until=utc_text(drain.until_at))
            self._events.tell("drain", by=drain.by, reason=drain.reason, until=utc_text(drain.until_at))
            if was is None:
                self._began(drain)
        elif was is not None:
            _log.info("drain-over", by=by)
            self._events.tell("drain-over", by=by)
            self._over()

    async def saved(self) -> None:
        """Return when it is on disk, or has refused to go there."""
        while self.drain != self._settled:
            await self._done.wait()

    async def run(self) -> None:
        """Keep it, and end it in time, until cancelled."""
        while True:
            self._changed = trio.Event()
            await self._save()
            self._done.set()
            self._done = trio.Event()
            with trio.move_on_after(min(self._left_s(), AGAIN_S if self._trouble else float("inf"))):
                await self._changed.wait()
            if self.drain is not None and self._left_s() <= 0:
                self.set(None, by="the end of its time")

    def _left_s(self) -> float:
        until_at = None if self.drain is None else self.drain.until_at
        return float("inf") if until_at is None else max(0.0, (until_at - self._utc()).total_seconds())

    async def _save(self) -> None:
        drain = self.drain
        if drain == self._saved:
            self._settled, self._trouble = drain, ""
            return
        try:
            await self._file.save(drain)
        except HostError as error:
            if str(error) != self._trouble:
                self._events.tell("warning", reason=f"the next daemon will not know of this change of the drain: {error}")
            self._trouble = str(error)
        else:
            self._saved, self._trouble = drain, ""
        self._settled = drain
