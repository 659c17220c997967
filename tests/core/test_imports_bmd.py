"""Guests of bmd: its language as bmd reads it, and the machine that bmd runs."""

import fnmatch
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.imports import ForeignError, Imported, bmd
from bhyved.core.imports.bmdvalues import Source
from bhyved.ctl.newguest import toml
from tests.core.test_imports import WORDS, same_machine, spec_of

CONF = """\
# the daemon's
global {
	cmd_socket_mode = 0660;
	vars_directory = "/var/db/bmd";
	$images = /dev/zvol/zroot/vm; $isos = '/iso';	// where they are
}
template hardware(ncpu = 1:2, memory = 2G) {
	ncpu = ${ncpu};
	memory = $memory;
	.apply disks;
	utctime = yes;
}
template disks { disk = ${images}/${NAME}; }
template screen(base = 5900) {
	graphics = yes;
	graphics_listen = 127.0.0.1;
	graphics_port = $(( $base + ${ID} * 10 ));
	xhci_mouse = yes;
}
template lan { network = bridge0; comport = auto; }
.include "bmd.d/*.conf";
vm first { loader = bhyveload; memory = 1G; disk = /vm/first.img, /vm/data.img; .apply lan; }
vm web {
	.apply hardware(, 4G), screen, lan;
	boot = yes;
	loader = uefi;
	disk += nvme:nocache:readonly:/vm/data.img;	/* beside the first */
	iso = "$isos/tools.iso";
	network += "e1000:[58:9c:fc:0:0:1]:bridge1";
	passthru = 2/0/0;
	sharefs = "readonly:share=/srv";
	cpu_pin = 0:2, 1:3;
	hda = /dev/dsp0:/dev/dsp1;
	virt_random = yes;
	stop_timeout = 90;
	owner = alice:webops;
	err_logfile = /var/log/web.log;
	graphics_password = secret;
}
"""
FILES = [
    Source("/etc/bmd.d/db.conf", "vm db { name = db1; loader = grub; memory = 512m; .apply lan; loadcmd = 'kopenbsd -h com0 (hd0)/bsd'; }")
]
# What bmd's vm.c makes of `web`; the tap is the one that it has just made.
RUN = (
    "bhyve -A -H -w -u -S -c cpus=2,sockets=1,cores=2,threads=1 -p 0:2 -p 1:3 -m 4G -l com1,/dev/nmdm200A"
    " -l bootrom,/usr/local/share/uefi-firmware/BHYVE_UEFI.fd,/var/db/bmd/web.vars"
    " -s 0:0:0,hostbridge -s 0:1:0,lpc -s 0:2:0,virtio-rnd -s 0:3:0,virtio-blk,/dev/zvol/zroot/vm/web -s 0:4:0,nvme,/vm/data.img,nocache,ro"
    " -s 0:5:0,ahci-cd,/iso/tools.iso -s 0:6:0,virtio-9p,share=/srv,ro -s 0:7:0,virtio-net,tap0 -s 0:8:0,e1000,tap1,mac=58:9c:fc:00:00:01"
    " -s 0:9:0,passthru,2/0/0 -s 0:10:0,hda,play=/dev/dsp0,rec=/dev/dsp1 -s 0:11:0,fbuf,tcp=127.0.0.1:5910,w=1024,h=768,vga=io"
    " -s 0:12:0,xhci,tablet web"
)
OURS = (
    "pci.0.7.0.mac",
    "pci.0.7.0.backend",
    "pci.0.8.0.backend",
    "pci.0.11.0.vga",
    "x86.vmexit_on_pause",
)  # made for each run, or always so


def include(pattern: str) -> Sequence[Source]:
    return [file for file in FILES if fnmatch.fnmatch(file.path, pattern)]


def read(text: str, *, guest: str = "", owner: str = "", bridges: dict[str, str] | None = None) -> Imported:
    return bmd.translate(Source("/etc/bmd.conf", text, owner), guest=guest, include=include, bridges=bridges or {})


def one(lines: str) -> Imported:
    return read(f"vm web {{ loader = uefi; memory = 1G; {lines} }}")


