"""`vmctl doctor`: what on this host will keep guests from starting, running or ending well, and the line that mends it.

Looks for itself and needs no daemon; changes nothing. Each check is a generator of findings; a host that cannot say something is told of
as such, and the next check goes on.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bhyved.core import advice, agenda, hostend, limits, room
from bhyved.core.assigned import Target, nmdm_path
from bhyved.core.config import Loaded
from bhyved.core.errors import HostError
from bhyved.core.ifconfig import Interface, parse_ifconfig
from bhyved.core.needs import INTERFACE, POOL
from bhyved.core.needs import split as split_need
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.units import Size
from bhyved.core.values import split_endpoint
from bhyved.ctl.amounts import one_line, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import print_json
from bhyved.ctl.connection import FAILED, OK
from bhyved.ctl.files import read_files
from bhyved.host import backing, hostlock, jail
from bhyved.host.facts import MEMORY_VARIABLES, parse_memory, read_facts
from bhyved.host.ledger import DiskUse
from bhyved.host.toolbox import Tools

OTHERS_S = 30  # of rc.shutdown's time, for services that stop before bhyved
INIT_AFTER_S = 30  # by which init should outwait rc.shutdown
_OPTIONS = ("sysctl", "-n")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line. `remedy`: what to type, or ''."""

    level: str  # ok | warn | fail
    about: str
    text: str
    remedy: str = ""


