"""bhyve's PCI devices as QEMU arguments: one function a model, each at the slot the guest would see under bhyve.

Pure: paths are only looked at, nothing is opened. What bhyve has and the lab cannot have (passthru) is refused with
bhyve's own words. The models and their keys are those of contract 3.2 and 3.8.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bhyved.lab.tree import is_true

_AHCI_PORTS = 6  # of QEMU's ich9-ahci; bhyve has 32
_SERIAL_CHARS = 20
_FIRST_FREE, _LAST_FREE = 1, 30  # slot 0 is the host bridge of q35, 31 its ICH9


class RefusedError(Exception):
    """A device that cannot be had; the text is what bhyve would print about it."""


@dataclass(frozen=True)
class PciDevice:
    """One `pci.BUS.SLOT.FUNC` node of the configuration; `options` are its keys below that."""

    bus: int
    slot: int
    function: int
    model: str
    options: Mapping[str, str]

    @property
    def id(self) -> str:
        """A name for QEMU's objects, unique among the guest's devices."""
        return f"pci{self.bus}-{self.slot}-{self.function}"

    def below(self, prefix: str) -> dict[int, dict[str, str]]:
        """Numbered children: `port.0.path` and `port.1.path` give {0: {"path": …}, 1: {"path": …}} for "port"."""
        children: dict[int, dict[str, str]] = {}
        for key, value in self.options.items():
            head, _, rest = key.partition(".")
            number, _, name = rest.partition(".")
            if head == prefix and number.isdecimal():
                children.setdefault(int(number), {})[name] = value
        return dict(sorted(children.items()))


@dataclass(frozen=True)
class Surroundings:
    """What the devices need from outside the configuration."""

    vm: str
    taps: frozenset[str] = frozenset()  # the tap interfaces that really exist; others are left unplugged
    sockets: Mapping[str, int] | None = None  # listening sockets of virtio-console ports, by path
    serial_fds: Mapping[str, int] | None = None  # our ends of PCI serial ports, by device id
    ram_disk: Callable[[str, int], str] | None = None  # (id, MiB) -> path of an empty file to serve as nvme `ram=`


def pci_devices(config: Mapping[str, str]) -> list[PciDevice]:
    """The PCI devices of a configuration, in the order of their addresses."""
    nodes: dict[tuple[int, int, int], dict[str, str]] = {}
    for name, value in config.items():
        head, *rest = name.split(".", 4)
        if head == "pci" and len(rest) == 4 and all(part.isdecimal() for part in rest[:3]):
            bus, slot, function = (int(part) for part in rest[:3])
            nodes.setdefault((bus, slot, function), {})[rest[3]] = value
    return [PciDevice(*at, options.pop("device", ""), options) for at, options in sorted(nodes.items())]


def device_arguments(devices: list[PciDevice], around: Surroundings) -> list[str]:
    """QEMU's arguments for all of `devices`. Raises RefusedError for one that cannot be had."""
    addresses = _addresses(devices)
    argv: list[str] = []
    for device in devices:
        if device.model in _IMPLICIT:
            continue
        try:
            build = _MODELS[device.model]
        except KeyError:
            raise RefusedError(f'pci slot {device.bus}:{device.slot}:{device.function}: unknown device "{device.model}"') from None
        argv += build(device, addresses[device.id], around)
    return argv


def option(driver: str, /, **settings: object) -> str:
    """`driver,key=value,…` as QEMU's option parser reads it: None leaves a key out, a comma is doubled, `__` is a dot."""
    words = [driver] if driver else []
    for key, value in settings.items():
        if value is not None:
            text = ("off", "on")[value] if isinstance(value, bool) else str(value)
            words.append(f"{key.replace('__', '.')}={text.replace(',', ',,')}")
    return ",".join(words)


def mac_address(device: PciDevice, vm: str) -> str:
    """The address bhyve makes up: stable for a name and slot (net_utils.c, net_genmac)."""
    digest = hashlib.md5(f"{device.slot}-{device.function}-{vm}".encode(), usedforsecurity=False).digest()
    return "58:9c:fc:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def _addresses(devices: list[PciDevice]) -> dict[str, str]:
    """Where each device goes on q35's root bus: bhyve's slot if that is free there, else the first free one."""
    ours = [device for device in devices if device.model not in _IMPLICIT]
    stays = [device for device in ours if device.bus == 0 and _FIRST_FREE <= device.slot <= _LAST_FREE]
    taken = Counter(device.slot for device in stays)
    free = iter(slot for slot in range(_FIRST_FREE, _LAST_FREE + 1) if slot not in taken)
    found = {device.id: f"{_next_slot(free):x}.0" for device in ours if device not in stays}
    for device in stays:
        shared = ",multifunction=on" if taken[device.slot] > 1 else ""
        found[device.id] = f"{device.slot:x}.{device.function:x}{shared}"
    return found


