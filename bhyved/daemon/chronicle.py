"""What is told of one guest: a line in the log a step, an event a change, a line in its history a run."""

import structlog

from bhyved.core.exits import Exit, Outcome
from bhyved.core.lifecycle import Event, Lifecycle
from bhyved.core.status import Hold, LastExit, Phase, utc_text
from bhyved.daemon import run as runs
from bhyved.daemon.around import Around
from bhyved.daemon.run import Run

_log = structlog.get_logger()

_LOUD = ("-failed", "-timeout", "warning")


class Chronicle:
    """Tells of one guest."""

    def __init__(self, name: str, around: Around) -> None:
        self._name, self._around = name, around
        self._last_failure = ""

    def step(self, event: Event, was: Phase, life: Lifecycle, now: float) -> None:
        """The lifecycle has taken an event."""
        by, deadline_s = getattr(event, "by", ""), None if life.deadline is None else round(life.deadline - now, 3)
        words = _said(reason=life.reason, by=by, deadline_s=deadline_s)
        _log.info(type(event).__name__, vm=self._name, phase=str(life.phase), was=str(was), **words)
        if life.phase is not was:
            self._around.events.tell(
                "phase", vm=self._name, phase=life.phase, reason=life.reason, by=by, was=str(was), deadline_s=deadline_s
            )

    def tell(self, event: str, reason: str = "", *, by: str = "", **data: str | int | float | bool | None) -> None:
        """Anything else that has happened."""
        level = _log.warning if event.endswith(_LOUD) else _log.info
        level(event, vm=self._name, **_said(reason=reason, **data))
        self._around.events.tell(event, vm=self._name, phase=None, reason=reason, by=by, **data)

    def tell_hold(self, event: Event, was: Hold | None, hold: Hold | None) -> None:
        """Automation has been frozen, otherwise than before, or goes on."""
        if hold is not None and hold != was:
            self.tell("hold", hold.reason, by=hold.by, until=utc_text(hold.until_at))
        elif hold is None and was is not None:
            self.tell("hold-over", by=getattr(event, "by", ""))

    def run_ended(self, run: Run, end: Exit, outcome: Outcome, last: LastExit, uptime_s: float, decision: str) -> None:
        """A run is over, and what follows is decided."""
        hub = next(iter(self._around.consoles.hubs(self._name)), None)
        console = hub.tail(runs.CONSOLE_LINES, of_run=True) if hub is not None else ""
        record = runs.record(run, end, last, uptime_s=uptime_s, decision=decision, stderr=outcome.stderr, console=console)
        self._around.journal.add_run(record)
        if run.adopted and self._around.events.has_ended(self._name, run.id):
            return  # an earlier daemon was killed behind its word, before it had cleaned up
        uptime_s = round(uptime_s, 3)
        self.tell(
            "ended", end.text, kind=end.kind, status=last.status, signal=last.signal, uptime_s=uptime_s, decision=decision, run=run.id
        )

    def start_failed(self, run: Run, end: Exit, decision: str, stderr: str = "") -> None:
        """A start that never became a run has a line in the history too: one, however often it is tried again."""
        if end.text == self._last_failure:
            return
        self._last_failure = end.text
        last = LastExit(kind=end.kind, status=end.status, signal=end.signal, at=self._around.host.utc(), text=end.text, hint=end.hint)
        self._around.journal.add_run(runs.record(run, end, last, uptime_s=0.0, decision=decision, stderr=stderr, console=""))

    def came_up(self) -> None:
        """The next failure is news again."""
        self._last_failure = ""


def _said(**words: str | float | bool | None) -> dict[str, str | float | bool]:
    """The words of a log line that say something."""
    return {key: value for key, value in words.items() if value is not None and value != ""}