def test_a_guest_of_bmd_is_the_same_machine(tmp_path: Path) -> None:
    """Templates, variables and sums worked out, bhyve reads what bmd would have given it."""
    assert bmd.is_config(CONF)
    imported = read(CONF, guest="web")
    same_machine(imported, RUN, tmp_path, OURS)

    spec = spec_of(imported)
    assert [card.bridge for card in spec.network] == ["bridge0", "bridge1"]
    assert spec.owner == ("alice", "@webops")
    assert float(spec.stop.timeout) == 90


def test_what_bmd_has_and_bhyved_has_not_is_told() -> None:
    """With the line; a secret is named, never copied."""
    imported = read(CONF, guest="web")
    told = "\n".join(imported.notes)

    assert "secret" not in told + toml(imported.table)
    for words in ("password-file", "line 37: err_logfile = /var/log/web.log is left out", "boot = yes", "$ID is taken for 1"):
        assert words in told


def test_files_that_are_included() -> None:
    """Their guests are chosen like others, and know the templates of all files."""
    imported = read(CONF, guest="db", bridges={"bridge0": "bridge9"})
    spec = spec_of(imported)

    assert (spec.name, spec.memory, spec.network[0].bridge) == ("db1", 512 << 20, "bridge9")
    assert (spec.boot.loader, spec.boot.grub.commands) == ("grub", ("kopenbsd -h com0 (hd0)/bsd",))


def test_what_bmd_takes_for_granted() -> None:
    """The clock shows UTC, and there is no port, no screen and no randomness unless they are asked for."""
    spec = spec_of(one(""))
    assert (spec.clock, spec.serial, spec.graphics, spec.random.enabled) == ("utc", (), None, False)
    assert spec_of(one("utctime = no;")).clock == "localtime"


def test_a_list_begins_anew() -> None:
    """`=` empties it, `+=` adds."""
    paths = [disk.path for disk in spec_of(one("disk = /a; disk = /b; disk += /c, nvme:/d;")).disk]
    assert paths == ["/b", "/c", "/d"]


def test_the_loader_gets_the_first_disk() -> None:
    """As bmd gives it, where bhyved would give it all."""
    assert spec_of(read(CONF, guest="first")).boot.bhyveload.disk == ("/vm/first.img",)


@pytest.mark.parametrize(
    ("lines", "restart"),
    [
        ("boot = oneshot;", {"on-reboot": "stop"}),
        ("boot = ALWAYS;", {"on-poweroff": "restart"}),
        ("boot = yes;", None),
    ],
)
def test_what_follows_the_end_of_a_run(lines: str, restart: dict[str, str] | None) -> None:
    """bmd's three ways to boot."""
    assert one(lines).table.get("restart") == restart


@pytest.mark.parametrize(
    ("value", "come_to"),
    [
        ("a b\n c", "abc"),
        (r"a\x41\101\n\;", "aAA\n;"),
        ("'$NAME \\' \\$'", "$NAME ' $"),
        ('"$NAME-${NAME}$((1))$"', "web-web1$"),
        ("a#b\n;x", None),
        ("$((7 / 2))$((-7 / 2))$((-7 % 3))", "3-3-1"),
        ("$((2 + 3 * 4 - (1 - 2)))", "15"),
        ("$((0x10 + 010))", "24"),
        ("$((10 - 3 - 2))", "5"),
        ("$(( -(2) * 3 ))", "-6"),
        ("a//b\n", "a"),
    ],
)
def test_values_are_what_bmd_reads(value: str, come_to: str | None) -> None:
    """Blanks count in quotes only, C's escapes and C's division."""
    if come_to is None:
        with pytest.raises(ForeignError):
            one(f"keymap = {value};")
    else:
        assert one(f"graphics = yes; keymap = {value};").table["graphics"]["keyboard"] == come_to


def test_an_argument_hides_a_variable_until_it_is_set() -> None:
    """bmd's three scopes."""
    text = "global { $x = g; } template t(x = a) { keymap = $x; $x = l; keymap = ${x}$k; }"
    text += " vm web { $k = v; .apply t; loader = uefi; memory = 1G; "
    assert read(text + "graphics = yes; }").table["graphics"]["keyboard"] == "lv"
    assert read(text + "graphics = yes; keymap = $x; }").table["graphics"]["keyboard"] == "l"


