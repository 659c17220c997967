"""A guest of bmd: a vm section of its configuration, with everything that the file includes.

Put together is the command line that bmd runs (its vm.c), which is then read as any other: bmd's order of devices decides their slots.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bhyved.core.assigned import UEFI, UEFI_CSM
from bhyved.core.imports import bmdvalues
from bhyved.core.imports.bmdtext import looks_like
from bhyved.core.imports.bmdvalues import Given, Guest, Source
from bhyved.core.imports.imported import ForeignError, Imported, chosen, starts_there
from bhyved.core.imports.script import from_arguments

_LOADERS = ("bhyveload", "grub", "uefi", "csm")
_DISK = ("virtio-blk", "ahci-hd", "ahci", "nvme")
_DISK_OPTIONS = {"nocache": "nocache", "direct": "direct", "readonly": "ro", "nodelete": "nodelete", "noexist": ""}
_BRIDGES = {"standard": "hostbridge", "intel": "hostbridge", "amd": "amd_hostbridge", "none": ""}
_NETWORK = re.compile(r"(virtio-net|e1000|wol|\[(?:[0-9A-Fa-f]{1,2}:){5}[0-9A-Fa-f]{1,2}\]):")
_PORTS = 16
#: Keys that bhyved has another way for, or none.
_ELSEWHERE = {
    "boot_delay": "order.after says what comes first, start-gap of bhyved.toml how far two starts are apart",
    "err_logfile": "what bhyve prints is in NAME.bhyve.log, beside the recorded console",
    "reboot_on_change": "`vmctl reload` tells what waits for the guest's next start",
    "bhyve_env": "bhyve gets no environment of a guest's own",
    "prestart": "hooks.pre-start runs a command, with other arguments",
    "poststop": "hooks.post-stop runs a command, with other arguments",
    "hookcmd": "hooks run commands, with other arguments",
}


def is_config(text: str) -> bool:
    return looks_like(text)


def translate(main: Source, *, guest: str, include: Callable[[str], Sequence[Source]], bridges: Mapping[str, str]) -> Imported:
    """`guest`: which of several, or ''. `include`: as in `bmdvalues.read`. `bridges`: by bridge of bmd's. Raises ForeignError."""
    sections = bmdvalues.read(main, include)
    name = chosen(list(dict.fromkeys(bmdvalues.guests(sections))), guest)
    work = _Translation(bmdvalues.guest_of(sections, name), bridges)
    argv = work.machine()
    argv += work.devices()
    imported = from_arguments([*argv, work.name], here="/", bridges=work.taps)
    work.boot(imported.table)
    work.rest(imported.table)
    imported.notes += work.notes
    return imported


