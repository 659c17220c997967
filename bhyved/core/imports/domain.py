"""A guest of libvirt's bhyve driver: what `virsh dumpxml NAME` prints."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from bhyved.core.assigned import UEFI, UEFI_CSM
from bhyved.core.imports.imported import PASSWORD, ForeignError, Imported, starting_is_in, stays_in, topology, whole_number
from bhyved.core.units import Size

_UNITS = {"b": 1, "bytes": 1, "kb": 10**3, "k": 1 << 10, "kib": 1 << 10, "mb": 10**6, "m": 1 << 20, "mib": 1 << 20, "gb": 10**9}
_UNITS |= {"g": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tib": 1 << 40}
_BUSES = {"virtio": "virtio-blk", "sata": "ahci-hd", "nvme": "nvme"}
_CARDS = {"virtio": "virtio-net", "e1000": "e1000"}
_ENDS = {"on_poweroff": "on-poweroff", "on_reboot": "on-reboot", "on_crash": "on-crash"}
_KNOWN = ("name", "uuid", "memory", "currentMemory", "memoryBacking", "vcpu", "cpu", "os", "bootloader", "features", "clock", "devices")


def is_domain(text: str) -> bool:
    return text.lstrip().startswith("<") and "<domain" in text


def translate(text: str, *, bridges: Mapping[str, str]) -> Imported:
    """`bridges`: by network of libvirt's. Raises ForeignError."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ForeignError("a domain of libvirt's has no document type")  # and entities could grow without end
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ForeignError(f"not well-formed XML: {error}") from None
    domain = root if root.tag == "domain" else root.find("domain")
    if domain is None:
        raise ForeignError("there is no <domain>")
    if (kind := domain.get("type")) != "bhyve":
        raise ForeignError(f"a domain of type {kind!r}, not bhyve: its devices are another hypervisor's")
    work = _Translation(domain, bridges)
    work.machine()
    work.boot()
    work.devices()
    work.rest()
    work.notes.append(starting_is_in("what `virsh dominfo` prints"))
    return Imported(domain.findtext("name", "").strip(), work.table, work.notes)


