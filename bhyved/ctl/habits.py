"""Verbs of vm-bhyve, CBSD, bmd, iohyve, virsh and xl that fingers know: what does the same here.

Looked up when there is no verb of a name, and nowhere else: there is one way to say each thing.
"""

from __future__ import annotations

_FORGET = "remove its file, then vmctl reload --prune stops and forgets it; its disks stay"
_EDIT = "edit its file, then vmctl reload"

MEANT = {
    "add": "vmctl create",
    "adopt": "vmctl import",
    "attach": "vmctl console",
    "bls": "vmctl list",
    "boot": "vmctl start",
    "bstart": "vmctl start",
    "bstop": "vmctl stop",
    "clone": "copy its disk and its file under another name, then vmctl reload",
    "configure": _EDIT,
    "define": "write its file, then vmctl reload",
    "delete": _FORGET,
    "destroy": _FORGET,
    "dominfo": "vmctl status",
    "edit": _EDIT,
    "info": "vmctl status, or vmctl show",
    "inspect": "vmctl show",
    "install": "vmctl start --install",
    "kill": "vmctl poweroff",
    "logs": "vmctl log",
    "ls": "vmctl list",
    "maintenance": "vmctl drain",
    "passthru": "vmctl doctor looks at devices of the host",
    "pause": "vmctl suspend writes a guest to disk, vmctl hold keeps it from being started",
    "ps": "vmctl list",
    "reboot": "vmctl restart",
    "remove": _FORGET,
    "rename": "vmctl stop, rename its file, then vmctl reload --prune",
    "rm": _FORGET,
    "set": _EDIT,
    "shutdown": "vmctl stop",
    "startall": "vmctl start --all",
    "stopall": "vmctl stop --all",
    "switch": "bridges are the host's, in rc.conf(5)",
    "undefine": _FORGET,
    "validate": "vmctl check",
    "vnc": "vmctl status says where a guest's screen is",
}
