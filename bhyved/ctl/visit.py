"""What the checks of `vmctl doctor` work with: the configuration, the host's own commands, and how a finding is said."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from bhyved.core.assigned import Target
from bhyved.core.errors import HostError, in_words
from bhyved.core.ifconfig import Interface, parse_ifconfig
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.values import split_endpoint
from bhyved.host.toolbox import Tools


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line. `remedy`: what to type, or ''."""

    level: str  # ok | warn | fail
    about: str
    text: str
    remedy: str = ""


def ok(about: str, text: str) -> Finding:
    return Finding(level="ok", about=about, text=text)


def warn(about: str, text: str, remedy: str = "") -> Finding:
    return Finding(level="warn", about=about, text=text, remedy=remedy)


def fail(about: str, text: str, remedy: str = "") -> Finding:
    return Finding(level="fail", about=about, text=text, remedy=remedy)


class Visit:
    """One host. `target` is what it is, once that is known."""

    def __init__(self, spec: DaemonSpec, vms: dict[str, VmSpec]) -> None:
        self.spec, self.vms = spec, vms
        self.tools = Tools(bin=tuple(map(str, spec.paths.bin)))
        self.target: Target | None = None
        self.jailed = self.number("security.jail.jailed") == 1

    def number(self, name: str) -> int | None:
        """A variable of sysctl(8); None: the host does not say, or it is no number."""
        try:
            text = self.tools.ask(("sysctl", "-n", name)).text.strip()
        except HostError:
            return None
        return int(text) if text.isdigit() else None

    def interface(self, name: str) -> Interface | None:
        """None: it is not there, or the host does not say."""
        try:
            result = self.tools.ask(("ifconfig", name), ok=None)
        except HostError:
            return None
        return parse_ifconfig(result.text).get(name) if result.status == 0 else None

    def is_loaded(self, module: str) -> bool:
        """Raises HostError."""
        return self.tools.ask(("kldstat", "-q", "-m", module), ok=None).status == 0

    def on_host(self, *lines: str) -> str:
        """What to type on the host, which in a jail is not where this is read."""
        return "\n".join(("on the host, since a jail may not:", *lines) if self.jailed else lines)


def settle(variable: str, value: int) -> tuple[str, str]:
    """What sets it now, and at the next boot."""
    return f"sysctl {variable}={value}", f"echo {variable}={value} >> /etc/sysctl.conf"


def unhide(patterns: Iterable[str]) -> str:
    """Lines for the rules of a jail, and what makes them count."""
    rules = (f"add path '{pattern}' unhide" for pattern in patterns)
    return "\n".join(
        ("on the host, in the jail's section of /etc/devfs.rules:", *rules, "service devfs restart", "service jail restart NAME")
    )


def occupied(listen: str) -> str:
    """Why nobody can listen there, or ''."""
    address, port = split_endpoint(listen, least=0)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            return in_words(error)
    return ""
