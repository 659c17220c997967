"""The variables of bhyve_config(5) → the table of a vm.d file: `bhyveconf` and `pcinodes` the other way round.

Every device keeps its PCI slot, and a card without an address the one that bhyve has given it until now: the guest sees the machine it
knows. What has no key of ours goes to `[bhyve] options`; what cannot go there is told in a note.
"""

import hashlib
import posixpath
from collections.abc import Mapping
from typing import Any

from bhyved.core.assigned import UEFI, UEFI_CSM
from bhyved.core.imports.imported import PASSWORD, Imported, absolute, memory, stays_in, topology, whole_number
from bhyved.core.macs import PREFIX
from bhyved.core.spec import refusal

_TRUE, _FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")
#: Variables of bhyve's that bhyved always sets itself, to the values that say nothing new.
_OURS = {
    "acpi_tables": _TRUE,
    "acpi_tables_in_memory": _TRUE,
    "x86.vmexit_on_hlt": _TRUE,
    "x86.vmexit_on_pause": _TRUE,
    "x86.strictmsr": _FALSE,
    "memory.guest_in_core": _FALSE,
    "destroy_on_poweroff": (*_TRUE, "false"),  # the node is always destroyed
    "config.dump": _TRUE,  # a dump carries it, and nobody wants it to run (contract 1.3)
}
_BLOCK = {
    "nocache": "nocache",
    "direct": "sync",
    "sync": "sync",
    "ro": "read-only",
    "sectorsize": "sector-size",
    "bootindex": "boot-index",
    "ser": "serial",
    "nmrr": "rotation-rate",
    "rev": "revision",
    "model": "product",
    "maxq": "max-queues",
    "qsz": "queue-size",
    "ioslots": "io-slots",
    "eui64": "eui64",
    "dsm": "dsm",
    "sectsz": "sector-size",
    "iid": "initiator-id",
}
_NUMBERS = ("boot-index", "rotation-rate", "max-queues", "queue-size", "io-slots", "initiator-id")
_SWITCHES = ("nocache", "sync", "read-only")


def translate(tree: Mapping[str, str], *, here: str, bridges: Mapping[str, str] | None = None) -> Imported:
    """`here`: the directory of relative paths. `bridges`: by tap, where to put the card instead of on that tap. Raises ForeignError."""
    work = _Translation(dict(tree), here, bridges or {})
    work.machine()
    work.firmware()
    work.lpc()
    work.devices()
    work.rest()
    return Imported(work.name, work.table, work.notes)


def pinned(cpus: int | dict[str, int], left: dict[str, str]) -> int | dict[str, Any]:
    """`cpus` of a file with the pins that are in `left`, which loses them."""
    pins = [f"{key.split('.')[1]}:{left.pop(key)}" for key in sorted(left) if key.startswith("vcpu.") and key.endswith(".cpuset")]
    return {**(cpus if isinstance(cpus, dict) else {"sockets": cpus}), "pin": pins} if pins else cpus


