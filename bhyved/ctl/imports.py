"""`vmctl import FILE`: the file of a guest that another tool looks after until now. Needs no daemon, and touches nothing of the other tool.

What the file is, is seen in it. The guest does not start by itself until its new file says so: it may still run elsewhere.
"""

from __future__ import annotations

import os
import sys
from functools import cache

from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import print_json
from bhyved.ctl.connection import FAILED, OK, USAGE, Failure
from bhyved.ctl.newguest import Files, Place, toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bhyved.core.imports import Imported

LONGEST = 1 << 20
ZFS_LIMIT_S = 20.0
_SYSTEM = ".config/system.conf"  # of vm-bhyve: its switches


def import_guest(asked: Asked) -> int:
    from bhyved.core.imports import ForeignError

    path = asked.names[0]
    text = _read(path)
    files = cache(lambda: Files(asked))  # read once, and not before there is a guest
    try:
        imported = _translated(asked, files, path, text)
    except ForeignError as error:
        raise Failure(FAILED, f"{path}: {error}") from None
    name = asked.text("name") or imported.name
    if not name:
        raise Failure(USAGE, f"import: {path} does not say what the guest is called: use --name")
    table = {"autostart": False} | imported.table
    guest = files().place(name)
    written = _with_notes(toml(table), path, imported.notes)
    guest.judged(written)
    if asked.has("dry-run"):
        sys.stdout.write(written)
        return OK
    guest.write(written)
    return _told(asked, guest, imported)


def _told(asked: Asked, guest: Place, imported: Imported) -> int:
    following = [f"vmctl plan {guest.name}", "vmctl reload", f"vmctl start {guest.name}"]
    if asked.has("json"):
        print_json({"version": 1, "vm": guest.name, "file": guest.file, "notes": imported.notes, "next": following})
        return OK
    for note in imported.notes:
        print(f"note: {note}")
    print(f"{guest.file}: made")
    print(
        f"next: {following[0]}; when the guest no longer runs elsewhere, {following[1]}; {following[2]}; then autostart = true in its file"
    )
    return OK


def _read(path: str) -> str:
    """Raises Failure."""
    from bhyved.host import durable

    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise Failure(FAILED, f"{path} cannot be read: {durable.why(error)}") from None
    if len(data) > LONGEST:
        raise Failure(FAILED, f"{path} is larger than any guest's configuration")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Failure(FAILED, f"{path} is no text") from None


def _translated(asked: Asked, files: Callable[[], Files], path: str, text: str) -> Imported:
    """Raises ForeignError, Failure."""
    from bhyved.core.imports import ForeignError, domain, script, vmbhyve

    here = os.getcwd() if path == "-" else os.path.dirname(os.path.abspath(path))
    bridges = _bridges(asked)
    if domain.is_domain(text):
        return domain.translate(text, bridges=bridges)
    if script.is_config(text):
        return script.from_config(text, here=here, bridges=bridges)
    if vmbhyve.is_config(text):
        return _from_vm_bhyve(asked, files, path, text, here, bridges)
    if script.has_command(text):
        return script.from_script(text, here=here, bridges=bridges)
    raise ForeignError(
        "there is no guest in it: it may be a vm-bhyve configuration, a libvirt domain (virsh dumpxml), a bhyve_config(5) file, "
        "or a script with a bhyve command"
    )


def _from_vm_bhyve(asked: Asked, files: Callable[[], Files], path: str, text: str, here: str, bridges: dict[str, str]) -> Imported:
    from bhyved.core.imports import vmbhyve

    name = asked.text("name") or ("" if path == "-" else os.path.basename(path).removesuffix(".conf"))
    system = os.path.join(os.path.dirname(here), _SYSTEM)
    known = vmbhyve.switches(_read(system)) if os.path.exists(system) else {}
    dataset = asked.text("dataset") or (_dataset(files, here) if "zvol" in text else "")
    return vmbhyve.translate(text, name=name, directory=here, dataset=dataset, bridges=known | bridges)


def _dataset(files: Callable[[], Files], directory: str) -> str:
    """The dataset that a directory is on; '' where zfs(8) cannot say."""
    from bhyved.core.errors import HostError
    from bhyved.host.toolbox import Tools

    tools = Tools(bin=tuple(map(str, files().paths.bin)))
    try:
        return tools.ask(("zfs", "list", "-H", "-o", "name", directory), limit_s=ZFS_LIMIT_S).stdout.decode(errors="replace").strip()
    except HostError:
        return ""


def _bridges(asked: Asked) -> dict[str, str]:
    """`--bridge public=bridge0,lan=bridge1`. Raises Failure."""
    found = {}
    for pair in filter(None, (asked.text("bridge") or "").split(",")):
        there, is_pair, here = pair.partition("=")
        if not (there and is_pair and here):
            raise Failure(
                USAGE, f'import: --bridge "{pair}" should be a switch, network or tap of the other tool and a bridge: public=bridge0'
            )
        found[there] = here
    return found


def _with_notes(text: str, path: str, notes: list[str]) -> str:
    """The file begins with where it comes from and what was left out, for whoever reads it in a year."""
    lines = [f"# Imported from {'standard input' if path == '-' else os.path.abspath(path)}.", *(f"# - {note}" for note in notes)]
    return "".join(f"{_plain(line)}\n" for line in lines) + "\n" + text


def _plain(line: str) -> str:
    """TOML has no control characters in its comments."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)
