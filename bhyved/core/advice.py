"""What a guest's configuration will run into: releases that refuse it, and things that are legal but will surprise.

For `plan`, `check` and `doctor`. Nothing here stops a start: the host's own answer counts.
"""

from collections.abc import Iterator

from bhyved.core import saved, slots
from bhyved.core.assigned import Target, vars_template
from bhyved.core.spec import VmSpec
from bhyved.core.units import Size
from bhyved.core.values import split_endpoint

TARGETS = tuple(Target(release, arch) for arch in ("amd64", "arm64") for release in ("14", "15", "main"))

Remark = tuple[str, str]  # key, sentence


def objections(spec: VmSpec, target: Target) -> tuple[Remark, ...]:
    """Why bhyve of this host would not run the guest."""
    found = list(_arch(spec, target))
    found += [(key, f"needs {needed} or newer") for key, needed in _needs(spec) if _older(target.release, needed)]
    return tuple(found)


def remark_text(remark: Remark) -> str:
    key, sentence = remark
    return f"{key}: {sentence}" if key else sentence


def releases_accepting(spec: VmSpec) -> dict[Target, tuple[Remark, ...]]:
    """Every release and architecture, each with what is against it; nothing means that it accepts the guest."""
    return {target: objections(spec, target) for target in TARGETS}


def warnings(spec: VmSpec, target: Target, *, host_memory: int | None = None, host_cpus: int | None = None) -> tuple[Remark, ...]:
    """What is legal but probably not meant."""
    found = [
        *_console_remarks(spec),
        *_device_remarks(spec),
        *_seed_remarks(spec),
        *_windows_remarks(spec),
        *_boot_remarks(spec),
        *_release_remarks(spec, target),
    ]
    if host_memory is not None and spec.memory > host_memory:
        found.append(("memory", f"{spec.memory} is more than the host has, which is {Size(host_memory >> 20 << 20)}"))
    if host_cpus is not None and spec.cpus.count > host_cpus:
        found.append(("cpus", f"{spec.cpus.count} vCPUs are more than the host's {host_cpus} CPUs"))
    if target.arch == "arm64" and spec.stop.command is None:
        found.append(("stop.command", "arm64 has no ACPI button: without a command the guest's power is cut"))
    if spec.stop.on_host_shutdown == "suspend":
        found += [("stop.on-host-shutdown", f"{why}; it is stopped instead") for why in saved.objections(spec, target.arch)]
    return tuple(found)


def _older(release: str, needed: str) -> bool:
    order = ("14", "15", "main")
    return order.index(release) < order.index(needed)


def _needs(spec: VmSpec) -> Iterator[tuple[str, str]]:
    """Features and the first release that has them (contract 8.7)."""
    if spec.tpm is not None and spec.tpm.type == "swtpm":
        yield "tpm.type", "15"
    for index, port in enumerate(spec.serial):
        if port.mode == "tcp":
            yield f"serial[{index}].mode", "15"
    for index, card in enumerate(spec.network):
        if card.slirp is not None:
            yield f"network[{index}].slirp", "15"
            if card.slirp.open:
                yield f"network[{index}].slirp.open", "main"
    if spec.graphics is not None and spec.graphics.listen.startswith("unix:"):
        yield "graphics.listen", "15"
    if spec.cpus.numa:
        yield "cpus.numa", "main"


def _arch(spec: VmSpec, target: Target) -> Iterator[Remark]:
    if target.arch == "amd64":
        if spec.boot.loader == "u-boot":
            yield "boot.loader", "u-boot is the firmware of arm64 hosts"
        return
    if target.release == "14":
        yield "", "bhyve runs on arm64 from 15 on"
    if spec.boot.loader != "u-boot":
        yield "boot.loader", 'arm64 hosts have "u-boot" only'
    if spec.passthru:
        yield "passthru", "arm64 hosts have no PCI passthrough"
    if spec.tpm is not None:
        yield "tpm", "a TPM is an LPC device, and arm64 has no LPC bridge"
    if len(spec.serial) > 1:
        yield "serial[1]", "arm64 has one console"
    if spec.cpus.numa:
        yield "cpus.numa", "arm64 hosts have no NUMA domains for guests"


