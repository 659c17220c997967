"""A guest of iohyve: the ZFS properties `iohyve:…` of its dataset, as zfs(8) prints them with `get`.

Put together is the command line that iohyve runs (its lib/ioh-guest), which is then read as any other: its order decides the slots.
"""

import re
from collections.abc import Mapping
from typing import Any

from bhyved.core.imports.imported import ForeignError, Imported, chosen, renamed, starts_there
from bhyved.core.imports.script import from_arguments

# NAME PROPERTY VALUE SOURCE; zfs -H puts tabs between them, and blanks without it. NAME and SOURCE may be missing.
_ROW = re.compile(r"(?:(\S+)\s+)?iohyve:(\S+?)[ \t]+(.*?)(?:(?:\t| {2,})(?:local|received|inherited from \S+|-))?")
_LONGEST = 10_000  # of a row: zfs(8) has values of 8192 bytes
_UNSET = ("", "-")
_SLOTS = 31  # iohyve gives the last to lpc, or to nothing
#: How iohyve calls grub-bhyve for a guest that is installed: -r, -d, and the commands that it pipes into it.
_SYSTEMS: dict[str, dict[str, Any]] = {
    "netbsd": {"commands": ["knetbsd -h -r wd0a (hd0,msdos1)/netbsd"]},
    "ubuntu": {"root": "hd0,msdos1", "directory": "/grub"},
    "centos6": {"root": "hd0,msdos1", "directory": "/grub"},
    "centos7": {"root": "hd0,msdos1", "directory": "/grub2"},
}
_SYSTEMS |= {f"openbsd{release}": {"commands": ["kopenbsd -h com0 -r sd0a (hd0,openbsd1)/bsd"]} for release in (57, 58, 59, 60, 61)}
_OTHER_SYSTEM = {"root": "hd0,msdos1"}
#: Properties that say nothing about how the guest runs.
_SILENT = ("name", "size", "con", "install", "autogrub", "os", "net", "vnc_ip", "vnc_port", "vnc_w", "vnc_h", "vnc_wait", "vnc_tablet")

Rows = dict[str, dict[str, str]]


def is_listing(text: str) -> bool:
    return any(row[2] in ("name", "ram", "loader", "bargs") for row in _rows(text))


def is_of_chyves(text: str) -> bool:
    """Whether it is a guest of chyves, iohyve's successor. Its slots depend on settings of the host, so that it is not read."""
    return all(f"\n{key}=" in f"\n{text}" for key in ("bhyve_disk_type", "net_ifaces", "loader"))


def translate(text: str, *, guest: str, dataset: str, bridges: Mapping[str, str]) -> Imported:
    """`dataset`: where the guest is, for rows without a name. `bridges`: by tap, or by interface of iohyve's. Raises ForeignError."""
    found = _guests(text, dataset)
    name = chosen(list(found), guest)
    place, properties = found[name]
    if not place:
        raise ForeignError(
            f"the dataset of {name!r} is not in it, and its disks are there: --dataset says it, or `zfs get -H -o name,property,value`"
        )
    work = _Translation(name, place, properties, bridges)
    imported = from_arguments(work.argv(), here="/", bridges=work.bridges)
    imported.name = name
    work.boot(imported.table)
    work.rest(imported.table)
    imported.notes += work.notes
    return imported


def _rows(text: str) -> list[re.Match[str]]:
    return [match for line in text.splitlines() if len(line) < _LONGEST and (match := _ROW.fullmatch(line.strip()))]


def _guests(text: str, dataset: str) -> dict[str, tuple[str, dict[str, str]]]:
    """By name, with their dataset; what a volume or snapshot has inherited is no guest."""
    by_dataset: Rows = {}
    for row in _rows(text):
        by_dataset.setdefault(row[1] or dataset, {})[row[2]] = "" if row[3].strip() in _UNSET else row[3].strip()
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for place in sorted(by_dataset, key=len):
        name = by_dataset[place].get("name", "")
        if name and "@" not in place and name not in found:
            found[name] = (place, by_dataset[place])
    return found


