"""What `vmctl doctor` looks at of the host: what it is, what it has, and how much time it gives at its end."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from bhyved.core import agenda, hostend, limits, room
from bhyved.core.assigned import nmdm_path
from bhyved.core.errors import HostError
from bhyved.core.units import Size
from bhyved.ctl.amounts import span
from bhyved.ctl.visit import Finding, Visit, fail, occupied, ok, settle, unhide, warn
from bhyved.host import hostlock, jail
from bhyved.host.facts import MEMORY_VARIABLES, parse_memory, read_facts

OTHERS_S = 30  # of rc.shutdown's time, for services that stop before bhyved
INIT_AFTER_S = 30  # by which init should outwait rc.shutdown


def _host(visit: Visit) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield warn("host", "only root can look everywhere: what follows may miss something, or be wrong")
    try:
        visit.target = read_facts(visit.tools).target
    except HostError as error:
        yield fail("host", str(error), "bhyved runs on FreeBSD 14 and newer, amd64 and arm64")
        return
    yield ok("host", f"FreeBSD {visit.target.release} on {visit.target.arch}")


def _daemon(visit: Visit) -> Iterator[Finding]:
    pid = hostlock.holder(str(visit.spec.paths.run))
    if pid is None and os.geteuid() != 0:
        return  # its lock is root's to look at
    if pid is None:
        yield warn("daemon", "bhyved does not run", "sysrc bhyved_enable=YES\nservice bhyved start")
    else:
        yield ok("daemon", f"bhyved runs (pid {pid})")


def _modules(visit: Visit) -> Iterator[Finding]:
    for module in ("vmm", "nmdm"):
        try:
            there = visit.is_loaded(module)
        except HostError as error:
            yield fail(f"module {module}", str(error))
            continue
        if there:
            yield ok(f"module {module}", "is loaded")
        elif visit.jailed:
            load = visit.on_host(f"kldload {module}", f"sysrc kld_list+={module}", "service jail restart NAME")
            yield fail(f"module {module}", "is not loaded, and a jail cannot load it", load)
        else:
            yield warn(f"module {module}", "is not loaded: bhyved loads it when it starts", f"kldload {module}")


def _jail(visit: Visit) -> Iterator[Finding]:
    """Contract 7."""
    if not visit.jailed:
        return
    try:
        has_vmmctl = visit.is_loaded("vmm") and visit.target is not None and visit.target.release != "14"
        lines = _lines(visit) if visit.is_loaded("nmdm") else ()
        seen = jail.look(visit.tools, str(visit.spec.paths.dev), lines, has_vmmctl=has_vmmctl)
    except HostError as error:
        yield fail("jail", str(error))
        return
    found = []
    if not seen.has_network:
        text = "has no network stack of its own: guests get no taps, and rc(8) does not start bhyved"
        found.append(fail("jail", text, 'in its jail.conf(5):\nvnet;\nvnet.interface = "INTERFACE";'))
    if seen.may_vmm is False:
        text = "may not use vmm: no guest can be made. What a jail may is settled when it is made, after vmm has been loaded"
        found.append(fail("jail", text, "in its jail.conf(5):\nallow.vmm;"))
    if seen.hidden:
        found.append(fail("jail", f"does not see {', '.join(seen.hidden)} in /dev", unhide(seen.hidden)))
    yield from found or [ok("jail", f"has a network stack of its own{', and may use vmm' if seen.may_vmm else ''}")]


def _lines(visit: Visit) -> list[str]:
    """Side B of each console that bhyved would open."""
    dev = str(visit.spec.paths.dev)
    ports = [(name, port) for name, spec in sorted(visit.vms.items()) for port in spec.serial if port.mode == "managed"]
    return [f"{nmdm_path(name, port.port, dev)[:-1]}B" for name, port in ports]


def _shutdown(visit: Visit) -> Iterator[Finding]:
    margin_s = float(visit.spec.shutdown.margin)
    budget_s = hostend.budget_s(_rcshutdown_s(visit), visit.number("kern.init_shutdown_timeout"), margin_s)
    needed_s = agenda.shutdown(visit.vms, None).needs_s or 0.0
    if needed_s <= budget_s:
        yield ok("host shutdown", f"all guests can take their time: {span(needed_s)} of {span(budget_s)}")
        return
    rc_s = math.ceil(needed_s + margin_s) + OTHERS_S
    remedy = f"sysrc rcshutdown_timeout={rc_s}\n"
    if visit.jailed:  # its rc.shutdown runs within the host's, whose other services want some time as well
        rc_s += OTHERS_S
        remedy += visit.on_host(f"sysrc rcshutdown_timeout={rc_s}", *settle("kern.init_shutdown_timeout", rc_s + INIT_AFTER_S))
    else:
        remedy += visit.on_host(*settle("kern.init_shutdown_timeout", rc_s + INIT_AFTER_S))
    yield warn("host shutdown", f"guests want {span(needed_s)} and get {span(budget_s)}: their stop timeouts are cut short", remedy)


def _rcshutdown_s(visit: Visit) -> float | None:
    try:
        text = visit.tools.ask(("sysrc", "-n", "rcshutdown_timeout")).text.strip()
    except HostError:
        return None
    return float(text) if text.isdigit() else None


def _memory(visit: Visit) -> Iterator[Finding]:
    host = _host_memory(visit)
    has = room.room_of(visit.spec, host)
    starting = [spec for spec in visit.vms.values() if spec.autostart]
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
        yield fail("wired memory", text, f"{visit.on_host(f'sysctl vm.max_user_wired={pages}')}\nvmctl reload")


def _host_memory(visit: Visit) -> room.HostMemory:
    try:
        return parse_memory(visit.tools.ask(("sysctl", *MEMORY_VARIABLES), ok=None).text)
    except HostError:
        return room.HostMemory()


def _limits(visit: Visit) -> Iterator[Finding]:
    limited = [name for name, spec in sorted(visit.vms.items()) if spec.limits is not None]
    if not limited:
        return
    racct = visit.number("kern.racct.enable")
    why = limits.refusal("" if racct is None else str(racct), jailed=visit.jailed)
    if why:
        remedy = "echo kern.racct.enable=1 >>/boot/loader.conf\nshutdown -r now" if racct == 0 and not visit.jailed else ""
        yield fail("limits", f"{', '.join(limited)} cannot start: {why.removeprefix('limits: ')}", remedy)
    else:
        yield ok("limits", "the host counts what processes use")


def listener(visit: Visit) -> Iterator[Finding]:
    listen = visit.spec.metrics.listen
    if not listen or listen.startswith("unix:") or hostlock.holder(str(visit.spec.paths.run)) is not None:
        return
    why = occupied(listen)
    if why:
        yield fail("metrics", f"{listen} cannot be listened on: {why}", "set [metrics] listen to another port")
    else:
        yield ok("metrics", f"{listen} is free")


def _size(count: int) -> Size:
    return Size(count >> 20 << 20)


#: In this order; what listens is looked at last.
CHECKS = (_host, _daemon, _modules, _jail, _shutdown, _memory, _limits)
