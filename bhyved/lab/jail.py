"""The stand-ins of jail(8), jexec(8) and jls(8): jails that are names, whose processes are those of the lab (contract 7).

    jail -c name=NAME path=… PARAMETER… persist       jail -r NAME
    jexec NAME COMMAND…                                jls [-j NAME] [PARAMETER…]

A jail with `allow.vmm` missing may not run bhyve: `jexec` of one there ends as bhyve does, with 4 (contract 7.3).
"""

from __future__ import annotations

import os
import sys

from bhyved.lab import state

_USAGE = 1
_SHOWN = ("jid", "ip4.addr", "host.hostname", "path")


def jail(root: str, argv: list[str]) -> int:
    if argv[:1] == ["-c"]:
        return _create(root, argv[1:])
    if argv[:1] == ["-r"] and len(argv) == 2:
        if _find(root, argv[1]) is None:
            return _complain("jail", f'"{argv[1]}" not found')
        os.unlink(_path(root, argv[1]))
        return 0
    print("usage: jail -c param=value ... [command=command ...]\n       jail -r jail", file=sys.stderr)
    return _USAGE


def _create(root: str, words: list[str]) -> int:
    said = {name: value if equals else "1" for name, equals, value in (word.partition("=") for word in words)}
    name = said.get("name", "")
    if not name or "/" in name:
        return _complain("jail", "name is required")
    with state.Locked(root, "jail"):
        if _find(root, name) is not None:
            return _complain("jail", f'"{name}" already exists')
        os.makedirs(f"{root}/lab/jail", exist_ok=True)
        taken = [int((_find(root, other) or {}).get("jid", "0")) for other in state.names(f"{root}/lab/jail")]
        state.write(_path(root, name), {"jid": str(max(taken, default=0) + 1), "path": "/", "host.hostname": "", **said})
    return 0


def jexec(root: str, argv: list[str]) -> int:
    if len(argv) < 2:
        print("usage: jexec [-l] [-d working-directory] [-u username | -U username] jail [command ...]", file=sys.stderr)
        return _USAGE
    found = _find(root, argv[0])
    if found is None:
        return _complain("jexec", f'jail "{argv[0]}" not found')
    if os.path.basename(argv[1]) == "bhyve" and found.get("allow.vmm") != "1":
        print("vm_create: Operation not permitted", file=sys.stderr)
        return 4
    try:
        os.execv(argv[1] if "/" in argv[1] else f"{root}/bin/{argv[1]}", argv[1:])
    except OSError as error:
        return _complain("jexec", f"execvp: {argv[1]}: {error.strerror}")


def jls(root: str, argv: list[str]) -> int:
    names = state.names(f"{root}/lab/jail")
    words = list(argv)
    if words[:1] == ["-j"] and len(words) > 1:
        name = words[1]
        words = words[2:]
        names = [other for other in names if name in (other, (_find(root, other) or {}).get("jid"))]
        if not names:
            return _complain("jls", f'jail "{name}" not found')
    if not words:
        print("   JID  IP Address      Hostname                      Path")
    for name in names:
        said = _find(root, name) or {}
        print(" ".join(said.get(word, "-") or "-" for word in words or _SHOWN))
    return 0


def _path(root: str, name: str) -> str:
    return f"{root}/lab/jail/{name}.json"


def _find(root: str, name: str) -> dict[str, str] | None:
    """A jail by name or number."""
    found = state.read(_path(root, name))
    if found is None and name.isdigit():
        jails = (state.read(_path(root, other)) for other in state.names(f"{root}/lab/jail"))
        return next((said for said in jails if said is not None and said["jid"] == name), None)
    return found


def _complain(program: str, text: str) -> int:
    print(f"{program}: {text}", file=sys.stderr)
    return 1
