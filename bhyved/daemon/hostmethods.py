"""daemon.* and config.*: what concerns the host as a whole."""

from collections.abc import Iterator
from datetime import timedelta

from bhyved.core import advice, agenda, room
from bhyved.core.advice import remark_text
from bhyved.core.agenda import Agenda
from bhyved.core.answers import Checked, Drained, Info, Memory, Reloaded, You
from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.core.jsonrpc import CONFIGURATION, REFUSED, Fault
from bhyved.core.params import DrainParams, NoParams, ReloadParams
from bhyved.core.rights import Right
from bhyved.core.spec import VmSpec
from bhyved.core.status import ACTIVE, Desired
from bhyved.core.turns import Pace
from bhyved.daemon.access import Access, Handler
from bhyved.daemon.figuremethods import Views
from bhyved.daemon.guests import Guests, configured


class HostMethods:
    """Handlers by method, as in `guestmethods`."""

    def __init__(self, guests: Guests, views: Views) -> None:
        self._guests, self._views = guests, views
        self.handlers: dict[str, Handler] = {
            "daemon.info": self._info,
            "daemon.drain": self._drain,
            "daemon.plan-boot": self._plan_boot,
            "daemon.plan-shutdown": self._plan_shutdown,
            "config.check": self._check,
            "config.reload": self._reload,
        }

    async def _info(self, caller: Access, params: NoParams) -> Info:
        about, peer = self._guests.about, caller.peer
        return Info(
            version=about.version,
            config=about.config,
            pid=about.pid,
            boot=about.boot,
            started_at=about.started_at,
            uptime_s=round(max(0.0, self._guests.now() - about.started), 3),
            closing=self._guests.closing,
            drain=self._guests.drain,
            guests=len(caller.guests(Right.READ)),
            memory=self._memory() if caller.sees_all else None,
            problems=tuple(filter(None, self._views.problems().values())),
            you=You(uid=peer.uid, user=peer.user, role=caller.role, owns=tuple(caller.owned)),
        )

    def _memory(self) -> Memory:
        having, of = room.taken(self._guests.board.all()), self._guests.room
        return Memory(
            total_bytes=of.host.total_bytes,
            reserve_bytes=of.reserve_bytes,
            limit_bytes=of.limit_bytes,
            guests_bytes=having.size,
            free_bytes=None if of.limit_bytes is None else max(0, of.limit_bytes - having.size),
            wired_limit_bytes=of.host.wired_bytes,
            wired_bytes=having.wired,
            overcommit=of.overcommit,
        )

    async def _drain(self, caller: Access, params: DrainParams) -> Drained:
        drain, was = None, self._guests.drain
        if params.on:
            now = self._guests.utc()
            until = None if params.for_ is None else now + timedelta(seconds=params.for_)
            drain = Drain(by=caller.peer.name, reason=params.reason, since_at=now, until_at=until)
        self._guests.set_drain(drain, by=caller.peer.name)
        await self._guests.drain_kept()
        return Drained(on=params.on, drain=drain, was=was)

    async def _check(self, caller: Access, params: NoParams) -> Checked:
        try:
            loaded = await self._guests.check()
        except HostError as error:
            raise Fault(REFUSED, "files-unreadable", str(error)) from None
        unfit = (f"{name}: {why}" for name, spec in sorted(loaded.vms.items()) for why in self._unfit(spec))
        return Checked(problems=tuple(map(str, loaded.problems)), warnings=(*map(str, loaded.warnings), *unfit))

    def _unfit(self, spec: VmSpec) -> Iterator[str]:
        """Why this host cannot run a guest whose file is sound, or never has the memory for one that would start by itself."""
        yield from (f"bhyve of this host cannot run it: {remark_text(each)}" for each in advice.objections(spec, self._guests.target))
        if spec.autostart and (why := room.impossible(self._guests.room, room.share_of(spec))):
            yield why

    async def _reload(self, caller: Access, params: ReloadParams) -> Reloaded:
        try:
            done = await self._guests.reload(plan_only=params.plan, prune=params.prune, by=caller.peer.name)
        except HostError as error:
            raise Fault(REFUSED, "files-unreadable", str(error)) from None
        if done.problems:
            count = len(done.problems)
            text = f"the configuration has {'a problem' if count == 1 else f'{count} problems'}; nothing has changed"
            raise Fault(CONFIGURATION, "configuration", text, problems=done.problems)
        return done

    async def _plan_boot(self, caller: Access, params: NoParams) -> Agenda:
        spec = self._guests.daemon_spec
        return agenda.boot(configured(self._guests), Pace(parallel=spec.start_parallel, gap_s=float(spec.start_gap)), self._guests.room)

    async def _plan_shutdown(self, caller: Access, params: NoParams) -> Agenda:
        """Of the guests that run now, or should."""
        budget_s = await self._guests.shutdown_budget_s()
        running: dict[str, VmSpec] = {}
        for status in self._guests.board.all():
            spec = self._guests.spec(status.name) or self._guests.started_spec(status.name)
            if spec is not None and (status.phase in ACTIVE or status.desired is Desired.UP):
                running[status.name] = spec
        return agenda.shutdown(running, budget_s)
