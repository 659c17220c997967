"""A bhyve configuration as a QEMU command line: board, memory, CPUs, firmware, com ports and TPM.

Pure but for looks at files. QEMU is told to stay, paused, after the guest has ended (-action), so that nothing races
with the engine's finding out how; every reset goes into a log, where a triple fault differs from a reboot.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bhyved.lab.options import memory_bytes
from bhyved.lab.qemu_devices import RefusedError, Surroundings, device_arguments, option, pci_devices
from bhyved.lab.tree import is_true

QEMU = "qemu-system-x86_64"
ROM_BYTES = 1 << 20  # real UEFI images are larger; what is smaller stands for one
_RESET_VECTOR_BYTES = 16  # before the end, where an x86 CPU begins
_VOLUME_MAGIC = (0x28, b"_FVH")  # where a UEFI firmware volume, thus a variable store, carries its signature
_OVMF = (  # code and variable template, as Debian, Fedora and Arch name them
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
)


@dataclass(frozen=True)
class Payload:
    """A kernel that QEMU loads itself, in the place of what a loader would have put into the guest's memory."""

    kernel: str
    initrd: str | None = None
    append: str = ""


@dataclass(frozen=True)
class Wiring:
    """What the engine holds in its hands for QEMU: descriptors by number, files by path."""

    qmp: int
    reset_log: Path
    com: Mapping[int, int] = field(default_factory=dict)  # com port 1..4 -> our socket's other end
    tpm: int | None = None


def command_line(config: Mapping[str, str], around: Surroundings, wiring: Wiring, payload: Payload | None = None) -> list[str]:
    """The whole argv. Raises RefusedError when bhyve could not have this guest, or QEMU cannot."""
    argv = [shutil.which(QEMU) or QEMU]
    argv += ["-name", option("", guest=around.vm), "-accel", "tcg", "-M", "q35", "-nodefaults", "-display", "none"]
    argv += ["-no-user-config", "-action", "reboot=shutdown,shutdown=pause", "-d", "cpu_reset", "-D", str(wiring.reset_log)]
    argv += ["-chardev", option("socket", id="qmp", fd=wiring.qmp), "-mon", "chardev=qmp,mode=control"]
    argv += ["-m", f"{memory_bytes(config.get('memory.size', '256M'))}b", "-smp", _topology(config)]
    argv += ["-rtc", f"base={'localtime' if is_true(config.get('rtc.use_localtime', 'true')) else 'utc'}"]
    argv += _identity(config)
    argv += _firmware(config)
    argv += _payload(payload)
    for number, wire in wiring.com.items():
        argv += ["-chardev", option("socket", id=f"com{number}", fd=wire)]
        argv += ["-device", option("isa-serial", chardev=f"com{number}", index=number - 1)]
    if wiring.tpm is not None:
        argv += ["-chardev", option("socket", id="tpm", fd=wiring.tpm), "-tpmdev", "emulator,id=tpm0,chardev=tpm"]
        argv += ["-device", "tpm-crb,tpmdev=tpm0"]
    return argv + device_arguments(pci_devices(config), around)


def _topology(config: Mapping[str, str]) -> str:
    known = {"cpus": "cpus", "sockets": "sockets", "cores": "cores", "threads": "threads"}
    words = {word: config[key] for key, word in known.items() if key in config}
    return option("", **words) or "cpus=1"


def _identity(config: Mapping[str, str]) -> list[str]:
    """What the guest reads as its SMBIOS system, with bhyve's defaults (contract 1.4)."""
    system = option(
        "",
        type=1,
        manufacturer=config.get("system.manufacturer", "FreeBSD"),
        product=config.get("system.product_name", "BHYVE"),
        version=config.get("system.version", "1.0"),
        serial=config.get("system.serial_number", "None"),
    )
    uuid = config.get("uuid")
    return ["-smbios", system, *(["-uuid", uuid] if uuid else [])]


def _firmware(config: Mapping[str, str]) -> list[str]:
    """No bootrom, or one whose name says CSM: QEMU's own SeaBIOS. Else pflash, with the variables in unit 1."""
    bootrom = config.get("bootrom") or config.get("lpc.bootrom")
    if bootrom is None or "CSM" in Path(bootrom).name.upper():
        return []
    code, template = bootrom, None
    if os.path.getsize(bootrom) < ROM_BYTES and not has_code(bootrom):
        code, template = _ovmf()
    argv = ["-drive", _pflash(0, code, read_only=True)]
    variables = config.get("bootvars") or config.get("lpc.bootvars")
    if variables is not None:
        if template is not None and not _is_variable_store(variables):
            shutil.copyfile(template, variables)  # a placeholder beside a placeholder: give it a real store to keep
        argv += ["-drive", _pflash(1, variables, read_only=False)]
    return argv


def has_code(bootrom: str) -> bool:
    """Whether a CPU would find anything at its reset vector: the lab's placeholders are empty."""
    with open(bootrom, "rb") as rom:
        rom.seek(-_RESET_VECTOR_BYTES, os.SEEK_END)
        return any(rom.read(_RESET_VECTOR_BYTES))


def _pflash(unit: int, path: str, *, read_only: bool) -> str:
    return option("", **{"if": "pflash", "unit": unit, "format": "raw", "readonly": read_only, "file": path})


def _ovmf() -> tuple[str, str]:
    for code, template in _OVMF:
        if os.path.exists(code) and os.path.exists(template):
            return code, template
    raise RefusedError("the lab's qemu engine found no UEFI firmware (package ovmf); a bootrom named …CSM… is SeaBIOS")


def _is_variable_store(path: str) -> bool:
    offset, magic = _VOLUME_MAGIC
    with open(path, "rb") as store:
        store.seek(offset)
        return store.read(len(magic)) == magic


def _payload(payload: Payload | None) -> list[str]:
    if payload is None:
        return []
    initrd = ["-initrd", payload.initrd] if payload.initrd else []
    return ["-kernel", payload.kernel, *initrd, "-append", payload.append]
