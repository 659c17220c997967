"""The userland loaders: bhyveload and grub-bhyve as argv, and the files that grub reads (contract 2.2, 2.3).

A guest with a bootrom has no loader step. The loader gets the same memory size and wiring as bhyve, and side A of com1 as its console,
so that the recording begins with its first byte.
"""

import msgspec

from bhyved.core.assigned import Assigned, attached
from bhyved.core.bhyveconf import console_backend
from bhyved.core.spec import VmSpec

DEVICE_MAP = "device.map"
GRUB_CFG = "grub.cfg"


class LoaderCall(msgspec.Struct, frozen=True):
    """What to run before bhyve. `files` go into the directory that `loader_call` was given.

    grub-bhyve drops to nobody before it reads (host) files (contract 2.3): the directory and the files must be readable for nobody.
    """

    argv: tuple[str, ...]
    files: dict[str, str] = {}  # name → text


def loader_call(spec: VmSpec, assigned: Assigned, directory: str) -> LoaderCall | None:
    """The loader's step of a run; None: a bootrom makes it unnecessary."""
    match spec.boot.loader:
        case "bhyveload":
            return LoaderCall(_bhyveload(spec, assigned))
        case "grub":
            return _grub(spec, assigned, directory)
        case _:
            return None


def _bhyveload(spec: VmSpec, assigned: Assigned) -> tuple[str, ...]:
    boot = spec.boot.bhyveload
    argv = ["bhyveload", *_console(spec, assigned), "-m", str(spec.memory)]
    if spec.wired:
        argv.append("-S")
    for name, value in boot.env.items():
        argv += ["-e", f"{name}={value}"]
    if boot.loader is not None:
        argv += ["-l", boot.loader]
    if boot.host_dir is not None:
        argv += ["-h", boot.host_dir]
    for path in boot_disks(spec, assigned):
        argv += ["-d", path]
    return (*argv, spec.name)


def boot_disks(spec: VmSpec, assigned: Assigned) -> tuple[str, ...]:
    """What bhyveload may load from: the install medium alone while installing, as vmrun.sh does; else the disks."""
    if assigned.install:
        media = tuple(str(drive.path) for drive in attached(spec, install=True) if drive.when == "install")
        if media:
            return media
    if spec.boot.bhyveload.disk:
        return tuple(str(path) for path in spec.boot.bhyveload.disk)
    disks = tuple(str(disk.path) for disk in spec.disk if disk.path is not None and disk.model != "virtio-scsi")
    return disks or tuple(str(drive.path) for drive in attached(spec, install=assigned.install))


def _grub(spec: VmSpec, assigned: Assigned, directory: str) -> LoaderCall:
    boot = spec.boot.grub
    root: str = boot.install_root if assigned.install else boot.root or "hd0,1"
    grub_dir: str | None = boot.install_directory if assigned.install else boot.directory
    commands = boot.install_commands if assigned.install else boot.commands
    files = {DEVICE_MAP: device_map(spec, assigned)}
    if commands:
        root, grub_dir = "host", directory
        files[GRUB_CFG] = grub_cfg(commands)
    argv = ["grub-bhyve", "-m", f"{directory}/{DEVICE_MAP}", "-r", root]
    if grub_dir is not None:
        argv += ["-d", grub_dir]
    if boot.file is not None and not commands and not assigned.install:
        argv += ["-g", boot.file]
    argv += ["-M", str(spec.memory), *_console(spec, assigned)]
    argv += ["-S"] * spec.wired + ["-n"] * (not boot.openbsd_console) + ["-e"] * (not boot.vga_size)
    return LoaderCall((*argv, spec.name), files)


def device_map(spec: VmSpec, assigned: Assigned) -> str:
    """The drives as grub names them: hd0, hd1, … and cd0, …"""
    disks = [disk.path for disk in spec.disk if disk.path is not None and disk.model != "virtio-scsi"]
    lines = [f"(hd{number}) {path}" for number, path in enumerate(disks)]
    lines += [f"(cd{number}) {drive.path}" for number, drive in enumerate(attached(spec, install=assigned.install))]
    return "".join(f"{line}\n" for line in lines)


def grub_cfg(commands: tuple[str, ...]) -> str:
    """The given commands; without `boot` grub would wait at its prompt for ever."""
    last = () if commands[-1].split()[:1] == ["boot"] else ("boot",)
    return "".join(f"{line}\n" for line in (*commands, *last))


def _console(spec: VmSpec, assigned: Assigned) -> tuple[str, ...]:
    """com1, where it is a terminal; a loader cannot listen on TCP."""
    for port in spec.serial:
        if port.port == "com1" and port.mode != "tcp":
            return ("-c", console_backend(port, assigned))
    return ()
