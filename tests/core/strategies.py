"""Hypothesis strategies for guests: every kind of device, with paths and names as hostile as the configuration allows."""

import msgspec
from hypothesis import strategies as st

from bhyved.core import slots
from bhyved.core.boot import Boot, Grub, Topology
from bhyved.core.cloudinit import CloudInit, Keys, UserName, Words
from bhyved.core.devices import (
    Cdrom,
    Disk,
    Graphics,
    Input,
    Netgraph,
    Network,
    Passthru,
    Random,
    Serial,
    Share,
    Slirp,
    Sound,
    Tpm,
    VirtioConsole,
)
from bhyved.core.spec import BhyveOptions, VmSpec
from bhyved.core.units import Settings, Size
from bhyved.core.values import AbsPath, Endpoint, Interface, Listen, Mac, PciDevice, Resolution, SocketPath, Text, Uuid


def accepted(text: str) -> bool:
    try:
        Text.parse(text)
    except ValueError:
        return False
    return True


NASTY = st.text(st.sampled_from("aB0 ,=;:#\\\"'$()[]{}/.-\u00e9\u2028\x85"), min_size=1, max_size=12)
WORDS = st.one_of(NASTY, st.text(min_size=1, max_size=12)).filter(accepted)
TEXTS = WORDS.map(Text)
PATHS = WORDS.map(lambda word: AbsPath(f"/{word}"))
SOCKETS = WORDS.map(lambda word: SocketPath(f"/{word}"))
MACS = st.integers(0, 0xFFFFFF).map(lambda n: Mac(f"58:9c:fc:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"))
NUMBERS = st.integers(0, 65535)


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


def short(length: int) -> st.SearchStrategy:
    return TEXTS.map(lambda text: Text(text[:length]))


BLOCK = {
    "read_only": st.booleans(),
    "nocache": st.booleans(),
    "sync": st.booleans(),
    "discard": st.booleans(),
    "boot_index": maybe(NUMBERS),
}
DISKS = st.one_of(
    st.builds(Disk, path=PATHS, serial=maybe(short(20)), **BLOCK),
    st.builds(
        Disk,
        path=PATHS,
        model=st.just("ahci-hd"),
        controller=maybe(st.sampled_from([Text("s"), Text("t")])),
        revision=maybe(short(8)),
        product=maybe(short(40)),
        **BLOCK,
    ),
    st.builds(
        Disk,
        path=PATHS,
        model=st.just("nvme"),
        max_queues=maybe(st.integers(1, 64)),
        eui64=maybe(TEXTS),
        dsm=st.sampled_from(["auto", "enable", "disable"]),
        **BLOCK,
    ),
    st.builds(Disk, model=st.just("nvme"), ram=st.integers(1, 64).map(lambda n: Size(n << 20)), serial=short(20)),
    st.builds(Disk, path=PATHS, model=st.just("virtio-scsi"), initiator_id=maybe(NUMBERS)),
)
CDROMS = st.builds(
    Cdrom, path=PATHS, when=st.sampled_from(["always", "install"]), controller=maybe(st.just(Text("s"))), boot_index=maybe(NUMBERS)
)
CARDS = st.one_of(
    st.builds(Network, bridge=st.just(Interface("bridge0")), mac=maybe(MACS), model=st.sampled_from(["virtio-net", "e1000"])),
    st.builds(Network, tap=st.integers(0, 9).map(lambda n: Interface(f"tap{n}")), mtu=maybe(st.integers(68, 9000))),
    st.builds(Network, netmap=WORDS.map(lambda word: Text(f"netmap:{word}"))),
    st.builds(Network, netgraph=st.builds(Netgraph, path=TEXTS, peer_hook=TEXTS, hook=maybe(TEXTS), socket=maybe(TEXTS))),
    st.builds(Network, slirp=st.builds(Slirp, open=st.booleans(), forward=st.lists(TEXTS, max_size=2).map(tuple))),
    st.just(Network()),
)
SERIALS = st.one_of(
    st.just(Serial()),
    st.builds(Serial, mode=st.just("tcp"), address=st.just(Endpoint("127.0.0.1:4001"))),
    st.builds(Serial, mode=st.just("device"), device=PATHS),
)
GRAPHICS = st.builds(
    Graphics,
    listen=st.sampled_from([Listen("127.0.0.1"), Listen("[::1]:5900"), Listen("unix:/v")]),
    resolution=st.just(Resolution("640x480")),
    wait=st.booleans(),
    tablet=st.booleans(),
    keyboard=maybe(TEXTS.map(lambda text: Text(text.replace("/", "_")))),
)
BOOTS = st.one_of(
    st.builds(Boot, firmware=maybe(PATHS), vars=maybe(PATHS), fwcfg=st.sampled_from(["bhyve", "qemu"])),
    st.just(Boot(loader="uefi-csm")),
    st.just(Boot(loader="bhyveload")),
    st.builds(Boot, loader=st.just("grub"), grub=st.builds(Grub, commands=st.lists(TEXTS, max_size=2).map(tuple))),
    st.just(Boot(loader="u-boot")),
)
OPTIONS = st.dictionaries(st.sampled_from(["lab.script", "system.sku", "x86.strictmsr", "z"]), WORDS, max_size=2).map(
    lambda table: BhyveOptions(options=Settings(table))
)


