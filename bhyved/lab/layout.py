"""The files of a lab: its tree, what kind of host it is, and what a machine has when it comes up.

DIR/etc run db log dev bin      as `[paths]` of its bhyved.toml name them
DIR/share                       firmware, where a FreeBSD host has it in /usr/local/share: placeholders
DIR/lab                         what the stand-ins remember (`lab.state`)
"""

import os
import secrets
import shutil
from pathlib import Path

from bhyved.lab import launchers, state
from bhyved.lab.datasets import Pool
from bhyved.lab.netif import Net

DIRECTORIES = ("etc", "etc/vm.d", "etc/template.d", "run", "db", "log", "dev", "lab", "share")
#: What a host forgets when it goes down.
_VOLATILE = ("run", "dev", "lab/node", "lab/tap", "lab/bridge", "lab/title", "lab/module", "lab/jail")
_FIRMWARE = (
    "uefi-firmware/BHYVE_UEFI.fd",
    "uefi-firmware/BHYVE_UEFI_VARS.fd",
    "uefi-firmware/BHYVE_UEFI_CSM.fd",
    "u-boot/u-boot-bhyve-arm64/u-boot.bin",
)
_ROM_BYTES = 4096  # bhyve wants whole pages (contract 1.4)
_BRIDGE = "bridge0"
_PATH_BYTES = 103  # of a socket: sun_path has 104 on FreeBSD


def make(root: Path, **kind: str) -> None:
    """Make what is missing of the tree. `kind` (release, arch, engine, network) is set where it is given. Raises OSError, ValueError."""
    for name in DIRECTORIES:
        (root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in _FIRMWARE:
        rom = root / "share" / name
        if not rom.exists():
            rom.parent.mkdir(parents=True, exist_ok=True)
            rom.write_bytes(bytes(_ROM_BYTES))
    with state.Locked(str(root), "settings"):
        settings = state.settings(str(root))
        if not settings:
            settings = {"hostuuid": _uuid(), "boot_id": secrets.token_hex(16)}
        state.write(str(root / "lab" / "settings.json"), settings | kind)
    launchers.write(root)


def boot(root: Path) -> None:
    """What the power-on of a host does: a new boot id, nothing in its volatile places, its interfaces and modules as configured."""
    clear(root)
    with state.Locked(str(root), "settings"):
        settings = state.settings(str(root))
        state.write(str(root / "lab" / "settings.json"), settings | {"boot_id": secrets.token_hex(16)})
    with state.Locked(str(root), "net"):
        net = Net(str(root))
        for name, address in (("lo0", "127.0.0.1 netmask 0xff000000"), ("em0", "192.0.2.10 netmask 0xffffff00 broadcast 192.0.2.255")):
            if net.find(name) is None:
                nic = net.create("nic", name)
                nic.up, nic.addresses, nic.groups = True, [address], ["lo"] if name == "lo0" else []
                net.save(nic)
        bridge = net.create("bridge", _BRIDGE)
        bridge.up = True
        net.save(bridge)
    pool = Pool(str(root))
    pool.make_links(pool.volumes())
    (root / "lab" / "module").mkdir(exist_ok=True)
    (root / "lab" / "module" / "vmm").touch()


def clear(root: Path) -> None:
    """Forget what a host forgets when it goes down."""
    for name in _VOLATILE:
        directory = root / name
        for entry in directory.iterdir() if directory.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def network(root: Path) -> str:
    """What its taps and bridges are: simulated, or real ones of Linux's."""
    return str(state.settings(str(root)).get("network", "simulated"))


def engine(root: Path) -> str:
    """What runs guests that do not say: sim or qemu."""
    return str(state.settings(str(root)).get("engine", "sim"))


def _uuid() -> str:
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def too_long(root: Path) -> str:
    """The socket that would have too long a path below this root; empty: all fit."""
    sockets = (f"{root}/run/control.sock", f"{root}/lab/host.sock")
    return next((path for path in sockets if len(os.fsencode(path)) > _PATH_BYTES), "")
