"""`vmctl import FILE`: the file of a guest that another tool looks after until now. Needs no daemon, and touches nothing of the other tool.

What the file is, is seen in it. The guest does not start by itself until its new file says so: it may still run elsewhere.
"""

from __future__ import annotations

import os
import sys
from functools import cache

from bhyved.ctl import foreignfiles
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import print_json
from bhyved.ctl.connection import FAILED, OK, USAGE, Failure
from bhyved.ctl.newguest import Files, Place, is_there, toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bhyved.core.imports import Imported
    from bhyved.core.spec import Paths
    from bhyved.ctl.foreignfiles import Found

_SYSTEM = ".config/system.conf"  # of vm-bhyve: its switches


def import_guest(asked: Asked) -> int:
    from bhyved.core.imports import ForeignError
    from bhyved.core.imports.imported import renamed

    files = cache(lambda: Files(asked))  # read once, and not before there is a guest
    found = foreignfiles.find(asked.names[0], files)
    try:
        imported = _translated(asked, files, found)
    except ForeignError as error:
        raise Failure(FAILED, f"{found.path or '-'}: {error}") from None
    name = asked.text("name") or imported.name
    if not name:
        raise Failure(USAGE, f"import: {found.path or '-'} does not say what the guest is called: use --name")
    if imported.name not in ("", name):
        imported.notes += renamed(imported.name, name, imported.table)
    table = {"autostart": False} | imported.table
    guest = files().place(name)
    imported.notes += _absent(table, files().paths)
    written = _with_notes(toml(table), found.path, imported.notes)
    guest.judged(written)
    if asked.has("dry-run"):
        sys.stdout.write(written)
        return OK
    guest.write(written)
    return _told(asked, guest, imported)


def _absent(table: dict[str, Any], paths: Paths) -> list[str]:
    """What is named and is not there, such as a disk of another machine, or variables that the other tool makes at a first start."""
    drives = (*table.get("disk", ()), *table.get("cdrom", ()))
    boot = table.get("boot", {})
    found = {drive["path"]: "" for drive in drives if "path" in drive}
    found |= {boot[key]: why for key, why in (("firmware", ""), ("vars", "; without boot.vars bhyved makes its own")) if key in boot}
    return [f"{path} is not there{why}" for path, why in found.items() if not is_there(path, paths)]


def _told(asked: Asked, guest: Place, imported: Imported) -> int:
    following = ["vmctl reload", f"vmctl plan {guest.name}", f"vmctl start {guest.name}"]
    if asked.has("json"):
        print_json({"version": 1, "vm": guest.name, "file": guest.file, "notes": imported.notes, "next": following})
        return OK
    for note in imported.notes:
        print(f"note: {note}")
    print(f"{guest.file}: made")
    reload, plan, start = following
    print(f"next: {reload}; {plan}; when the guest no longer runs elsewhere, {start}; then autostart = true in its file")
    return OK


def _translated(asked: Asked, files: Callable[[], Files], found: Found) -> Imported:
    """Raises ForeignError, Failure."""
    from bhyved.core.imports import ForeignError, bmd, cbsd, domain, iohyve, script, vmbhyve

    text, here, bridges, guest = found.text, found.here, _bridges(asked), asked.text("guest") or ""
    if domain.is_domain(text):
        return domain.translate(text, bridges=bridges)
    if iohyve.is_listing(text):
        return iohyve.translate(text, guest=guest, dataset=asked.text("dataset") or "", bridges=bridges)
    if cbsd.is_config(text):
        return _from_cbsd(found, bridges)
    if bmd.is_config(text):
        return bmd.translate(foreignfiles.source(found), guest=guest, include=foreignfiles.matching, bridges=bridges)
    if script.is_config(text):
        return script.from_config(text, here=here, bridges=bridges)
    if vmbhyve.is_config(text):
        return _from_vm_bhyve(asked, files, found, bridges)
    if script.has_command(text):
        return script.from_script(text, here=here, bridges=bridges)
    if iohyve.is_of_chyves(text):
        raise ForeignError("a guest of chyves: its log has the bhyve command of each start (stdout_level=3); import that line")
    raise ForeignError(
        "there is no guest in it: it may be a configuration of vm-bhyve, bmd or CBSD, a libvirt domain (virsh dumpxml), "
        "the properties of an iohyve guest (zfs get), a bhyve_config(5) file, or a script with a bhyve command"
    )


def _from_cbsd(found: Found, bridges: dict[str, str]) -> Imported:
    from bhyved.core.imports import cbsd

    rows, why = foreignfiles.rows(os.path.join(found.here, foreignfiles.CBSD_DATABASE), cbsd.TABLES)
    imported = cbsd.translate(found.text, rows=rows, bridges=bridges)
    imported.notes += [why] if why else []
    return imported


def _from_vm_bhyve(asked: Asked, files: Callable[[], Files], found: Found, bridges: dict[str, str]) -> Imported:
    from bhyved.core.imports import vmbhyve

    name = asked.text("name") or os.path.basename(found.path).removesuffix(".conf")
    system = os.path.join(os.path.dirname(found.here), _SYSTEM)
    known = vmbhyve.switches(foreignfiles.read(system)) if os.path.exists(system) else {}
    dataset = asked.text("dataset") or (_dataset(files, found.here) if "zvol" in found.text else "")
    return vmbhyve.translate(found.text, name=name, directory=found.here, dataset=dataset, bridges=known | bridges)


def _dataset(files: Callable[[], Files], directory: str) -> str:
    """The dataset that a directory is on; '' where zfs(8) cannot say."""
    from bhyved.core.errors import HostError

    try:
        return foreignfiles.zfs(files, "list", "-H", "-o", "name", directory).strip()
    except HostError:
        return ""


def _bridges(asked: Asked) -> dict[str, str]:
    """`--bridge public=bridge0,lan=bridge1`. Raises Failure."""
    found = {}
    for pair in filter(None, (asked.text("bridge") or "").split(",")):
        there, is_pair, here = pair.partition("=")
        if not (there and is_pair and here):
            raise Failure(USAGE, f'import: --bridge "{pair}" should be a switch, network, bridge or tap there and a bridge: public=bridge0')
        found[there] = here
    return found


def _with_notes(text: str, path: str, notes: list[str]) -> str:
    """The file begins with where it comes from and what was left out, for whoever reads it in a year."""
    lines = [f"# Imported from {path or 'standard input'}.", *(f"# - {note}" for note in notes)]
    return "".join(f"{_plain(line)}\n" for line in lines) + "\n" + text


def _plain(line: str) -> str:
    """TOML has no control characters in its comments."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)