def examine(asked: Asked) -> int:
    """Exit status 1 when something fails; warnings are no failure."""
    loaded = read_files(asked)
    findings = [*_configuration(loaded)]
    if loaded.daemon is not None:
        findings += _Visit(loaded.daemon, loaded.vms).all()
    if asked.has("json"):
        print_json({"version": 1, "checks": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            _show(finding)
    return FAILED if any(finding.level == "fail" for finding in findings) else OK


def _show(finding: Finding) -> None:
    sys.stdout.write(f"{finding.level:4}  {finding.about}: {one_line(finding.text)}\n")
    if finding.remedy:
        sys.stdout.write("".join(f"      {line}\n" for line in finding.remedy.splitlines()))


def ok(about: str, text: str) -> Finding:
    return Finding(level="ok", about=about, text=text)


def warn(about: str, text: str, remedy: str = "") -> Finding:
    return Finding(level="warn", about=about, text=text, remedy=remedy)


def fail(about: str, text: str, remedy: str = "") -> Finding:
    return Finding(level="fail", about=about, text=text, remedy=remedy)


def _configuration(loaded: Loaded) -> Iterator[Finding]:
    yield from (fail("configuration", str(problem)) for problem in loaded.problems)
    yield from (warn("configuration", str(warning)) for warning in loaded.warnings)
    if not loaded.problems:
        yield ok("configuration", f"{len(loaded.vms)} guest{'s' if len(loaded.vms) != 1 else ''}, no problem")


class _Visit:
    """All checks of one host."""

    def __init__(self, spec: DaemonSpec, vms: dict[str, VmSpec]) -> None:
        self._spec, self._vms = spec, vms
        self._tools = Tools(bin=tuple(map(str, spec.paths.bin)))
        self._target: Target | None = None
        self._jailed = self._number("security.jail.jailed") == 1

    def all(self) -> list[Finding]:
        host = (self._host, self._daemon, self._modules, self._jail, self._shutdown, self._memory, self._limits)
        guests = (self._guests, self._disks, self._bridges, self._seeds, self._taps, self._vnc, self._needs)
        checks = (*host, *guests, self._listener)
        return [finding for check in checks for finding in check()]

    def _number(self, name: str) -> int | None:
        try:
            text = self._tools.ask((*_OPTIONS, name)).text.strip()
        except HostError:
            return None
        return int(text) if text.isdigit() else None

    def _host(self) -> Iterator[Finding]:
        if os.geteuid() != 0:
            yield warn("host", "only root can look everywhere: what follows may miss something, or be wrong")
        try:
            self._target = read_facts(self._tools).target
        except HostError as error:
            yield fail("host", str(error), "bhyved runs on FreeBSD 14 and newer, amd64 and arm64")
            return
        yield ok("host", f"FreeBSD {self._target.release} on {self._target.arch}")

    def _daemon(self) -> Iterator[Finding]:
        pid = hostlock.holder(str(self._spec.paths.run))
        if pid is None and os.geteuid() != 0:
            return  # its lock is root's to look at
        if pid is None:
            yield warn("daemon", "bhyved does not run", "sysrc bhyved_enable=YES\nservice bhyved start")
        else:
            yield ok("daemon", f"bhyved runs (pid {pid})")

    def _hosts(self, *lines: str) -> str:
        """What to type on the host, which in a jail is not where this is read."""
        return "\n".join(("on the host, since a jail may not:", *lines) if self._jailed else lines)

    def _modules(self) -> Iterator[Finding]:
        for module in ("vmm", "nmdm"):
            try:
                there = self._is_loaded(module)
            except HostError as error:
                yield fail(f"module {module}", str(error))
                continue
            if there:
                yield ok(f"module {module}", "is loaded")
            elif self._jailed:
                load = self._hosts(f"kldload {module}", f"sysrc kld_list+={module}", "service jail restart NAME")
                yield fail(f"module {module}", "is not loaded, and a jail cannot load it", load)
            else:
                yield warn(f"module {module}", "is not loaded: bhyved loads it when it starts", f"kldload {module}")

    def _is_loaded(self, module: str) -> bool:
        return self._tools.ask(("kldstat", "-q", "-m", module), ok=None).status == 0

    def _jail(self) -> Iterator[Finding]:
        """Contract 7."""
        if not self._jailed:
            return
        try:
            has_vmmctl = self._is_loaded("vmm") and self._target is not None and self._target.release != "14"
            lines = self._lines() if self._is_loaded("nmdm") else ()
            seen = jail.look(self._tools, str(self._spec.paths.dev), lines, has_vmmctl=has_vmmctl)
        except HostError as error:
            yield fail("jail", str(error))
            return
        found = []
        if not seen.has_network:
            text = "has no network stack of its own: guests get no taps, and rc(8) does not start bhyved"
            found.append(fail("jail", text, 'in its jail.conf(5):\nvnet;\nvnet.interface = "INTERFACE";'))
        if not seen.may_vmm:
            text = "may not use vmm: no guest can be made. What a jail may is settled when it is made, after vmm has been loaded"
            found.append(fail("jail", text, "in its jail.conf(5):\nallow.vmm;"))
        if seen.hidden:
            found.append(fail("jail", f"does not see {', '.join(seen.hidden)} in /dev", _unhide(seen.hidden)))
        yield from found or [ok("jail", "has a network stack of its own, and may use vmm")]

    def _lines(self) -> list[str]:
        """Side B of each console that bhyved would open."""
        dev = str(self._spec.paths.dev)
        ports = [(name, port) for name, spec in sorted(self._vms.items()) for port in spec.serial if port.mode == "managed"]
        return [f"{nmdm_path(name, port.port, dev)[:-1]}B" for name, port in ports]

    def _shutdown(self) -> Iterator[Finding]:
        margin_s = float(self._spec.shutdown.margin)
        budget_s = hostend.budget_s(self._rcshutdown_s(), self._number("kern.init_shutdown_timeout"), margin_s)
        needed_s = agenda.shutdown(self._vms, None).needs_s or 0.0
        if needed_s <= budget_s:
            yield ok("host shutdown", f"all guests can take their time: {span(needed_s)} of {span(budget_s)}")
            return
        rc_s = math.ceil(needed_s + margin_s) + OTHERS_S
        remedy = f"sysrc rcshutdown_timeout={rc_s}\n"
        if self._jailed:  # its rc.shutdown runs within the host's, whose other services want some time as well
            rc_s += OTHERS_S
            remedy += self._hosts(f"sysrc rcshutdown_timeout={rc_s}", *_settle("kern.init_shutdown_timeout", rc_s + INIT_AFTER_S))
        else:
            remedy += self._hosts(*_settle("kern.init_shutdown_timeout", rc_s + INIT_AFTER_S))
        yield warn("host shutdown", f"guests want {span(needed_s)} and get {span(budget_s)}: their stop timeouts are cut short", remedy)

    def _rcshutdown_s(self) -> float | None:
        try:
            text = self._tools.ask(("sysrc", "-n", "rcshutdown_timeout")).text.strip()
        except HostError:
            return None
        return float(text) if text.isdigit() else None

    def _memory(self) -> Iterator[Finding]:
        host = self._host_memory()
        has = room.room_of(self._spec, host)
        starting = [spec for spec in self._vms.values() if spec.autostart]
        wanted = sum(int(spec.memory) for spec in starting)
        if host.total_bytes is None:
            yield warn("memory", "the host does not say how much it has")
        elif wanted > host.total_bytes and has.overcommit:
            text = f"guests with autostart want {_size(wanted)}, the host has {_size(host.total_bytes)}: it may swap, or kill a guest"
            yield warn("memory", text)
        elif has.limit_bytes is not None and wanted > has.limit_bytes:
            text = f"guests with autostart want {_size(wanted)}, the host has {_size(has.limit_bytes)} for guests: some of them will wait"
            yield warn("memory", text, "vmctl plan --boot shows which")
        else:
            yield ok("memory", f"guests with autostart want {_size(wanted)} of {_size(host.total_bytes)}")
        wired = sum(int(spec.memory) for spec in starting if spec.wired)
        if host.wired_bytes is not None and wired > host.wired_bytes:
            # bhyve fails with ENOMEM beyond it (contract 5.6), which is why they wait.
            text = f"wired guests want {_size(wired)}, the host lets {_size(host.wired_bytes)} be wired: some of them will wait"
            pages = math.ceil(wired / host.page_bytes)
            yield fail("wired memory", text, f"{self._hosts(f'sysctl vm.max_user_wired={pages}')}\nvmctl reload")

    def _host_memory(self) -> room.HostMemory:
        try:
            return parse_memory(self._tools.ask(("sysctl", *MEMORY_VARIABLES), ok=None).text)
        except HostError:
            return room.HostMemory()

    def _limits(self) -> Iterator[Finding]:
        limited = [name for name, spec in sorted(self._vms.items()) if spec.limits is not None]
        if not limited:
            return
        racct = self._number("kern.racct.enable")
        why = limits.refusal("" if racct is None else str(racct), jailed=self._jailed)
        if why:
            remedy = "echo kern.racct.enable=1 >>/boot/loader.conf\nshutdown -r now" if racct == 0 and not self._jailed else ""
            yield fail("limits", f"{', '.join(limited)} cannot start: {why.removeprefix('limits: ')}", remedy)
        else:
            yield ok("limits", "the host counts what processes use")

    def _guests(self) -> Iterator[Finding]:
        target = self._target or Target()
        bin_ = tuple(map(str, self._spec.paths.bin))
        most = self._number("hw.vmm.maxcpu")
        for name, spec in sorted(self._vms.items()):
            found = [*(fail(name, f"{key}: {text}") for key, text in advice.objections(spec, target))]
            found += [
                warn(name, f"{key}: {text}")
                for key, text in advice.warnings(spec, target, host_memory=self._number("hw.physmem"), host_cpus=os.cpu_count())
            ]
            if most is not None and spec.cpus.count > most:
                remedy = self._hosts("set hw.vmm.maxcpu in /boot/loader.conf")
                found.append(fail(name, f"cpus: {spec.cpus.count}, and hw.vmm.maxcpu is {most}", remedy))
            try:
                backing.find_firmware(spec, bin_)
            except HostError as error:
                found.append(fail(name, str(error)))
            yield from found or [ok(name, "nothing against it")]

    def _disks(self) -> Iterator[Finding]:
        users: dict[str, list[tuple[str, DiskUse]]] = {}
        for name, spec in sorted(self._vms.items()):
            try:
                for use in backing.disk_uses(spec):
                    users.setdefault(use.key, []).append((name, use))
            except HostError as error:
                yield fail(name, str(error), self._hidden_volumes(spec))
        for uses in users.values():
            if len(uses) > 1 and any(use.writes for _, use in uses) and not all(use.shared for _, use in uses):
                names = ", ".join(name for name, _ in uses)
                yield warn("disks", f"{uses[0][1].path} is a disk of {names}: they cannot run together unless all say shared = true")

    def _hidden_volumes(self, spec: VmSpec) -> str:
        """Rules that would show a jail the volumes of its guest, with every directory above them (contract 7.1)."""
        dev = f"{self._spec.paths.dev}/"
        missing = [path for disk in spec.disk if (path := str(disk.path)).startswith(dev) and not os.path.exists(path)]
        if not self._jailed or not missing:
            return ""
        words = [path.removeprefix(dev).split("/") for path in missing]
        return _unhide(dict.fromkeys("/".join(each[:count]) for each in words for count in range(1, len(each) + 1)))

    def _seeds(self) -> Iterator[Finding]:
        """What is wrong with the files of seeds is a problem of the configuration."""
        names = [name for name, spec in sorted(self._vms.items()) if spec.cloud_init is not None]
        if not names:
            return
        try:
            found = self._tools.path("makefs")
        except HostError as error:
            yield fail("cloud-init", f"{error}: it is part of FreeBSD's base system, and makes the seeds of {', '.join(names)}")
        else:
            yield ok("cloud-init", f"{found} makes the seeds of {', '.join(names)}")

    def _bridges(self) -> Iterator[Finding]:
        wanted: dict[str, list[str]] = {}
        for name, spec in sorted(self._vms.items()):
            for card in spec.network:
                if card.bridge is not None:
                    wanted.setdefault(str(card.bridge), []).append(name)
        for bridge, names in sorted(wanted.items()):
            there = self._interface(bridge)
            if there is None:
                yield fail(
                    f"bridge {bridge}",
                    f"does not exist; wanted by {', '.join(names)}",
                    f'sysrc cloned_interfaces+="{bridge}"\nservice netif cloneup',
                )
            else:
                yield from self._bridge(there, names)

    def _bridge(self, bridge: Interface, names: list[str]) -> Iterator[Finding]:
        """A bridge that is there. It and the host's cards on it must be up (bridge(4)); guests' taps are told by name (contract 5.3)."""
        about = f"bridge {bridge.name}"
        cards = [name for name in bridge.members if not name.startswith(("tap", "vmnet"))]
        members = [card for card in map(self._interface, cards) if card is not None]
        down = [each.name for each in (bridge, *members) if not each.is_up]
        for name in down:
            whose = "it is" if name == bridge.name else f"{name}, which is on it, is"
            yield warn(about, f"{whose} down, and passes nothing for {', '.join(names)}", f"ifconfig {name} up")
        if not down:
            alone = "" if members else "; no card of the host is on it, so that guests reach each other, and what the host routes"
            yield ok(about, f"is there, for {', '.join(names)}{alone}")

    def _taps(self) -> Iterator[Finding]:
        """Contract 5.3. bhyved brings taps up itself, once, before bhyve opens them."""
        with_taps = [name for name, spec in sorted(self._vms.items()) if any(card.wants_tap or card.tap for card in spec.network)]
        if not with_taps:
            return
        for name, spec in sorted(self._vms.items()):
            for card in spec.network:
                if card.tap is not None and self._interface(str(card.tap)) is None:
                    yield fail(f"tap {card.tap}", f"does not exist; wanted by {name}", f"ifconfig {card.tap} create")
        if self._number("net.link.tap.up_on_open") == 0:
            text = "net.link.tap.up_on_open is 0: a tap that somebody takes down under a guest stays down when the guest opens it again"
            yield warn("taps", text, self._hosts(*_settle("net.link.tap.up_on_open", 1)))
        if self._number("net.link.tap.user_open") == 1:
            text = "net.link.tap.user_open is 1: accounts that may write /dev/tapN get at the guests' networks without root"
            yield warn("taps", text, self._hosts("sysctl net.link.tap.user_open=0"))

    def _vnc(self) -> Iterator[Finding]:
        """Ports that a file names; two guests with one are a problem of the configuration."""
        for name, spec in sorted(self._vms.items()):
            listen = spec.graphics.listen if spec.graphics is not None else None
            if listen is None or not listen.has_port or listen.startswith("unix:") or self._runs(name):
                continue
            why = _occupied(listen)
            if why:
                text = f"VNC cannot listen on {listen}: {why}; {name} would not start"
                yield fail(f"vnc of {name}", text, "another port in graphics.listen, or none: bhyved takes a free one")

    def _runs(self, name: str) -> bool:
        """Or may do: its ledger is there, and then the port is its own."""
        return os.path.exists(f"{self._spec.paths.run}/vm/{name}/run.toml")

    def _interface(self, name: str) -> Interface | None:
        try:
            result = self._tools.ask(("ifconfig", name), ok=None)
        except HostError:
            return None
        return parse_ifconfig(result.text).get(name) if result.status == 0 else None

    def _needs(self) -> Iterator[Finding]:
        for need in sorted({need for spec in self._vms.values() for need in spec.order.needs}):
            kind, name = split_need(need)
            if kind == INTERFACE:
                there = self._interface(name) is not None
            elif kind == POOL:
                there = self._pool(name)
            else:
                there = os.path.exists(name)
            yield (
                ok("needs", f"the {kind} {name} is there")
                if there
                else warn("needs", f"the {kind} {name} is not there: guests wait for it")
            )

    def _pool(self, name: str) -> bool:
        try:
            return self._tools.ask(("zpool", "list", "-H", "-o", "health", name), ok=None).status == 0
        except HostError:
            return False

    def _listener(self) -> Iterator[Finding]:
        listen = self._spec.metrics.listen
        if not listen or listen.startswith("unix:") or hostlock.holder(str(self._spec.paths.run)) is not None:
            return
        why = _occupied(listen)
        if why:
            yield fail("metrics", f"{listen} cannot be listened on: {why}", "set [metrics] listen to another port")
        else:
            yield ok("metrics", f"{listen} is free")


def _occupied(listen: str) -> str:
    """Why nobody can listen there, or ''."""
    address, port = split_endpoint(listen, least=0)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return ""


def _settle(variable: str, value: int) -> tuple[str, str]:
    """Now, and for the next boot."""
    return f"sysctl {variable}={value}", f"echo {variable}={value} >> /etc/sysctl.conf"


def _unhide(patterns: Iterable[str]) -> str:
    """Lines for the rules of a jail, and what makes them count."""
    rules = (f"add path '{pattern}' unhide" for pattern in patterns)
    return "\n".join(
        ("on the host, in the jail's section of /etc/devfs.rules:", *rules, "service devfs restart", "service jail restart NAME")
    )


def _size(count: int) -> Size:
    return Size(count >> 20 << 20)
