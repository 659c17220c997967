"""A guest of CBSD: `jails-system/NAME/bhyve.conf`, which CBSD writes at each start, and the guest's own database beside it.

The file has the words of the command line by kind of device; here they are put together as CBSD's bhyverun.sh does. What does not concern
bhyve itself, such as whether the guest starts with its host, is in the database.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress

from bhyved.core.imports.imported import ForeignError, Imported, memory, starting_is_in, starts_there
from bhyved.core.imports.script import from_arguments, with_loader

#: The tables of local.sqlite that are looked at.
TABLES = ("settings", "bhyvenic")
Rows = Mapping[str, Sequence[Mapping[str, str]]]

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_FLAGS = {
    "bhyve_generate_acpi": ("1", "-A"),
    "bhyve_wire_memory": ("1", "-S"),
    "bhyve_rts_keeps_utc": ("1", "-u"),
    "bhyve_force_msi_irq": ("1", "-W"),
    "bhyve_x2apic_mode": ("1", "-x"),
    "bhyve_mptable_gen": ("0", "-Y"),
    "bhyve_ignore_msr_acc": ("1", "-w"),
}
_DEVICES = ("hostbridge", "virtio_9p", "uefi_boot", "dsk", "dsk_controller", "cd", "nic", "nvme", "virtiornd", "pci_passthru")
_LAST = ("soundhw", "lpc", "console", "efi")
_KNOWN = (*(f"{kind}_args" for kind in (*_DEVICES, *_LAST, "vnc")), "live_migration_args")
_ENDS = {"on_poweroff": "on-poweroff", "on_reboot": "on-reboot", "on_crash": "on-crash"}
_UNSET = ("", "0", "none")
_OWN = "/usr/local/cbsd/"  # goes with the package
#: What else may be set to something, why it is left out, and what it is when it says nothing.
_ELSEWHERE = {
    "nice": ("nice(1) values are not set", _UNSET),
    "live_migration_args": ("bhyved migrates no guests", _UNSET),
    "debug_engine": ("bhyved runs bhyve without a debugger", _UNSET),
    "nic_address_cmd": ("an address on the host's side of a card belongs on its bridge, in rc.conf(5)", _UNSET),
    "bhyve_cmd": ("bhyved takes the bhyve of paths.bin", (*_UNSET, "/usr/sbin/bhyve")),
    "bhyverun_wrapper": ("what this wrapper changes of bhyve's command line is not known here", (*_UNSET, f"{_OWN}share/bhyverun.sh")),
}
_SETTINGS = {
    "boot_delay": "order.after says what comes first, start-gap of bhyved.toml how far two starts are apart",
    "cpuset": "cpus.pin says where each vCPU runs",
    "jailed": "bhyved runs bhyve on the host itself",
    "chrooted": "bhyved runs bhyve on the host itself",
}
_CARDS = {
    "nic_ratelimit": "bhyve has no limit for a card",
    "nic_flags": "a tap of bhyved's is an ordinary member of its bridge",
    "nic_address": "an address on the host's side of a card belongs on its bridge, in rc.conf(5)",
}


def is_config(text: str) -> bool:
    found = {match[1] for line in text.splitlines() if (match := _ASSIGNMENT.match(line))}
    return {"jname", "hostbridge_args", "lpc_args"} <= found


def translate(text: str, *, rows: Rows | None, bridges: Mapping[str, str]) -> Imported:
    """`rows`: of TABLES, None without a database. `bridges`: by tap, or by bridge of CBSD's. Raises ForeignError."""
    given = _assignments(text)
    name = given.get("jname", "")
    if not name:
        raise ForeignError("jname says no name: CBSD writes it when it starts the guest")
    taps = {key.removeprefix("mytap_").removesuffix("_members"): value for key, value in given.items() if key.startswith("mytap_tap")}
    persistent = {row.get("nic_parent", "") for row in (rows or {}).get("bhyvenic", ()) if row.get("nic_persistent") == "1"}
    known = {tap: bridges.get(to, to) for tap, to in taps.items() if to not in ("", "disable") and tap not in persistent}
    imported = from_arguments(_argv(given, name), here="/", bridges=known | dict(bridges))
    loader = _words(given, "bhyveload_cmd")
    with_loader(imported, [loader[at:] for at, word in enumerate(loader) if word.endswith("/bhyveload")], "/")
    ends = {ours: "restart" if given[theirs] == "restart" else "stop" for theirs, ours in _ENDS.items() if given.get(theirs)}
    if ends:
        imported.table["restart"] = ends
    imported.notes += [*_notes(given, imported), *_row_notes(given, rows)]
    return imported


def _assignments(text: str) -> dict[str, str]:
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := _ASSIGNMENT.fullmatch(line.strip()):
            try:
                found[match[1]] = "".join(shlex.split(match[2], comments=True))
            except ValueError:
                raise ForeignError(f"line {number}: the value of {match[1]} has no closing quote") from None
    return found


