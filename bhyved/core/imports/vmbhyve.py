"""A guest of vm-bhyve: `$vm_dir/NAME/NAME.conf` (its sample configuration and `vm-run` say what each option does).

Devices get the PCI slots that vm-bhyve gives them, so that the guest keeps the names of its disks and cards.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from bhyved.core.imports.commandline import tree_of
from bhyved.core.imports.imported import ForeignError, Imported, memory, starting_is_in, topology
from bhyved.core.imports.variables import passed_on, pinned
from bhyved.core.imports.vmbhyveoptions import Options, is_yes, parse
from bhyved.core.imports.vmbhyveslots import FIRST, Slots
from bhyved.core.units import Size

_LOADERS = {"bhyveload": "bhyveload", "grub": "grub", "uefi": "uefi", "uefi-csm": "uefi-csm", "uefi-custom": "uefi"}
_AMOUNT = re.compile(r"([0-9]{1,12})([KkMmGgTt]?)")
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_DISK_OPTIONS = {"direct": "sync", "nocache": "nocache", "ro": "read-only"}
#: Options that say how a guest is made, or nothing at all.
_SILENT = ("guest", "debug", "template", "nulliso_fix", "install_slot", "locked")
#: Options that bhyved has another way for.
_ELSEWHERE = {
    "prestart": "hooks.pre-start runs a command before each start",
    "priority": "nice(1) values are not set",
    "loader_timeout": 'bhyveload: boot.bhyveload.env = { autoboot_delay = "3" }; grub: its own configuration; boot.timeout bounds both',
    "vnc_password": "write it into a file (mode 0600) and name that in graphics.password-file",
    "on_fault": "restart.on-crash decides",
    "bhyveload_args": "see boot.bhyveload: env, host-dir",
}
#: Its limits, each a resource of rctl(8), which [limits] has by rctl's own name.
_LIMITS = {"limit_pcpu": "pcpu", "limit_rbps": "readbps", "limit_wbps": "writebps", "limit_riops": "readiops", "limit_wiops": "writeiops"}


def is_config(text: str) -> bool:
    keys = parse(text)
    return "memory" in keys and ("loader" in keys or "disk0_name" in keys or "cpu" in keys or "uefi" in keys)


def switches(text: str) -> dict[str, str]:
    """From `$vm_dir/.config/system.conf`: the bridge of each switch; a switch of vm-bhyve's own making is called vm-SWITCH."""
    keys = parse(text)
    found = {}
    for name in keys.get("switch_list", "").split():
        kind = keys.get(f"type_{name}", "standard")
        if kind in ("standard", "manual"):
            found[name] = keys.get(f"bridge_{name}", "") if kind == "manual" else f"vm-{name}"
    return {name: bridge for name, bridge in found.items() if bridge}


def translate(text: str, *, name: str, directory: str, dataset: str, bridges: Mapping[str, str]) -> Imported:
    """`directory`: where the guest's files are. `dataset`: of its zvols, or ''. `bridges`: by switch. Raises ForeignError."""
    work = _Translation(Options(parse(text)), name, directory, dataset, bridges)
    work.machine()
    work.boot()
    work.disks()
    work.cards()
    work.rest()
    work.notes.append(starting_is_in("vm_list of rc.conf(5), with the order"))
    return Imported(name, work.table, work.notes)