def several(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(strategy, max_size=3).map(tuple)


KEYS = st.sampled_from(["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 a", "/root/a.pub"]).map(Keys)
CLOUD_INITS = st.builds(
    CloudInit,
    when=st.sampled_from(["always", "first"]),
    model=st.sampled_from(["ahci-cd", "virtio-blk"]),
    user=maybe(st.just(UserName("alice"))),
    ssh_keys=st.lists(KEYS, max_size=2).map(tuple),
    run=st.lists(WORDS.filter(str.isprintable).map(Words), max_size=2).map(tuple),
)


@st.composite
def guests(draw: st.DrawFn) -> VmSpec:
    """Any guest that the configuration would let through."""
    passthru = draw(several(st.builds(Passthru, device=st.integers(0, 9).map(lambda n: PciDevice(f"ppt{n}")), rom=maybe(PATHS))))
    spec = draw(
        st.builds(
            VmSpec,
            name=st.just("a"),
            cpus=st.builds(Topology, sockets=st.integers(1, 4), cores=st.integers(1, 4), pin=st.sampled_from([(), (Text("0:1-2,4"),)])),
            memory=st.integers(1, 1 << 14).map(lambda n: Size(n << 20)),
            wired=st.just(True) if passthru else st.booleans(),
            clock=st.sampled_from(["utc", "localtime"]),
            uuid=maybe(st.just(Uuid("6bc34f7c-1b1e-11ef-8c8a-0242ac120002"))),
            boot=BOOTS,
            disk=several(DISKS),
            cdrom=several(CDROMS),
            network=several(CARDS),
            serial=st.lists(SERIALS, max_size=1).map(tuple),
            graphics=maybe(GRAPHICS),
            tpm=maybe(st.builds(Tpm, type=st.sampled_from(["swtpm", "passthru"]))),
            passthru=st.just(passthru),
            share=several(st.builds(Share, name=TEXTS, path=PATHS, read_only=st.booleans())),
            virtio_console=several(st.builds(VirtioConsole, name=TEXTS, path=maybe(SOCKETS))),
            sound=maybe(st.builds(Sound, play=PATHS, record=maybe(PATHS))),
            random=st.builds(Random, enabled=st.booleans()),
            input=several(st.builds(Input, path=PATHS)),
            cloud_init=maybe(CLOUD_INITS),
            bhyve=OPTIONS,
        )
    )
    if next(slots.problems(spec), None) is not None:
        # Two devices under one identity: make the lists unique instead of throwing the example away.
        spec = _unique(spec)
    return spec


def _unique(spec: VmSpec) -> VmSpec:
    def once(items: tuple, key: str) -> tuple:
        return tuple({getattr(item, key): item for item in items}.values())

    return msgspec.structs.replace(
        spec,
        disk=once(spec.disk, "identity"),
        cdrom=once(spec.cdrom, "identity"),
        passthru=once(spec.passthru, "identity"),
        share=once(spec.share, "identity"),
        virtio_console=once(spec.virtio_console, "name"),
        input=once(spec.input, "identity"),
        network=tuple({card.mac or index: card for index, card in enumerate(spec.network)}.values()),
    )
