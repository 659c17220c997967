"""bhyve's command line, as each release and architecture reads it, into one configuration tree (contract 1.1, 1.2, 1.5).

Pure but for the files of `-k` and the text of `-h`. Ends by Refusal as bhyve ends: 1 with the usage, 64, 4, or 0 after a help text.
"""

from collections.abc import Callable, Iterator

from bhyved.lab import legacy, snapshot
from bhyved.lab.freebsd import BHYVE_ERROR, EX_USAGE, Refusal, Settings, errx
from bhyved.lab.tree import Tree

# getopt(3) strings by architecture, then release: contract 1.1.
_LETTERS = {
    "amd64": {
        "14": "aehuwxACDHIPSWYk:f:o:p:G:c:s:m:l:K:U:",
        "15": "aehuwxACDHIPSWYk:f:o:p:G:c:s:m:l:K:U:",
        "main": "aehuwxACDHIMPSWYk:f:o:p:G:c:s:m:n:l:K:U:",
    },
    "arm64": {
        "14": "",  # there is no bhyve
        "15": "hCDSWk:f:o:p:c:s:m:U:",
        "main": "hCDMSWk:f:o:p:G:c:s:m:U:",
    },
}
_FLAGS = {
    "a": ("x86.x2apic", "false"),
    "C": ("memory.guest_in_core", "true"),
    "D": ("destroy_on_poweroff", "true"),
    "e": ("x86.strictio", "true"),
    "H": ("x86.vmexit_on_hlt", "true"),
    "M": ("monitor", "true"),
    "P": ("x86.vmexit_on_pause", "true"),
    "S": ("memory.wired", "true"),
    "u": ("rtc.use_localtime", "false"),
    "w": ("x86.strictmsr", "false"),
    "W": ("virtio_msix", "false"),
    "x": ("x86.x2apic", "true"),
    "Y": ("x86.mptable", "false"),
}
_VALUES = {"K": "keyboard.layout", "m": "memory.size", "U": "uuid"}
_TOPOLOGY = ("cpus", "sockets", "cores", "threads")
_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MEGABYTES_BELOW = 1 << 20  # a bare number below it


class Line:
    """What a command line said beyond the tree."""

    def __init__(self, tree: Tree, name: str, restore: str | None) -> None:
        self.tree = tree
        self.name = name
        self.restore = restore  # the file of -r


def letters(settings: Settings) -> str:
    """The getopt string of this release and architecture."""
    return _LETTERS[settings.arch][settings.release] + ("r:" if settings.snapshots and settings.is_amd64 else "")


def parse(argv: list[str], settings: Settings) -> Line:
    """Everything up to the look for `config.dump` and the VM's name. Raises Refusal."""
    tree = defaults(settings)
    restore = None
    options = getopt(argv, letters(settings), usage(settings))
    rest: list[str] = []
    for letter, value in options:
        if letter == "":
            rest.append(value)
        elif letter == "r":
            restore = value
        else:
            _apply(tree, letter, value, settings)
    if len(rest) > 1:
        raise Refusal(1, usage(settings))
    for name in rest:
        tree.set("name", name)
    vm = tree.get("name") or (snapshot.name_in(restore) if restore else None)
    if vm is None:
        raise Refusal(1, usage(settings))
    return Line(tree, vm, restore)


def defaults(settings: Settings) -> Tree:
    """What is set before the first option."""
    tree = Tree()
    tree.set("memory.size", "256M")
    if settings.is_amd64:
        tree.set("acpi_tables", "false" if settings.is_14 else "true")
        tree.set("acpi_tables_in_memory", "true")
        tree.set("x86.strictmsr", "true")
        tree.set("lpc.fwcfg", "bhyve")
    else:
        tree.set("acpi_tables", "false")
        tree.set("acpi_tables_in_memory", "false")
    return tree


def getopt(argv: list[str], known: str, usage_text: str, program: str = "bhyve") -> Iterator[tuple[str, str]]:
    """Each option as (letter, value), then each word that is none as ("", word). Raises Refusal 1 with the usage."""
    words = list(argv)
    while words and words[0].startswith("-") and words[0] != "-":
        cluster = words.pop(0)[1:]
        if cluster == "-":
            break
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            at = known.find(letter) if letter != ":" else -1
            if at < 0:
                raise Refusal(1, f"{program}: illegal option -- {letter}\n{usage_text}")
            if known[at + 1 : at + 2] != ":":
                yield letter, ""
                continue
            if not cluster and not words:
                raise Refusal(1, f"{program}: option requires an argument -- {letter}\n{usage_text}")
            value, cluster = cluster or words.pop(0), ""
            yield letter, value
    for word in words:
        yield "", word


