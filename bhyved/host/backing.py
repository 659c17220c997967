"""The files behind a guest, looked at before each start: disks, media, shares, firmware, the VNC password, what a seed is made of.

bhyve would say less and later: a disk that it may not write it opens read-only without a word, and it takes no lock (contract 3.2).
`look` blocks (a mount may be dead): `host.prepare` calls it in a thread, with a time limit.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator

import msgspec

from bhyved.core.assigned import UEFI, UEFI_CSM, attached, firmware, vars_template
from bhyved.core.devices import Disk
from bhyved.core.errors import HostError, in_words
from bhyved.core.seed import Contents
from bhyved.core.spec import VmSpec
from bhyved.host import seedfiles
from bhyved.host.durable import read_plain, replace
from bhyved.host.ledger import DiskUse
from bhyved.host.ownedfile import read_owned, text_of

_LOCAL = "/usr/local/"
_PASSWORD_CHARS = 8  # all that VNC's DES takes (contract 3.5)
_VARS_BYTES = 16 << 20  # ROM and variables together have no more room than that (contract 2.4)


class Backing(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    disks: tuple[DiskUse, ...] = ()
    firmware: str = ""
    bootvars: str = ""
    vnc_password: str = ""
    seed: Contents | None = None
    seed_faults: tuple[seedfiles.Fault, ...] = ()
    warnings: tuple[str, ...] = ()


def look(spec: VmSpec, *, install: bool, bin: Iterable[str], vars_path: str) -> Backing:
    """Look at everything; make the copy of the firmware's variables that a new guest has yet to get. Raises HostError."""
    disks = tuple(disk_uses(spec))
    for drive in attached(spec, install=install):
        _readable(f"cdrom {drive.path}", drive.path)
    for share in spec.share:
        if not os.path.isdir(share.path):
            raise HostError(f"share {share.name}: {share.path} is no directory")
    rom = find_firmware(spec, bin)
    bootvars, warnings = _bootvars(spec, rom, vars_path)
    password = ""
    if spec.graphics is not None and spec.graphics.password_file is not None:
        password = _password(spec.graphics.password_file)
    contents, faults = (None, ()) if spec.cloud_init is None else seedfiles.look(spec.cloud_init)
    return Backing(
        disks=disks, firmware=rom, bootvars=bootvars, vnc_password=password, seed=contents, seed_faults=faults, warnings=warnings
    )


def disk_uses(spec: VmSpec) -> Iterator[DiskUse]:
    """The guest's disks as the kernel knows them. Raises HostError for one that is not there, or cannot be used as its file says."""
    seen: dict[str, str] = {}
    for disk in spec.disk:
        if disk.path is None:
            continue
        use = _disk(disk, disk.path)
        if use is None:
            continue
        if use.key in seen:
            raise HostError(f"disk {use.path} is the same as {seen[use.key]}", fatal=True)
        seen[use.key] = use.path
        yield use


def _disk(disk: Disk, path: str) -> DiskUse | None:
    found = _readable(f"disk {path}", path)
    if disk.model == "virtio-scsi":  # a port of ctl(4), which knows its users itself
        return None
    if stat.S_ISREG(found.st_mode):
        key = f"{found.st_dev}:{found.st_ino}"
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        key = f"device {found.st_rdev}"
    else:
        raise HostError(f"disk {path} is neither a file nor a disk device", fatal=True)
    if not disk.read_only and not os.access(path, os.W_OK):
        raise HostError(f"disk {path} cannot be written: give it read-only = true if that is meant", fatal=True)
    return DiskUse(path=path, key=key, writes=not disk.read_only, shared=disk.shared)


def _readable(what: str, path: str) -> os.stat_result:
    try:
        found = os.stat(path)
    except OSError as error:
        raise HostError(f"{what}: {in_words(error)}") from None
    if not os.access(path, os.R_OK):
        raise HostError(f"{what} cannot be read: permission denied")
    return found


def check_free(disks: Iterable[DiskUse], users: Callable[[str], Iterable[tuple[str, DiskUse]]]) -> None:
    """No other run may have one of `disks` when either of them writes, unless both say shared. Raises HostError, naming it.

    `users`: the other runs that have a disk, by its key, and how.
    """
    for ours in disks:
        for name, theirs in users(ours.key):
            if (ours.shared and theirs.shared) or not (ours.writes or theirs.writes):
                continue
            also = "" if ours.path == theirs.path else f", as {theirs.path}"
            raise HostError(f"disk {ours.path} is in use by {name}{also}; they can run together only if both say shared = true")


def find_firmware(spec: VmSpec, bin: Iterable[str]) -> str:
    """The bootrom's path, which may be the one that the guest's file names; '' for a guest that needs none. Raises HostError."""
    wanted = firmware(spec)
    if not wanted:
        return ""
    if spec.boot.firmware is not None:
        if not os.path.isfile(wanted):
            raise HostError(f"firmware {wanted} does not exist", fatal=True)
        return wanted
    found = of_package(wanted, bin)
    if found is not None:
        return found
    package = {UEFI: "edk2-bhyve", UEFI_CSM: "uefi-edk2-bhyve-csm"}.get(wanted, "u-boot-bhyve-arm64")
    raise HostError(f"firmware {wanted} does not exist: pkg install {package}", fatal=True)


def of_package(path: str, bin: Iterable[str]) -> str | None:
    """Where a file is that a package has put below /usr/local: in `share` beside one of the directories of commands."""
    beside = dict.fromkeys(os.path.dirname(directory) for directory in bin)
    places = (f"{prefix}/{path.removeprefix(_LOCAL)}" for prefix in beside)
    return next(filter(os.path.isfile, places), None)


def _bootvars(spec: VmSpec, rom: str, path: str) -> tuple[str, tuple[str, ...]]:
    """The guest's UEFI variables: its own copy of the template, made once and then the guest's."""
    if spec.boot.vars is not None:
        _readable(f"variables {spec.boot.vars}", spec.boot.vars)
        return str(spec.boot.vars), ()
    template = vars_template(spec)
    if not template:
        return "", ()
    if spec.boot.vars_template is None:  # the two must be of one version (contract 2.4)
        template = f"{os.path.dirname(rom)}/{os.path.basename(template)}"
    if not os.path.exists(path):
        try:
            replace(path, read_plain(os.path.realpath(template), _VARS_BYTES))
        except FileNotFoundError:
            if spec.boot.vars_template is not None:
                raise HostError(f"variables template {template} does not exist", fatal=True) from None
            return "", (f"{template} does not exist: the guest forgets its boot order when it is powered off",)
        except OSError as error:
            raise HostError(f"variables {path}: {in_words(error)}") from None
    return path, ()


def _password(path: str) -> str:
    try:
        text = text_of(read_owned(path, secret=True))
    except OSError as error:
        raise HostError(f"password file {path}: {in_words(error)}", fatal=True) from None
    except ValueError as error:
        raise HostError(f"password file {path} {error}", fatal=True) from None
    password = text.partition("\n")[0].rstrip("\r")[:_PASSWORD_CHARS]
    if not password or not password.isprintable() or "%" in password:
        raise HostError(f'password file {path} must begin with a line of printable characters without "%"', fatal=True)
    return password