def passed_on(left: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Variables for which there is no key → `[bhyve] options`, without what bhyved always sets; and why some cannot be."""
    wanted = {key: value for key, value in left.items() if value.lower() not in _OURS.get(key, ())}
    notes = [f"{key}={value} is left out: {why}" for key, value in wanted.items() if (why := refusal(key))]
    return {key: value for key, value in wanted.items() if not refusal(key)}, notes


class _Translation:
    """What is left of the tree, and what has become of it."""

    def __init__(self, left: dict[str, str], here: str, bridges: Mapping[str, str]) -> None:
        self.left, self.here, self.bridges = left, here, bridges
        self.name = left.pop("name", "")
        self.table: dict[str, Any] = {}
        self.notes: list[str] = []
        self.options: dict[str, str] = {}

    def machine(self) -> None:
        left, table = self.left, self.table
        sockets = left.pop("sockets", "")
        cores, threads = whole_number(left.pop("cores", "1")), whole_number(left.pop("threads", "1"))
        count = whole_number(left.pop("cpus", "") or str((whole_number(sockets) if sockets else 1) * cores * threads))
        cpus = topology(count, whole_number(sockets) if sockets else None, cores, threads)
        table["cpus"] = pinned(cpus, left)
        table["memory"] = memory(left.pop("memory.size", "256M"))
        if left.pop("memory.wired", "false").lower() in _TRUE:
            table["wired"] = True
        if left.pop("rtc.use_localtime", "true").lower() in _TRUE:
            table["clock"] = "localtime"  # bhyve's own default
        if uuid := left.pop("uuid", ""):
            table["uuid"] = uuid

    def firmware(self) -> None:
        roms = [self.left.pop(key, "") for key in ("bootrom", "lpc.bootrom")]
        files = [self.left.pop(key, "") for key in ("bootvars", "lpc.bootvars")]
        rom, variables = next(filter(None, roms), ""), next(filter(None, files), "")
        if not rom:
            return
        boot: dict[str, Any] = {"loader": "uefi-csm" if "CSM" in posixpath.basename(rom).upper() else "uefi"}
        if rom not in (UEFI, UEFI_CSM):
            boot["firmware"] = self._path(rom)
        if variables:
            boot["vars"] = self._path(variables)
        else:
            boot["keep-vars"] = False
            self.notes.append("the guest's UEFI variables have not been kept until now; without boot.keep-vars = false they are")
        if self.left.pop("lpc.fwcfg", "bhyve") == "qemu":
            boot["fwcfg"] = "qemu"
        self.table["boot"] = boot

    def lpc(self) -> None:
        ports = []
        for name in ("com1", "com2", "com3", "com4"):
            backend = self.left.pop(f"lpc.{name}.path", "")
            if not backend:
                continue
            port: dict[str, Any] = {"port": name}
            if backend.startswith("tcp="):
                port |= {"mode": "tcp", "address": backend[4:]}
            elif backend != "stdio" and not posixpath.basename(backend).startswith("nmdm"):
                port |= {"mode": "device", "device": self._path(backend)}
            ports.append(port)
        if ports != [{"port": "com1"}]:
            self.table["serial"] = ports
        if self.left.pop("lpc.fwcfg", "bhyve") != "bhyve":
            self.notes.append("lpc.fwcfg is of no use without a bootrom: left out")
        tpm = {key: self.left.pop(f"tpm.{key}", "") for key in ("type", "path", "version")}
        if tpm["type"] == "passthru":
            self.table["tpm"] = {"type": "passthru", "device": self._path(tpm["path"])}
        elif tpm["type"]:
            self.table["tpm"] = {"type": "swtpm"}
            self.notes.append(f"tpm: bhyved starts a swtpm of its own for each run; the state behind {tpm['path']} is not carried over")

    def devices(self) -> None:
        places = sorted({tuple(int(part) for part in key.split(".")[1:4]) for key in self.left if _is_device(key)})
        has_random = False
        has_screen = any(self.left["pci.{}.{}.{}.device".format(*place)] == "fbuf" for place in places)
        for place in places:
            node = self._node(place)
            slot = "{}:{}:{}".format(*place)
            match node.pop("device"):
                case "hostbridge":
                    if node.pop("pcireg.vendor", "") == "0x1022":
                        node.pop("pcireg.device", "")
                        self.table.setdefault("bhyve", {})["hostbridge"] = "amd"
                case "lpc":
                    if slot != "0:31:0":
                        self.table.setdefault("bhyve", {})["lpc-slot"] = slot
                case "virtio-blk" | "nvme" | "virtio-scsi" as model:
                    self._disk(model, slot, node)
                case "ahci":
                    self._ahci(slot, node)
                case "virtio-net" | "e1000" as model:
                    self._card(model, place, node)
                case "virtio-rnd":
                    has_random = True
                    self.table["random"] = {"slot": slot}
                case "passthru":
                    self._passthru(slot, node)
                case "virtio-9p":
                    share: dict[str, Any] = {"name": node.pop("sharename", ""), "path": self._path(node.pop("path", "")), "slot": slot}
                    if node.pop("ro", "false").lower() in _TRUE:
                        share["read-only"] = True
                    self._append("share", share)
                case "virtio-console":
                    self._ports(node)
                    self.notes.append(f"the virtio-console of slot {slot} gets a slot of bhyved's choice")
                case "hda" if "sound" not in self.table:
                    sides = {"play": node.pop("play", ""), "record": node.pop("rec", "")}
                    self.table["sound"] = {key: value for key, value in sides.items() if value} | {"slot": slot}
                case "virtio-input":
                    self._append("input", {"path": self._path(node.pop("path", "")), "slot": slot})
                case "fbuf":
                    self._screen(slot, node)
                case "xhci" if has_screen and node.get("slot.1.device") == "tablet":
                    node.pop("slot.1.device")
                    self.table.setdefault("graphics", {})["tablet-slot"] = slot
                case model:
                    node = {"device": model, **node}
            self._untranslated(place, node)
        if not has_random:
            self.table["random"] = {"enabled": False}
        if has_screen and "tablet-slot" not in self.table["graphics"]:
            self.table["graphics"]["tablet"] = False

    def rest(self) -> None:
        if "graphics" in self.table and (layout := self.left.pop("keyboard.layout", "")):
            self.table["graphics"]["keyboard"] = layout
        options, notes = passed_on(self.left)
        self.notes += notes
        if self.options | options:
            self.table.setdefault("bhyve", {})["options"] = self.options | options

    # --- devices -------------------------------------------------------------------------------------------------------------

    def _node(self, place: tuple[int, ...]) -> dict[str, str]:
        prefix = "pci.{}.{}.{}.".format(*place)
        return {key.removeprefix(prefix): self.left.pop(key) for key in list(self.left) if key.startswith(prefix)}

    def _untranslated(self, place: tuple[int, ...], node: Mapping[str, str]) -> None:
        for key, value in node.items():
            self.options["pci.{}.{}.{}.".format(*place) + key] = value

    def _disk(self, model: str, slot: str, node: dict[str, str]) -> None:
        disk: dict[str, Any] = {"model": model}
        if path := node.pop("path", "") or node.pop("dev", ""):
            disk["path"] = self._path(path)
        if ram := node.pop("ram", ""):
            disk["ram"] = f"{ram}M"
        self._append("disk", disk | _block(node) | {"slot": slot})

    def _ahci(self, slot: str, node: dict[str, str]) -> None:
        """One port is a disk or drive with a slot; more are drives on a named controller, whose slot is ours to choose."""
        numbers = sorted({whole_number(key.split(".")[1], "port ") for key in node if key.startswith("port.") and key.endswith(".type")})
        where = {"slot": slot} if len(numbers) == 1 else {"controller": f"sata{slot.replace(':', '-')}"}
        for number in numbers:
            prefix = f"port.{number}."
            port = {key.removeprefix(prefix): node.pop(key) for key in list(node) if key.startswith(prefix)}
            kind, path = port.pop("type"), self._path(port.pop("path", ""))
            if kind == "cd":
                drive: dict[str, Any] = {"path": path} | {key: value for key, value in _block(port).items() if key == "boot-index"}
                self._append("cdrom", drive | where)
                self.notes.append(stays_in(path))
            else:
                self._append("disk", {"model": "ahci-hd", "path": path} | _block(port) | where)
        if len(numbers) > 1:
            self.notes.append(f"the SATA controller of slot {slot} gets a slot of bhyved's choice")

    def _card(self, model: str, place: tuple[int, ...], node: dict[str, str]) -> None:
        card: dict[str, Any] = {"model": model} if model != "virtio-net" else {}
        backend = node.pop("backend", "")
        number = len(self.table.get("network", ()))
        if backend in self.bridges:
            card["bridge"] = self.bridges[backend]
        elif backend.startswith("tap"):
            card["tap"] = backend
            self.notes.append(
                f"network[{number}] uses {backend}, which has to be there before a start; with bridge = … in its place bhyved makes a tap"
            )
        elif backend.startswith("vmnet"):
            card["vmnet"] = backend
        elif backend.startswith(("vale", "netmap")):
            card["netmap"] = backend
        elif backend == "netgraph":
            words = {"path": "path", "peerhook": "peer-hook", "hook": "hook", "socket": "socket"}
            card["netgraph"] = {ours: node.pop(theirs) for theirs, ours in words.items() if theirs in node}
        elif backend == "slirp":
            forward = node.pop("hostfwd", "")
            card["slirp"] = {"forward": forward.split(";")} if forward else {}
            if node.pop("open", "false").lower() in _TRUE:
                card["slirp"]["open"] = True
        elif backend:
            self.notes.append(f"network[{number}] had the backend {backend!r}, which bhyved does not know: the card is unplugged")
        card["mac"] = node.pop("mac", "") or bhyves_mac(self.name, place)
        if mtu := node.pop("mtu", ""):
            card["mtu"] = whole_number(mtu)
        self._append("network", card | {"slot": "{}:{}:{}".format(*place)})

    def _passthru(self, slot: str, node: dict[str, str]) -> None:
        device = node.pop("pptdev", "") or "/".join(node.pop(key, "0") for key in ("bus", "slot", "func"))
        found: dict[str, Any] = {"device": device, "slot": slot}
        if rom := node.pop("rom", ""):
            found["rom"] = self._path(rom)
        if index := node.pop("bootindex", ""):
            found["boot-index"] = whole_number(index)
        self._append("passthru", found)

    def _ports(self, node: dict[str, str]) -> None:
        for number in range(16):
            name, path = node.pop(f"port.{number}.name", ""), node.pop(f"port.{number}.path", "")
            if name:
                self._append("virtio-console", {"name": name, "path": self._path(path)} if path else {"name": name})

    def _screen(self, slot: str, node: dict[str, str]) -> None:
        screen: dict[str, Any] = {"slot": slot}
        endpoint = [node.pop(key, "") for key in ("rfb", "tcp")]
        if listen := next(filter(None, endpoint), ""):
            screen["listen"] = listen if not listen.isdecimal() else f"127.0.0.1:{listen}"
        width, height = node.pop("w", ""), node.pop("h", "")
        if width and height:
            screen["resolution"] = f"{width}x{height}"
        if (vga := node.pop("vga", "io")) == "on":
            self.notes.append("graphics: vga=on is left out: bhyve draws no VGA, and has a frame buffer without it")
        elif vga != "io":
            screen["vga"] = vga
        if node.pop("wait", "false").lower() in _TRUE:
            screen["wait"] = True
        if node.pop("password", ""):
            self.notes.append(PASSWORD)
        self.table["graphics"] = self.table.get("graphics", {}) | screen

    def _append(self, key: str, item: dict[str, Any]) -> None:
        self.table.setdefault(key, []).append(item)

    def _path(self, path: str) -> str:
        return absolute(self.here, path)


def bhyves_mac(name: str, place: tuple[int, ...]) -> str:
    """The address that bhyve gives a card without one: MD5 of slot, function and name (usr.sbin/bhyve/net_utils.c, `net_genmac`)."""
    digest = hashlib.md5(f"{place[1]}-{place[2]}-{name}".encode(), usedforsecurity=False).digest()
    return ":".join((PREFIX, *(f"{byte:02x}" for byte in digest[:3])))


def _block(node: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for theirs, ours in _BLOCK.items():
        if theirs not in node:
            continue
        value = node.pop(theirs)
        found[ours] = value.lower() in _TRUE if ours in _SWITCHES else whole_number(value) if ours in _NUMBERS else value
    if node.pop("nodelete", "false").lower() in _TRUE:
        found["discard"] = False
    return found


def _is_device(key: str) -> bool:
    parts = key.split(".")
    numbers = [part for part in parts[1:4] if part.isdecimal() and part == str(int(part))]  # bhyve looks for no other spelling
    return len(parts) == 5 and parts[0] == "pci" and parts[4] == "device" and len(numbers) == 3
