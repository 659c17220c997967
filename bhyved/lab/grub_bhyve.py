"""The stand-in of grub-bhyve: `main(root, argv)` (contract 2.3).

It reads the commands of a grub.cfg on the host (`-r host -d DIR`), or takes for granted that the guest's own one boots when `-r` names
a drive of the device map whose file is there. Without any it waits at `grub> ` for ever, for the same commands: `linux`, `initrd`,
`boot`, `reboot`, `halt`, `exit`, `sleep N`, `echo TEXT`. A kernel that lies on the host, `(host)/path`, is what a qemu guest then boots.
"""

from __future__ import annotations

import os
import signal

from bhyved.lab import loading, options, title
from bhyved.lab.freebsd import Refusal, Settings, warn

_USAGE = "Usage: grub-bhyve [OPTION...] VM\nTry `grub-bhyve --help' for more information."
_BAD_LINE = "Error in parsing command line arguments"
_VM_TEXTS = {
    "vm_create": "Could not create VM {}",
    "vm_open": "Could not open VM {}",
    "vm_reinit": "Could not reinit VM {}",
    "vm_setup_memory": "Could not setup memory for VM",
}
_KERNELS = ("linux", "linux16", "kfreebsd", "knetbsd", "kopenbsd", "multiboot")
_PROMPT = "grub> "


def main(root: str, argv: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    title.forget(root)
    try:
        return _Grub(root, argv).run()
    except Refusal as refusal:
        warn(refusal.text)
        return refusal.status


class _Grub:
    """One process of it."""

    def __init__(self, root: str, argv: list[str]) -> None:
        self._root = root
        self._settings = Settings(root)
        self._given = {"r": "host", "d": "", "g": "grub.cfg", "M": "256", "c": "stdio", "m": ""}
        names: list[str] = []
        try:
            for letter, value in options.getopt(argv, "m:r:d:g:M:c:H:enSv", _USAGE, "grub-bhyve"):
                if letter == "":
                    names.append(value)
                else:
                    self._given[letter] = value
        except Refusal as refusal:
            raise Refusal(1, f"{refusal.text}\n{_BAD_LINE}") from None
        if not names:
            raise Refusal(1, "Required VM name parameter not supplied")
        self._name = names[0]
        self._kernel: dict[str, str] | None = None  # what `linux` and `initrd` have loaded

    def run(self) -> int:
        try:
            size = options.memory_bytes(self._given["M"])
        except ValueError:
            raise Refusal(1, f"Invalid guest memory size `{self._given['M']}'.") from None
        if not self._settings.unrestricted_guest:
            raise Refusal(1, "VM unrestricted guest capability required\nError in initializing VM")
        try:
            node = loading.prepare(self._root, self._settings, self._name, size)
        except loading.VmError as error:
            text = _VM_TEXTS[error.call].format(self._name)
            raise Refusal(1, f"{text}\nError in initializing VM") from None
        try:
            self._terminal = loading.Terminal(self._given["c"])
        except OSError:
            raise Refusal(1, f"Could not open console {self._given['c']}") from None
        try:
            self._talk()
        finally:
            self._terminal.close()
        if self._kernel is not None:
            node.update(loaded=True, payload=self._kernel)
        return 0  # whether or not there is a kernel

    def _talk(self) -> None:
        """Until a command has ended grub."""
        self._terminal.print("GNU GRUB  version 2.00\n")
        commands = self._configured()
        if any(line.startswith("menuentry ") for line in commands):
            commands.append("boot")  # the menu's time runs out
        for command in commands:
            if self._does_end(command):
                return
        while not self._does_end(self._terminal.ask(_PROMPT)):
            pass

    def _configured(self) -> list[str]:
        """The lines of the configuration file, if there is one."""
        drive = self._given["r"].partition(",")[0]
        if drive != "host":
            path = self._drives().get(drive)
            return ["linux /guest", "boot"] if path is not None and os.path.exists(path) else []
        if not self._given["d"]:
            return []  # /boot/grub, which a FreeBSD host does not have
        try:
            with open(os.path.join(self._given["d"], self._given["g"]), encoding="utf-8") as file:
                return [line.strip() for line in file]
        except OSError:
            return []

    def _drives(self) -> dict[str, str]:
        """The device map: `(hd0) /path`."""
        try:
            with open(self._given["m"], encoding="utf-8") as file:
                pairs = [line.split(None, 1) for line in file if line.strip()]
        except OSError:
            return {}
        return {pair[0].strip("()"): pair[1].strip() for pair in pairs if len(pair) == 2}

    def _does_end(self, command: str) -> bool:
        verb, _, rest = command.partition(" ")
        if verb in _KERNELS:
            self._load("kernel", rest)
        elif verb in ("initrd", "initrd16"):
            self._load("initrd", rest)
        elif verb == "boot":
            if self._kernel is None:
                self._terminal.print("error: you need to load the kernel first.\n")
                return False
            return True
        elif verb in ("reboot", "halt", "exit"):
            self._kernel = None
            return True
        elif verb == "echo":
            self._terminal.print(f"{rest}\n")
        elif verb == "sleep" and rest.isdecimal():
            self._terminal.key_within(int(rest))
        return False

    def _load(self, what: str, words: str) -> None:
        """A file of a guest's disk is believed to be there; one of the host is looked for."""
        path, _, append = words.strip().partition(" ")
        on_host = path.startswith("(host)") or (self._given["r"] == "host" and not path.startswith("("))
        path = path.removeprefix("(host)")
        if on_host and not os.path.exists(path):
            self._terminal.print(f"error: file `{path}' not found.\n")
            return
        self._kernel = self._kernel or {}
        if on_host:
            self._kernel[what] = path
        if what == "kernel":
            self._kernel["append"] = append
