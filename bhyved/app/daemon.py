"""The daemon, put together: builds host, supervisor and servers, and owns the nursery they live in."""

import gc
import os
import random
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import trio

import bhyved
from bhyved.app.signals import HEARD, OK, SHUTDOWN_FILE, Received, Signals
from bhyved.core import agenda
from bhyved.core.daemonfacts import DaemonFacts
from bhyved.core.errors import HostError, in_words
from bhyved.core.lastgood import Settled
from bhyved.core.spec import DaemonSpec
from bhyved.core.spec import Metrics as MetricsSpec
from bhyved.core.status import ACTIVE
from bhyved.daemon import log
from bhyved.daemon.around import Around
from bhyved.daemon.board import Board
from bhyved.daemon.census import Census
from bhyved.daemon.console import Consoles
from bhyved.daemon.control import Control
from bhyved.daemon.events import Events
from bhyved.daemon.figuremethods import Views
from bhyved.daemon.guests import About, configured
from bhyved.daemon.hooks import Hooks
from bhyved.daemon.loopwatch import LoopWatch
from bhyved.daemon.metrics import Metrics
from bhyved.daemon.site import Sources
from bhyved.daemon.snapshots import Snapshots
from bhyved.daemon.story import explain_guest
from bhyved.daemon.supervisor import Supervisor
from bhyved.daemon.web import Web
from bhyved.daemon.webkeeper import WebKeeper
from bhyved.host import controlsocket, durable, peer
from bhyved.host.commands import HostCommands
from bhyved.host.configfiles import Good, Reader
from bhyved.host.consoles import HostConsoles
from bhyved.host.drainfile import HostDrainFile
from bhyved.host.facts import HostFacts
from bhyved.host.freebsd import FreeBsdHost
from bhyved.host.journal import FileJournal
from bhyved.host.listener import Users, open_listener
from bhyved.host.toolbox import Tools
from bhyved.host.usage import HostUsage
from bhyved.host.vault import FileVault
from bhyved.host.zfs import HostDatasets
from bhyved.threads import in_thread

_log = structlog.get_logger()

URL_FILE = "metrics.url"
SOCKET = "control.sock"
SAVE_S = 5.0  # for the last records, at the end


@dataclass(frozen=True, kw_only=True)
class Life:
    """What one daemon is started with. `spec` is `settled`'s."""

    config: str
    settled: Settled
    spec: DaemonSpec
    stop_all: bool = False