def _words(given: Mapping[str, str], key: str) -> list[str]:
    try:
        return shlex.split(given.get(key, ""))
    except ValueError:
        raise ForeignError(f"{key}={given[key]!r} is no part of a command line") from None


def _argv(given: Mapping[str, str], name: str) -> list[str]:
    cpus, ram = given.get("vm_cpus", ""), given.get("vm_ram", "")
    if not cpus or not ram:
        raise ForeignError(f"{'vm_ram' if cpus else 'vm_cpus'} is missing: CBSD writes it when it starts the guest")
    argv = [*_words(given, "bhyve_flags"), "-c", cpus, "-m", ram, "-H"]
    argv += [flag for key, (value, flag) in _FLAGS.items() if given.get(key) == value]
    if given.get("pci_passthru_args"):
        argv.append("-S")
    for key, option, before in (("uuid", "-U", ""), ("bhyve_vnc_kbdlayout", "-K", ""), ("tpm", "-l", "tpm,passthru,")):
        if (value := given.get(key, "")) not in (*_UNSET, "new"):
            argv += [option, before + value]
    for kind in _DEVICES:
        argv += _words(given, f"{kind}_args")
    argv += _screen(given)
    for kind in _LAST:
        argv += [word for word in _words(given, f"{kind}_args") if word not in _UNSET]
    return [*(re.sub(r"(,nvme,[^,]+),ram=0$", r"\1", word) for word in argv), name]  # CBSD's "no RAM disk", which to bhyve is one


def _screen(given: Mapping[str, str]) -> list[str]:
    words = _words(given, "vnc_args")
    has_firmware = given.get("vm_efi", "none") not in _UNSET and given.get("vm_vnc_port", "") not in ("", "1")
    if words:
        vga, password = given.get("bhyve_vnc_vgaconf", "io"), given.get("vnc_password", "")
        words[-1] += (f",vga={vga}" if vga not in ("", "io") else "") + (",password=" + password if password and has_firmware else "")
    if has_firmware and given.get("xhci") == "1":
        words += ["-s", "30,xhci,tablet" if given.get("tablet") == "1" else "30,xhci"]
    return words


def _notes(given: Mapping[str, str], imported: Imported) -> list[str]:
    notes = []
    own = [path for path in _paths(imported) if path.startswith(_OWN)]
    notes += [f"{path} belongs to the package cbsd, and goes with it: copy it, and name the copy" for path in own]
    if any(path.endswith("/seed.iso") for path in _paths(imported)):
        notes.append("seed.iso: CBSD makes it anew at each start, here it stays as it is; [cloud-init] makes one of bhyved's own")
    if given.get("vm_boot", "hdd") != "hdd":
        notes.append(f"vm_boot={given['vm_boot']}: its last start was one from there, and the disks' slots are those of that start")
    if given.get("tpm") == "new":
        notes.append('tpm=new is left out: [tpm] type = "swtpm" gives it a TPM in software')
    unknown = [key for key in given if key.endswith("_args") and key not in _KNOWN and given[key] not in _UNSET]
    notes += [f"{key}={given[key]!r} is left out: where CBSD puts these words is not known here" for key in unknown]
    for key, (why, unset) in _ELSEWHERE.items():
        if given.get(key, "") not in unset:
            notes.append(f"{key}={given[key]!r} is left out: {why}")
    return notes


def _paths(imported: Imported) -> list[str]:
    drives = [drive.get("path", "") for drive in (*imported.table.get("disk", ()), *imported.table.get("cdrom", ()))]
    return [*drives, imported.table.get("boot", {}).get("firmware", "")]


def _row_notes(given: Mapping[str, str], rows: Rows | None) -> list[str]:
    if not rows or not rows.get("settings"):
        return [starting_is_in("local.sqlite (astart), which is not beside the file")]
    settings = rows["settings"][-1]
    notes = [starts_there(settings.get("astart") == "1", f"astart={settings.get('astart', '')}")]
    for key in ("vm_cpus", "vm_ram"):
        if (now := settings.get(key, "")) and not _is_same(key, now, given[key]):
            notes.append(f"{key}={now} in local.sqlite is for the next start there; taken is {given[key]}, of the last start")
    for key, why in _SETTINGS.items():
        if (value := settings.get(key, "")) not in _UNSET:
            notes.append(f"{key}={value} is left out: {why}")
    for number, card in enumerate(rows.get("bhyvenic", ())):
        for key, why in _CARDS.items():
            if (value := card.get(key, "")) not in (*_UNSET, "disable"):
                notes.append(f"network[{number}]: {key}={value} is left out: {why}")
    return notes


def _is_same(key: str, now: str, then: str) -> bool:
    if key == "vm_cpus":
        return then.removeprefix("cpus=").partition(",")[0] == now
    with suppress(ForeignError):
        return memory(now) == memory(then)
    return False
