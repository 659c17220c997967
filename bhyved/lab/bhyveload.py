"""The stand-in of bhyveload(8): `main(root, argv)` (contract 2.2).

It boots at once, unless `-e autoboot_delay=N` says otherwise: then it counts down, and a key leads to the prompt `OK `, where `boot`,
`reboot` and `quit` work. What else can happen is told by `-e lab.loader=STEP[; STEP…]`: `exit N`, `hang`, `slow 2s`, `print TEXT`.
"""

from __future__ import annotations

from bhyved.lab import loading, options, script, title
from bhyved.lab.freebsd import EX_USAGE, Refusal, Settings, err, errx, strerror, warn

_USAGE = """\
usage: bhyveload [-CS] [-c <console-device>] [-d <disk-path>] [-e <name=value>]
                 [-h <host-path>] [-l <os-loader>] [-m memsize] <vmname>"""
_BANNER = "Consoles: userboot\n\nFreeBSD/amd64 User boot lua, Revision 1.2\n"
_BOOTED, _QUIT, _REBOOT = 0, 1, 2


def main(root: str, argv: list[str]) -> int:
    title.forget(root)
    try:
        return _Bhyveload(root, argv).run()
    except Refusal as refusal:
        if refusal.text:
            warn(refusal.text)
        return refusal.status


class _Bhyveload:
    """One process of it."""

    def __init__(self, root: str, argv: list[str]) -> None:
        self._root = root
        self._settings = Settings(root)
        self._terminal: loading.Terminal | None = None
        self._env: dict[str, str] = {}
        self._memory_bytes = 256 << 20
        self._loader = ""
        names: list[str] = []
        for letter, value in options.getopt(argv, "CSc:d:e:h:l:m:", _USAGE, "bhyveload"):
            if letter == "":
                names.append(value)
            else:
                self._take(letter, value)
        if len(names) != 1 or not self._settings.is_amd64:
            raise Refusal(1, _USAGE)
        self._name = names[0]

    def _take(self, letter: str, value: str) -> None:
        if letter == "c":
            try:
                self._terminal = loading.Terminal(value)
            except OSError:
                raise errx(EX_USAGE, f"Could not open '{value}'", "bhyveload") from None
        elif letter == "d" and not loading.is_readable(value):
            raise errx(EX_USAGE, f"Could not open '{value}'", "bhyveload")
        elif letter == "e":
            name, _, setting = value.partition("=")
            self._env[name] = setting
        elif letter == "l":
            if self._loader:
                raise errx(EX_USAGE, "-l can only be given once", "bhyveload")
            self._loader = value
        elif letter == "m":
            try:
                self._memory_bytes = options.memory_bytes(value)
            except ValueError:
                raise errx(EX_USAGE, f"Invalid memsize '{value}'", "bhyveload") from None

    def run(self) -> int:
        try:
            node = loading.prepare(self._root, self._settings, self._name, self._memory_bytes)
        except loading.VmError as error:
            raise Refusal(1, f"{error.call}: {strerror(error.cause.errno)}") from None
        if self._loader and not loading.is_readable(self._loader):
            raise err(1, f"dlopen: {self._loader}", FileNotFoundError(2, ""), "bhyveload")
        self._terminal = self._terminal or loading.Terminal("stdio")
        try:
            status = self._talk(self._terminal)
        finally:
            self._terminal.close()
        if status == _BOOTED:
            node.update(loaded=True)
        return status

    def _talk(self, terminal: loading.Terminal) -> int:
        terminal.print(_BANNER)
        for step in self._env.get("lab.loader", "").split(";"):
            ended = self._obey(terminal, *step.strip().partition(" ")[::2])
            if ended is not None:
                return ended
        delay = self._env.get("autoboot_delay", "0")
        if delay == "NO":
            return _prompt(terminal)
        if delay.isdecimal() and int(delay):
            terminal.print(f"Hit [Enter] to boot immediately, or any other key for command prompt.\nBooting in {delay} seconds\n")
            if terminal.key_within(int(delay)):
                return _prompt(terminal)
        terminal.print("Loading kernel...\n/boot/kernel/kernel booting...\n")
        return _BOOTED

    def _obey(self, terminal: loading.Terminal, verb: str, rest: str) -> int | None:
        if verb == "exit" and rest.isdecimal():
            return int(rest)
        if verb == "hang":
            loading.sleep_for_ever()
        elif verb == "slow":
            terminal.key_within(script.seconds(rest))
        elif verb == "print":
            terminal.print(f"{rest}\n")
        elif verb:
            raise errx(1, f"lab.loader: {verb} {rest}: exit N, hang, slow DURATION, print TEXT", "bhyveload")
        return None


def _prompt(terminal: loading.Terminal) -> int:
    while True:
        line = terminal.ask("OK ")
        if line in _COMMANDS:
            return _COMMANDS[line]
        if line:
            terminal.print(f"unknown command {line.split()[0]}\n")


_COMMANDS = {"boot": _BOOTED, "quit": _QUIT, "reboot": _REBOOT}