class _Translation:
    def __init__(self, options: Options, name: str, directory: str, dataset: str, bridges: Mapping[str, str]) -> None:
        self.options, self.name, self.directory, self.dataset, self.bridges = options, name, directory, dataset, bridges
        self.table: dict[str, Any] = {}
        self.notes: list[str] = []
        self.slots = Slots(options.number("start_slot", FIRST))

    def machine(self) -> None:
        table = self.table
        count = self.options.number("cpu", 1)
        given = {key: self.options.number(f"cpu_{key}", 0) for key in ("sockets", "cores", "threads")}
        table["cpus"] = topology(count, given["sockets"] or None, given["cores"] or 1, given["threads"] or 1)
        table["memory"] = memory(self.options.text("memory") or "256M")
        if self.options.yes("wired_memory"):
            table["wired"] = True
        if not self.options.yes("utctime", "yes"):
            table["clock"] = "localtime"
        if uuid := self.options.text("uuid"):
            table["uuid"] = uuid
        self.options.yes("ignore_bad_msr")  # bhyved always does
        match self.options.text("hostbridge"):
            case "amd":
                table["bhyve"] = {"hostbridge": "amd"}
            case "none":
                self.notes.append("hostbridge=none: bhyved's guests always have a host bridge")
        ports = self.options.text("comports").split()
        if ports and ports != ["com1"]:
            table["serial"] = [{"port": port} for port in ports]

    @property
    def is_uefi(self) -> bool:
        return str(self.table["boot"]["loader"]).startswith("uefi")

    def boot(self) -> None:
        old = self.options.text("uefi")  # before vm-bhyve 1.2 an option of its own
        word = self.options.text("loader") or ("uefi-csm" if "csm" in old else "uefi" if is_yes(old) else "bhyveload")
        if word not in _LOADERS:
            raise ForeignError(f"loader={word!r}: bhyved knows {', '.join(sorted(set(_LOADERS.values())))}")
        boot: dict[str, Any] = {"loader": _LOADERS[word]}
        if word == "uefi-custom":
            boot["firmware"] = f"{self.directory.rpartition('/')[0]}/.config/BHYVE_UEFI.fd"
        has_vars = self.options.yes("uefi_vars")
        if boot["loader"].startswith("uefi"):
            if has_vars:
                boot["vars"] = f"{self.directory}/uefi-vars.fd"
            else:
                self.notes.append("uefi_vars was off: bhyved keeps the guest's UEFI variables, in a file of its own")
        elif boot["loader"] == "grub":
            self._grub(boot)
        elif loader := self.options.text("bhyveload_loader"):
            boot["bhyveload"] = {"loader": loader}
        self.table["boot"] = boot

    def _grub(self, boot: dict[str, Any]) -> None:
        grub: dict[str, Any] = {}
        if partition := self.options.text("grub_run_partition"):
            grub["root"] = f"hd0,{partition}"
        for theirs, ours in (("grub_run_dir", "directory"), ("grub_run_file", "file")):
            if value := self.options.text(theirs):
                grub[ours] = value
        for theirs, ours in (("grub_run", "commands"), ("grub_install", "install-commands")):
            commands = self.options.row(theirs)
            if commands and commands[-1] == "boot":
                commands.pop()  # bhyved adds it
            if commands:
                grub[ours] = commands
        if grub:
            boot["grub"] = grub

    def disks(self) -> None:
        disks: list[dict[str, Any]] = []
        drives: list[dict[str, Any]] = []
        limit = self.options.number("ahci_device_limit", 1)
        ahci: list[dict[str, Any]] = []
        number = 0
        while f"disk{number}_name" in self.options and f"disk{number}_type" in self.options:
            self.slots.make_room()
            model, disk = self.options.text(f"disk{number}_type"), self._disk(number)
            self.options.text(f"disk{number}_size")
            (drives if model == "ahci-cd" else disks).append(disk)
            if model == "ahci-cd":
                disk.pop("read-only", None)
            else:
                disk["model"] = model
            if limit > 1 and model.startswith("ahci"):
                disk["controller"] = f"sata{len(ahci) // limit}"
                ahci.append(disk)
            else:
                disk["slot"] = self.slots.place()
                if self.is_uefi:  # else eight disks share a slot
                    self.slots.next_slot()
                else:
                    self.slots.next_function()
            number += 1
        if number and not self.is_uefi:
            self.slots.next_slot()
        if disks:
            self.table["disk"] = disks
        if drives:
            self.table["cdrom"] = drives
        if ahci:
            self.notes.append("disks on a SATA controller that they share: the controller gets a slot of bhyved's choice")

    def _disk(self, number: int) -> dict[str, Any]:
        name, kind = self.options.text(f"disk{number}_name"), self.options.text(f"disk{number}_dev") or "file"
        if kind in ("zvol", "sparse-zvol"):
            if not self.dataset:
                raise ForeignError(
                    f"disk{number}_name={name!r} is a zvol of the guest's dataset: name that with --dataset, such as zroot/vm/{self.name}"
                )
            path = f"/dev/zvol/{self.dataset}/{name}"
        elif kind == "custom":
            path = name
        elif kind == "file":
            path = f"{self.directory}/{name}"
        else:
            raise ForeignError(f"disk{number}_dev={kind!r}: name the device itself, with disk{number}_dev=custom")
        disk: dict[str, Any] = {"path": path}
        for word in filter(None, self.options.text(f"disk{number}_opts").split(",")):
            option, _, value = word.partition("=")
            if option in _DISK_OPTIONS:
                disk[_DISK_OPTIONS[option]] = True
            elif option == "nodelete":
                disk["discard"] = False
            elif option == "sectorsize":
                disk["sector-size"] = value
            else:
                self.notes.append(f"disk{number}_opts: {word} is left out")
        return disk

    def cards(self) -> None:
        cards: list[dict[str, Any]] = []
        number = 0
        while f"network{number}_type" in self.options:
            model = self.options.text(f"network{number}_type")
            card: dict[str, Any] = {"model": model} if model != "virtio-net" else {}
            switch, device = self.options.text(f"network{number}_switch"), self.options.text(f"network{number}_device")
            if device.startswith("tap"):
                card["tap"] = device
            elif device:
                self.notes.append(f"network{number}_device={device!r}: bhyve opens only interfaces that are called tapN; left out")
            elif switch in self.bridges:
                card["bridge"] = self.bridges[switch]
            elif switch:
                card["bridge"] = f"vm-{switch}"
                self.notes.append(
                    f"network{number}: whether switch {switch!r} is the bridge vm-{switch} is a guess; --bridge {switch}=BRIDGE says it"
                )
            if mac := self.options.text(f"network{number}_mac"):
                card["mac"] = mac
            if self.options.yes(f"network{number}_span"):
                self.notes.append(f"network{number}_span: a tap of bhyved's is an ordinary member of its bridge")
            if name := self.options.text(f"network{number}_name"):
                self.notes.append(f"network{number}_name={name!r}: a tap keeps its number, its description names the guest")
            self.slots.make_room()
            cards.append(card | {"slot": self.slots.place()})
            self.slots.next_function()
            number += 1
        if cards:
            self.table["network"] = cards
            self.slots.next_slot()
        if any(str(card.get("bridge", "")).startswith("vm-") for card in cards):
            self.notes.append("the bridges vm-… are made by vm-bhyve's rc script: when it goes, make them in rc.conf")

    def rest(self) -> None:
        if self.options.yes("virt_random"):
            self.table["random"] = {"slot": self.slots.place()}
            self.slots.next_slot()
        else:
            self.table["random"] = {"enabled": False}
        self._passthru()
        self._screen()
        self._bhyve_options()
        self._limits()
        if self.options.yes("sound"):
            sides = {"play": self.options.text("sound_play"), "record": self.options.text("sound_rec")}
            self.table["sound"] = {key: value for key, value in sides.items() if value} | {"slot": self.slots.place()}
            self.slots.next_slot()
        consoles = self.options.row("virt_console")
        if consoles:
            names = [str(number) if word.lower() in ("yes", "on", "1") else word for number, word in enumerate(consoles)]
            self.table["virtio-console"] = [{"name": name} for name in names]
        if self.options.text("on_restart") not in ("", "restart"):
            self.table["restart"] = {"on-reboot": "stop"}
        for key, value in self.options.left():
            if not value or key in _SILENT or key.startswith(("zfs_", "disk")):
                continue
            self.notes.append(f"{key}={value!r} is left out: {_ELSEWHERE.get(key, 'it has no key of its own')}")

    def _bhyve_options(self) -> None:
        """What is put on bhyve's command line as it is."""
        text = self.options.text("bhyve_options")
        try:
            tree, others = tree_of([*shlex.split(text), self.name])
        except (ForeignError, ValueError) as error:
            raise ForeignError(f"bhyve_options={text!r}: {error}") from None
        del tree["name"]
        self.table["cpus"] = pinned(self.table["cpus"], tree)
        if tree.pop("memory.wired", "false") == "true":
            self.table["wired"] = True
        options, notes = passed_on(tree)
        if options:
            self.table.setdefault("bhyve", {})["options"] = options
        self.notes += [f"bhyve_options: {note}" for note in notes]
        self.notes += [f"bhyve_options: {option} is left out: it has no key in bhyved's files" for option in others]

    def _limits(self) -> None:
        for theirs, ours in _LIMITS.items():
            if text := self.options.text(theirs):
                match = _AMOUNT.fullmatch(text)
                if match is None:
                    raise ForeignError(f"{theirs}={text!r}: rctl(8) takes a number, and K, M, G or T")
                amount = int(match[1]) << _SHIFTS[match[2].upper()]
                self.table.setdefault("limits", {})[ours] = str(Size(-(-amount // 1024) * 1024)) if ours.endswith("bps") else amount
        if "limits" in self.table:
            self.notes.append("where the host has no kern.racct.enable=1, vm-bhyve runs a guest without its limits, and bhyved holds it")

    def _passthru(self) -> None:
        found: list[dict[str, Any]] = []
        last, number = "", 0
        while f"passthru{number}" in self.options:
            word, options = self.options.text(f"passthru{number}"), self.options.text(f"passthru{number}_options")
            device, has_place, place = word.partition("=")
            if not device:
                break
            if has_place:
                item: dict[str, Any] = {"device": device, "slot": f"{self.slots.bus}:{place}"}
            else:
                bus = device.partition("/")[0]
                if last and last != bus:
                    self.slots.next_slot()
                item = {"device": device, "slot": self.slots.place()}
                self.slots.next_function()
                last = bus
            if options:
                self.notes.append(f"passthru{number}_options={options!r}: see passthru.rom and boot-index")
            found.append(item)
            number += 1
        if found:
            self.table["passthru"] = found
            self.table["wired"] = True
            self.slots.next_slot()

    def _screen(self) -> None:
        wanted = self.options.yes("graphics")
        words = {key: self.options.text(f"graphics_{key}") for key in ("listen", "port", "res", "vga", "wait")}
        has_mouse = self.options.yes("xhci_mouse")
        if not wanted or not self.is_uefi:
            return
        screen: dict[str, Any] = {"slot": self.slots.place()}
        if words["res"]:
            screen["resolution"] = words["res"]
        self.slots.next_slot()
        address = words["listen"] or "127.0.0.1"
        screen["listen"] = f"{address}:{words['port']}" if words["port"] else address
        if words["vga"] not in ("", "io"):
            screen["vga"] = "off"
        if words["wait"] == "yes":
            screen["wait"] = True
        if has_mouse:
            screen["tablet-slot"] = self.slots.place()
            self.slots.next_slot()
        else:
            screen["tablet"] = False
        self.table["graphics"] = screen