def _next_slot(free: Iterator[int]) -> int:
    for slot in free:
        return slot
    raise RefusedError("the lab's qemu engine has room for 30 PCI devices")


def _at(driver: str, address: str, **settings: object) -> str:
    return f"{driver},bus=pcie.0,addr={address}" + (f",{option('', **settings)}" if settings else "")


# ---- disks


def _drive(drive: str, path: str, options: Mapping[str, str], *, throwaway: bool = False, cdrom: bool = False) -> str:
    """A raw image or device. bhyve takes no lock (contract 3.2), so QEMU's is switched off."""
    read_only = cdrom or is_true(options.get("ro")) or not os.access(path, os.W_OK)  # bhyve falls back to read-only by itself
    is_device = stat.S_ISBLK(os.stat(path).st_mode)
    settings: dict[str, object] = {
        "if": "none",
        "id": drive,
        "file.driver": "host_device" if is_device else "file",
        "file.filename": path,
        "file.locking": "off",
        "format": "raw",
        "media": "cdrom" if cdrom else None,
        "discard": "ignore" if is_true(options.get("nodelete")) else "unmap",
        "cache.direct": True if is_true(options.get("nocache")) else None,
    }
    # A model that knows no read-only disk gets one whose writes go nowhere.
    settings["snapshot" if throwaway else "readonly"] = read_only
    return option("", **settings)


def _sector_sizes(value: str | None) -> dict[str, object]:
    logical, _, physical = (value or "512").partition("/")
    return {"logical_block_size": logical, "physical_block_size": physical or logical}


