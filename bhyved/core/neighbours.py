"""What guests of one host must not have in common, and whom they may wait for.

Textual: two spellings of one disk are found when a guest starts, by device and inode. Fatal is what can never work or would hurt both
guests (one MAC, one VNC port); what is fine as long as they do not run together (one disk, one passthru device) is a warning, since
bhyved denies the second start anyway.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import msgspec

from bhyved.core import bhyveconf, order, slots
from bhyved.core.assigned import Target, provisional
from bhyved.core.decode import nearest, shown
from bhyved.core.spec import VmSpec
from bhyved.core.values import split_endpoint


class Clash(msgspec.Struct, frozen=True, kw_only=True):
    """Something between guests, or within one. The first of `vms` is the guest whose file should change."""

    vms: tuple[str, ...]
    key: str
    sentence: str
    found: str = ""
    is_fatal: bool = True


class _Claim(msgspec.Struct, frozen=True):
    """One guest's wish for a thing that exists once."""

    vm: str
    key: str
    thing: str


def look(vms: Mapping[str, VmSpec], *, known: frozenset[str]) -> list[Clash]:
    """Every clash. `known` also has guests whose files are broken: to wait for one of them is no typing error."""
    clashes = [clash for name in sorted(vms) for clash in _within(name, vms[name])]
    for claims, word in ((_macs, "MAC address"), (_uuids, "UUID"), (_endpoints, "address"), (_interfaces, "interface"), (_paths, "file")):
        clashes += _twice(vms, claims, f"the {word}")
    clashes += _shared_disks(vms)
    clashes += _twice(vms, _host_devices, "the host's device", remedy="; they cannot run together", is_fatal=False)
    clashes += _order(vms, known)
    return clashes


def _within(name: str, spec: VmSpec) -> Iterator[Clash]:
    found = list(slots.problems(spec))
    for key, sentence in found:
        yield Clash(vms=(name,), key=key, sentence=sentence)
    if not found and spec.bhyve.options:  # all other variables are ours, and sound
        try:
            bhyveconf.tree(spec, provisional(spec), Target())
        except bhyveconf.ConfError as err:
            yield Clash(vms=(name,), key="bhyve.options", sentence=str(err))


def _twice(
    vms: Mapping[str, VmSpec],
    claims: Callable[[VmSpec], Iterator[tuple[str, str]]],
    word: str,
    *,
    remedy: str = "",
    is_fatal: bool = True,
) -> Iterator[Clash]:
    owners: dict[str, list[_Claim]] = defaultdict(list)
    for name in sorted(vms):
        for key, thing in claims(vms[name]):
            owners[thing].append(_Claim(name, key, thing))
    for thing, (first, *others) in owners.items():
        for other in others:
            whom = "is given twice in this guest" if other.vm == first.vm else f"belongs to {first.vm} ({first.key}) too"
            together = tuple(dict.fromkeys((other.vm, first.vm)))
            yield Clash(vms=together, key=other.key, found=shown(thing), sentence=f"{word} {whom}{remedy}", is_fatal=is_fatal)


def _macs(spec: VmSpec) -> Iterator[tuple[str, str]]:
    for index, card in enumerate(spec.network):
        if card.mac is not None:
            yield f"network[{index}].mac", card.mac


def _uuids(spec: VmSpec) -> Iterator[tuple[str, str]]:
    if spec.uuid is not None:
        yield "uuid", spec.uuid


def _endpoints(spec: VmSpec) -> Iterator[tuple[str, str]]:
    """Ports are claimed host-wide: 0.0.0.0:5900 and 127.0.0.1:5900 cannot both be bound in general."""
    if spec.graphics is not None and spec.graphics.listen.has_port:
        listen = spec.graphics.listen
        yield "graphics.listen", listen if listen.startswith("unix:") else f"port {split_endpoint(listen)[1]}"
    for index, port in enumerate(spec.serial):
        if port.address is not None:
            yield f"serial[{index}].address", f"port {split_endpoint(port.address)[1]}"


def _interfaces(spec: VmSpec) -> Iterator[tuple[str, str]]:
    for index, card in enumerate(spec.network):
        for key in ("tap", "vmnet"):
            name = getattr(card, key)
            if name is not None:
                yield f"network[{index}].{key}", name


def _paths(spec: VmSpec) -> Iterator[tuple[str, str]]:
    """Files that bhyve writes or listens on, and that can have one user only."""
    if spec.boot.vars is not None:
        yield "boot.vars", spec.boot.vars
    for index, console in enumerate(spec.virtio_console):
        if console.path is not None:
            yield f"virtio-console[{index}].path", console.path
    for index, port in enumerate(spec.serial):
        if port.device is not None:
            yield f"serial[{index}].device", port.device


def _shared_disks(vms: Mapping[str, VmSpec]) -> Iterator[Clash]:
    users: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(vms):
        for index, disk in enumerate(vms[name].disk):
            if disk.path is not None:
                users[disk.path].append((name, index))
    for path, owners in users.items():
        (first, at), *others = owners
        for name, index in others:
            one, other = vms[first].disk[at], vms[name].disk[index]
            key, found = f"disk[{index}].path", shown(path)
            if name != first and not (one.shared and other.shared) and not (one.read_only and other.read_only):
                sentence = f"the disk belongs to {first} (disk[{at}]) too; they cannot run together unless both say shared = true"
                yield Clash(vms=(name, first), key=key, found=found, sentence=sentence, is_fatal=False)


def _host_devices(spec: VmSpec) -> Iterator[tuple[str, str]]:
    for index, device in enumerate(spec.passthru):
        yield f"passthru[{index}].device", device.device
    if spec.tpm is not None and spec.tpm.type == "passthru":
        yield "tpm.device", spec.tpm.device


def _order(vms: Mapping[str, VmSpec], known: frozenset[str]) -> Iterator[Clash]:
    for name in sorted(vms):
        for key in ("after", "requires"):
            for index, other in enumerate(getattr(vms[name].order, key)):
                if other not in known:
                    near = nearest(other, known - {name})
                    sentence = "there is no such guest" + (f"; {near}" if near else "")
                    yield Clash(vms=(name,), key=f"order.{key}[{index}]", found=shown(other), sentence=sentence)
    for cycle in order.cycles(order.before(vms)):
        sentence = f"guests wait for each other in a circle: {' → '.join(cycle)}"
        yield Clash(vms=cycle[:-1], key="order", sentence=sentence)
