"""Processors and the way to the first instruction: `cpus` and `[boot]`."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from bhyved.core.table import Rule, Table
from bhyved.core.units import Duration, Settings, Size
from bhyved.core.values import AbsPath, Text

_VARIABLE = re.compile(r"[A-Za-z0-9_.-]+")
MOST_CPUS = 1024  # far above any host; keeps a typing error from becoming arithmetic


class NumaDomain(Table, frozen=True, kw_only=True):
    """`[[cpus.numa]]`: main only, at most 8 domains (contract 1.2)."""

    size: Size
    cpus: Text

    def rules(self) -> Iterator[Rule]:
        if not is_cpu_list(self.cpus):
            yield "cpus", 'must be a list of vCPUs, such as "0-1"'


class Topology(Table, frozen=True, kw_only=True):
    """`cpus = 2`, or a table. A bare number is so many sockets, as bhyve counts it (contract 1.5)."""

    sockets: Annotated[int, Meta(ge=1, le=MOST_CPUS)] = 1
    cores: Annotated[int, Meta(ge=1, le=MOST_CPUS)] = 1
    threads: Annotated[int, Meta(ge=1, le=MOST_CPUS)] = 1
    pin: tuple[Text, ...] = ()  # "vcpu:hostcpus"
    numa: Annotated[tuple[NumaDomain, ...], Meta(max_length=8)] = ()

    @property
    def count(self) -> int:
        return self.sockets * self.cores * self.threads

    def rules(self) -> Iterator[Rule]:
        if self.count > MOST_CPUS:
            yield "", f"{self.count} vCPUs are more than any host has"
        for index, pin in enumerate(self.pin):
            vcpu, _, hosts = pin.partition(":")
            if not (vcpu.isascii() and vcpu.isdigit() and is_cpu_list(hosts)):
                yield f"pin[{index}]", f'{pin!r} must be a vCPU and host CPUs, such as "0:2" or "1:4-6"'
            elif int(vcpu) >= self.count:
                yield f"pin[{index}]", f"there is no vCPU {int(vcpu)}: this guest has {self.count}, counted from 0"


class Bhyveload(Table, frozen=True, kw_only=True):
    """`boot.bhyveload`: the FreeBSD loader, run on the host (contract 2.2)."""

    disk: tuple[AbsPath, ...] = ()  # empty: the install medium when installing, else the guest's disks
    loader: AbsPath | None = None
    env: Settings = Settings()
    host_dir: AbsPath | None = None

    def rules(self) -> Iterator[Rule]:
        for name, value in self.env.items():
            if not _VARIABLE.fullmatch(name):
                yield f'env."{name}"', "must be the name of a loader variable, such as autoboot_delay"
            try:
                Text.parse(value)
            except ValueError as err:
                yield f'env."{name}"', str(err)


class Grub(Table, frozen=True, kw_only=True):
    """`boot.grub`: grub-bhyve (contract 2.3). With commands bhyved writes the grub.cfg; without, the guest's own is used."""

    root: Text | None = None  # -r; default: hd0,1 (where the guest keeps its grub.cfg)
    directory: Text | None = None  # -d
    file: Text | None = None  # -g
    commands: tuple[Text, ...] = ()
    install_root: Text = Text("cd0")
    install_directory: Text | None = None
    install_commands: tuple[Text, ...] = ()
    openbsd_console: bool = True  # -n switches it off
    vga_size: bool = True  # -e switches it off


class Boot(Table, frozen=True, kw_only=True):
    """`[boot]`: how the guest gets its first instruction."""

    loader: Literal["uefi", "uefi-csm", "bhyveload", "grub", "u-boot"] = "uefi"
    firmware: AbsPath | None = None  # None: the package's, by loader
    keep_vars: bool = True  # UEFI variables survive; else the boot order is lost at each power-off (contract 2.4)
    vars: AbsPath | None = None  # None: a copy of bhyved's own, made once per guest
    vars_template: AbsPath | None = None  # None: the one beside the firmware
    fwcfg: Literal["bhyve", "qemu"] = "bhyve"
    bhyveload: Bhyveload = Bhyveload()
    grub: Grub = Grub()
    timeout: Duration = Duration(60)

    @property
    def has_bootrom(self) -> bool:
        """With a bootrom there is no loader step (contract 2.1)."""
        return self.loader in ("uefi", "uefi-csm", "u-boot")

    def rules(self) -> Iterator[Rule]:
        if self.timeout <= 0:
            yield "timeout", "must be longer than 0s"
        if self.firmware is not None and not self.has_bootrom:
            yield "firmware", f'loader = "{self.loader}" uses no firmware'
        if self.vars is not None and self.loader not in ("uefi", "uefi-csm"):
            yield "vars", f'loader = "{self.loader}" has no UEFI variables'
        if self.vars is not None and not self.keep_vars:
            yield "keep-vars", "false contradicts vars"
        if self.bhyveload != Bhyveload() and self.loader != "bhyveload":
            yield "bhyveload", f'is given, but loader is "{self.loader}"'
        if self.grub != Grub() and self.loader != "grub":
            yield "grub", f'is given, but loader is "{self.loader}"'


def is_cpu_list(text: str) -> bool:
    """Whether `text` is a cpuset list such as `0-3,6`."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and len(first) < 5):
            return False
        if dash and not (last.isascii() and last.isdigit() and len(last) < 5 and int(first) <= int(last)):
            return False
    return True
