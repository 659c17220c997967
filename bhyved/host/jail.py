"""What a jail keeps from the guests in it (contract 7).

For `vmctl doctor`, without trio. Nothing in a jail says how it was made, so that each thing is found out by what is refused or not seen.
"""

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from bhyved.host.toolbox import Tools


@dataclass(frozen=True, kw_only=True)
class Jail:
    """`hidden`: what devfs.rules(5) would have to unhide, as its patterns; only what can be told for certain."""

    has_network: bool  # a stack of its own: vnet
    may_vmm: bool | None  # allow.vmm; None: the module vmm, of which it is a parameter, is not there
    hidden: tuple[str, ...]


def is_jailed(tools: Tools) -> bool:
    """Whether this is one. Raises HostError."""
    return tools.ask(("sysctl", "-n", "security.jail.jailed")).text.strip() == "1"


def look(tools: Tools, dev: str, lines: Collection[str], *, has_vmmctl: bool) -> Jail:
    """Look around in this jail. Raises HostError.

    `lines`: side B of the guests' null-modem pairs, if nmdm is there. `has_vmmctl`: vmm is there, and makes guests by its device.
    """
    nodes = _names(dev)
    hidden = []
    if has_vmmctl and "vmmctl" not in nodes:
        hidden.append("vmmctl")
    if any(_is_hidden(line, nodes) for line in lines):
        hidden.append("nmdm-*")
    taps = {name for _, name in socket.if_nameindex() if name.startswith("tap") and name[3:].isdigit()}
    if taps - nodes:
        hidden.append("tap*")
    return Jail(
        has_network=tools.ask(("sysctl", "-n", "security.jail.vnet"), ok=None).text.strip() != "0",
        may_vmm=_may_vmm(tools),
        hidden=tuple(hidden),
    )


def _may_vmm(tools: Tools) -> bool | None:
    """The variable that makes a guest may be read by whoever may make one; to others sysctl(8) shows nothing, not even a line's end."""
    asked = tools.ask(("sysctl", "-n", "hw.vmm.create"), ok=None)
    return None if b"unknown oid" in asked.stderr else asked.text != ""


def _names(directory: str) -> frozenset[str]:
    with suppress(OSError):
        return frozenset(os.listdir(directory))
    return frozenset()


def _is_hidden(line: str, nodes: frozenset[str]) -> bool:
    """The first start of the guest would look for the line as we do, which makes it (contract 4.4); it goes when it is closed."""
    if os.path.basename(line) in nodes:
        return False
    try:
        os.close(os.open(line, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