def test_somebody_elses_file() -> None:
    """Its owner owns the guest, and its global section is not heeded."""
    text = "global { $x = 1; } vm web { loader = uefi; memory = 1G; }"
    assert read(text, owner="alice").table["owner"] == ["alice"]
    with pytest.raises(ForeignError, match="nowhere defined"):
        read(text.replace("1G", "${x}G"), owner="alice")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("global { }", "there is no guest in it"),
        (CONF, "3 guests are in it: --guest takes one of first, web, db"),
        ("vm web { memory = 1G; }", "there is no loader"),
        ("vm web {\n loader = xyz; memory = 1G; }", "line 2: loader = xyz"),
        ("vm web { loader = uefi; }", "there is no memory"),
        ("vm web { loader = uefi; memory = x; }", "memory = x: it should be such as 2G"),
        ("vm web { loader = uefi; memory = 1G }", "'}' stands where ';' should"),
        ("vm web { loader = uefi; memory = 1G;", "ends inside of a section"),
        ("vm web { loader = 'uefi; }", "a string has no end"),
        ("vm web { loader /* }", "a comment has no end"),
        ("vm web { .apply missing; }", "no template 'missing'"),
        ("vm web { memory = $x; }", "nowhere defined"),
        ("vm web { $x = $((1 / 0)); }", "a division by zero"),
        ("vm web { $x = $((1 + )); }", "no $((sum))"),
        ("vm web { $x = $((" + "(" * 300 + "1" + ")" * 300 + ")); }", "no $((sum))"),
        ("vm web { $x = " + "$((999999999999999999 * 999999999999999999)); }", "the sum is too large"),
        ("vm web { memory = 1G, 2G; }", "memory takes one value"),
        ("vm web { loader = uefi; memory = 1G; disk = data.img; }", "the path of a disk"),
        ("vm web { loader = uefi; memory = 1G; disk = ahci:/a; }", "ahci-hd,PATH"),
        ("vm web { loader = uefi; memory = 1G; ncpu = 2:x; }", "sockets:cores:threads"),
        ("vm web { loader = uefi; memory = 1G; passthru = pci0; }", "pptN or bus/slot/function"),
        ("vm web { loader = uefi; memory = 1G; hostbridge = none; }", "have a host bridge"),
        ("vm web { loader = uefi; memory = 1G; backend = qemu; }", "another hypervisor"),
        ("vm a { } vm a { }", "two vm sections 'a'"),
        ("template a(x) { .apply b(1); } template b(x) { .apply a; } vm web { .apply a; }", "there is no loader"),
        ("vm web { " + "$x = a$x$x; " * 1 + "}", "nowhere defined"),
        ("vm web { $x = aa; " + "$x = $x$x; " * 40 + "}", "more than 4096 letters"),
        ("nonsense", "vm, template, global or .include should"),
        ("vm web }", "'}' stands where '{' should"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, why: str) -> None:
    """And what bmd itself refuses is not guessed at."""
    with pytest.raises(ForeignError) as raised:
        read(text)
    assert why in str(raised.value)


_PIECES = (
    "vm web global template { } ( ) , ; = += $x ${NAME} $(( )) $((1+$x)) + - * / % .apply .include # // /* */ ' \" \\ \n memory loader disk"
    " network 1G uefi /a nvme: bridge0 graphics yes"
)
PIECES = st.sampled_from(_PIECES.split(" "))


@given(st.lists(st.one_of(PIECES, WORDS), max_size=40), st.booleans())
def test_any_text_is_a_guest_or_a_sentence(words: list[str], in_guest: bool) -> None:
    """Nothing makes the reader fail otherwise, or write what is no TOML."""
    body = " ".join(words)
    with suppress(ForeignError):
        imported = one(body) if in_guest else read(body)
        assert tomllib.loads(toml(imported.table)) == imported.table


_KEYS = (
    "boot com1 com2 cpu_pin disk graphics graphics_listen graphics_port graphics_res graphics_vga hda hostbridge iso keymap loader loadcmd"
    " loader_timeout memory name ncpu network owner passthru sharefs stop_timeout tpm virt_console_nports virt_console_template x2apic"
)
KEYS = st.sampled_from(_KEYS.split())
VALUES = st.text(st.sampled_from("ab01:/,=-x.[]%yesautoG "), max_size=20)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=8))
def test_any_values_are_a_guest_or_a_sentence(pairs: list[tuple[str, str]]) -> None:
    """The same for what follows the language."""
    with suppress(ForeignError):
        imported = one("".join(f"{key} = '{value}'; " for key, value in pairs))
        assert tomllib.loads(toml(imported.table)) == imported.table
