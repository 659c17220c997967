"""The stand-ins of kldload(8) and kldstat(8): contract 5.1 and 8.9.

A module is loaded iff `DIR/lab/module/NAME` exists. `nmdm` is more than that: on FreeBSD looking for a pair makes it, in the lab
loading the module does, for every guest that is configured at that time. So it counts as loaded only while no guest lacks a pair.
"""

from __future__ import annotations

import os
import sys

from bhyved.lab import ask, state
from bhyved.lab.sysctl import is_jailed

_MODULES = ("vmm", "nmdm", "if_tuntap", "if_bridge", "bridgestp", "ctl", "ng_bridge", "ng_ether", "ng_socket")
_USAGE_LOAD = "usage: kldload [-nqv] file ..."
_USAGE_STAT = "usage: kldstat [-hqv] [-i id] [-n filename]\n       kldstat [-hqv] [-m modname]"


def kldload(root: str, argv: list[str]) -> int:
    letters = "".join(word[1:] for word in argv if word.startswith("-"))
    files = [word for word in argv if not word.startswith("-")]
    if not files or letters.strip("nqv"):
        print(_USAGE_LOAD, file=sys.stderr)
        return 1
    return max(_load(root, file.removesuffix(".ko"), quiet="n" in letters) for file in files)


def _load(root: str, name: str, *, quiet: bool) -> int:
    if is_jailed(state.settings(root)):
        return _cannot(name, "Operation not permitted")
    if name not in _MODULES:
        return _cannot(name, "No such file or directory")
    if is_loaded(root, name):
        return 0 if quiet else _cannot(name, "module already loaded or in kernel")
    if name == "nmdm":
        why = ask.pairs(root)
        if why:
            return _cannot(name, why)
    os.makedirs(f"{root}/lab/module", exist_ok=True)
    with open(f"{root}/lab/module/{name}", "w", encoding="utf-8"):
        return 0


def _cannot(name: str, why: str) -> int:
    print(f"kldload: can't load {name}: {why}", file=sys.stderr)
    return 1


def is_loaded(root: str, name: str) -> bool:
    """Whether the module is there as far as it is needed."""
    return os.path.exists(f"{root}/lab/module/{name}") and (name != "nmdm" or ask.has_pairs(root))


def kldstat(root: str, argv: list[str]) -> int:
    quiet, wanted = False, ""
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word in ("-m", "-n") and rest:
            wanted = rest.pop(0).removesuffix(".ko")
        elif word in ("-q", "-v", "-h"):
            quiet = quiet or word == "-q"
        else:
            print(_USAGE_STAT, file=sys.stderr)
            return 1
    loaded = [name for name in _MODULES if is_loaded(root, name)]
    if wanted and wanted not in (*loaded, "kernel"):
        if not quiet:
            print(f"kldstat: can't find file {wanted}: No such file or directory", file=sys.stderr)
        return 1
    if not quiet:
        print("Id Refs Address                Size Name")
        for number, name in enumerate(("kernel", *(f"{name}.ko" for name in loaded)), 1):
            if not wanted or name.removesuffix(".ko") == wanted:
                print(f"{number:2} {1:4} 0xffffffff{0x80200000 + number * 0x100000:x} {0x100000:8x} {name}")
    return 0
