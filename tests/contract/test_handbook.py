"""Every guest of the Handbook: bhyve reads the same tree in our file as in the chapter's own line, but for what the table explains."""

import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import pytest

from bhyved.core import bhyveconf
from bhyved.core.assigned import Target, provisional
from bhyved.core.config import Source, load
from bhyved.core.loader import loader_call
from bhyved.core.spec import VmSpec
from bhyved.lab import options
from bhyved.lab.freebsd import Settings
from tests.contract.handbook import ALWAYS, DIFFERENCES, GUESTS, RELEASES, WITHOUT, Difference, Guest
from tests.contract.stand_ins import Lab

PAGE = Path(__file__).parents[2] / "docs/guide/handbook.md"
HERE = "/vm"  # where the chapter's user sits: bhyve resolves relative paths there
Release = Literal["14", "15", "main"]
_PLACE = re.compile(r"pci\.0\.([0-9]+)\.")
_TOPOLOGY = ("cpus", "sockets", "cores", "threads")


def spec_of(guest: Guest) -> VmSpec:
    loaded = load(Source("", ""), {guest.name: Source(guest.name, guest.toml)}, {})
    assert loaded.problems == ()
    return loaded.vms[guest.name]


def theirs(guest: Guest, lab: Lab) -> dict[str, str]:
    """The chapter's tree, with its devices where ours are."""
    line = options.parse(shlex.split(guest.line)[1:], Settings(str(lab.root)))
    return {_moved(key, guest): _absolute(key, value) for key, value in _plain(line).items()}


def ours(guest: Guest, lab: Lab, release: Release) -> dict[str, str]:
    """What the lab's bhyve reads in the file that we render."""
    file = lab.root / "bhyve.conf"
    file.write_text(bhyveconf.render(spec_of(guest), provisional(spec_of(guest), install=guest.install), Target(release)))
    return _plain(options.parse(["-k", str(file), guest.name], Settings(str(lab.root))))


def _plain(line: options.Line) -> dict[str, str]:
    """The tree, with numbers of one meaning written in one way: `-c 4` is four sockets, `1024M` is 1 GiB (contract 1.5)."""
    tree = line.tree.flat()
    tree |= {key: str(number) for key, number in zip(_TOPOLOGY, options.topology(line.tree), strict=True)}
    return tree | {"memory.size": str(options.memory_bytes(tree["memory.size"]))}


def _moved(key: str, guest: Guest) -> str:
    found = _PLACE.match(key)
    slot = found[1] if found else ""
    return key.replace(f"pci.0.{slot}.", f"pci.0.{guest.moved[slot]}.", 1) if slot in guest.moved else key


def _absolute(key: str, value: str) -> str:
    is_relative = key.startswith("pci.") and key.endswith("path") and not value.startswith("/")
    return f"{HERE}/{value.removeprefix('./')}" if is_relative else value


def explains(difference: Difference, key: str, found: tuple[str | None, str | None]) -> bool:
    return fnmatchcase(key, difference.key) and all(
        value is None if wanted is None else value is not None and fnmatchcase(value, wanted)
        for wanted, value in zip((difference.theirs, difference.ours), found, strict=True)
    )


def expected(guest: Guest, release: Release) -> set[str]:
    """The differences that there must be."""
    letters = "".join(word[1:] for word in shlex.split(guest.line) if re.fullmatch("-[A-Z]+|-w", word))
    found = {*ALWAYS, *guest.differs, *(reason for letter, reason in WITHOUT.items() if letter not in letters)}
    other = "new" if release == "14" else "old"
    if "bootrom" in guest.line:
        found.add(f"{other} bootrom")
    if "variables" in guest.differs:
        found.add("old bootvars")
    if "VARS" in guest.line:
        found.add(f"{other} bootvars")
    if release == "14" and "A" not in letters:
        found.add("acpi")
    return found


@pytest.mark.parametrize("release", ["14", "15", "main"])
@pytest.mark.parametrize("guest", GUESTS.values(), ids=list(GUESTS))
def test_our_tree_is_the_handbooks(lab: Lab, guest: Guest, release: Release) -> None:
    """Every difference between the two trees is one that the table explains, and every explained one is there."""
    lab.settle(release=release)
    left, right = theirs(guest, lab), ours(guest, lab, release)
    wanted = expected(guest, release)
    found: set[str] = set()
    for key in left.keys() | right.keys():
        pair = left.get(key), right.get(key)
        if pair[0] != pair[1]:
            reasons = {name for name in wanted if explains(DIFFERENCES[name], key, pair)}
            assert reasons, f"{key}: the chapter has {pair[0]!r}, we have {pair[1]!r}"
            found |= reasons

    assert found == wanted


@pytest.mark.parametrize("guest", [guest for guest in GUESTS.values() if guest.loader], ids=[n for n, g in GUESTS.items() if g.loader])
def test_the_loader_gets_what_the_handbook_gives_it(guest: Guest) -> None:
    """The same program, memory, disks and name; the console is the guest's pair, and what was typed at grub's prompt is in its grub.cfg."""
    spec = spec_of(guest)
    call = loader_call(spec, provisional(spec, install=guest.install), "/run/loader")
    assert call is not None
    wanted = list(guest.loader)
    if guest.loader[0] == "bhyveload":
        wanted[wanted.index("-c") + 1] = f"/dev/nmdm-{guest.name}.1A"
        wanted[wanted.index("-d") + 1] = _absolute("pci.path", wanted[wanted.index("-d") + 1])
        assert list(call.argv) == [word.replace("1024M", "1G") for word in wanted]
        return

    commands = spec.boot.grub.install_commands if guest.install else spec.boot.grub.commands
    console = ["-c", f"/dev/nmdm-{guest.name}.1A"]
    host = ["-m", "/run/loader/device.map", "-r", "host", "-d", "/run/loader", "-M", "1G"]
    assert list(call.argv) == ["grub-bhyve", *host, *console, guest.name]
    assert call.files["grub.cfg"] == "".join(f"{command}\n" for command in (*commands, "boot"))
    assert call.files["device.map"] == "(hd0) /vm/linux.img\n" + ("(cd0) /vm/somelinux.iso\n" if guest.install else "")


def test_the_page_says_what_the_table_says() -> None:
    """Every command line, every guest's file and every reason stand in the page, word for word."""
    page = PAGE.read_text()
    for name, guest in GUESTS.items():
        _, found, part = page.partition(f"<!-- {name} -->")
        assert found, name
        part = part.partition("<!-- ")[0]
        assert f"```\n{guest.line}\n```" in part, name
        assert f"```toml\n{guest.toml}```" in part, name
        for reason in guest.differs:
            assert DIFFERENCES[reason].why in part, f"{name}: {reason}"
    everywhere = page.partition("<!-- ")[0]
    for reason in (*ALWAYS, *WITHOUT.values(), *RELEASES):
        assert DIFFERENCES[reason].why in everywhere, reason
