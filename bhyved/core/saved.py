"""A guest's state on disk: which guests can be suspended, what is remembered beside bhyve's files, and when a state may be resumed.

bhyve stores memory and device state, not the devices: a resumed guest must be given the same ones, on the disks as it left them, by the
bhyve that saved it, on the same kind of CPU (contract 6.2, 6.5). `host.statefiles` keeps the files, `host.prepare` asks here.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec

from bhyved.core.reload import Effect, compare
from bhyved.core.spec import VmSpec

SAVED_VERSION = 1

#: Changes that bhyve's devices do not see, though they wait for another run.
_HARMLESS = ("stop.", "graphics.wait", "boot.grub.install-")


class DiskMark(msgspec.Struct, frozen=True):
    """A disk image as the guest left it. A zvol or disk device has no such marks."""

    size: int
    mtime_ns: int


class SavedState(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What stands beside bhyve's files. A `version` above SAVED_VERSION is refused, not guessed at."""

    version: int = SAVED_VERSION
    run: str  # the run that it is the state of
    by: str
    at: datetime
    spec: str  # as started, JSON
    devices: tuple[str, ...] = ()  # see `devices_in`
    bhyve: str = ""  # the program as it was when the run began
    cpu: str = ""  # hw.model
    disks: dict[str, DiskMark] = {}
    seed: str = ""  # the fingerprint of the cloud-init seed that was attached


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """The host at the time of the resume, in the same words."""

    bhyve: str
    cpu: str
    disks: Mapping[str, DiskMark]


def objections(spec: VmSpec, arch: str) -> tuple[str, ...]:
    """Why bhyve could not save this guest's state; a sentence each."""
    return tuple(_objections(spec, arch))


def _objections(spec: VmSpec, arch: str) -> Iterator[str]:
    if arch != "amd64":
        yield f"bhyve saves a guest's state on amd64 only, and this is {arch}"
    if spec.passthru:
        yield "a guest with a [[passthru]] device cannot be saved: the device's state is not bhyve's"
    for model in sorted({disk.model for disk in spec.disk} & {"nvme", "virtio-scsi"}):
        yield f'bhyve cannot save a disk with model = "{model}": "ahci-hd" is what it saves best'
    without = {"[[share]]": spec.share, "[[virtio-console]]": spec.virtio_console, "[sound]": spec.sound, "[tpm]": spec.tpm}
    for table, given in without.items():
        if given:
            yield f"bhyve cannot save the device of {table}"


def risks(spec: VmSpec) -> tuple[str, ...]:
    """What bhyve saves, but is known to have lost; a sentence each."""
    return tuple(_risks(spec))


def _risks(spec: VmSpec) -> Iterator[str]:
    seed_as = "" if spec.cloud_init is None else spec.cloud_init.model
    virtio_disks = [*(disk.model for disk in spec.disk), seed_as].count("virtio-blk")
    if virtio_disks:
        yield 'model = "virtio-blk" has code to be saved, and the Handbook says that it does not work: "ahci-hd" is safer'
    controllers = [disk.controller or disk.identity for disk in spec.disk if disk.model == "ahci-hd"]
    controllers += [cdrom.controller or cdrom.identity for cdrom in spec.cdrom if cdrom.when == "always"]
    controllers += ["cloud-init"] if seed_as == "ahci-cd" else []
    kinds = Counter({"ahci controller": len(set(controllers)), "network card": len(spec.network)})
    kinds["virtio-blk disk"] = virtio_disks
    for kind, count in kinds.items():
        if count > 1:
            yield f"it has {count} {kind}s, and older copies of bhyve restore one device of a kind only"
    if spec.graphics is not None:
        yield "[graphics] is saved, but seldom tried"


def devices_in(conf: str) -> tuple[str, ...]:
    """Which device is where, and with which MAC address, in a bhyve_config(5) file."""
    lines = (line.strip() for line in conf.splitlines())
    return tuple(sorted(line for line in lines if line.startswith("pci.") and line.partition("=")[0].endswith((".device", ".mac"))))


def moved(saved: SavedState, conf: str) -> str:
    """Why the file that bhyve would be given does not fit; '' when it does. Only a lost record of slots can bring that about."""
    odd = sorted(set(saved.devices) ^ set(devices_in(conf)))
    return f"its devices would be elsewhere: {', '.join(odd)}" if odd else ""


def mismatch(saved: SavedState, old: VmSpec | None, new: VmSpec, here: Here) -> str:
    """Why the state does not fit what would be started, with the remedy; '' when it does. `old`: the spec in it, None if unreadable."""
    if old is None:
        return "it was saved by another version of bhyved, which wrote the configuration in another way"
    keys = [change.key for change in compare(old, new) if change.effect is not Effect.LIVE and not change.key.startswith(_HARMLESS)]
    if keys:
        return f"the configuration has changed since ({', '.join(keys)}): put that back to resume it"
    if saved.bhyve != here.bhyve:
        return "bhyve has been upgraded since, and a state fits only the bhyve that saved it: boot the system as it was to resume it"
    if saved.cpu and here.cpu and saved.cpu != here.cpu:
        return f"it was saved on another kind of CPU ({saved.cpu})"
    changed = [path for path, mark in saved.disks.items() if here.disks.get(path) != mark]
    if changed:
        return f"{', '.join(changed)} has been written to since: roll it back to how it was, or the resumed guest would destroy it"
    return ""