def usage(settings: Settings) -> str:
    """What a wrong line is answered with."""
    known = letters(settings)
    bare = "".join(letter for at, letter in enumerate(known) if letter != ":" and known[at + 1 : at + 2] != ":")
    valued = " ".join(f"[-{letter} arg]" for at, letter in enumerate(known) if known[at + 1 : at + 2] == ":")
    return f"Usage: bhyve [-{bare}]\n       {valued} vmname"


def _apply(tree: Tree, letter: str, value: str, settings: Settings) -> None:
    if letter in _FLAGS:
        tree.set(*_FLAGS[letter])
    elif letter in _VALUES:
        tree.set(_VALUES[letter], value)
    elif letter == "A":
        if settings.is_14:
            tree.set("acpi_tables", "true")
    elif letter == "h":
        raise Refusal(0, usage(settings))
    elif letter == "k":
        tree.load(value)
    elif letter == "o":
        if not tree.set_option(value):
            raise errx(EX_USAGE, f"invalid configuration option '{value}'")
    elif letter in ("s", "l") and "help".startswith(value):  # as many letters as are given, even none: contract 1.1
        names = legacy.models(amd64=settings.is_amd64) if letter == "s" else ("bootrom", *legacy.COM_PORTS, "tpm", "fwcfg", "pc-testdev")
        print("\n".join(names))
        raise Refusal(0)
    elif letter == "s":
        legacy.add_slot(tree, value, amd64=settings.is_amd64)
    elif letter == "l":
        legacy.add_lpc(tree, value, new_spelling=not settings.is_14)
    elif letter in _WITH_GRAMMAR:
        what, read = _WITH_GRAMMAR[letter]
        try:
            read(tree, value)
        except ValueError:
            raise errx(EX_USAGE, f"invalid {what} '{value}'") from None


def _topology(tree: Tree, text: str) -> None:
    for word in text.split(",") if text else ("1",):
        name, is_named, number = word.partition("=")
        if not is_named:
            name, number = "cpus", word
        if name not in _TOPOLOGY or not number.isdecimal():
            raise ValueError
        tree.set(name, number)


def _pin(tree: Tree, text: str) -> None:
    vcpu, _, host = text.partition(":")
    if not vcpu.isdecimal() or not host.isdecimal():
        raise ValueError
    name = f"vcpu.{int(vcpu)}.cpuset"
    before = tree.get(name)
    tree.set(name, f"{before},{host}" if before else host)


def _gdb(tree: Tree, text: str) -> None:
    if text.startswith("w"):
        tree.set("gdb.wait", "true")
        text = text[1:]
    address, has_address, port = text.rpartition(":")
    if has_address:
        tree.set("gdb.address", address)
    tree.set("gdb.port", port)


def _fwcfg(tree: Tree, text: str) -> None:
    """Kept nowhere: it has no key (contract 3.8)."""
    del tree
    name, _, rest = text.partition(",")
    kind, is_pair, data = rest.partition("=")
    if not name or kind not in ("string", "file") or not is_pair or not data:
        raise ValueError


def _numa(tree: Tree, text: str) -> None:
    words = dict(word.partition("=")[::2] for word in text.split(","))
    if not words.get("id", "").isdecimal() or not words.get("size") or not words.get("cpus"):
        raise ValueError
    for key in ("size", "cpus", "domain_policy"):
        if words.get(key):
            tree.set(f"domains.{words['id']}.{key}", words[key])


_WITH_GRAMMAR: dict[str, tuple[str, Callable[[Tree, str], None]]] = {
    "c": ("cpu topology", _topology),
    "f": ("fwcfg item", _fwcfg),
    "G": ("gdb configuration", _gdb),
    "n": ("NUMA configuration", _numa),
    "p": ("vcpu pinning configuration", _pin),
}


def topology(tree: Tree) -> list[int]:
    """CPUs, sockets, cores, threads (contract 1.5). Raises Refusal."""
    cores, threads = tree.number("cores", 1), tree.number("threads", 1)
    given = tree.get("cpus") is not None
    cpus = tree.number("cpus", 1)
    sockets = tree.number("sockets", cpus if given else 1)
    product = sockets * cores * threads
    if not given:
        cpus = product
    if cpus != product:
        raise errx(BHYVE_ERROR, f"Topology ({sockets} sockets, {cores} cores, {threads} threads) does not match {cpus} vCPUs")
    return [cpus, sockets, cores, threads]


def memory_bytes(text: str) -> int:
    """vm_parse_memsize(): a bare number below a mebi means megabytes (contract 1.5). Raises ValueError."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in _SUFFIXES else (text, "")
    if not number.isdecimal() or not int(number):
        raise ValueError(text)
    count = int(number)
    if unit:
        return count * _SUFFIXES[unit]
    return count << 20 if count < _MEGABYTES_BELOW else count
