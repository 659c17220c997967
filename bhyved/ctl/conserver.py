"""`vmctl console --conserver-cf`: conserver.cf(5) for every console that has a socket of its own (`[[serial]] socket = true`)."""

from __future__ import annotations

import os
import sys

from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, print_json, socket_of
from bhyved.ctl.connection import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEAD = """\
# conserver.cf(5): the consoles that bhyved offers at a socket of their own.
# The sockets are root's: conserver has to run as root to use them.
default bhyved { type uds; master localhost; rw *; }
"""


def print_configuration(asked: Asked) -> int:
    with connect(asked) as connection:
        names = [row["name"] for row in connection.call("vm.list", names=asked.names or None)["vms"]]
        consoles = [entry for name in names for entry in _consoles(connection.call("vm.show", name=name), socket_of(asked))]
    if asked.has("json"):
        print_json({"version": 1, "consoles": consoles})
        return OK
    entries = [f"console {each['console']} {{ include bhyved; uds {each['socket']}; }}\n" for each in consoles]
    sys.stdout.write(_HEAD + "".join(entries))
    if not consoles:
        print("no console has socket = true", file=sys.stderr)
    return OK


def _consoles(shown: dict[str, Any], control: str) -> list[dict[str, str]]:
    """The first port is known by its guest's name alone."""
    name, run = shown["vm"]["name"], os.path.dirname(os.path.abspath(control))
    ports = shown["spec"].get("serial", [])
    return [
        {
            "console": name if port is ports[0] else f"{name}-{port['port']}",
            "name": name,
            "port": port["port"],
            "socket": f"{run}/console/{name}.{port['port']}.sock",
        }
        for port in ports
        if port.get("socket") and port.get("mode") == "managed"
    ]