class Daemon:
    """The composition root. Each part is made once, here."""

    def __init__(self, life: Life, tools: Tools, facts: HostFacts, loop: LoopWatch) -> None:
        spec, paths = life.spec, life.spec.paths
        self._life, self._spec, self._tools, self._loop = life, spec, tools, loop
        self._run = Path(paths.run)
        self._host = FreeBsdHost(spec, tools, facts, loop.busy_s)
        self._vault = FileVault(f"{paths.db}/vm")
        self._drain_file = HostDrainFile(str(paths.db), facts.boot)
        self._journal = FileJournal(str(paths.db), facts.boot, self._host.utc)
        self._files = Reader(life.config, Good(f"{paths.db}/good", life.config))
        self._about = About(
            version=bhyved.__version__,
            config=os.path.abspath(life.config),
            boot=facts.boot,
            pid=os.getpid(),
            started_at=self._host.utc(),
            started=time.monotonic(),
        )
        board, events = Board(), Events(self._journal)
        commands = HostCommands(tools)
        ports = HostConsoles(run=self._run, log=Path(paths.log), load_nmdm=self._host.load_nmdm)
        consoles = Consoles(ports, self._tell_console, time.time)
        around = Around(
            host=self._host,
            vault=self._vault,
            drain_file=self._drain_file,
            journal=self._journal,
            commands=commands,
            consoles=consoles,
            board=board,
            events=events,
            hooks=Hooks(commands, events, spec.hooks, spec.run_as),
            spec=spec,
            rng=random.random,
            host_id=facts.host_id,
            target=facts.target,
            autostart=not life.stop_all,
        )
        self._around = around
        self._guests = Supervisor(
            around, self._files, self._about, life.settled.loaded, broken=life.settled.broken, records=self._vault.load()
        )
        self._usage = HostUsage(tools)
        self._datasets = HostDatasets(tools, str(paths.dev), str(paths.run))
        self._signals = Signals(self._guests, events, self._host, self._run)
        self._census = Census(self._datasets, partial(configured, self._guests), time.monotonic)
        self._budget_s: float | None = None
        self._http_problem = ""
        self._serving = False

    def _tell_console(self, name: str, event: str, fields: Mapping[str, str | int]) -> None:
        _log.warning(event, vm=name, **fields)
        self._around.events.tell(event, vm=name, phase=None, reason=str(fields.get("reason", "")), port=fields.get("port", ""))

    async def run(self) -> int:
        """Start everything in order, then do what the signals say."""
        with trio.open_signal_receiver(*HEARD) as received:
            async with trio.open_nursery() as nursery:
                await self._look_around()
                await nursery.start(self._journal.run)
                await nursery.start(self._around.consoles.run)
                await nursery.start(self._guests.run)
                # What is there by now, stays. A full collection would look at all of it each time: a tenth of a second with 500 guests.
                # What their runs add is half of that again, in one stretch, and hardly ever garbage: such collections are five times rarer.
                gc.freeze()
                gc.set_threshold(*gc.get_threshold()[:2], 5 * gc.get_threshold()[2])
                gc.enable()
                if self._life.stop_all:
                    await self._signals.stop(None, received)
                    status = OK
                else:
                    status = await self._serve(nursery, received)
                with trio.move_on_after(SAVE_S):
                    await self._guests.saved()
                    await self._journal.flushed()
                nursery.cancel_scope.cancel()
        return status

    async def _look_around(self) -> None:
        """What an earlier daemon, or the host's last hours, left; and what is missing."""
        settled = self._life.settled
        for sentence in (*settled.fallbacks, *self._vault.problems, *filter(None, [self._drain_file.problem])):
            self._warn(sentence)
        for name, why in settled.broken.items():
            self._warn(f"{name} is held: {why}")
        self._remove(URL_FILE)
        if not self._life.stop_all:  # which is how the rc script stops guests at the end of the host: then the file is for us
            self._remove(SHUTDOWN_FILE)
        try:
            await self._host.load_modules()
        except HostError as error:
            self._warn(str(error))
        found = await self._host.reconcile([*settled.loaded.vms, *settled.broken])
        for sentence in found.removed:
            _log.info("removed", what=sentence)
        for name, pid in found.foreign.items():
            self._warn(f"a bhyve that bhyved did not start runs {name} (pid {pid}): it is left alone")
        for sentence in found.problems:
            self._warn(sentence)
        try:
            await in_thread(self._files.keep, settled)
        except HostError as error:
            self._warn(str(error))

    def _remove(self, name: str) -> None:
        """A file of the daemon before. Whatever else lies there does not keep guests from being looked after."""
        try:
            (self._run / name).unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"{self._run}/{name} cannot be removed: {in_words(error)}")

    def _warn(self, sentence: str) -> None:
        _log.warning("warning", reason=sentence)
        self._around.events.tell("warning", reason=sentence)

    async def _serve(self, nursery: trio.Nursery, received: Received) -> int:
        path = f"{self._run}/{SOCKET}"
        listener = controlsocket.listen(path)
        control: Control | None = None
        try:
            metrics = self._metrics()
            web = WebKeeper(partial(self._web, metrics), self._web_opened)
            self._guests.on_reload(partial(_put_in_force, metrics, web))
            snapshots = Snapshots(self._guests, self._datasets, self._census.outdated)
            views = Views(metrics=metrics, new_link=web.new_link, problems=self._problems, snapshots=snapshots)
            control = Control(self._guests, views, peer, euid=os.geteuid())
            await nursery.start(self._census.run)
            await nursery.start(control.run, trio.socket.from_stdlib_socket(listener))
            await nursery.start(web.run, self._spec.metrics)
            self._serving = True
            self._budget_s = await self._guests.shutdown_budget_s()
            self._around.events.tell("serving", reason=f"bhyved {bhyved.__version__} looks after {len(self._guests.names())} guests")
            _log.info("serving", socket=path, guests=len(self._guests.names()), version=bhyved.__version__, pid=os.getpid())
            return await self._signals.obey(received)
        finally:
            if control is not None:
                with trio.CancelScope(shield=True):
                    await control.shut()
            controlsocket.withdraw(path, listener)

    # --- http ----------------------------------------------------------------------------------------------------------------

    def _metrics(self) -> Metrics:
        around, vcpu_stats = self._around, self._spec.metrics.vcpu_stats
        return Metrics(
            around.board,
            around.consoles,
            self._usage,
            self._facts,
            self._loop,
            now=time.monotonic,
            vcpu_stats=vcpu_stats,
            stocks=self._census.stocks,
        )

    def _web(self, metrics: Metrics, spec: MetricsSpec) -> Web:
        host = socket.gethostname()
        sources = Sources(
            board=self._around.board,
            scrape=metrics.scrape,
            not_ready=self._not_ready,
            drain=lambda: self._guests.drain,
            why=lambda name: explain_guest(self._guests, name).sentences,
            runs=self._guests.runs,
            consoles=self._last_lines,
            utc=self._host.utc,
            host=host,
            began=f"{self._about.pid}-{self._about.started:.0f}",
        )
        users = Users(str(spec.basic_auth_file)).hashes if spec.basic_auth_file is not None else None
        return Web(sources, partial(open_listener, spec), users, frozenset({host.lower(), host.lower().partition(".")[0]}))

    def _web_opened(self, url: str, problem: str) -> None:
        """The HTTP server is there, is not, or is somewhere else."""
        if problem and problem != self._http_problem:
            self._warn(problem)
        self._http_problem = problem
        if not url:
            self._remove(URL_FILE)
            return
        try:
            durable.write_new(str(self._run / URL_FILE), f"{url}\n".encode(), 0o644)
        except OSError as error:
            self._warn(f"{self._run}/{URL_FILE} cannot be written: {in_words(error)}")

    def _not_ready(self) -> str:
        return "guests are being stopped" if self._guests.closing else "" if self._serving else "guests are being taken up"

    def _last_lines(self, name: str, lines: int) -> list[tuple[str, str]]:
        return [(hub.port, hub.tail(lines)) for hub in self._around.consoles.hubs(name)]

    def _facts(self) -> DaemonFacts:
        statuses = self._around.board.all()
        specs = {
            status.name: spec for status in statuses if status.phase in ACTIVE and (spec := self._guests.spec(status.name)) is not None
        }
        return DaemonFacts(
            version=self._about.version,
            started_at=self._about.started_at,
            not_ready=self._not_ready(),
            drained=self._guests.drain is not None,
            adopted=sum(1 for status in statuses if status.adopted),
            config_problems=self._files.problems,
            events=self._around.events.counts,
            commands=self._tools.facts,
            shutdown_budget_s=self._budget_s,
            room=self._guests.room,
            shutdown_needed_s=agenda.shutdown(specs, None).needs_s or 0.0,
            problems=self._problems(),
        )

    def _problems(self) -> dict[str, str]:
        """What each part of the daemon cannot do at present, or ''."""
        return {"journal": self._journal.problem, "records": "; ".join(self._vault.problems), "http": self._http_problem}


def _put_in_force(metrics: Metrics, web: WebKeeper, spec: DaemonSpec) -> None:
    """A reload may have changed the main file."""
    web.reload(spec.metrics)
    log.set_up(spec.log, is_tty=sys.stderr.isatty())
    metrics.vcpu_stats = spec.metrics.vcpu_stats
