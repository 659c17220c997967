"""The PCI functions of a guest as variables of bhyve_config(5): `pci.BUS.SLOT.FUNC.…` (contract 3.2 to 3.8)."""

from collections.abc import Iterator

from bhyved.core import slots
from bhyved.core.assigned import Assigned, Target, attached
from bhyved.core.devices import Cdrom, Disk, Network
from bhyved.core.spec import VmSpec
from bhyved.core.values import Resolution

Variables = Iterator[tuple[str, str]]


def nodes(spec: VmSpec, assigned: Assigned, target: Target) -> Variables:
    """The variables of all devices, by slot."""
    found: dict[str, Variables] = {"hostbridge": _hostbridge(spec)}
    if target.arch == "amd64":
        found["lpc"] = iter([("device", "lpc")])
    found |= _drives(spec, assigned)
    for identity, card in zip(slots.network_identities(spec), spec.network, strict=True):
        found[identity] = _network(identity, card, assigned)
    if spec.random.enabled:
        found["random"] = iter([("device", "virtio-rnd")])
    found |= _rest(spec, assigned)
    by_place = {slots.split(assigned.slots[identity])[0]: node for identity, node in found.items()}
    for place, node in sorted(by_place.items(), key=lambda item: item[0]):
        for key, value in node:
            yield "pci.{}.{}.{}.".format(*place) + key, value


def _hostbridge(spec: VmSpec) -> Variables:
    yield "device", "hostbridge"
    if spec.bhyve.hostbridge == "amd":
        yield "pcireg.vendor", "0x1022"
        yield "pcireg.device", "0x7432"


def _drives(spec: VmSpec, assigned: Assigned) -> dict[str, Variables]:
    nodes: dict[str, Variables] = {}
    present = attached(spec, install=assigned.install)
    for disk in spec.disk:
        if disk.controller is None:
            nodes[disk.identity] = _disk(disk)
    for drive in present:
        if drive.controller is None:
            nodes[drive.identity] = iter([("device", "ahci"), *_cd_port(0, drive)])
    for name, drives in slots.controllers(spec).items():
        ports = [
            (slots.split(assigned.slots[identity])[1] or 0, drive)
            for identity, drive in drives
            if isinstance(drive, Disk) or drive in present
        ]
        if ports:
            nodes[f"controller:{name}"] = _controller(ports)
    return nodes


def _controller(ports: list[tuple[int, Disk | Cdrom]]) -> Variables:
    yield "device", "ahci"
    for number, drive in sorted(ports, key=lambda port: port[0]):
        yield from _hd_port(number, drive) if isinstance(drive, Disk) else _cd_port(number, drive)


def _disk(disk: Disk) -> Variables:
    match disk.model:
        case "ahci-hd":
            yield "device", "ahci"
            yield from _hd_port(0, disk)
        case "virtio-scsi":
            yield "device", "virtio-scsi"
            yield "dev", str(disk.path)
            if disk.initiator_id is not None:
                yield "iid", str(disk.initiator_id)
        case "nvme":
            yield "device", "nvme"
            yield from _nvme(disk)
        case _:
            yield "device", "virtio-blk"
            yield from _block(disk)
            if disk.serial is not None:
                yield "ser", disk.serial


def _block(disk: Disk) -> Variables:
    if disk.path is not None:
        yield "path", disk.path
    if disk.nocache:
        yield "nocache", "true"
    if disk.sync:
        yield "direct", "true"
    if disk.read_only:
        yield "ro", "true"
    if not disk.discard:
        yield "nodelete", "true"
    if disk.sector_size is not None and disk.ram is None:
        yield "sectorsize", disk.sector_size
    if disk.boot_index is not None:
        yield "bootindex", str(disk.boot_index)


def _nvme(disk: Disk) -> Variables:
    yield from _block(disk)
    if disk.ram is not None:
        yield "ram", str(disk.ram >> 20)
        if disk.sector_size is not None:
            yield "sectsz", disk.sector_size.rpartition("/")[2]
    options = {
        "maxq": disk.max_queues,
        "qsz": disk.queue_size,
        "ioslots": disk.io_slots,
        "ser": disk.serial,
        "eui64": disk.eui64,
        "dsm": None if disk.dsm == "auto" else disk.dsm,
    }
    yield from ((key, str(value)) for key, value in options.items() if value is not None)


