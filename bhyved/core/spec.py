"""What an operator's files become: `VmSpec` for vm.d/NAME.toml, `DaemonSpec` for bhyved.toml.

Frozen and hashable, so that `old == new` is the reload question. Defaults stand here, in `boot` and in `devices`, and nowhere else.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bhyved.core import needs
from bhyved.core.boot import Boot, Topology
from bhyved.core.cloudinit import CloudInit
from bhyved.core.devices import (
    Cdrom,
    Disk,
    Graphics,
    Input,
    Network,
    Passthru,
    Random,
    Serial,
    Share,
    Sound,
    Tpm,
    VirtioConsole,
)
from bhyved.core.limits import Limits
from bhyved.core.table import Rule, Table
from bhyved.core.units import Duration, Limit, Settings, Size, dec_hook, enc_hook
from bhyved.core.values import AbsPath, Endpoint, GuestName, Pattern, Slot, SocketPath, Text, Uuid, name_problem, split_endpoint

Command = tuple[Text, ...]
AGENT_PORT = "org.qemu.guest_agent.0"  # where the QEMU guest agent listens in the guest

# An empty name component ends bhyve with 4, "=" ends the name, "#" would begin a comment (contract 1.3).
_OPTION = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Restart(Table, frozen=True, kw_only=True):
    """`[restart]`: what follows when a run ends by itself."""

    on_reboot: Literal["restart", "stop"] = "restart"
    on_poweroff: Literal["restart", "stop"] = "stop"
    on_crash: Literal["restart", "stop"] = "restart"
    reboot_limit: Limit = Limit(5, Duration(300))
    crash_limit: Limit = Limit(5, Duration(600))
    backoff: Duration = Duration(2)
    backoff_max: Duration = Duration(60)
    stable_after: Duration = Duration(600)
    over_limit: Literal["hold", "slow"] = "hold"

    def rules(self) -> Iterator[Rule]:
        if self.backoff <= 0:
            yield "backoff", "must be longer than 0s"
        if self.backoff_max < self.backoff:
            yield "backoff-max", f"{self.backoff_max} is shorter than backoff, which is {self.backoff}"


class Stop(Table, frozen=True, kw_only=True):
    """`[stop]`: how a guest is asked to stop, and for how long."""

    presses: tuple[Duration, ...] = (Duration(0), Duration(2), Duration(10), Duration(30))
    timeout: Duration = Duration(60)
    command: Command | None = None
    ignore_early_term: bool = True
    on_host_shutdown: Literal["stop", "suspend"] = "stop"

    def rules(self) -> Iterator[Rule]:
        for before, press in pairwise(self.presses):
            if press <= before:
                yield "presses", f"must grow: {press} does not come after {before}"
                break
        if not self.presses and self.command is None:
            yield "presses", "must not be empty without a command: nothing would ask the guest to stop"


class Ready(Table, frozen=True, kw_only=True):
    """`order.ready`: when a guest counts as ready; exactly one question."""

    console: Pattern | None = None
    tcp: Endpoint | None = None
    ping: Text | None = None
    uptime: Duration | None = None
    command: Command | None = None
    agent: bool = False
    timeout: Duration = Duration(120)
    on_timeout: Literal["continue", "fail"] = "continue"

    def rules(self) -> Iterator[Rule]:
        questions = [key for key in ("console", "tcp", "ping", "uptime", "command") if getattr(self, key) is not None]
        if self.agent:
            questions.append("agent")
        if len(questions) != 1:
            found = " and ".join(questions) or "none"
            yield "", f"must have one of console, tcp, ping, uptime, command or agent; found {found}"
        if self.command == ():
            yield "command", "must not be empty"


class Order(Table, frozen=True, kw_only=True):
    """`[order]`: what comes before this guest."""

    after: tuple[GuestName, ...] = ()
    requires: tuple[GuestName, ...] = ()
    ready: Ready | None = None
    needs: tuple[Text, ...] = ()

    def rules(self) -> Iterator[Rule]:
        for index, need in enumerate(self.needs):
            if needs.problem(need):
                yield f"needs[{index}]", needs.problem(need)


class Health(Table, frozen=True, kw_only=True):
    """`[health]`: how to see that a guest that is up has stopped working, and what to do about it."""

    console: Pattern | None = None
    tcp: Endpoint | None = None
    ping: Text | None = None
    command: Command | None = None
    agent: bool = False
    vcpus: bool = False
    period: Duration = Duration(30)
    failures: Annotated[int, Meta(ge=1, le=100)] = 3
    grace: Duration = Duration(60)
    action: Literal["event", "nmi", "reset"] = "event"

    def rules(self) -> Iterator[Rule]:
        probes = [key for key in ("console", "tcp", "ping", "command") if getattr(self, key) is not None]
        probes += [key for key in ("agent", "vcpus") if getattr(self, key)]
        if not probes:
            yield "", "must have at least one of console, tcp, ping, command, agent and vcpus"
        elif len(probes) < 2 and self.action != "event":
            yield "action", f"{self.action!r} needs two probes at least: one alone may be what is broken"
        if self.period < 1:
            yield "period", "must be at least 1s"
        if self.command == ():
            yield "command", "must not be empty"


class Hooks(Table, frozen=True, kw_only=True):
    """`[hooks]`: commands at transitions; the event comes as JSON on stdin."""

    pre_start: Command | None = None
    post_start: Command | None = None
    ready: Command | None = None
    pre_stop: Command | None = None
    post_stop: Command | None = None
    crash: Command | None = None
    held: Command | None = None
    timeout: Duration = Duration(30)

    def rules(self) -> Iterator[Rule]:
        if self.timeout <= 0:
            yield "timeout", "must be longer than 0s"
        for key in ("pre_start", "post_start", "ready", "pre_stop", "post_stop", "crash", "held"):
            if getattr(self, key) == ():
                yield key.replace("_", "-"), "must not be empty"


#: Variables that have a key of their own, or that would break what bhyved relies on; and what to do instead.
_REFUSED = {
    "config.dump": "bhyve would print its configuration and exit 1 instead of running the guest",
    "monitor": "bhyved does not use bhyve's monitor mode: it restarts guests itself",
    "destroy_on_poweroff": "bhyved destroys the node itself, and tells a power-off from a destroyed guest by it",
    "name": "the file's name is the guest's name",
    "memory.size": 'use memory = "…": the loader must get the same size',
    "memory.wired": "use wired = …: the loader must get the same",
    "cpus": "use cpus = …",
    "sockets": "use cpus = { sockets = … }",
    "cores": "use cpus = { cores = … }",
    "threads": "use cpus = { threads = … }",
    "uuid": "use uuid = …",
    "bootrom": "use [boot] firmware",
    "lpc.bootrom": "use [boot] firmware",
    "bootvars": "use [boot] vars",
    "lpc.bootvars": "use [boot] vars",
}


def refusal(variable: str) -> str:
    """Why a variable of bhyve's cannot stand in `[bhyve] options`; empty when it can."""
    return _REFUSED.get(variable, "")


