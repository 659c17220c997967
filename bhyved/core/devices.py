"""The hardware of a guest, as its file describes it: one frozen struct a table (contract 3).

Defaults stand here and nowhere else; bhyved.toml(5) quotes them and a test compares. What becomes of it all is decided in `slots`
and `bhyveconf`.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from bhyved.core.table import Rule, Table
from bhyved.core.units import Size
from bhyved.core.values import AbsPath, Endpoint, Interface, Listen, Mac, PciDevice, Resolution, SectorSize, Slot, SocketPath, Text

AHCI_PORTS = 32  # contract 3.7
CONSOLE_PORTS = 16


class Create(Table, frozen=True, kw_only=True):
    """`disk.create`: what `vmctl create` makes when the disk is not there."""

    size: Size
    sparse: bool = False


class Disk(Table, frozen=True, kw_only=True):
    """`[[disk]]`."""

    path: AbsPath | None = None
    model: Literal["virtio-blk", "ahci-hd", "nvme", "virtio-scsi"] = "virtio-blk"
    read_only: bool = False
    shared: bool = False
    nocache: bool = False
    sync: bool = False
    discard: bool = True
    sector_size: SectorSize | None = None
    boot_index: Annotated[int, Meta(ge=0, le=65535)] | None = None
    serial: Text | None = None
    controller: Text | None = None
    slot: Slot | None = None
    create: Create | None = None
    # ahci-hd
    rotation_rate: Annotated[int, Meta(ge=0, le=65535)] | None = None
    revision: Text | None = None
    product: Text | None = None
    # nvme
    ram: Size | None = None
    max_queues: Annotated[int, Meta(ge=1, le=65535)] | None = None
    queue_size: Annotated[int, Meta(ge=2, le=65535)] | None = None
    io_slots: Annotated[int, Meta(ge=1, le=65535)] | None = None
    eui64: Text | None = None
    dsm: Literal["auto", "enable", "disable"] = "auto"
    # virtio-scsi
    initiator_id: Annotated[int, Meta(ge=0, le=65535)] | None = None

    @property
    def identity(self) -> str:
        """What stays the same when the file is edited: slots are remembered under it."""
        return f"disk:{self.path}" if self.path is not None else f"disk:ram {self.serial or ''}".rstrip()

    def rules(self) -> Iterator[Rule]:
        if self.path is None and self.ram is None:
            yield "path", "is missing: a file, a zvol or a disk device"
        if self.path is not None and self.ram is not None:
            yield "ram", "a disk has a path or is in memory, not both"
        if self.ram is not None and (self.ram < 1 << 20 or self.ram % (1 << 20)):
            yield "ram", "must be whole megabytes"
        for key in self._foreign_keys():
            yield key, f'model = "{self.model}" has no such option'
        if self.controller is not None and self.slot is not None:
            yield "slot", "a disk on a named controller has the controller's slot"
        longest = 20  # characters kept of a serial number; bhyve cuts the rest silently (contract 3.2)
        if self.serial is not None and len(self.serial) > longest:
            yield "serial", f"has at most {longest} characters"
        if self.revision is not None and len(self.revision) > 8:
            yield "revision", "has at most 8 characters"
        if self.product is not None and len(self.product) > 40:
            yield "product", "has at most 40 characters"

    def _foreign_keys(self) -> Iterator[str]:
        given: dict[str, tuple[bool, tuple[str, ...]]] = {
            "controller": (self.controller is not None, ("ahci-hd",)),
            "rotation-rate": (self.rotation_rate is not None, ("ahci-hd",)),
            "revision": (self.revision is not None, ("ahci-hd",)),
            "product": (self.product is not None, ("ahci-hd",)),
            "ram": (self.ram is not None, ("nvme",)),
            "max-queues": (self.max_queues is not None, ("nvme",)),
            "queue-size": (self.queue_size is not None, ("nvme",)),
            "io-slots": (self.io_slots is not None, ("nvme",)),
            "eui64": (self.eui64 is not None, ("nvme",)),
            "dsm": (self.dsm != "auto", ("nvme",)),
            "initiator-id": (self.initiator_id is not None, ("virtio-scsi",)),
        }
        if self.model == "virtio-scsi":
            given |= {
                "read-only": (self.read_only, ()),
                "nocache": (self.nocache, ()),
                "sync": (self.sync, ()),
                "discard": (not self.discard, ()),
                "sector-size": (self.sector_size is not None, ()),
                "serial": (self.serial is not None, ()),
            }
        yield from (key for key, (is_given, models) in given.items() if is_given and self.model not in models)


class Cdrom(Table, frozen=True, kw_only=True):
    """`[[cdrom]]`."""

    path: AbsPath
    when: Literal["always", "install"] = "always"
    boot_index: Annotated[int, Meta(ge=0, le=65535)] | None = None
    controller: Text | None = None
    slot: Slot | None = None

    @property
    def identity(self) -> str:
        return f"cdrom:{self.path}"

    def rules(self) -> Iterator[Rule]:
        if self.controller is not None and self.slot is not None:
            yield "slot", "a drive on a named controller has the controller's slot"


class Netgraph(Table, frozen=True, kw_only=True):
    """`network.netgraph`: a hook of a netgraph node (contract 3.2)."""

    path: Text
    peer_hook: Text
    hook: Text | None = None
    socket: Text | None = None


class Slirp(Table, frozen=True, kw_only=True):
    """`network.slirp`: user-mode network, package libslirp, 15 and newer."""

    forward: tuple[Text, ...] = ()
    open: bool = False


class Network(Table, frozen=True, kw_only=True):
    """`[[network]]`. Without a backend the guest sees an unplugged card."""

    bridge: Interface | None = None
    tap: Interface | None = None
    vmnet: Interface | None = None
    netmap: Text | None = None
    netgraph: Netgraph | None = None
    slirp: Slirp | None = None
    model: Literal["virtio-net", "e1000"] = "virtio-net"
    mac: Mac | None = None
    mtu: Annotated[int, Meta(ge=68, le=65535)] | None = None
    slot: Slot | None = None

    @property
    def wants_tap(self) -> bool:
        """Whether bhyved makes and destroys a tap for it."""
        return self.bridge is not None and self.tap is None and self.vmnet is None

    def rules(self) -> Iterator[Rule]:
        backends = ("tap", "vmnet", "netmap", "netgraph", "slirp")
        given = [key for key in backends if getattr(self, key) is not None]
        if len(given) > 1:
            yield given[1], f"a card has one backend, and {given[0]} is given too"
        if self.bridge is not None and given and given[0] not in ("tap", "vmnet"):
            yield "bridge", f"a card on {given[0]} cannot be on a bridge"
        # bhyve picks the backend by the beginning of the interface's name (contract 3.2).
        if self.tap is not None and not _is_numbered(self.tap, "tap"):
            yield "tap", 'must be named "tap" and a number: bhyve opens nothing else as a tap'
        if self.vmnet is not None and not _is_numbered(self.vmnet, "vmnet"):
            yield "vmnet", 'must be named "vmnet" and a number'
        if self.netmap is not None and not self.netmap.startswith(("netmap:", "vale")):
            yield "netmap", 'must be "netmap:INTERFACE" or "valeSWITCH:PORT"'
        if self.mtu is not None and self.model != "virtio-net":
            yield "mtu", 'only model = "virtio-net" has it'


class Serial(Table, frozen=True, kw_only=True):
    """`[[serial]]`: com1 to com4; on arm64 the first is the console."""

    port: Literal["com1", "com2", "com3", "com4"] = "com1"
    mode: Literal["managed", "external", "tcp", "device"] = "managed"
    address: Endpoint | None = None  # tcp
    device: AbsPath | None = None  # device: any tty; external: an nmdm A side of one's own choice
    on_detach: Literal["nothing", "hangup-line"] = "nothing"
    hangup_line: str = "\x04"  # end of file: a shell logs out, a login prompt asks again
    log: bool = True
    log_timestamps: bool = False
    log_max_size: Size | None = None
    log_keep: Annotated[int, Meta(ge=0, le=1000)] | None = None
    socket: bool = False

    def rules(self) -> Iterator[Rule]:
        if self.mode == "tcp" and self.address is None:
            yield "address", 'mode = "tcp" needs one, such as "127.0.0.1:4001"'
        if self.mode != "tcp" and self.address is not None:
            yield "address", 'belongs to mode = "tcp"'
        if self.mode == "device" and self.device is None:
            yield "device", 'mode = "device" needs one, such as "/dev/ttyu1"'
        if self.mode in ("managed", "tcp") and self.device is not None:
            yield "device", f'mode = "{self.mode}" has none: bhyved chooses it'
        if self.mode != "managed" and (self.on_detach != "nothing" or self.socket or self.log_timestamps):
            key = "on-detach" if self.on_detach != "nothing" else "socket" if self.socket else "log-timestamps"
            yield key, f'bhyved does not see the console of a port with mode = "{self.mode}"'


class Graphics(Table, frozen=True, kw_only=True):
    """`[graphics]`: a frame buffer shown by VNC (contract 3.5)."""

    listen: Listen = Listen("127.0.0.1")
    resolution: Resolution = Resolution("1024x768")
    vga: Literal["io", "off"] = "io"
    wait: bool = False
    password_file: AbsPath | None = None
    tablet: bool = True
    keyboard: Text | None = None
    slot: Slot | None = None
    tablet_slot: Slot | None = None

    def rules(self) -> Iterator[Rule]:
        if self.tablet_slot is not None and not self.tablet:
            yield "tablet-slot", "tablet is false"
        if self.keyboard is not None and "/" in self.keyboard:
            yield "keyboard", "must be the name of a file in /usr/share/bhyve/kbdlayout"


class Tpm(Table, frozen=True, kw_only=True):
    """`[tpm]`: the host's TPM, or swtpm started by bhyved for every run (contract 3.4)."""

    type: Literal["swtpm", "passthru"] = "swtpm"
    device: AbsPath = AbsPath("/dev/tpm0")
    version: Literal["2.0"] = "2.0"