class _Translation:
    def __init__(self, guest: Guest, bridges: Mapping[str, str]) -> None:
        self.guest, self.left, self.bridges = guest, guest.given, bridges
        self.notes = guest.notes
        self.taps: dict[str, str] = {}
        self.name = self._text("name") or guest.name

    def machine(self) -> list[str]:
        """What is no PCI device."""
        backend = self._one("backend")
        if backend is not None and backend.text != "bhyve":
            raise ForeignError(f"{backend.where}: backend = {backend.text} is another hypervisor")
        loader = self._one("loader")
        if loader is None:
            raise ForeignError(f"there is no loader for {self.guest.name!r}: bmd has {', '.join(_LOADERS)}")
        if loader.text not in _LOADERS:
            raise _wrong("loader", loader, f"one of {', '.join(_LOADERS)}")
        self.loader = loader.text
        memory = self._one("memory")
        if memory is None:
            raise ForeignError(f"there is no memory for {self.guest.name!r}, which bmd demands")
        if not re.fullmatch(r"[0-9]+[KkMmGgTt]?", memory.text):
            raise _wrong("memory", memory, "such as 2G")
        argv = ["-A", "-H", "-w", "-m", memory.text, "-c", self._cpus()]
        argv += [flag for key, flag in (("x2apic", "-x"), ("wired_memory", "-S")) if self._yes(key)]
        argv += ["-u"] * self._yes("utctime", "yes")
        if "passthru" in self.left:
            argv.append("-S")
        for pin in self._each("cpu_pin", r"[0-9]+:[0-9]+", "a vCPU and a host CPU, such as 0:2"):
            argv += ["-p", pin.text]
        if port := self._text("debug_port"):
            argv += ["-G", port]
        for com in ("com1", "com2", "com3", "com4"):
            if device := self._text(com):
                argv += ["-l", f"{com},{'/dev/nmdm0A' if device.lower() == 'auto' else device}"]
        if keymap := self._text("keymap"):
            argv += ["-K", keymap]
        if self.loader == "uefi":
            argv += ["-l", f"bootrom,{UEFI},{self.guest.vars_directory}/{self.name}.vars"]
        elif self.loader == "csm":
            argv += ["-l", f"bootrom,{UEFI_CSM}"]
        return argv + self._tpm()

    def _cpus(self) -> str:
        found = self._one("ncpu")
        words = found.text.split(":") if found is not None else ["1"]
        numbers = [int(word) for word in words if re.fullmatch(r"[0-9]{1,6}", word)]
        if found is not None and (len(numbers) != len(words) or len(numbers) > 3 or 0 in numbers):
            raise _wrong("ncpu", found, "sockets, or sockets:cores:threads, such as 1:4:2")
        sockets, cores, threads = (*numbers, 1, 1)[:3]
        return f"cpus={sockets * cores * threads},sockets={sockets},cores={cores},threads={threads}"

    def _tpm(self) -> list[str]:
        found = self._one("tpm")
        if found is None:
            return []
        match = re.fullmatch(r"(?:(passthru|swtpm):)?([^:]+)(?::([0-9.]+))?", found.text)
        if match is None:
            raise _wrong("tpm", found, "such as /dev/tpm0 or swtpm:/var/run/tpm.sock")
        return ["-l", f"tpm,{match[1] or 'passthru'},{match[2]},version={match[3] or '2.0'}"]

    def devices(self) -> list[str]:
        """In bmd's order; each gets the next slot."""
        rows = [self._hostbridge(), "lpc", "virtio-rnd" if self._yes("virt_random") else ""]
        rows += [self._disk(disk) for disk in self._each("disk", r"[^/]*/.*", "the path of a disk")]
        rows += [self._drive(iso) for iso in self._each("iso", r"[^/]*/.*", "the path of a medium")]
        rows += [self._share(share) for share in self._each("sharefs", r"[^=]+=/.*", "NAME=/DIRECTORY")]
        rows += [self._card(number, card) for number, card in enumerate(self._each("network", r".+", "a bridge"))]
        rows += [f"passthru,{each.text}" for each in self._each("passthru", r"ppt[0-9]+|[0-9]+/[0-9]+/[0-9]+", "pptN or bus/slot/function")]
        rows += [self._sound(each.text) for each in self._each("hda", r".*", "")]
        rows += [*self._consoles(), self._screen(), "xhci,tablet" if self._yes("xhci_mouse") else ""]
        argv = []
        for slot, row in enumerate(filter(None, rows)):
            argv += ["-s", f"{slot // 32}:{slot % 32}:0,{row}"]
        return argv

    def _hostbridge(self) -> str:
        found = self._one("hostbridge")
        word = "standard" if found is None else found.text.lower()
        if found is not None and word not in _BRIDGES:
            raise _wrong("hostbridge", found, "standard or amd")
        if found is not None and word == "none":
            raise ForeignError(f"{found.where}: hostbridge = none: bhyved's guests have a host bridge, in the slot that lpc has there")
        return _BRIDGES[word]

    def _disk(self, disk: Given) -> str:
        words, path = _prefixes(disk.text, (*_DISK, *_DISK_OPTIONS))
        models = [word for word in words if word in _DISK] or ["virtio-blk"]
        return ",".join([models[-1], path, *(_DISK_OPTIONS[word] for word in words if _DISK_OPTIONS.get(word))])

    def _drive(self, iso: Given) -> str:
        return f"ahci-cd,{_prefixes(iso.text, ('ahci-cd', 'noexist'))[1]}"

    def _share(self, share: Given) -> str:
        words, pair = _prefixes(share.text, ("readonly",))
        return f"virtio-9p,{pair}{',ro' if words else ''}"

    def _card(self, number: int, card: Given) -> str:
        model, mac, bridge = "virtio-net", "", card.text
        while match := _NETWORK.match(bridge):
            word, bridge = match[1], bridge[match.end() :]
            if word == "wol":
                self.notes.append(f"{card.where}: network = {card.text}: bhyved waits for no packet that wakes a guest")
            elif word.startswith("["):
                mac = ":".join(part.zfill(2) for part in word[1:-1].split(":"))
            else:
                model = word
        if bridge.startswith("vale"):
            backend = f"{bridge}:vm{self.guest.number}p{number}"
        else:
            backend = f"tap{number}"
            self.taps[backend] = self.bridges.get(bridge, bridge)
        return ",".join([model, backend, *([f"mac={mac}"] if mac else [])])

    def _sound(self, text: str) -> str:
        play, _, record = text.partition(":")
        return ",".join(["hda", *([f"play={play}"] if play else []), *([f"rec={record}"] if record else [])])

    def _consoles(self) -> list[str]:
        controllers, ports = self._number("virt_console_ncontrollers"), self._number("virt_console_nports")
        given = self._one("virt_console_template")
        template = "virt_console%n" if given is None else given.text
        if "=" not in template:
            template += f"=/var/run/vc-{self.guest.name}%n.sock"
        if "%r" in template and given is not None:
            self.notes.append(f"{given.where}: virt_console_template: %r was another word at each start; it is left out of the names here")
        rows = []
        for controller in range(controllers or (1 if ports else 0)):
            names = []
            for port in range(ports):
                name = template.replace("%c", str(controller)).replace("%p", str(port)).replace("%r", "")
                names.append(name.replace("%n", str(controller * ports + port)))
            rows.append(",".join(["virtio-console", *names]))
        return rows

    def _screen(self) -> str:
        keys = ("port", "listen", "path", "res", "vga", "password")
        words = {key: self._text(f"graphics_{key}") for key in keys}
        waits = self._yes("graphics_wait")
        if not self._yes("graphics"):
            return ""
        path, listen, port = words["path"], words["listen"] or "0.0.0.0", words["port"] or "5900"
        width, _, height = (words["res"] or "1024x768").partition("x")
        where = f"rfb=unix:{path}" if path else f"tcp={f'[{listen}]' if ':' in listen and '[' not in listen else listen}:{port}"
        options = [where, f"w={width}", f"h={height}", f"vga={words['vga'] or 'io'}", *(["wait"] if waits else [])]
        return ",".join(["fbuf", *options, *([f"password={words['password']}"] if words["password"] else [])])

    def boot(self, table: dict[str, Any]) -> None:
        """What the loaders get, and how long."""
        loader = self._text("bhyveload_loader")
        variables = self._each("bhyveload_env", r"[^=]+=.*", "NAME=VALUE")
        partition, commands, install = self._text("grub_run_partition"), self._one("loadcmd"), self._one("installcmd")
        if self.loader == "bhyveload":
            disks = [disk["path"] for disk in table.get("disk", []) if "path" in disk]
            own: dict[str, Any] = {"disk": disks[:1]} if len(disks) > 1 else {}  # bmd names the first only
            own |= {"loader": loader} if loader else {}
            own |= {"env": dict(each.text.split("=", 1) for each in variables)} if variables else {}
            table["boot"] = {"loader": "bhyveload"} | ({"bhyveload": own} if own else {})
        elif self.loader == "grub":
            grub: dict[str, Any] = {"root": f"hd0,{partition}"} if partition else {}
            for key, given in (("commands", commands), ("install-commands", install)):
                if given is not None and given.text.lower() == "auto":
                    self.notes.append(
                        f"{given.where}: bmd looks into the medium for what to boot; boot.grub.{key} says it, such as"
                        ' "kopenbsd -h com0 -r sd0a (hd0,gpt4)/bsd"; without, the guest\'s own grub.cfg is used'
                    )
                elif given is not None:
                    grub[key] = [line for line in given.text.splitlines() if line.strip()]
            table["boot"] = {"loader": "grub"} | ({"grub": grub} if grub else {})
        limit = self._one("loader_timeout")
        if limit is not None and table["boot"]["loader"] in ("bhyveload", "grub"):
            if (seconds := self._seconds("loader_timeout", limit)) > 0:
                table["boot"]["timeout"] = f"{seconds}s"
            else:
                self.notes.append(
                    f"{limit.where}: loader_timeout = {limit.text}: a loader is always given up at some time, see boot.timeout"
                )

    def rest(self, table: dict[str, Any]) -> None:
        notes = self.notes
        owner = self._text("owner") or self.guest.owner
        user, _, group = owner.partition(":")
        if owners := [*([user] if user not in ("", "root") else []), *([f"@{group}"] if group else [])]:
            table["owner"] = owners
        if (limit := self._one("stop_timeout")) is not None:
            table["stop"] = {"timeout": f"{self._seconds('stop_timeout', limit)}s"}
        else:
            notes.append("bmd waits 300s for a guest to stop, bhyved 60s: stop.timeout")
        if table.get("serial") == []:
            notes.append("it has no com port: with a [[serial]] its console is recorded")
        boot = self._one("boot")
        word = "no" if boot is None else boot.text.lower()
        if word in ("oneshot", "always"):
            table["restart"] = {"on-reboot": "stop"} if word == "oneshot" else {"on-poweroff": "restart"}
        notes.append(starts_there(word in ("yes", "true", "oneshot", "always"), f"boot = {word}"))
        notes.append('bmd starts no guest again that ended with an error, bhyved does: restart.on-crash = "stop" is bmd\'s way')
        if self._yes("install"):
            notes.append('install = yes: here `vmctl start --install` boots a [[cdrom]] with when = "install"')
        for key, given in self.left.items():
            why = _ELSEWHERE.get(key, "bmd itself does not know it, but a plugin of it may")
            notes += [f"{each.where}: {key} = {each.text} is left out: {why}" for each in given]

    # --- reading -------------------------------------------------------------------------------------------------------------

    def _one(self, key: str) -> Given | None:
        return self.left.pop(key, [None])[0]

    def _text(self, key: str) -> str:
        found = self._one(key)
        return "" if found is None else found.text

    def _yes(self, key: str, default: str = "no") -> bool:
        return (self._text(key) or default).lower() in ("yes", "true")

    def _number(self, key: str) -> int:
        """How many controllers or ports."""
        found = self._one(key)
        if found is not None and not (re.fullmatch(r"[0-9]{1,2}", found.text) and int(found.text) <= _PORTS):
            raise _wrong(key, found, f"a number up to {_PORTS}")
        return 0 if found is None else int(found.text)

    def _seconds(self, key: str, found: Given) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", found.text):
            raise _wrong(key, found, "a number of seconds")
        return int(found.text)

    def _each(self, key: str, pattern: str, wanted: str) -> list[Given]:
        found = self.left.pop(key, [])
        for each in found:
            if not re.fullmatch(pattern, each.text, re.DOTALL):
                raise _wrong(key, each, wanted)
        return found


def _wrong(key: str, found: Given, wanted: str) -> ForeignError:
    return ForeignError(f"{found.where}: {key} = {found.text}: it should be {wanted}")


def _prefixes(text: str, known: Sequence[str]) -> tuple[list[str], str]:
    """`nvme:nocache:/path` → the words that are known, and the rest."""
    words: list[str] = []
    while (parts := text.split(":", 1))[0] in known and len(parts) == 2:
        words.append(parts[0])
        text = parts[1]
    return words, text
