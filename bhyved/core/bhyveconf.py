"""A guest's spec and what the host gave this run → the bhyve_config(5) file of the run.

The file is the whole truth about the guest: `bhyve -k FILE NAME` has no comma problem and shows nothing in ps. Pure; the driver of a
run calls `render`, `plan` prints the same. Names that only `-s` knows (`ahci-hd`, `ahci-cd`, `amd_hostbridge`) do not exist in a file
(contract 3.8). Values are never escaped, since no release can read an escape cleanly: what cannot be written is refused (contract 1.3).
"""

from collections.abc import Iterator

from bhyved.core import slots
from bhyved.core.assigned import Assigned, Target, firmware
from bhyved.core.devices import Serial
from bhyved.core.pcinodes import nodes
from bhyved.core.spec import VmSpec
from bhyved.core.values import Text

__all__ = ["Assigned", "ConfError", "Target", "Tree", "console_backend", "render", "tree", "written"]

Tree = dict[str, str]


class ConfError(ValueError):
    """A variable that cannot stand in the tree; the sentence is for the operator."""


def render(spec: VmSpec, assigned: Assigned, target: Target) -> str:
    """The text of the file. Raises ConfError."""
    return written(tree(spec, assigned, target))


def written(variables: Tree) -> str:
    """One `name=value` a line, no blanks around `=` (contract 1.3)."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def tree(spec: VmSpec, assigned: Assigned, target: Target) -> Tree:
    """Every variable of the run, `[bhyve] options` last: they may override ours, never break the tree."""
    variables: Tree = {}
    parts = [_machine(spec, assigned, target), _firmware(spec, assigned, target), _consoles(spec, assigned, target)]
    parts += [_tpm(spec, assigned), nodes(spec, assigned, target)]
    for part in parts:
        for name, value in part:
            variables[name] = _checked(name, value)
    for name, value in spec.bhyve.options.items():
        variables[name] = _checked(name, value)
    _check_nodes(variables)
    return variables


def _checked(name: str, value: str) -> str:
    try:
        return Text.parse(value)
    except ValueError as err:
        raise ConfError(f"{name}: {err}") from None


def _check_nodes(variables: Tree) -> None:
    """A name cannot be a value and a group of values at once: bhyve ends with 4 (contract 1.3)."""
    for name in variables:
        parts = name.split(".")
        for length in range(1, len(parts)):
            inner = ".".join(parts[:length])
            if inner in variables:
                raise ConfError(f"{name}: {inner} is a variable already, so nothing can be below it")


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _machine(spec: VmSpec, assigned: Assigned, target: Target) -> Iterator[tuple[str, str]]:
    cpus = spec.cpus
    yield "name", spec.name
    yield "cpus", str(cpus.count)
    yield "sockets", str(cpus.sockets)
    yield "cores", str(cpus.cores)
    yield "threads", str(cpus.threads)
    yield "memory.size", str(spec.memory)  # always with a suffix: a bare number is megabytes or bytes (contract 1.5)
    if spec.wired:
        yield "memory.wired", "true"
    if target.arch == "amd64":
        yield "acpi_tables", "true"  # false is the default on 14, where SIGTERM then kills the guest (contract 1.2, 1.8)
        yield "x86.vmexit_on_hlt", "true"  # else each idle vCPU burns a host CPU
        yield "x86.vmexit_on_pause", "true"  # helps SMP guests on loaded hosts
        yield "x86.strictmsr", "false"  # Windows, some Linux, AMD hosts; what vm-bhyve and bmd always do
        yield "rtc.use_localtime", _bool(spec.clock == "localtime")
        if any(slots.split(place)[0][0] for place in assigned.slots.values()):
            yield "x86.mptable", "false"  # required for devices beyond bus 0 (contract 3.1)
    uuid = spec.uuid or assigned.uuid
    if uuid:
        yield "uuid", uuid
    pins: dict[int, list[str]] = {}
    for pin in cpus.pin:
        vcpu, _, hosts = pin.partition(":")
        pins.setdefault(int(vcpu), []).append(hosts)
    for number, hosts_of in sorted(pins.items()):
        yield f"vcpu.{number}.cpuset", ",".join(hosts_of)
    for index, domain in enumerate(cpus.numa):
        yield f"domains.{index}.size", str(domain.size)
        yield f"domains.{index}.cpus", domain.cpus
    if spec.graphics is not None and spec.graphics.keyboard is not None:
        yield "keyboard.layout", spec.graphics.keyboard


def _firmware(spec: VmSpec, assigned: Assigned, target: Target) -> Iterator[tuple[str, str]]:
    """Both spellings, since each release uses its own and ignores the other (contract 1.4)."""
    if not spec.boot.has_bootrom:
        return
    rom = str(spec.boot.firmware or assigned.firmware or firmware(spec))
    bootvars = str(spec.boot.vars or assigned.bootvars)
    yield "bootrom", rom
    if target.arch == "arm64":
        return
    yield "lpc.bootrom", rom
    if bootvars:
        yield "bootvars", bootvars
        yield "lpc.bootvars", bootvars
    if spec.boot.fwcfg != "bhyve":
        yield "lpc.fwcfg", spec.boot.fwcfg


def _consoles(spec: VmSpec, assigned: Assigned, target: Target) -> Iterator[tuple[str, str]]:
    for port in spec.serial:
        backend = console_backend(port, assigned)
        if target.arch == "amd64":
            yield f"lpc.{port.port}.path", backend
        elif port is spec.serial[0]:
            yield "console", backend  # the one UART of arm64 (contract 2.5)


def console_backend(port: Serial, assigned: Assigned) -> str:
    """What bhyve opens for a port."""
    if port.mode == "tcp":
        return f"tcp={port.address}"
    return str(port.device or assigned.consoles[port.port])


def _tpm(spec: VmSpec, assigned: Assigned) -> Iterator[tuple[str, str]]:
    if spec.tpm is None:
        return
    yield "tpm.type", spec.tpm.type
    yield "tpm.path", str(spec.tpm.device) if spec.tpm.type == "passthru" else assigned.tpm_socket
    yield "tpm.version", spec.tpm.version  # only `-l tpm` has a default for it (contract 3.4)