def _hd_port(number: int, disk: Disk) -> Variables:
    yield f"port.{number}.type", "hd"
    for key, value in _block(disk):
        yield f"port.{number}.{key}", value
    options = {"nmrr": disk.rotation_rate, "ser": disk.serial, "rev": disk.revision, "model": disk.product}
    yield from ((f"port.{number}.{key}", str(value)) for key, value in options.items() if value is not None)


def _cd_port(number: int, drive: Cdrom) -> Variables:
    yield f"port.{number}.type", "cd"
    yield f"port.{number}.path", drive.path
    if drive.boot_index is not None:
        yield f"port.{number}.bootindex", str(drive.boot_index)


def _network(identity: str, card: Network, assigned: Assigned) -> Variables:
    yield "device", card.model
    interface = card.tap or card.vmnet or card.netmap or assigned.taps.get(identity)
    if interface is not None:
        yield "backend", interface
    elif card.netgraph is not None:
        yield "backend", "netgraph"
        yield "path", card.netgraph.path
        yield "peerhook", card.netgraph.peer_hook
        if card.netgraph.socket is not None:
            yield "socket", card.netgraph.socket
        if card.netgraph.hook is not None:
            yield "hook", card.netgraph.hook
    elif card.slirp is not None:
        yield "backend", "slirp"
        if card.slirp.open:
            yield "open", "true"
        if card.slirp.forward:
            yield "hostfwd", ";".join(card.slirp.forward)
    yield "mac", assigned.macs[identity]
    if card.mtu is not None:
        yield "mtu", str(card.mtu)


def _rest(spec: VmSpec, assigned: Assigned) -> dict[str, Variables]:
    nodes: dict[str, Variables] = {}
    for share in spec.share:
        items = [("device", "virtio-9p"), ("sharename", str(share.name)), ("path", str(share.path))]
        nodes[share.identity] = iter([*items, ("ro", "true")] if share.read_only else items)
    if spec.virtio_console:
        nodes["virtio-console"] = _virtio_console(spec, assigned)
    if spec.sound is not None:
        sides = {"play": spec.sound.play, "rec": spec.sound.record}
        nodes["sound"] = iter([("device", "hda"), *((key, str(value)) for key, value in sides.items() if value is not None)])
    for each in spec.input:
        nodes[each.identity] = iter([("device", "virtio-input"), ("path", str(each.path))])
    for device in spec.passthru:
        nodes[device.identity] = _passthru(str(device.device), str(device.rom or ""), device.boot_index)
    if spec.graphics is not None:
        nodes["graphics"] = _fbuf(spec, assigned)
        if spec.graphics.tablet:
            nodes["tablet"] = iter([("device", "xhci"), ("slot.1.device", "tablet")])
    if spec.cloud_init is not None and assigned.seed:
        nodes[slots.SEED] = _seed(spec.cloud_init.model, assigned.seed)
    return nodes


def _seed(model: str, path: str) -> Variables:
    if model == "virtio-blk":
        return iter([("device", "virtio-blk"), ("path", path), ("ro", "true")])
    return iter([("device", "ahci"), ("port.0.type", "cd"), ("port.0.path", path)])


def _virtio_console(spec: VmSpec, assigned: Assigned) -> Variables:
    yield "device", "virtio-console"
    for number, console in enumerate(spec.virtio_console):
        yield f"port.{number}.name", console.name
        yield f"port.{number}.path", str(console.path or assigned.sockets[console.name])


def _passthru(device: str, rom: str, boot_index: int | None) -> Variables:
    yield "device", "passthru"
    if device.startswith("ppt"):
        yield "pptdev", device
    else:
        yield from zip(("bus", "slot", "func"), device.split("/"), strict=True)
    if rom:
        yield "rom", rom
    if boot_index is not None:
        yield "bootindex", str(boot_index)


def _fbuf(spec: VmSpec, assigned: Assigned) -> Variables:
    graphics = spec.graphics
    assert graphics is not None
    endpoint = graphics.listen if graphics.listen.has_port else assigned.vnc
    width, height = Resolution(graphics.resolution).pixels
    yield "device", "fbuf"
    yield ("rfb" if endpoint.startswith("unix:") else "tcp"), endpoint
    yield "w", str(width)
    yield "h", str(height)
    if graphics.vga != "io":
        yield "vga", graphics.vga
    if graphics.wait and assigned.first_run:
        yield "wait", "true"
    if assigned.vnc_password:
        yield "password", assigned.vnc_password
