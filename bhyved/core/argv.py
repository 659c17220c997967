"""The handbook-style command line that says the same as a bhyve_config(5) file: for people to read and compare, never executed.

Works on the finished tree, so that nothing can be in one form and missing in the other. What has no option, or a value that a comma
would cut in two (contract 1.3, 3.1), is written as `-o name=value`.
"""

from collections.abc import Iterator

from bhyved.core.assigned import Target
from bhyved.core.bhyveconf import Tree

_AHCI_PORT_OPTIONS = ("nocache", "direct", "ro", "nodelete", "sectorsize", "bootindex", "nmrr", "ser", "rev", "model")
#: Variables that an option without a value sets.
FLAGS = {
    ("x86.vmexit_on_hlt", "true"): "-H",
    ("x86.vmexit_on_pause", "true"): "-P",
    ("x86.strictmsr", "false"): "-w",
    ("x86.x2apic", "true"): "-x",
    ("x86.strictio", "true"): "-e",
    ("x86.mptable", "false"): "-Y",
    ("rtc.use_localtime", "false"): "-u",
    ("memory.wired", "true"): "-S",
    ("memory.guest_in_core", "true"): "-C",
    ("virtio_msix", "false"): "-W",
}
_DEFAULTS = {"rtc.use_localtime": "true"}  # no option says the default
_ON_ARM64 = ("-S", "-C", "-W")  # the rest is a usage error there, exit 1 (contract 1.1)
#: Of each model, the variable whose value comes first, without a name (contract 3.2).
MAIN_WORD = {
    "virtio-blk": "path",
    "nvme": "path",
    "virtio-net": "backend",
    "e1000": "backend",
    "virtio-scsi": "dev",
    "virtio-input": "path",
}


def command_line(tree: Tree, target: Target) -> tuple[str, ...]:
    """The argv, beginning with `bhyve`."""
    left = dict(tree)
    name = left.pop("name")
    argv = ["bhyve", *_flags(left, target), *_machine(left, target), *_slots(left)]
    if target.arch == "amd64":
        argv += _lpc(left)
    for key, value in left.items():
        argv += ["-o", f"{key}={value}"]
    return (*argv, name)


def _flags(left: Tree, target: Target) -> Iterator[str]:
    if left.get("acpi_tables") == "true" and target.arch == "amd64":
        del left["acpi_tables"]
        if target.release == "14":
            yield "-A"  # 15 and newer have ACPI always and ignore the letter (contract 1.2)
    for (key, value), flag in FLAGS.items():
        if left.get(key) == value and (target.arch == "amd64" or flag in _ON_ARM64):
            del left[key]
            yield flag
    for key, value in _DEFAULTS.items():
        if left.get(key) == value:
            del left[key]


def _machine(left: Tree, target: Target) -> Iterator[str]:
    topology = [left.pop(key, "1") for key in ("cpus", "sockets", "cores", "threads")]
    yield from ("-c", "cpus={},sockets={},cores={},threads={}".format(*topology))
    yield from ("-m", left.pop("memory.size"))
    if "uuid" in left:
        yield from ("-U", left.pop("uuid"))
    if "keyboard.layout" in left and target.arch == "amd64":
        yield from ("-K", left.pop("keyboard.layout"))
    for key in [key for key in left if key.startswith("vcpu.") and key.endswith(".cpuset")]:
        if left[key].isdigit():  # -p takes one host CPU; a list has no option on every release
            yield from ("-p", f"{key.split('.')[1]}:{left.pop(key)}")


def _slots(left: Tree) -> Iterator[str]:
    places = dict.fromkeys(key.rpartition(".device")[0] for key in left if _is_device(key))
    for place in places:
        node = {key.removeprefix(f"{place}."): value for key, value in left.items() if key.startswith(f"{place}.")}
        words = _legacy(node)
        if words is None or any("," in word for word in words):
            continue  # stays for -o
        for key in node:
            del left[f"{place}.{key}"]
        yield from ("-s", ",".join((place.removeprefix("pci.").replace(".", ":"), *words)))


def _is_device(key: str) -> bool:
    return key.startswith("pci.") and key.endswith(".device") and key.count(".") == 4


def _legacy(node: Tree) -> list[str] | None:
    """The words after the slot; None: this node has no such form."""
    node = dict(node)
    model = node.pop("device")
    match model:
        case "hostbridge":
            look = (node.get("pcireg.vendor"), node.get("pcireg.device"))
            if look == ("0x1022", "0x7432") and len(node) == 2:
                return ["amd_hostbridge"]
            return None if node else [model]
        case "ahci":
            return _ahci(node)
        case "virtio-9p":
            share = f"{node.pop('sharename')}={node.pop('path')}"
            return [model, share, *_options(node)] if share.count("=") == 1 else None
        case "virtio-console":
            count = len(node) // 2
            ports = [f"{node.get(f'port.{n}.name')}={node.get(f'port.{n}.path')}" for n in range(count)]
            return [model, *ports] if all(port.count("=") == 1 for port in ports) else None
        case "xhci":
            return [model, "tablet"] if node == {"slot.1.device": "tablet"} else None
        case "passthru":
            first = node.pop("pptdev", "") or "/".join(node.pop(key, "") for key in ("bus", "slot", "func"))
            return [model, first, *_options(node)]
        case "nvme" if "ram" in node:
            return [model, f"ram={node.pop('ram')}", *_options(node)]
        case _ if model in MAIN_WORD:
            first = node.pop(MAIN_WORD[model], "")
            return [model, first, *_options(node)] if first else None  # the first word is always taken for it
        case _:
            return [model, *_options(node)]


def _ahci(node: Tree) -> list[str] | None:
    numbers = sorted({int(key.split(".")[1]) for key in node})
    if numbers != list(range(len(numbers))):
        return None  # the option numbers ports without gaps
    words: list[str] = []
    for number in numbers:
        port = {key.removeprefix(f"port.{number}."): value for key, value in node.items() if key.startswith(f"port.{number}.")}
        kind, path = port.pop("type"), port.pop("path")
        if not set(port) <= set(_AHCI_PORT_OPTIONS):
            return None
        first = [f"ahci-{kind}", path] if len(numbers) == 1 else [f"{kind}:{path}"]
        words += [*first, *_options(port)]
    return words if len(numbers) == 1 else ["ahci", *words]


def _options(node: Tree) -> list[str]:
    return [key if value == "true" else f"{key}={value}" for key, value in node.items()]


def _lpc(left: Tree) -> Iterator[str]:
    for new, old in (("bootrom", "lpc.bootrom"), ("bootvars", "lpc.bootvars")):
        if new in left and left[new] == left.get(old):
            del left[old]
    rom = [left[key] for key in ("bootrom", "bootvars") if key in left]
    if "bootrom" in left and not any("," in word for word in rom) and "=" not in left.get("bootvars", ""):  # else no path to bhyve
        del left["bootrom"]
        left.pop("bootvars", None)
        yield from ("-l", ",".join(("bootrom", *rom)))
    for number in (1, 2, 3, 4):
        backend = left.get(f"lpc.com{number}.path", ",")
        if "," not in backend:
            del left[f"lpc.com{number}.path"]
            yield from ("-l", f"com{number},{backend}")
    if "lpc.fwcfg" in left:
        yield from ("-l", f"fwcfg,{left.pop('lpc.fwcfg')}")
    if "tpm.path" in left and "," not in left["tpm.path"]:
        words = ("tpm", left.pop("tpm.type"), left.pop("tpm.path"), f"version={left.pop('tpm.version')}")
        yield from ("-l", ",".join(words))