def _virtio_blk(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    settings = {
        "drive": device.id,
        "serial": device.options.get("ser", "")[:_SERIAL_CHARS] or None,
        "bootindex": device.options.get("bootindex"),
    }
    disk = _at("virtio-blk-pci", at, **settings, **_sector_sizes(device.options.get("sectorsize")))
    return ["-drive", _drive(device.id, device.options["path"], device.options), "-device", disk]


def _nvme(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    path = device.options.get("path")
    if path is None and "ram" in device.options and around.ram_disk is not None:
        path = around.ram_disk(device.id, int(device.options["ram"]))
    if path is None:
        raise RefusedError('Missing "path" for block device.')
    serial = device.options.get("ser", f"NVME-{device.slot}-{device.function}")[:_SERIAL_CHARS]
    sectors = _sector_sizes(device.options.get("sectsz") or device.options.get("sectorsize"))
    disk = _at("nvme", at, drive=device.id, serial=serial, bootindex=device.options.get("bootindex"), **sectors)
    return ["-drive", _drive(device.id, path, device.options), "-device", disk]


def _ahci(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    argv = ["-device", _at("ich9-ahci", at, id=device.id)]
    for port, options in device.below("port").items():
        if port >= _AHCI_PORTS:
            raise RefusedError(f"the lab's qemu engine has {_AHCI_PORTS} ports on an ahci controller, not {port + 1}")
        drive, cdrom = f"{device.id}-{port}", options.get("type") == "cd"
        settings = {
            "bus": f"{device.id}.{port}",
            "drive": drive,
            "serial": options.get("ser", "")[:_SERIAL_CHARS] or None,
            "ver": options.get("rev", "")[:8] or None,
            "model": options.get("model", "")[:40] or None,
            "bootindex": options.get("bootindex") or device.options.get("bootindex"),
        }
        argv += ["-drive", _drive(drive, options["path"], options, throwaway=not cdrom, cdrom=cdrom)]
        argv += ["-device", option("ide-cd" if cdrom else "ide-hd", **settings)]
    return argv


def _virtio_scsi(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    argv = ["-device", _at("virtio-scsi-pci", at, id=device.id)]
    path = device.options.get("dev", "")
    if os.path.isfile(path):  # no ctl(4) here: an image in the place of its device node is the disk
        argv += ["-drive", _drive(device.id + "-disk", path, device.options)]
        argv += ["-device", option("scsi-hd", bus=f"{device.id}.0", drive=device.id + "-disk")]
    return argv


# ---- network


def _network(driver: str, device: PciDevice, at: str, around: Surroundings, **settings: object) -> list[str]:
    backend = device.options.get("backend", "")
    if backend in around.taps:
        net = option("tap", id=device.id, ifname=backend, script="no", downscript="no")
    elif backend == "slirp":
        # Without `open` only connections into the guest work (contract 3.2).
        net = option("user", id=device.id, restrict=not is_true(device.options.get("open")))
        forwards = device.options.get("hostfwd", "").split(";")
        net += "".join(f",{option('', hostfwd=forward)}" for forward in forwards if forward)
    else:
        net = option("hubport", id=device.id, hubid=device.slot * 8 + device.function)  # a cable that leads nowhere
    mac = device.options.get("mac") or mac_address(device, around.vm)
    return ["-netdev", net, "-device", _at(driver, at, netdev=device.id, mac=mac, **settings)]


def _virtio_net(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    return _network("virtio-net-pci", device, at, around, host_mtu=device.options.get("mtu"))


def _e1000(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    return _network("e1000", device, at, around)


# ---- everything else


def _virtio_9p(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    # "none": as bhyve, ownership is what the host process may give.
    share = option(
        "local",
        id=device.id,
        path=device.options["path"],
        security_model="none",
        readonly=True if is_true(device.options.get("ro")) else None,
    )
    return ["-fsdev", share, "-device", _at("virtio-9p-pci", at, fsdev=device.id, mount_tag=device.options["sharename"])]


def _virtio_rnd(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del device, around
    return ["-device", _at("virtio-rng-pci", at)]


def _virtio_console(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    argv = ["-device", _at("virtio-serial-pci", at, id=device.id)]
    for port, options in device.below("port").items():
        channel = f"{device.id}-{port}"
        listener = (around.sockets or {})[options["path"]]
        argv += ["-chardev", option("socket", id=channel, fd=listener, server=True, wait=False)]
        argv += ["-device", option("virtserialport", bus=f"{device.id}.0", nr=port + 1, chardev=channel, name=options["name"])]
    return argv


def _virtio_input(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    return ["-device", _at("virtio-input-host-pci", at, evdev=device.options["path"])]


def _fbuf(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    width, height = device.options.get("w", "1024"), device.options.get("h", "768")
    # "none": the listening socket is the stand-in's, which hands each viewer over (contract 3.5: one at a time).
    password = ",password=on" if "password" in device.options else ""
    return ["-vnc", f"none{password}", "-device", _at("VGA", at, edid=True, xres=width, yres=height)]


def _xhci(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    argv = ["-device", _at("qemu-xhci", at, id=device.id)]
    if any(slot.get("device") == "tablet" for slot in device.below("slot").values()):
        argv += ["-device", option("usb-tablet", bus=f"{device.id}.0")]
    return argv


def _hda(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del around
    codec = option("hda-duplex", bus=f"{device.id}.0", audiodev=device.id)
    return ["-audiodev", option("none", id=device.id), "-device", _at("intel-hda", at, id=device.id), "-device", codec]


def _uart(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    wire = (around.serial_fds or {})[device.id]
    return ["-chardev", option("socket", id=device.id, fd=wire), "-device", _at("pci-serial", at, chardev=device.id)]


def _passthru(device: PciDevice, at: str, around: Surroundings) -> list[str]:
    del at, around
    words = [device.options.get(key, "0") for key in ("bus", "slot", "func")]
    raise RefusedError(f"PCI device at {'/'.join(words)} is not using the ppt(4) driver")


_IMPLICIT = frozenset({"hostbridge", "lpc", "dummy"})  # q35 has its own of the first two
_MODELS: dict[str, Callable[[PciDevice, str, Surroundings], list[str]]] = {
    "virtio-blk": _virtio_blk,
    "nvme": _nvme,
    "ahci": _ahci,
    "virtio-scsi": _virtio_scsi,
    "virtio-net": _virtio_net,
    "e1000": _e1000,
    "virtio-9p": _virtio_9p,
    "virtio-rnd": _virtio_rnd,
    "virtio-console": _virtio_console,
    "virtio-input": _virtio_input,
    "fbuf": _fbuf,
    "xhci": _xhci,
    "hda": _hda,
    "uart": _uart,
    "passthru": _passthru,
}
