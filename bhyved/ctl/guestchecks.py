"""What `vmctl doctor` looks at for each guest: whether what its file names is there, and free."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bhyved.core import advice
from bhyved.core.assigned import Target
from bhyved.core.errors import HostError
from bhyved.core.ifconfig import Interface
from bhyved.core.needs import INTERFACE, POOL
from bhyved.core.needs import split as split_need
from bhyved.core.spec import VmSpec
from bhyved.ctl.visit import Finding, Visit, fail, occupied, ok, settle, unhide, warn
from bhyved.host import backing
from bhyved.host.ledger import DiskUse


def _guests(visit: Visit) -> Iterator[Finding]:
    target = visit.target or Target()
    bin_ = tuple(map(str, visit.spec.paths.bin))
    most = visit.number("hw.vmm.maxcpu")
    for name, spec in sorted(visit.vms.items()):
        found = [*(fail(name, f"{key}: {text}") for key, text in advice.objections(spec, target))]
        found += [
            warn(name, f"{key}: {text}")
            for key, text in advice.warnings(spec, target, host_memory=visit.number("hw.physmem"), host_cpus=os.cpu_count())
        ]
        if most is not None and spec.cpus.count > most:
            remedy = visit.on_host("set hw.vmm.maxcpu in /boot/loader.conf")
            found.append(fail(name, f"cpus: {spec.cpus.count}, and hw.vmm.maxcpu is {most}", remedy))
        try:
            backing.find_firmware(spec, bin_)
        except HostError as error:
            found.append(fail(name, str(error)))
        yield from found or [ok(name, "nothing against it")]


def _disks(visit: Visit) -> Iterator[Finding]:
    users: dict[str, list[tuple[str, DiskUse]]] = {}
    for name, spec in sorted(visit.vms.items()):
        try:
            for use in backing.disk_uses(spec):
                users.setdefault(use.key, []).append((name, use))
        except HostError as error:
            yield fail(name, str(error), _hidden_volumes(visit, spec))
    for uses in users.values():
        if len(uses) > 1 and any(use.writes for _, use in uses) and not all(use.shared for _, use in uses):
            names = ", ".join(name for name, _ in uses)
            yield warn("disks", f"{uses[0][1].path} is a disk of {names}: they cannot run together unless all say shared = true")


def _hidden_volumes(visit: Visit, spec: VmSpec) -> str:
    """Rules that would show a jail the volumes of its guest, with every directory above them (contract 7.1)."""
    dev = f"{visit.spec.paths.dev}/"
    missing = [path for disk in spec.disk if (path := str(disk.path)).startswith(dev) and not os.path.exists(path)]
    if not visit.jailed or not missing:
        return ""
    words = [path.removeprefix(dev).split("/") for path in missing]
    return unhide(dict.fromkeys("/".join(each[:count]) for each in words for count in range(1, len(each) + 1)))


def _bridges(visit: Visit) -> Iterator[Finding]:
    wanted: dict[str, list[str]] = {}
    for name, spec in sorted(visit.vms.items()):
        for card in spec.network:
            if card.bridge is not None:
                wanted.setdefault(str(card.bridge), []).append(name)
    for bridge, names in sorted(wanted.items()):
        there = visit.interface(bridge)
        if there is None:
            yield fail(
                f"bridge {bridge}",
                f"does not exist; wanted by {', '.join(names)}",
                f'sysrc cloned_interfaces+="{bridge}"\nservice netif cloneup',
            )
        else:
            yield from _bridge(visit, there, names)


def _bridge(visit: Visit, bridge: Interface, names: list[str]) -> Iterator[Finding]:
    """A bridge that is there. It and the host's cards on it must be up (bridge(4)); guests' taps are told by name (contract 5.3)."""
    about = f"bridge {bridge.name}"
    cards = [name for name in bridge.members if not name.startswith(("tap", "vmnet"))]
    members = [card for card in map(visit.interface, cards) if card is not None]
    down = [each.name for each in (bridge, *members) if not each.is_up]
    for name in down:
        whose = "it is" if name == bridge.name else f"{name}, which is on it, is"
        yield warn(about, f"{whose} down, and passes nothing for {', '.join(names)}", f"ifconfig {name} up")
    if not down:
        alone = "" if members else "; no card of the host is on it, so that guests reach each other, and what the host routes"
        yield ok(about, f"is there, for {', '.join(names)}{alone}")


def _seeds(visit: Visit) -> Iterator[Finding]:
    """What is wrong with the files of seeds is a problem of the configuration."""
    names = [name for name, spec in sorted(visit.vms.items()) if spec.cloud_init is not None]
    if not names:
        return
    try:
        found = visit.tools.path("makefs")
    except HostError as error:
        yield fail("cloud-init", f"{error}: it is part of FreeBSD's base system, and makes the seeds of {', '.join(names)}")
    else:
        yield ok("cloud-init", f"{found} makes the seeds of {', '.join(names)}")


def _taps(visit: Visit) -> Iterator[Finding]:
    """Contract 5.3. bhyved brings taps up itself, once, before bhyve opens them."""
    with_taps = [name for name, spec in sorted(visit.vms.items()) if any(card.wants_tap or card.tap for card in spec.network)]
    if not with_taps:
        return
    for name, spec in sorted(visit.vms.items()):
        for card in spec.network:
            if card.tap is not None and visit.interface(str(card.tap)) is None:
                yield fail(f"tap {card.tap}", f"does not exist; wanted by {name}", f"ifconfig {card.tap} create")
    if visit.number("net.link.tap.up_on_open") == 0:
        text = "net.link.tap.up_on_open is 0: a tap that somebody takes down under a guest stays down when the guest opens it again"
        yield warn("taps", text, visit.on_host(*settle("net.link.tap.up_on_open", 1)))
    if visit.number("net.link.tap.user_open") == 1:
        text = "net.link.tap.user_open is 1: accounts that may write /dev/tapN get at the guests' networks without root"
        yield warn("taps", text, visit.on_host("sysctl net.link.tap.user_open=0"))


def _vnc(visit: Visit) -> Iterator[Finding]:
    """Ports that a file names; two guests with one are a problem of the configuration."""
    for name, spec in sorted(visit.vms.items()):
        listen = spec.graphics.listen if spec.graphics is not None else None
        if listen is None or not listen.has_port or listen.startswith("unix:") or _runs(visit, name):
            continue
        why = occupied(listen)
        if why:
            text = f"VNC cannot listen on {listen}: {why}; {name} would not start"
            yield fail(f"vnc of {name}", text, "another port in graphics.listen, or none: bhyved takes a free one")


def _runs(visit: Visit, name: str) -> bool:
    """Or may do: its ledger is there, and then the port is its own."""
    return os.path.exists(f"{visit.spec.paths.run}/vm/{name}/run.toml")


def _needs(visit: Visit) -> Iterator[Finding]:
    for need in sorted({need for spec in visit.vms.values() for need in spec.order.needs}):
        kind, name = split_need(need)
        if kind == INTERFACE:
            there = visit.interface(name) is not None
        elif kind == POOL:
            there = _pool(visit, name)
        else:
            there = os.path.exists(name)
        yield (
            ok("needs", f"the {kind} {name} is there") if there else warn("needs", f"the {kind} {name} is not there: guests wait for it")
        )


def _pool(visit: Visit, name: str) -> bool:
    try:
        return visit.tools.ask(("zpool", "list", "-H", "-o", "health", name), ok=None).status == 0
    except HostError:
        return False


CHECKS = (_guests, _disks, _bridges, _seeds, _taps, _vnc, _needs)