class BhyveOptions(Table, frozen=True, kw_only=True):
    """`[bhyve]`: what only bhyve knows; `options` are variables of bhyve_config(5), passed as they are."""

    options: Settings = Settings()
    hostbridge: Literal["default", "amd"] = "default"
    lpc_slot: Slot | None = None  # None: 31, where Windows wants it (contract 3.1)

    def rules(self) -> Iterator[Rule]:
        for key, value in self.options.items():
            where = f'options."{key}"'
            if not _OPTION.fullmatch(key):
                yield where, "must be names joined by dots, without blanks, such as x86.strictmsr"
            elif why := refusal(key):
                yield where, why
            try:
                Text.parse(value)
            except ValueError as err:
                yield where, str(err)


class VmSpec(Table, frozen=True, kw_only=True):
    """One guest. `name` is the file's name, never a key in it."""

    name: str
    cpus: Topology = Topology()
    memory: Size = Size(256 << 20)  # bhyve's own default (contract 1.4)
    wired: bool = False
    autostart: bool = True
    clock: Literal["utc", "localtime"] = "utc"
    uuid: Uuid | None = None
    owner: tuple[Text, ...] = ()
    boot: Boot = Boot()
    disk: tuple[Disk, ...] = ()
    cdrom: tuple[Cdrom, ...] = ()
    network: tuple[Network, ...] = ()
    serial: Annotated[tuple[Serial, ...], Meta(max_length=4)] = (Serial(),)
    graphics: Graphics | None = None
    tpm: Tpm | None = None
    passthru: tuple[Passthru, ...] = ()
    share: tuple[Share, ...] = ()
    virtio_console: tuple[VirtioConsole, ...] = ()
    sound: Sound | None = None
    random: Random = Random()
    input: tuple[Input, ...] = ()
    cloud_init: CloudInit | None = None
    restart: Restart = Restart()
    stop: Stop = Stop()
    order: Order = Order()
    health: Health | None = None
    hooks: Hooks = Hooks()
    limits: Limits | None = None
    bhyve: BhyveOptions = BhyveOptions()

    def rules(self) -> Iterator[Rule]:
        if name_problem(self.name):
            yield "name", name_problem(self.name)
        if self.memory < 1 << 20:
            yield "memory", "must be at least 1M"
        if self.passthru and not self.wired:
            yield "wired", "must be true with [[passthru]]: bhyve refuses it otherwise, and exits 4"
        if self.cpus.numa and sum(domain.size for domain in self.cpus.numa) != self.memory:
            yield "cpus.numa", f"the sizes of the domains must add up to memory, which is {self.memory}"
        if not any(console.name == AGENT_PORT for console in self.virtio_console):
            asked = {
                "order.ready": self.order.ready is not None and self.order.ready.agent,
                "health": self.health is not None and self.health.agent,
            }
            for table in (table for table, is_asked in asked.items() if is_asked):
                yield f"{table}.agent", f'needs a [[virtio-console]] with name = "{AGENT_PORT}", by which the agent is asked'
        cards = len(self.network)
        if self.cloud_init is not None and len(self.cloud_init.network) > cards:
            yield f"cloud-init.network[{cards}]", f"there is no card for it: the guest has {cards} [[network]]"


