"""From a guest that has come up to one that is ready, and whether it stays well: what follows from `[order] ready` and `[health]`."""

from collections.abc import Callable

import msgspec
import trio

from bhyved.core import explain, lifecycle, tally
from bhyved.core.lifecycle import Answer
from bhyved.core.status import Phase
from bhyved.daemon.deeds import Deeds, Start
from bhyved.daemon.health import HealthWatch
from bhyved.daemon.readiness import Questions
from bhyved.daemon.run import Run
from bhyved.daemon.standing import Standing
from bhyved.daemon.turnstile import Turnstile

RESET_S = 10.0  # for a reset that its health probes have asked for


class Fitness:
    """One guest's."""

    def __init__(
        self, standing: Standing, turns: Turnstile, deeds: Deeds, *, submit: Callable[[lifecycle.Event], Answer], start: Start
    ) -> None:
        self._of, self._turns, self._deeds = standing, turns, deeds
        self._submit, self._start = submit, start
        self._waiting = trio.CancelScope()  # for the guest to be ready
        around = standing.around
        self._health = HealthWatch(standing.name, around.consoles, standing.machine, ill=self._fell_ill, well=self._got_well, start=start)

    def came_up(self) -> None:
        """The guest of the present run is up."""
        of, run = self._of, self._of.run
        if run is None:
            return
        run.was_up = True
        of.chronicle.came_up()
        if run.resumes:
            self._start(self._deeds.spent, run)
        if not run.adopted:
            of.record = tally.started(of.record, of.around.host.monotonic() - run.began)
            of.hook_soon(self._start, "post-start")
        if of.spec.order.ready is None:
            self._ready(run)
        else:
            self._waiting = trio.CancelScope()
            self._start(self._wait_ready, self._waiting, run)
            of.publish()

    def over(self) -> None:
        """The run has ended."""
        self._waiting.cancel()
        self._health.over()
        self._of.ill = ""

    def watch_health(self) -> None:
        """From when the guest is ready until it is asked to end, or ends: as the file says now."""
        of, run = self._of, self._of.run
        if run is None or not run.ready:
            return
        of.ill = ""
        if of.spec.health is None:
            self._health.over()
        else:
            self._health.begin(of.spec.health, self._questions(run))

    def _questions(self, run: Run) -> Questions:
        around = self._of.around
        path = self._of.agent_path(run)
        return Questions(self._of.name, around.consoles, around.commands, around.spec.run_as or "", self._of.agent, path)

    async def _wait_ready(self, scope: trio.CancelScope, run: Run) -> None:
        of, ready = self._of, self._of.spec.order.ready
        assert ready is not None
        since = run.console_since
        uptime_s = run.uptime_s(of.around.host.monotonic(), None)

        def no(why: str) -> None:
            unready = explain.unready(ready, why)
            if of.run is run and run.unready != unready:
                run.unready = unready
                of.publish()

        no("")
        in_time = False
        with scope:
            in_time = await self._questions(run).ready(ready, since, uptime_s, no)
        if scope.cancelled_caught or of.run is not run:
            return
        if in_time:
            of.set_up(run)
            of.keep()
            self._ready(run)
        elif ready.on_timeout == "continue":
            of.chronicle.tell("ready-timeout", f"not ready within {ready.timeout}: {run.unready}; guests that wait for it go on")
            self._ready(run)
        else:
            run.late = True
            of.publish()
            self._turns.stir()
            of.chronicle.tell("ready-timeout", f"not ready within {ready.timeout}: {run.unready}; guests that require it keep waiting")

    def _ready(self, run: Run) -> None:
        if run.ready:
            return
        of, run.ready = self._of, True
        of.publish()
        self._turns.stir()
        if of.record.ready_run != run.id:  # else an earlier daemon has told it: nobody is to be told twice
            of.record = msgspec.structs.replace(of.record, ready_run=run.id)
            of.keep()
            of.chronicle.tell("ready")
            of.hook_soon(self._start, "ready")
        self.watch_health()

    async def _fell_ill(self, why: str) -> None:
        of, run, health = self._of, self._of.run, self._of.spec.health
        if run is None or health is None or of.life.phase is not Phase.UP:
            return
        of.ill = why
        of.publish()
        of.chronicle.tell("ill", why, action=health.action)
        if health.action == "nmi":
            answer = await self._deeds.inject_nmi()
            if not answer.ok:
                of.chronicle.tell("nmi-failed", answer.text)
        elif health.action == "reset":
            self._submit(lifecycle.Reset(by="its health probes", blame=f"reset by its health probes: {why}"))
            await trio.sleep(RESET_S)
            if of.run is run and of.life.phase is Phase.UP:  # a reset needs vCPUs that run (contract 1.9)
                await self._deeds.kill()

    def _got_well(self) -> None:
        self._of.ill = ""
        self._of.publish()
        self._of.chronicle.tell("well")
