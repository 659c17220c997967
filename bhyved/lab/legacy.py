"""`-s SLOT,MODEL,…` and `-l DEVICE,…` as variables of the tree: each model's own way to read what follows its name.

After the `pe_legacy_config` functions of usr.sbin/bhyve (contract 3.1 to 3.6). Models that only `-s` knows become others here, which
is why a configuration file may not name them (contract 3.8).
"""

from collections.abc import Callable, Iterator

from bhyved.lab.freebsd import BHYVE_ERROR, EX_USAGE, Refusal, errx
from bhyved.lab.tree import Tree

Variables = Iterator[tuple[str, str]]

#: What `-s` calls it → what the tree calls it.
ALIASES = {"ahci-hd": "ahci", "ahci-cd": "ahci", "amd_hostbridge": "hostbridge"}
_BOTH: tuple[str, ...] = (
    *("hostbridge", "virtio-net", "virtio-blk", "virtio-scsi", "virtio-9p", "virtio-rnd", "virtio-console", "virtio-input"),
    *("ahci", "ahci-hd", "ahci-cd", "e1000", "fbuf", "xhci", "nvme", "hda", "dummy"),
)
_AMD64 = ("amd_hostbridge", "lpc", "passthru", "uart")
COM_PORTS = ("com1", "com2", "com3", "com4")


def models(*, amd64: bool) -> tuple[str, ...]:
    """Every device that `-s` takes."""
    return (*_BOTH, *_AMD64) if amd64 else _BOTH


def add_slot(tree: Tree, text: str, *, amd64: bool) -> None:
    """One `-s`. Raises Refusal with status 4."""
    place, _, rest = text.partition(",")
    model, has_options, options = rest.partition(",")
    where = _place(place)
    if where is None or not rest:
        raise Refusal(BHYVE_ERROR, f'Invalid PCI slot info field "{text}"')
    colons = ":".join(map(str, where))
    if model not in models(amd64=amd64):
        raise Refusal(BHYVE_ERROR, f'pci slot {colons}: unknown device "{model}"')
    node = "pci." + ".".join(map(str, where))
    if tree.has_node(node):
        raise Refusal(BHYVE_ERROR, f"pci slot {colons} already occupied!")
    tree.set(f"{node}.device", ALIASES.get(model, model))
    for key, value in _READERS.get(model, _plain)(options) if has_options or model == "amd_hostbridge" else ():
        tree.set(f"{node}.{key}", value)


def add_lpc(tree: Tree, text: str, *, new_spelling: bool) -> None:
    """One `-l`. Raises Refusal with status 64."""
    kind, _, rest = text.partition(",")
    root = "" if new_spelling else "lpc."
    if kind.lower() in COM_PORTS and rest:
        tree.set(f"lpc.{kind.lower()}.path", rest)
    elif kind == "bootrom" and rest:
        rom, *options = rest.split(",")
        tree.set(f"{root}bootrom", rom)
        if options and "=" not in options[0]:
            tree.set(f"{root}bootvars", options.pop(0))
        for key, value in _plain(",".join(options)):
            tree.set(f"lpc.{key}", value)
    elif kind == "tpm" and rest.count(","):
        backend, path, *options = rest.split(",")
        tree.set("tpm.type", backend)
        tree.set("tpm.path", path)
        tree.set("tpm.version", "2.0")
        for key, value in _plain(",".join(options)):
            tree.set(f"tpm.{key}", value)
    elif kind == "fwcfg" and rest:
        tree.set("lpc.fwcfg", rest)
    elif kind == "pc-testdev":
        tree.set("lpc.pc-testdev", "true")
    else:
        raise errx(EX_USAGE, f"invalid lpc device configuration '{text}'")


def _place(text: str) -> tuple[int, int, int] | None:
    """`slot`, `slot:func` or `bus:slot:func`; what follows the digits is overlooked, as scanf does."""
    numbers = []
    for part in text.split(":")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            return None
        numbers.append(int(digits))
    bus, slot, function = {1: (0, *numbers, 0), 2: (0, *numbers), 3: tuple(numbers)}[len(numbers)]
    return (bus, slot, function) if bus < 256 and slot < 32 and function < 8 else None


def _plain(options: str) -> Variables:
    """`name=value` and bare names, which are true."""
    for word in options.split(","):
        name, has_value, value = word.partition("=")
        if name:
            yield name, value if has_value else "true"


def _first(key: str) -> Callable[[str], Variables]:
    """The first word is the value of `key`."""

    def read(options: str) -> Variables:
        word, _, rest = options.partition(",")
        if word:
            yield key, word
        yield from _plain(rest)

    return read


def _nvme(options: str) -> Variables:
    yield from _plain(options) if options.startswith("ram=") else _first("path")(options)


def _ahci_disk(kind: str) -> Callable[[str], Variables]:
    def read(options: str) -> Variables:
        yield "port.0.type", kind
        for key, value in _first("path")(options):
            yield f"port.0.{key}", value

    return read


def _ahci(options: str) -> Variables:
    """`hd:PATH,opts,cd:PATH,…`: a word with one of the two prefixes begins a new port."""
    port = -1
    for word in options.split(","):
        if word.startswith(("hd:", "cd:")):
            port += 1
            yield f"port.{port}.type", word[:2]
            yield f"port.{port}.path", word[3:]
        elif port >= 0:
            for key, value in _plain(word):
                yield f"port.{port}.{key}", value
        elif word:
            raise Refusal(BHYVE_ERROR, f"ahci: invalid device configuration '{word}'")


def _share(options: str) -> Variables:
    share, _, rest = options.partition(",")
    name, is_pair, path = share.partition("=")
    if not is_pair:
        raise Refusal(BHYVE_ERROR, f"virtio-9p: share name or path missing in '{share}'")
    yield "sharename", name
    yield "path", path
    yield from _plain(rest)


def _console_ports(options: str) -> Variables:
    for port, word in enumerate(options.split(",")):
        name, _, path = word.partition("=")
        yield f"port.{port}.name", name
        if path:
            yield f"port.{port}.path", path


def _passthru(options: str) -> Variables:
    device, _, rest = options.partition(",")
    if device.startswith("ppt"):
        yield "pptdev", device
    else:
        words = device.removeprefix("pci").replace(":", "/").split("/")
        yield from zip(("bus", "slot", "func"), words, strict=False)
    yield from _plain(rest)


def _xhci(options: str) -> Variables:
    for slot, word in enumerate(options.split(","), 1):
        name, _, configuration = word.partition("=")
        if name:
            yield f"slot.{slot}.device", name
        if configuration:
            yield f"slot.{slot}.{configuration}", "true"


def _amd_hostbridge(options: str) -> Variables:
    yield "pcireg.vendor", "0x1022"
    yield "pcireg.device", "0x7432"
    yield from _plain(options)


_READERS: dict[str, Callable[[str], Variables]] = {
    "virtio-blk": _first("path"),
    "nvme": _nvme,
    "ahci": _ahci,
    "ahci-hd": _ahci_disk("hd"),
    "ahci-cd": _ahci_disk("cd"),
    "virtio-net": _first("backend"),
    "e1000": _first("backend"),
    "virtio-scsi": _first("dev"),
    "virtio-9p": _share,
    "virtio-console": _console_ports,
    "virtio-input": _first("path"),
    "passthru": _passthru,
    "xhci": _xhci,
    "uart": _first("path"),
    "amd_hostbridge": _amd_hostbridge,
}