class _Translation:
    def __init__(self, name: str, dataset: str, left: dict[str, str], bridges: Mapping[str, str]) -> None:
        self.name, self.dataset, self.left, self.given = name, dataset, dict(left), bridges
        self.bridges: dict[str, str] = {}
        self.notes: list[str] = []
        self.loader = self._text("loader") or "bhyveload"
        if self.loader not in ("bhyveload", "grub-bhyve", "uefi"):
            raise ForeignError(f"iohyve:loader={self.loader}: iohyve has bhyveload, grub-bhyve and uefi")
        if self._text("template").upper() == "YES":
            self.notes.append("iohyve:template=YES: iohyve would not start it")

    def argv(self) -> list[str]:
        options = self._text("bargs").replace("_", " ").split()
        ram = self._text("ram")
        if not ram:
            raise ForeignError(f"there is no iohyve:ram for {self.name!r}")
        argv = ["-c", self._text("cpu") or "1", *options, "-m", ram]
        wants_utc = self._text("utc").upper() == "YES"
        devices = [
            *(["hostbridge"] if self.loader == "uefi" else ["hostbridge", "lpc"]),
            self._first_disk(),
            *self._others(),
            *self._cards(),
        ]
        if self.loader == "uefi":
            devices += self._screen()
            argv += ["-u"] * wants_utc
            firmware = self._text("fw")
            if not firmware:
                raise ForeignError(f"there is no iohyve:fw for {self.name!r}, which iohyve demands with loader=uefi")
            argv += ["-l", f"bootrom,/iohyve/Firmware/{firmware}/{firmware}", "-s", "31,lpc"]
        if len(devices) > _SLOTS:
            self.notes.append(f"{', '.join(devices[_SLOTS:])}: left out, as iohyve does behind slot {_SLOTS - 1}")
        for slot, device in enumerate(devices[:_SLOTS]):
            argv += ["-s", f"{slot},{device}"]
        return [*argv, "-l", "com1,/dev/nmdm0A", f"ioh-{self.name}"]

    def _first_disk(self) -> str:
        size = self._text("sectorsize")
        return f"ahci-hd,/dev/zvol/{self.dataset}/disk0" + (f",sectorsize={size}" if size and self.loader == "uefi" else "")

    def _others(self) -> list[str]:
        """`pcidev:…`, in the order of their names."""
        return [self._text(key) for key in sorted(self.left) if key.startswith("pcidev:") and self.left[key]]

    def _cards(self) -> list[str]:
        cards = []
        interface = self._plain("net")
        for word in self._text("tap").split(","):
            tap, _, own = word.strip().partition("=")
            if not tap:
                continue
            mac = self._text(f"mac_{tap}")
            parent = own or interface
            bridge = self.given.get(tap) or self.given.get(parent)
            if not bridge:
                bridge = "bridge0"
                why = f"the bridge of {parent}" if parent else "the bridge of iohyve's that its taps are on"
                self.notes.append(f"iohyve:tap={word.strip()}: whether bridge0 is {why} is a guess; --bridge {tap}=BRIDGE says it")
            self.bridges[tap] = bridge
            cards.append(f"virtio-net,{tap}" + (f",mac={mac}" if mac else ""))
        return cards

    def _screen(self) -> list[str]:
        words = {key: self._text(f"vnc_{key}") for key in ("ip", "port", "w", "h", "wait", "tablet")}
        if self._text("vnc").upper() != "YES":
            return []
        where = f"tcp={words['ip'] or '127.0.0.1'}:{words['port'] or '5900'}"
        screen = ["fbuf", where, f"w={words['w'] or '800'}", f"h={words['h'] or '600'}"]
        screen += ["wait"] * (words["wait"].upper() == "YES")
        return [",".join(screen)] + ["xhci,tablet"] * (words["tablet"].upper() == "YES")

    def boot(self, table: dict[str, Any]) -> None:
        system = self._plain("os") or "default"
        if self.loader == "bhyveload":
            disks = [disk["path"] for disk in table.get("disk", []) if "path" in disk]
            table["boot"] = {"loader": "bhyveload"} | ({"bhyveload": {"disk": disks[:1]}} if len(disks) > 1 else {})
        elif self.loader == "grub-bhyve":
            grub = _SYSTEMS.get(system, _OTHER_SYSTEM)
            if system == "custom":
                grub = {"root": "host", "directory": f"/iohyve/{self.name}"}
                self.notes.append(f"iohyve:os=custom: the commands of /iohyve/{self.name}/grub.cfg are better kept in boot.grub.commands")
            table["boot"] = {"loader": "grub"} | {"grub": grub}

    def rest(self, table: dict[str, Any]) -> None:
        if self._text("persist") in ("0", ""):
            table["restart"] = {"on-reboot": "stop", "on-crash": "stop"}
        if self.loader == "uefi":
            self.notes.append('iohyve starts no UEFI guest again after a reboot, bhyved does: restart.on-reboot = "stop" is iohyve\'s way')
        boot = self._text("boot") or "0"
        self.notes.append(starts_there(boot == "1", f"iohyve:boot={boot}"))
        self.notes += renamed(f"ioh-{self.name}", self.name, table)
        if (path := self._text("bhyve_path")) not in ("", "/usr/sbin/bhyve"):
            self.notes.append(f"iohyve:bhyve_path={path} is left out: bhyved takes the bhyve of paths.bin")
        if text := self._text("description"):
            self.notes.append(f"iohyve:description: {text}")
        for key, value in self.left.items():
            if value and key not in _SILENT:
                self.notes.append(f"iohyve:{key}={value} is left out: iohyve itself does not know it")

    def _text(self, key: str) -> str:
        return self.left.pop(key, "")

    def _plain(self, key: str) -> str:
        return self.left.get(key, "")