class Paths(Table, frozen=True, kw_only=True):
    """`[paths]`: only the lab and the tests change them."""

    run: AbsPath = AbsPath("/var/run/bhyved")
    db: AbsPath = AbsPath("/var/db/bhyved")
    log: AbsPath = AbsPath("/var/log/bhyved")
    dev: AbsPath = AbsPath("/dev")
    bin: tuple[AbsPath, ...] = tuple(
        AbsPath(path) for path in ("/sbin", "/usr/sbin", "/bin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin")
    )
    vm_dir: AbsPath | None = None  # vm.d beside the main file
    template_dir: AbsPath | None = None  # template.d beside the main file


class Control(Table, frozen=True, kw_only=True):
    """`[control]`: who may do what over the socket, besides root."""

    group: Text | None = None
    read_group: Text | None = None


class Metrics(Table, frozen=True, kw_only=True):
    """`[metrics]`: the HTTP listener."""

    listen: str = "127.0.0.1:9747"  # or "unix:/path"; "" is off
    tls_cert: AbsPath | None = None
    tls_key: AbsPath | None = None
    basic_auth_file: AbsPath | None = None
    vcpu_stats: bool = False

    def rules(self) -> Iterator[Rule]:
        is_unix = self.listen.startswith("unix:")
        try:
            if is_unix:
                SocketPath.parse(self.listen.removeprefix("unix:"))
            elif self.listen:
                split_endpoint(self.listen, least=0)
        except ValueError as err:
            yield "listen", f'{err}; or "unix:/path", or "" for none'
        if (self.tls_cert is None) != (self.tls_key is None):
            yield "tls-cert" if self.tls_cert is None else "tls-key", "is missing: TLS needs a certificate and its key"
        if is_unix and self.tls_cert is not None:
            yield "tls-cert", "has no use on a UNIX socket"


class Log(Table, frozen=True, kw_only=True):
    """`[log]`: the daemon's own log."""

    format: Literal["auto", "human", "logfmt", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    to: Literal["auto", "stderr", "syslog"] = "auto"


class Shutdown(Table, frozen=True, kw_only=True):
    """`[shutdown]`: the end of the host."""

    margin: Duration = Duration(5)


class Console(Table, frozen=True, kw_only=True):
    """`[console]`: how much of every console is kept."""

    ring: Size = Size(256 << 10)
    log_max_size: Size = Size(2 << 20)
    log_keep: Annotated[int, Meta(ge=0, le=1000)] = 5
    log_max_age: Duration | None = None


class DaemonSpec(Table, frozen=True, kw_only=True):
    """bhyved.toml."""

    paths: Paths = Paths()
    control: Control = Control()
    metrics: Metrics = Metrics()
    log: Log = Log()
    start_parallel: Annotated[int, Meta(ge=1, le=1000)] = 2
    start_gap: Duration = Duration(2)
    memory_reserve: Size = Size(1 << 30)
    overcommit: bool = False
    shutdown: Shutdown = Shutdown()
    console: Console = Console()
    hooks: Hooks = Hooks()
    run_as: Text | None = None


def dump(spec: Table) -> dict[str, Any]:
    """A spec as a table for tomli-w, complete (a later version may have other defaults), without what is not given."""
    table = msgspec.to_builtins(spec, enc_hook=enc_hook, str_keys=True)
    return {key: _without_none(value) for key, value in table.items() if value is not None}


def undump(table: dict[str, Any]) -> VmSpec:
    """The guest's spec that `dump` wrote. Raises msgspec.ValidationError."""
    return msgspec.convert(table, VmSpec, dec_hook=dec_hook)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value
