"""A bhyve command line → the variables of bhyve_config(5) that it sets (contract 1.2, 1.3, 3).

It reads what people wrote and bhyve took: what bhyve would refuse is passed on as it is, and judged with the rest of our file.
"""

import getopt
from collections.abc import Iterator, Sequence

from bhyved.core.argv import FLAGS, MAIN_WORD
from bhyved.core.imports.imported import ForeignError

Tree = dict[str, str]
Pairs = Iterator[tuple[str, str]]

_LETTERS = "aehuwxACDHIMPSWYk:f:o:p:G:c:s:m:n:l:K:U:r:"  # amd64, main, of a build with snapshots: a superset of all others (contract 1.1)
_FLAGS = {flag[1:]: variable for variable, flag in FLAGS.items()} | {
    "a": ("x86.x2apic", "false"),
    "A": ("acpi_tables", "true"),
    "D": ("destroy_on_poweroff", "true"),
    "M": ("monitor", "true"),
}
_VALUES = {"K": "keyboard.layout", "m": "memory.size", "U": "uuid"}
_FIRST = {**MAIN_WORD, "uart": "path"}


def tree_of(argv: Sequence[str]) -> tuple[Tree, list[str]]:
    """The variables that `bhyve ARGV` sets, `name` among them, and the options that are no variables. Raises ForeignError."""
    try:
        options, words = getopt.getopt(list(argv), _LETTERS)
    except getopt.GetoptError as error:
        raise ForeignError(f"bhyve has no such command line: {error.msg}") from None
    if len(words) != 1:
        raise ForeignError("the command line must end with the name of one guest" + (f", not with {' '.join(words)!r}" if words else ""))
    tree: Tree = {}
    others: list[str] = []
    for option, value in options:
        letter = option[1]
        if letter == "o":
            key, _, text = value.partition("=")
            tree[key] = text
        elif letter in _FLAGS:
            key, text = _FLAGS[letter]
            tree[key] = text
        elif letter in _VALUES:
            tree[_VALUES[letter]] = value
        elif letter in "fkGr":
            others.append(f"-{letter} {value}")
        elif letter == "p":
            vcpu, _, host = value.partition(":")
            key = f"vcpu.{vcpu}.cpuset"
            tree[key] = f"{tree[key]},{host}" if key in tree else host
        else:
            tree.update({"c": _topology, "s": _slot, "l": _lpc, "n": _numa}.get(letter, _nothing)(value))
    return tree | {"name": words[0]}, others


def _nothing(text: str) -> Pairs:
    del text  # -h, -I
    yield from ()


def _topology(text: str) -> Pairs:
    for word in text.split(","):
        name, is_named, number = word.partition("=")
        yield (name, number) if is_named else ("cpus", word)


def _numa(text: str) -> Pairs:
    words = dict(_plain(text.split(",")))
    for key in ("size", "cpus"):
        if key in words:
            yield f"domains.{words.get('id', '0')}.{key}", words[key]


def _lpc(text: str) -> Pairs:
    kind, _, rest = text.partition(",")
    match kind.lower():
        case "bootrom":
            rom, *options = rest.split(",")
            yield "bootrom", rom
            if options and "=" not in options[0]:
                yield "bootvars", options.pop(0)
            yield from ((f"lpc.{key}", value) for key, value in _plain(options))
        case "tpm":
            backend, _, more = rest.partition(",")
            path, *options = more.split(",")
            yield from (("tpm.type", backend), ("tpm.path", path), ("tpm.version", "2.0"))
            yield from ((f"tpm.{key}", value) for key, value in _plain(options))
        case "fwcfg":
            yield "lpc.fwcfg", rest
        case "com1" | "com2" | "com3" | "com4" as port:
            yield f"lpc.{port}.path", rest
        case _:
            yield f"lpc.{kind}", rest or "true"


def _slot(text: str) -> Pairs:
    """`-s`. What only `-s` can call by its name becomes what a file calls it (contract 3.8)."""
    place, _, rest = text.partition(",")
    model, *words = rest.split(",")
    numbers = place.split(":")
    if not model or len(numbers) > 3 or not all(number.isdecimal() for number in numbers):
        raise ForeignError(f"-s {text}: that is no slot and device")
    bus, slot, function = ["0", *numbers, "0"] if len(numbers) == 1 else ["0", *numbers] if len(numbers) == 2 else numbers
    node = f"pci.{int(bus)}.{int(slot)}.{int(function)}"
    yield f"{node}.device", {"ahci-hd": "ahci", "ahci-cd": "ahci", "amd_hostbridge": "hostbridge"}.get(model, model)
    yield from ((f"{node}.{key}", value) for key, value in _device(model, words))


def _device(model: str, words: list[str]) -> Pairs:
    match model:
        case "amd_hostbridge":
            yield from (("pcireg.vendor", "0x1022"), ("pcireg.device", "0x7432"))
        case "ahci-hd" | "ahci-cd":
            yield "port.0.type", model[-2:]
            yield from ((f"port.0.{key}", value) for key, value in _first("path", words))
        case "ahci":
            yield from _ahci(words)
        case "virtio-9p":
            name, _, path = (words or [""])[0].partition("=")
            yield from (("sharename", name), ("path", path), *_plain(words[1:]))
        case "virtio-console":
            for port, word in enumerate(words):
                name, _, path = word.partition("=")
                yield from ((f"port.{port}.name", name), (f"port.{port}.path", path))
        case "xhci":
            yield from ((f"slot.{number}.device", word) for number, word in enumerate(words, 1))
        case "passthru":
            yield from _passthru(words)
        case _ if model in _FIRST:
            yield from _first(_FIRST[model], words)
        case _:
            yield from _plain(words)


def _plain(words: Sequence[str]) -> Pairs:
    """`name=value` and bare names, which are true."""
    for word in words:
        name, has_value, value = word.partition("=")
        if name:
            yield name, value if has_value else "true"


def _first(key: str, words: list[str]) -> Pairs:
    """The first word is the value of `key`, unless it names its own (`ram=` of an nvme disk)."""
    if words and words[0] and not words[0].startswith("ram="):
        yield key, words[0]
        words = words[1:]
    yield from _plain(words)


def _ahci(words: list[str]) -> Pairs:
    port = -1
    for word in words:
        if word.startswith(("hd:", "cd:")):
            port += 1
            yield from ((f"port.{port}.type", word[:2]), (f"port.{port}.path", word[3:]))
        elif port < 0 and word:
            raise ForeignError(f"ahci,{word}: bhyve wants hd:PATH or cd:PATH there; a disk of its own is ahci-hd,PATH")
        else:
            yield from ((f"port.{port}.{key}", value) for key, value in _plain([word]))


def _passthru(words: list[str]) -> Pairs:
    device, options = (words or [""])[0], words[1:]
    if device.startswith("ppt"):
        yield "pptdev", device
    else:
        yield from zip(("bus", "slot", "func"), device.removeprefix("pci").replace(":", "/").split("/"), strict=False)
    yield from _plain(options)