class _Translation:
    def __init__(self, domain: ElementTree.Element, bridges: Mapping[str, str]) -> None:
        self.domain, self.bridges = domain, bridges
        self.table: dict[str, Any] = {}
        self.notes: list[str] = []

    def machine(self) -> None:
        shape = self.domain.find("cpu/topology")
        words = {} if shape is None else {key: whole_number(shape.get(key, "1"), f"{key}: ") for key in ("sockets", "cores", "threads")}
        count = whole_number(self.domain.findtext("vcpu", "1"), "vcpu: ")
        self.table["cpus"] = topology(count, words.get("sockets"), words.get("cores", 1), words.get("threads", 1))
        self.table["memory"] = self._memory()
        if self.domain.find("memoryBacking/locked") is not None:
            self.table["wired"] = True
        clock = self.domain.find("clock")
        if clock is not None and clock.get("offset") == "localtime":
            self.table["clock"] = "localtime"
        if uuid := self.domain.findtext("uuid", "").strip():
            self.table["uuid"] = uuid

    def _memory(self) -> str:
        found = self.domain.find("memory")
        if found is None:
            raise ForeignError("there is no <memory>")
        unit = found.get("unit", "KiB").lower()
        if unit not in _UNITS:
            raise ForeignError(f"memory: the unit {unit!r} is not known")
        return str(Size(whole_number(found.text or "", "memory: ") * _UNITS[unit] >> 20 << 20))

    def boot(self) -> None:
        loader, nvram = self.domain.find("os/loader"), self.domain.findtext("os/nvram", "").strip()
        external = self.domain.findtext("bootloader", "").strip()
        arguments = self.domain.findtext("bootloader_args", "").strip()
        os = self.domain.find("os")
        boot: dict[str, Any]
        if loader is not None or (os is not None and os.get("firmware") == "efi"):
            path = "" if loader is None else (loader.text or "").strip()
            boot = {"loader": "uefi-csm" if "CSM" in path.upper() else "uefi"}
            if path not in ("", UEFI, UEFI_CSM):
                boot["firmware"] = path
            if nvram:
                boot["vars"] = nvram
        else:
            boot = {"loader": "grub" if "grub" in external else "bhyveload"}
            if arguments:
                self.notes.append(f"bootloader_args {arguments!r} are left out: see boot.{boot['loader']}")
        self.table["boot"] = boot

    def devices(self) -> None:
        devices = self.domain.find("devices")
        for device in () if devices is None else devices:
            match device.tag:
                case "disk":
                    self._disk(device)
                case "interface":
                    self._card(device)
                case "graphics":
                    self._screen(device)
                case "filesystem":
                    self._share(device)
                case "sound":
                    self.table["sound"] = _slot(device)
                case "hostdev":
                    self._passthru(device)
                case "emulator" | "video" | "input" | "console" | "serial" | "controller" | "rng":
                    pass
                case tag:
                    self.notes.append(f"<{tag}> is left out")
        self._rest_of_screen()
        self._ports()
        if self.domain.find("devices/rng") is None:
            self.table["random"] = {"enabled": False}

    def rest(self) -> None:
        for tag, key in _ENDS.items():
            word = self.domain.findtext(tag, "").strip()
            if word in ("destroy", "restart"):
                self.table.setdefault("restart", {})[key] = "restart" if word == "restart" else "stop"
        for child in self.domain:
            tag = child.tag.rpartition("}")[2]
            if tag == "commandline":
                words = [argument.get("value", "") for argument in child]
                self.notes.append(f"bhyve:commandline {' '.join(words)!r} is left out: [bhyve] options has variables of bhyve_config(5)")
            elif tag not in (*_KNOWN, *_ENDS, "metadata", "title", "description"):
                self.notes.append(f"<{tag}> is left out")

    # --- devices -------------------------------------------------------------------------------------------------------------

    def _disk(self, device: ElementTree.Element) -> None:
        source, target = device.find("source"), device.find("target")
        path = "" if source is None else source.get("file") or source.get("dev") or ""
        if not path and source is not None and source.get("pool"):
            path = f"/dev/zvol/{source.get('pool')}/{source.get('volume')}"
            self.notes.append(f"a volume of the pool {source.get('pool')!r} is taken for the zvol {path}")
        if not path:
            self.notes.append("a drive without a medium is left out")
            return
        bus = "virtio" if target is None else target.get("bus", "virtio")
        if device.get("device") == "cdrom":
            self._append("cdrom", {"path": path} | _slot(device, drive=True))
            self.notes.append(stays_in(path))
            return
        disk: dict[str, Any] = {"path": path, "model": _BUSES.get(bus, "virtio-blk")}
        if device.find("readonly") is not None:
            disk["read-only"] = True
        if device.find("shareable") is not None:
            disk["shared"] = True
        self._append("disk", disk | _slot(device, drive=bus == "sata"))

    def _card(self, device: ElementTree.Element) -> None:
        source, model, mac = device.find("source"), device.find("model"), device.find("mac")
        card: dict[str, Any] = {}
        kind = "virtio" if model is None else model.get("type", "virtio")
        if kind in _CARDS and _CARDS[kind] != "virtio-net":
            card["model"] = _CARDS[kind]
        if device.get("type") == "bridge" and source is not None:
            card["bridge"] = source.get("bridge", "")
        elif device.get("type") == "network" and source is not None:
            network = source.get("network", "")
            card["bridge"] = self.bridges.get(network) or "virbr0"
            if network not in self.bridges:
                self.notes.append(f"that libvirt's network {network!r} is the bridge virbr0 is a guess; --bridge {network}=BRIDGE says it")
        else:
            self.notes.append(f"a card of type {device.get('type')!r} is unplugged: give it a bridge")
        if mac is not None:
            card["mac"] = mac.get("address", "")
        self._append("network", card | _slot(device))

    def _screen(self, device: ElementTree.Element) -> None:
        if device.get("type") != "vnc":
            self.notes.append(f"<graphics type={device.get('type')!r}> is left out: bhyve has VNC only")
            return
        listen = device.find("listen")
        address = device.get("listen") or ("127.0.0.1" if listen is None else listen.get("address", "127.0.0.1"))
        port = device.get("port", "-1")
        self.table["graphics"] = {"listen": address if port == "-1" else f"{address}:{port}"}
        if device.get("passwd"):
            self.notes.append(PASSWORD)

    def _rest_of_screen(self) -> None:
        screen = self.table.get("graphics")
        if screen is None:
            return
        mode = self.domain.find("devices/video/model/resolution")
        if mode is not None:
            screen["resolution"] = f"{mode.get('x')}x{mode.get('y')}"
        driver = self.domain.find("devices/video/driver")
        if driver is not None and driver.get("vgaconf") == "off":
            screen["vga"] = "off"
        if not any(pointer.get("type") == "tablet" for pointer in self.domain.iterfind("devices/input")):
            screen["tablet"] = False

    def _ports(self) -> None:
        """`<serial>` and `<console>` of one null-modem pair are the same port."""
        numbers = sorted({whole_number(target.get("port", "0"), "port: ") for target in self._targets()})
        if numbers not in ([], [0]):
            self.table["serial"] = [{"port": f"com{number + 1}"} for number in numbers if number < 4]

    def _targets(self) -> Iterator[ElementTree.Element]:
        for tag in ("serial", "console"):
            yield from self.domain.iterfind(f"devices/{tag}/target")

    def _share(self, device: ElementTree.Element) -> None:
        source, target = device.find("source"), device.find("target")
        if source is None or target is None:
            self.notes.append("a <filesystem> without source and target is left out")
            return
        share: dict[str, Any] = {"name": target.get("dir", ""), "path": source.get("dir", "")}
        if device.find("readonly") is not None:
            share["read-only"] = True
        self._append("share", share | _slot(device))

    def _passthru(self, device: ElementTree.Element) -> None:
        source = device.find("source/address")
        if source is None or device.get("type") != "pci":
            self.notes.append(f"<hostdev type={device.get('type')!r}> is left out")
            return
        place = "/".join(str(_hex(source.get(key, "0"))) for key in ("bus", "slot", "function"))
        self._append("passthru", {"device": place} | _slot(device))
        self.table["wired"] = True

    def _append(self, key: str, item: dict[str, Any]) -> None:
        self.table.setdefault(key, []).append(item)


def _slot(device: ElementTree.Element, *, drive: bool = False) -> dict[str, str]:
    """Where the device is now; a drive's address is its place on a controller, which has a slot of its own."""
    address = device.find("address")
    if drive or address is None or address.get("type") != "pci":
        return {}
    return {"slot": ":".join(str(_hex(address.get(key, "0"))) for key in ("bus", "slot", "function"))}


def _hex(text: str) -> int:
    if not re.fullmatch(r"(0x[0-9a-fA-F]+)|[0-9]+", text):
        raise ForeignError(f"{text!r} is no part of a PCI address")
    return int(text, 0)
