"""The host as a whole: satisfies `daemon.ports.Host`. Made by `app`, which hands it to the supervisor.

Everything is found below the configuration's `[paths]`, so that the lab is a host like any other.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from bhyved.core.errors import HostError
from bhyved.core.handover import Reconciled
from bhyved.core.room import HostMemory
from bhyved.core.spec import DaemonSpec
from bhyved.host import devd
from bhyved.host.crowd import Crowd
from bhyved.host.devd import HostNews
from bhyved.host.facts import MEMORY_VARIABLES, HostFacts, parse_memory
from bhyved.host.ledger import Ledgers
from bhyved.host.liveness import Liveness
from bhyved.host.machine import GuestMachine
from bhyved.host.needs import missing
from bhyved.host.processes import Processes
from bhyved.host.seed import Images
from bhyved.host.site import Site
from bhyved.host.tap import Taps
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import ToolError, Tools, said_by
from bhyved.host.vmm import Vmm

_MODULES = ("vmm", "nmdm")
_LOAD_S = 30.0
_ASK_S = 2.0  # a host that goes down has no more to give


class FreeBsdHost:
    """See `daemon.ports.Host`. `busy_s`: for how long the event loop has not looked at its sockets."""

    def __init__(self, spec: DaemonSpec, tools: Tools, facts: HostFacts, busy_s: Callable[[], float]) -> None:
        paths = spec.paths
        self._facts, self._tools = facts, tools
        self._site = Site(
            run=paths.run,
            db=paths.db,
            log=paths.log,
            dev=paths.dev,
            host_id=facts.host_id,
            target=facts.target,
            tools=tools,
            vmm=Vmm(paths.dev, tools),
            taps=Taps(tools, dev=paths.dev),
            processes=Processes(tools),
            ledgers=Ledgers(f"{paths.run}/vm", facts.boot),
            images=Images(paths.db, tools),
            crowd=Crowd(busy_s),
        )
        self._machines: dict[str, GuestMachine] = {}

    @property
    def boot(self) -> str:
        """This boot's id, hex."""
        return self._facts.boot

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC, the clock of records."""
        return time.monotonic()

    def utc(self) -> datetime:
        """Now, for people."""
        return datetime.now(UTC)

    def machine(self, name: str) -> GuestMachine:
        """The (one) Machine of this guest."""
        if name not in self._machines:
            self._machines[name] = GuestMachine(self._site, name)
        return self._machines[name]

    def ledgers(self) -> list[str]:
        """Guests of whom a ledger of this boot exists, or one that cannot be read while somebody works for them."""
        ledgers = self._site.ledgers
        return [name for name in ledgers.names() if ledgers.get(name) is not None or self._is_held(name)]

    def _is_held(self, name: str) -> bool:
        try:
            return Liveness(f"{self._site.directory(name)}/alive").is_held()
        except HostError:
            return True  # perhaps: its machine will look again

    # --- what earlier runs left ----------------------------------------------------------------------------------------------

    async def reconcile(self, names: Sequence[str]) -> Reconciled:
        """See `daemon.ports.Host.reconcile`."""
        foreign: dict[str, int] = {}
        removed: list[str] = []
        problems: list[str] = []
        try:
            await self._reconcile_nodes(names, foreign, removed, problems)
        except HostError as error:
            problems.append(f"nodes left over could not be looked for: {error}")
        try:
            await self._reconcile_taps(removed, problems)
        except HostError as error:
            problems.append(f"taps left over could not be looked for: {error}")
        return Reconciled(foreign=foreign, removed=tuple(removed), problems=tuple(problems))

    async def _reconcile_nodes(self, names: Sequence[str], foreign: dict[str, int], removed: list[str], problems: list[str]) -> None:
        site = self._site
        seen = await site.processes.look_soon()
        for name in names:
            if site.ledgers.get(name) is not None or self._is_held(name):
                continue  # a run of ours: its machine sees to it
            owner = site.vmm.owner(name)
            pid = seen.holder(name, owner)
            if pid is not None:
                foreign[name] = pid
            elif owner is not None:
                try:
                    await site.vmm.destroy(name)
                    removed.append(f"the node {name}, which no bhyve had")
                except HostError as error:
                    problems.append(str(error))

    async def _reconcile_taps(self, removed: list[str], problems: list[str]) -> None:
        site = self._site
        ledgers = [ledger for name in site.ledgers.names() if (ledger := site.ledgers.get(name)) is not None]
        known = {tap.name for ledger in ledgers for tap in (*ledger.taps.values(), *ledger.leftover)}
        for name, tap in sorted((await site.taps.ours()).items()):
            if name in known:
                continue
            try:
                if await site.taps.destroy(name, tap.description):
                    removed.append(f'the tap {name} ("{tap.description}"), which no run had')
            except HostError as error:
                problems.append(str(error))

    # --- the end of the host -------------------------------------------------------------------------------------------------

    async def shutdown_limits(self) -> tuple[float | None, float | None]:
        """See `daemon.ports.Host.shutdown_limits`. Contract 8.5."""
        rcshutdown_s = await self._seconds("sysrc", "-n", "rcshutdown_timeout")
        return rcshutdown_s, await self._seconds("sysctl", "-n", "kern.init_shutdown_timeout")

    async def _seconds(self, *argv: str) -> float | None:
        try:
            text = (await run_tool(self._tools, argv, limit_s=_ASK_S)).text.strip()
        except HostError:
            return None
        return float(text) if text.isascii() and text.isdigit() else None

    # --- memory --------------------------------------------------------------------------------------------------------------

    async def memory(self) -> HostMemory:
        """See `daemon.ports.Host.memory`."""
        try:
            result = await run_tool(self._tools, ("sysctl", *MEMORY_VARIABLES), ok=None, limit_s=_ASK_S)
        except HostError:
            return HostMemory()
        return parse_memory(result.text)

    # --- what guests need of it ----------------------------------------------------------------------------------------------

    async def missing(self, needs: Sequence[str]) -> dict[str, str]:
        """See `daemon.ports.Host.missing`."""
        return await missing(needs, self._site.taps, self._tools)

    def news(self) -> HostNews:
        """See `daemon.ports.Host.news`."""
        return HostNews(os.path.join(os.path.dirname(self._site.run), devd.SOCKET))

    # --- modules -------------------------------------------------------------------------------------------------------------

    async def load_modules(self) -> None:
        """See `daemon.ports.Host.load_modules`."""
        for module in _MODULES:
            if not await self._is_loaded(module):  # first: `kldload -n` fails for what is in the kernel itself (contract 8.9)
                await self._load(module)

    async def load_nmdm(self) -> None:
        """A console's pair is missing: load nmdm, whatever kldstat says. Raises HostError."""
        try:
            await self._load("nmdm")
        except HostError:
            if not await self._is_loaded("nmdm"):
                raise

    async def _is_loaded(self, module: str) -> bool:
        return (await run_tool(self._tools, ("kldstat", "-q", "-m", module), ok=None)).status == 0

    async def _load(self, module: str) -> None:
        try:
            await run_tool(self._tools, ("kldload", "-n", module), limit_s=_LOAD_S)
        except ToolError as error:
            if "Operation not permitted" in said_by(error.result):
                hint = f"in a jail it is for the host to load: kldload {module}, and kld_list in its rc.conf(5); then restart the jail"
            elif module == "vmm":
                hint = "is virtualisation on in the firmware set-up? dmesg tells"
            else:
                hint = "dmesg may tell more"
            raise HostError(f"{error}; {hint}") from None
