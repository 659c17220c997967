"""PCI slots: chosen by kind, then kept, so that no edit renumbers what a guest already knows (contract 3.1).

A place is written `bus:slot:func`, or `bus:slot:func/port` for a disk on a shared AHCI controller. The caller keeps the assignment
between starts and hands it back as `previous`.
"""

import itertools
import re
from collections.abc import Iterator, Mapping

import msgspec

from bhyved.core.devices import AHCI_PORTS, CONSOLE_PORTS, Cdrom, Disk
from bhyved.core.spec import VmSpec
from bhyved.core.values import Slot

Place = tuple[int, int, int]
SEED = "cloud-init"  # the identity of the seed's drive

#: Where each kind is put first. What does not fit goes to `_SPARE`, then anywhere on bus 0, then to bus 1.
_HOME: dict[str, tuple[int, ...]] = {
    "hostbridge": (0,),
    "cdrom": (2, 3),
    "disk": (4, 5, 6, 7, 8, 9),
    "network": (10, 11, 12, 13, 14, 15),
    "random": (16,),
    "share": (17,),
    "virtio-console": (18,),
    "sound": (19,),
    "input": (28,),
    "passthru": (20, 21, 22, 23, 24, 25, 26, 27),
    "cloud-init": (27,),  # behind the disks: as a disk it must not become the guest's first
    "graphics": (29,),
    "tablet": (30,),
    "lpc": (31, 1),
}
_SPARE = (28, 19, 1)

_PCI_OPTION = re.compile(r"pci\.([0-9]+)\.([0-9]+)\.([0-9]+)\.device")


class Device(msgspec.Struct, frozen=True):
    """One PCI function of a guest."""

    identity: str  # what it is remembered by
    kind: str
    key: str  # where it stands in the file
    slot: Slot | None = None


def devices(spec: VmSpec, arch: str = "amd64") -> tuple[Device, ...]:
    """Every PCI function that the guest has, install media and a seed included, in the order in which slots are chosen."""
    found = [Device("hostbridge", "hostbridge", "hostbridge", Slot("0:0:0"))]
    if arch == "amd64":  # arm64 has no LPC bridge (contract 2.5)
        found.append(Device("lpc", "lpc", "bhyve.lpc-slot", spec.bhyve.lpc_slot))
    found += _drives(spec)
    found += [Device(name, "network", f"network[{n}]", spec.network[n].slot) for n, name in enumerate(network_identities(spec))]
    if spec.random.enabled:
        found.append(Device("random", "random", "random", spec.random.slot))
    found += [Device(share.identity, "share", f"share[{n}]", share.slot) for n, share in enumerate(spec.share)]
    if spec.virtio_console:
        found.append(Device("virtio-console", "virtio-console", "virtio-console"))
    if spec.sound is not None:
        found.append(Device("sound", "sound", "sound", spec.sound.slot))
    found += [Device(each.identity, "input", f"input[{n}]", each.slot) for n, each in enumerate(spec.input)]
    found += [Device(each.identity, "passthru", f"passthru[{n}]", each.slot) for n, each in enumerate(spec.passthru)]
    if spec.graphics is not None:
        found.append(Device("graphics", "graphics", "graphics", spec.graphics.slot))
        if spec.graphics.tablet:
            found.append(Device("tablet", "tablet", "graphics.tablet-slot", spec.graphics.tablet_slot))
    if spec.cloud_init is not None:
        found.append(Device(SEED, "cloud-init", "cloud-init", spec.cloud_init.slot))
    return tuple(found)


def network_identities(spec: VmSpec) -> tuple[str, ...]:
    """By MAC where one is given, else by position: moving a card to another bridge must not make it a new card to the guest."""
    return tuple(f"network:{card.mac or index}" for index, card in enumerate(spec.network))


def controllers(spec: VmSpec) -> dict[str, tuple[tuple[str, Disk | Cdrom], ...]]:
    """Named AHCI controllers: for each, its (identity, drive)."""
    groups: dict[str, list[tuple[str, Disk | Cdrom]]] = {}
    drives: tuple[Disk | Cdrom, ...] = (*spec.disk, *spec.cdrom)
    for drive in drives:
        if drive.controller is not None:
            groups.setdefault(drive.controller, []).append((drive.identity, drive))
    return {name: tuple(drives) for name, drives in groups.items()}


def problems(spec: VmSpec) -> Iterator[tuple[str, str]]:
    """Clashes inside one guest, each with both owners named: (key, sentence)."""
    taken: dict[Place, str] = {}
    for place in option_places(spec):
        taken[place] = f'bhyve.options."{_option(place)}"'
    for device in devices(spec):
        if device.slot is None:
            continue
        place = device.slot.numbers
        if device.identity == "lpc" and place[0]:
            yield device.key, "the LPC bridge is possible on bus 0 only"
        if place in taken:
            yield device.key, f"slot {device.slot} belongs to {_owner(taken[place])} already"
        else:
            taken[place] = device.key
    yield from _doubles(spec)
    for name, drives in controllers(spec).items():
        if len(drives) > AHCI_PORTS:
            yield "disk", f'controller "{name}" has {len(drives)} drives, and an AHCI controller has {AHCI_PORTS} ports'
    if len(spec.virtio_console) > CONSOLE_PORTS:
        yield "virtio-console", f"{len(spec.virtio_console)} ports are given, and {CONSOLE_PORTS} are possible"