class Passthru(Table, frozen=True, kw_only=True):
    """`[[passthru]]`: a PCI device of the host (contract 3.6)."""

    device: PciDevice
    rom: AbsPath | None = None
    boot_index: Annotated[int, Meta(ge=0, le=65535)] | None = None
    slot: Slot | None = None

    @property
    def identity(self) -> str:
        return f"passthru:{self.device}"


class Share(Table, frozen=True, kw_only=True):
    """`[[share]]`: a directory of the host by 9p."""

    name: Text
    path: AbsPath
    read_only: bool = False
    slot: Slot | None = None

    @property
    def identity(self) -> str:
        return f"share:{self.name}"


class VirtioConsole(Table, frozen=True, kw_only=True):
    """`[[virtio-console]]`: a port that the guest knows by name; the host's end is a UNIX socket."""

    name: Text
    path: SocketPath | None = None  # None: in the guest's own run directory


class Sound(Table, frozen=True, kw_only=True):
    """`[sound]`: an HD audio device on the host's /dev/dsp."""

    play: AbsPath = AbsPath("/dev/dsp0")
    record: AbsPath | None = None
    slot: Slot | None = None


class Random(Table, frozen=True, kw_only=True):
    """`[random]`: virtio-rnd; every guest has it unless it says no (contract 3.2)."""

    enabled: bool = True
    slot: Slot | None = None


class Input(Table, frozen=True, kw_only=True):
    """`[[input]]`: an input device of the host by virtio-input."""

    path: AbsPath
    slot: Slot | None = None

    @property
    def identity(self) -> str:
        return f"input:{self.path}"


def _is_numbered(name: str, word: str) -> bool:
    number = name.removeprefix(word)
    return name.startswith(word) and number.isascii() and number.isdigit()
