"""What the host gives one run of a guest, and what is meant where its file leaves something open.

`host` fills an `Assigned` for a real run and keeps it in the ledger; `provisional` guesses one for `check` and `plan`, which must work
without a daemon and touch nothing.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from bhyved.core import macs, slots
from bhyved.core.devices import Cdrom
from bhyved.core.spec import VmSpec

UEFI = "/usr/local/share/uefi-firmware/BHYVE_UEFI.fd"
UEFI_CSM = "/usr/local/share/uefi-firmware/BHYVE_UEFI_CSM.fd"
UEFI_VARS = "BHYVE_UEFI_VARS.fd"  # beside the code image: the two must be of one version (contract 2.4)
U_BOOT = "/usr/local/share/u-boot/u-boot-bhyve-arm64/u-boot.bin"


class Target(msgspec.Struct, frozen=True):
    """The host that is rendered for."""

    release: Literal["14", "15", "main"] = "15"
    arch: Literal["amd64", "arm64"] = "amd64"

    def __str__(self) -> str:
        return f"FreeBSD {self.release} {self.arch}"


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """What the host gave one run. Maps are by the identities of `slots` (cards, drives) and by port or name."""

    slots: Mapping[str, str]
    macs: Mapping[str, str]
    taps: Mapping[str, str] = {}  # network identity → interface
    consoles: Mapping[str, str] = {}  # com1 → nmdm A side
    sockets: Mapping[str, str] = {}  # virtio-console name → path
    firmware: str = ""  # the file to use where the spec names none; "": by loader
    bootvars: str = ""
    tpm_socket: str = ""
    vnc: str = ""  # address:port or unix:/path
    vnc_password: str = ""
    uuid: str = ""
    seed: str = ""  # the image with the guest's cloud-init seed; "": not attached
    install: bool = False  # install media attached
    first_run: bool = True  # VNC waits on the first run only: nobody sits there at 3 a.m. when a guest restarts


def firmware(spec: VmSpec) -> str:
    """The bootrom that the spec means; empty with a userland loader."""
    defaults = {"uefi": UEFI, "uefi-csm": UEFI_CSM, "u-boot": U_BOOT}
    return str(spec.boot.firmware or defaults.get(spec.boot.loader, ""))


def vars_template(spec: VmSpec) -> str:
    """The file that a guest's UEFI variables begin as; empty: it has none of bhyved's making."""
    if spec.boot.loader != "uefi" or not spec.boot.keep_vars or spec.boot.vars is not None:
        return ""
    return str(spec.boot.vars_template or firmware(spec).rpartition("/")[0] + "/" + UEFI_VARS)


def attached(spec: VmSpec, *, install: bool) -> tuple[Cdrom, ...]:
    """The drives of this run: install media are there only while installing."""
    return tuple(drive for drive in spec.cdrom if install or drive.when == "always")


def nmdm_path(name: str, port: str, dev: str = "/dev") -> str:
    """Side A of a port's null-modem pair, bhyve's side; B, with the same name, is the hub's (contract 4.4)."""
    return f"{dev}/nmdm-{name}.{port.removeprefix('com')}A"


def provisional(spec: VmSpec, *, arch: str = "amd64", install: bool = False) -> Assigned:
    """A plausible assignment, for a guest that no daemon has started yet."""
    name = spec.name
    run = f"/var/run/bhyved/vm/{name}"
    cards = slots.network_identities(spec)
    taps = (identity for identity, card in zip(cards, spec.network, strict=True) if card.wants_tap)
    return Assigned(
        slots=slots.assign(spec, {}, arch),
        macs=macs.assign(spec, {}, host_id=""),
        taps={identity: f"tap{number}" for number, identity in enumerate(taps)},
        consoles={port.port: nmdm_path(name, port.port) for port in spec.serial},
        sockets={console.name: f"{run}/vtcon{number}.sock" for number, console in enumerate(spec.virtio_console)},
        bootvars=f"/var/db/bhyved/vars/{name}.fd" if vars_template(spec) else "",
        tpm_socket=f"{run}/tpm.sock",
        vnc="127.0.0.1:5900",
        seed=f"/var/db/bhyved/cloud-init/{name}.iso" if spec.cloud_init is not None else "",
        install=install,
    )