def _console_remarks(spec: VmSpec) -> Iterator[Remark]:
    graphics = spec.graphics
    if graphics is not None and not graphics.listen.startswith("unix:"):
        address = split_endpoint(graphics.listen if graphics.listen.has_port else f"{graphics.listen}:0", least=0)[0]
        if address in ("0.0.0.0", "::") and graphics.password_file is None:
            yield "graphics.listen", f"VNC on {address} without password-file is open to the whole network"
    if graphics is not None and graphics.wait:
        yield "graphics.wait", "the first run waits for a VNC client, for ever if none comes"
    if graphics is not None and not spec.boot.has_bootrom:
        yield "graphics", "a guest without firmware finds no frame buffer"
    for index, port in enumerate(spec.serial):
        if port.address is not None and not split_endpoint(port.address)[0].startswith(("127.", "::1")):
            yield f"serial[{index}].address", "a TCP console has no password and no encryption"
        if port.port == "com1" and port.mode == "tcp" and spec.boot.loader in ("bhyveload", "grub"):
            yield f"serial[{index}].mode", "the loader cannot use a TCP console: its menu is seen by nobody"
    if not any(port.port == "com1" for port in spec.serial) and spec.boot.loader in ("bhyveload", "grub"):
        yield "serial", "without com1 nobody sees what the loader says"


def _device_remarks(spec: VmSpec) -> Iterator[Remark]:
    for index, disk in enumerate(spec.disk):
        if disk.path is not None and "," in disk.path:
            yield f"disk[{index}].path", "a comma in a path is fine here, but not for tools that use bhyve -s"
        if disk.ram is not None:
            yield f"disk[{index}].ram", "the disk's contents are gone after every run"
    for index, card in enumerate(spec.network):
        if card.tap is not None and card.bridge is None:
            yield f"network[{index}].tap", f"{card.tap} must be on its bridge before the start: without one the guest is silently alone"
    for key, place in slots.assign(spec, {}).items():
        (bus, slot, func), _ = slots.split(place)
        if func and not any(slots.split(other)[0] == (bus, slot, 0) for other in slots.assign(spec, {}).values()):
            yield key, f"slot {place} has no function 0, so the guest may not look at it"
    for index, device in enumerate(spec.passthru):
        if not device.device.startswith("ppt"):
            yield f"passthru[{index}].device", f"{device.device} must be held by ppt(4): see pptdevs in loader.conf"


def _seed_remarks(spec: VmSpec) -> Iterator[Remark]:
    table = spec.cloud_init
    if table is not None and table.user_data is None and not table.ssh_keys and table.password_hash_file is None:
        yield "cloud-init", "nobody is told how to log in: there are neither ssh-keys nor password-hash-file"


def _windows_remarks(spec: VmSpec) -> Iterator[Remark]:
    """Windows keeps local time, by which it is known here. Its client editions use two sockets at most, however many they are given."""
    if spec.clock != "localtime":
        return
    if spec.cpus.sockets > 2:
        yield "cpus", f"{spec.cpus.sockets} sockets: Windows uses as many as its licence says, mostly 2; use cores instead"
    if spec.graphics is None or not any(drive.when == "install" for drive in spec.cdrom):
        return
    for index, disk in enumerate(spec.disk):
        if disk.model in ("virtio-blk", "virtio-scsi"):
            yield f"disk[{index}].model", f"the installer of Windows has no driver for {disk.model} and finds no disk; nvme needs none"
    for index, card in enumerate(spec.network):
        if card.model == "virtio-net":
            yield f"network[{index}].model", "Windows has no driver for virtio-net until virtio-win is installed; e1000 needs none"


def _boot_remarks(spec: VmSpec) -> Iterator[Remark]:
    if spec.boot.loader == "uefi" and not vars_template(spec) and spec.boot.vars is None:
        yield "boot.keep-vars", "the guest forgets its boot order at each power-off"
    if spec.boot.loader == "bhyveload" and not (spec.disk or spec.cdrom or spec.boot.bhyveload.disk or spec.boot.bhyveload.host_dir):
        yield "boot.loader", "bhyveload has nothing to load from"
    if spec.boot.loader == "grub" and not (spec.disk or spec.cdrom or spec.boot.grub.commands):
        yield "boot.loader", "grub has nothing to load from"
    if spec.bhyve.options.get("gdb.wait") == "true":
        yield 'bhyve.options."gdb.wait"', "the guest stands still until a debugger connects"
    if spec.bhyve.options.get("acpi_tables") == "false":
        yield "bhyve.options.acpi_tables", "without ACPI the guest cannot be asked to stop"
    if spec.bhyve.options.get("x86.vmexit_on_hlt") == "false":
        yield 'bhyve.options."x86.vmexit_on_hlt"', "each idle vCPU uses a whole CPU of the host"


def _release_remarks(spec: VmSpec, target: Target) -> Iterator[Remark]:
    if target.release == "15" and spec.graphics is not None and spec.graphics.listen.startswith("unix:"):
        yield "graphics.listen", "a UNIX socket for VNC came with 15.1; 15.0 refuses it"
    if target.release == "15" and spec.passthru:
        yield "passthru", "15.0 needs errata EN-25:20 for it"
    if target.release == "14" and spec.boot.fwcfg == "qemu":
        yield "boot.fwcfg", "support depends on the firmware package"