def _doubles(spec: VmSpec) -> Iterator[tuple[str, str]]:
    """Things of one guest that would be remembered, or found by the guest, under one name."""
    lists: dict[str, tuple[str, ...]] = {
        "disk": tuple(disk.identity for disk in spec.disk),
        "cdrom": tuple(drive.identity for drive in spec.cdrom),
        "share": tuple(share.identity for share in spec.share),
        "virtio-console": tuple(console.name for console in spec.virtio_console),
        "input": tuple(each.identity for each in spec.input),
        "passthru": tuple(each.identity for each in spec.passthru),
        "serial": tuple(port.port for port in spec.serial),
    }
    for key, names in lists.items():
        for index, name in enumerate(names):
            if name in names[:index]:
                yield f"{key}[{index}]", f'"{name.partition(":")[2] or name}" is {key}[{names.index(name)}] already'


def assign(spec: VmSpec, previous: Mapping[str, str], arch: str = "amd64") -> dict[str, str]:
    """A place for every device: given ones first, then those it had, then free ones by kind. Raises nothing for a checked spec."""
    wanted = devices(spec, arch)
    places = {device.identity: device.slot.numbers for device in wanted if device.slot is not None}
    taken = {*places.values(), *option_places(spec)}
    for device in wanted:
        before = _place(previous.get(device.identity, ""))
        if device.identity not in places and before is not None and before not in taken and _may_have(device, before):
            places[device.identity] = before
            taken.add(before)
    for device in wanted:
        if device.identity not in places:
            place = _free(device.kind, taken)
            places[device.identity] = place
            taken.add(place)
    result = {device.identity: _text(places[device.identity]) for device in wanted}
    for name, drives in controllers(spec).items():
        result |= _ports(_text(places[f"controller:{name}"]), [identity for identity, _ in drives], previous)
    return result


def option_places(spec: VmSpec) -> tuple[Place, ...]:
    """Slots that the operator filled by `[bhyve] options`."""
    matches = (_PCI_OPTION.fullmatch(key) for key in spec.bhyve.options)
    return tuple((int(match[1]), int(match[2]), int(match[3])) for match in matches if match)


def split(place: str) -> tuple[Place, int | None]:
    """`0:4:0/2` is port 2 of the controller in 0:4:0."""
    address, slash, port = place.partition("/")
    return Slot(address).numbers, int(port) if slash else None


def _drives(spec: VmSpec) -> Iterator[Device]:
    named = set()
    kinds: tuple[tuple[str, tuple[Disk | Cdrom, ...]], ...] = (("disk", spec.disk), ("cdrom", spec.cdrom))
    for key, drives in kinds:
        for index, drive in enumerate(drives):
            if drive.controller is None:
                yield Device(drive.identity, key, f"{key}[{index}]", drive.slot)
            elif drive.controller not in named:
                named.add(drive.controller)
                yield Device(f"controller:{drive.controller}", "disk", f"{key}[{index}]")


def _free(kind: str, taken: set[Place]) -> Place:
    """Only whole slots are given out: function 0 with nothing beside it."""
    used = {place[:2] for place in taken}
    first = ((0, slot) for slot in (*_HOME[kind], *_SPARE, *range(1, 31)))
    for bus, slot in itertools.chain(first, itertools.product(range(1, 256), range(32))):
        if (bus, slot) not in used:
            return bus, slot, 0
    raise AssertionError("a guest with more devices than 256 buses hold")


def _may_have(device: Device, place: Place) -> bool:
    return not (device.kind == "lpc" and place[0])  # contract 3.1: bus 0 only


def _ports(place: str, identities: list[str], previous: Mapping[str, str]) -> dict[str, str]:
    ports: dict[str, int] = {}
    for identity in identities:
        before = previous.get(identity, "")
        if before.startswith(f"{place}/"):
            port = split(before)[1]
            if port is not None and port < AHCI_PORTS and port not in ports.values():
                ports[identity] = port
    free = (port for port in range(AHCI_PORTS) if port not in set(ports.values()))
    for identity in identities:
        if identity not in ports:
            ports[identity] = next(free)
    return {identity: f"{place}/{ports[identity]}" for identity in identities}


def _place(text: str) -> Place | None:
    """A remembered place, unless it is a port or no place at all: state files may be damaged."""
    try:
        return Slot.parse(text).numbers if text else None
    except ValueError:
        return None


def _text(place: Place) -> str:
    return ":".join(str(part) for part in place)


def _option(place: Place) -> str:
    return "pci.{}.{}.{}.device".format(*place)


def _owner(key: str) -> str:
    return "the host bridge" if key == "hostbridge" else key
