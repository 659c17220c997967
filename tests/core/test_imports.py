"""Guests of other tools in our words: bhyve reads the same machine in the new file as it read until now."""

import shlex
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import bhyveconf
from bhyved.core.assigned import Target, provisional
from bhyved.core.config import Source, load
from bhyved.core.imports import ForeignError, Imported, domain, script, vmbhyve
from bhyved.core.imports.variables import bhyves_mac
from bhyved.core.spec import VmSpec
from bhyved.ctl.newguest import toml
from bhyved.lab import options
from bhyved.lab.freebsd import Settings

SAME = (
    "bhyve -AHPwu -c 2 -m 1G -s 0,hostbridge -s 3,virtio-blk,/vm/a.img,nocache -s 4:1,virtio-net,tap7,mac=58:9c:fc:01:02:03 -s 31,lpc"
    " -l com1,stdio web",
    "bhyve -AHPwu -S -c cpus=4,sockets=1,cores=2,threads=2 -m 2048M -U 0f0f0f0f-1111-2222-3333-444455556666 -p 0:2 -p 1:3 -K de"
    " -s 0,amd_hostbridge -s 2,ahci-hd,/vm/a.img,ser=abc,ro -s 3,ahci-cd,/vm/i.iso -s 5,nvme,/vm/n.img,maxq=4"
    " -s 6,e1000,tap1 -s 7,virtio-rnd -s 8,passthru,2/0/0 -s 29,fbuf,tcp=127.0.0.1:5901,w=800,h=600,wait -s 30,xhci,tablet -s 31,lpc"
    " -l com1,/dev/nmdm3A -l com2,tcp=127.0.0.1:4000 -l bootrom,/fw/X.fd,/vm/vars.fd -o system.serial_number=7 big",
    "bhyve -HPwu -Y -m 512 -s 0,hostbridge -s 1,lpc -s 2,virtio-9p,share=/srv,ro -s 18,virtio-console,org.a=/var/run/a.sock"
    " -s 4,hda,play=/dev/dsp1 -s 5,virtio-input,/dev/input/event3 -s 6,virtio-net,netgraph,path=br:,peerhook=link2 -s 7,virtio-net,vale0:1"
    " -s 1:0:0,virtio-blk,/vm/b.img,sectorsize=512/4096,nodelete -l bootrom,/fw/BHYVE_UEFI.fd small",
    "bhyve -AHPwu -W -x -e -C -m 1G -s 0,hostbridge -s 4,virtio-scsi,/dev/cam/ctl1.1,iid=2 -s 5,nvme,ram=64 -s 31,lpc -l com1,stdio odd",
)
OURS = ("name", "lpc.com1.path", "destroy_on_poweroff", "lpc.fwcfg", "acpi_tables_in_memory", "bootvars", "lpc.bootvars", "lpc.bootrom")


def spec_of(imported: Imported) -> VmSpec:
    loaded = load(Source("", ""), {imported.name: Source(imported.name, toml(imported.table))}, {})
    assert loaded.problems == ()
    return loaded.vms[imported.name]


def read_by_bhyve(argv: list[str], root: Path) -> dict[str, str]:
    """The lab's bhyve, which knows nothing of this importer."""
    line = options.parse(argv, Settings(str(root)))
    tree = line.tree.flat() | dict(zip(("cpus", "sockets", "cores", "threads"), map(str, options.topology(line.tree)), strict=True))
    tree["memory.size"] = str(options.memory_bytes(tree["memory.size"]))
    return {key: value for key, value in tree.items() if key not in OURS}


def same_machine(imported: Imported, run: str, root: Path, ours: tuple[str, ...]) -> None:
    """bhyve reads what the other tool would have run, but for variables that are `ours`."""
    spec = spec_of(imported)
    file = root / "bhyve.conf"
    file.write_text(bhyveconf.render(spec, provisional(spec), Target("15")))
    mine = read_by_bhyve(["-k", str(file), "web"], root)
    theirs = read_by_bhyve(shlex.split(run)[1:], root)
    assert {key: value for key, value in mine.items() if key not in ours} == {
        key: value for key, value in theirs.items() if key not in ours
    }


@pytest.mark.parametrize("line", SAME)
def test_a_command_line_comes_out_as_the_same_machine(line: str, tmp_path: Path) -> None:
    """Every variable but those that bhyved decides itself; a card without an address keeps the one that bhyve made for it."""
    spec = spec_of(script.from_script(line, here="/", bridges={}))

    file = tmp_path / "bhyve.conf"
    file.write_text(bhyveconf.render(spec, provisional(spec, install=True), Target("15")))
    ours = read_by_bhyve(["-k", str(file), spec.name], tmp_path)
    theirs = read_by_bhyve(shlex.split(line)[1:], tmp_path)
    addresses = {key: value for key, value in ours.items() if key.endswith(".mac") and key not in theirs}
    assert {key: value for key, value in ours.items() if key not in addresses} == theirs
    for key, value in addresses.items():
        assert value == bhyves_mac(spec.name, tuple(int(part) for part in key.split(".")[1:4]))


def test_bhyves_own_address_of_a_card() -> None:
    """MD5 of slot, function and name behind FreeBSD's prefix."""
    assert bhyves_mac("guest", (0, 2, 0)) == "58:9c:fc:11:f8:25"


@pytest.mark.parametrize("key", ["config.dump=true", "name=web"])
def test_a_dumped_configuration_is_read(key: str) -> None:
    """What `config.dump` prints is a guest, without the line that made it print."""
    text = f"{key}\nname=web\nmemory.size=1G\npci.0.3.0.device=virtio-blk\npci.0.3.0.path=/a\n"
    assert script.is_config(text)
    imported = script.from_config(text, here="/", bridges={})
    assert imported.name == "web"
    assert spec_of(imported).disk[0].path == "/a"
    assert "options" not in imported.table.get("bhyve", {"x": 1}) or "config.dump" not in imported.table["bhyve"]["options"]


def test_a_script_with_its_loader() -> None:
    """The loader command before bhyve becomes the boot table; relative paths are those of the script's directory."""
    text = """\
#!/bin/sh
ifconfig tap0 create && ifconfig bridge0 addm tap0
sudo bhyveload -m 1G -d ./disk.img -e autoboot_delay=1 web || exit 1
doas bhyve -A -H -m 1G -s 0,hostbridge -s 1,lpc \\
    -s 2,virtio-net,tap0 -s 3,virtio-blk,disk.img \\
    -l com1,stdio web > /var/log/web 2>&1
"""
    imported = script.from_script(text, here="/vm", bridges={"tap0": "bridge0"})
    assert imported.name == "web"
    assert imported.table["boot"] == {"loader": "bhyveload", "bhyveload": {"disk": ["/vm/disk.img"], "env": {"autoboot_delay": "1"}}}
    assert imported.table["disk"] == [{"model": "virtio-blk", "path": "/vm/disk.img", "slot": "0:3:0"}]
    assert imported.table["network"][0]["bridge"] == "bridge0"
    assert spec_of(imported).clock == "localtime"


def test_what_only_bhyve_knows_stays_as_it_is() -> None:
    """A tablet without a screen, a keyboard for nobody, a second sound device. bhyve draws no VGA, and overlooks a node `03`."""
    line = "bhyve -m 1G -K de -s 3,xhci,tablet -s 4,hda,play=/dev/dsp1 -s 5,hda,play=/dev/dsp2 -s 31,lpc -l com1,stdio web"
    imported = script.from_script(line, here="/", bridges={})
    options = imported.table["bhyve"]["options"]

    assert "graphics" not in imported.table
    assert (options["pci.0.3.0.device"], options["pci.0.3.0.slot.1.device"], options["keyboard.layout"]) == ("xhci", "tablet", "de")
    assert (imported.table["sound"]["play"], options["pci.0.5.0.play"]) == ("/dev/dsp1", "/dev/dsp2")
    assert spec_of(imported).graphics is None

    imported = script.from_script("bhyve -m 1G -s 3,fbuf,tcp=5900,vga=on -s 31,lpc web", here="/", bridges={})
    assert (spec_of(imported).graphics is not None, any("vga=on is left out" in note for note in imported.notes)) == (True, True)

    imported = script.from_config("name=web\nmemory.size=1G\npci.0.03.0.device=virtio-rnd\n", here="/", bridges={})
    assert imported.table["random"] == {"enabled": False}


def test_a_port_without_a_number_is_told() -> None:
    """A configuration file that somebody wrote by hand may hold anything."""
    text = "name=web\nmemory.size=1G\npci.0.3.0.device=ahci\npci.0.3.0.port.x.type=hd\n"
    with pytest.raises(ForeignError, match="'x' should be a number"):
        script.from_config(text, here="/", bridges={})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bhyve -m 1G -s 3,virtio-blk,$DISK web", "for the shell to expand"),
        ("bhyve -m 1G a\nbhyve -m 1G b", "2 bhyve commands"),
        ("bhyve -m 1G", "must end with the name"),
        ("bhyve -m 1X web", "no size of memory"),
        ("bhyve -c 4,cores=3 -m 1G web", "4 vCPUs are not"),
        ("bhyve -Z web", "no such command line"),
        ("bhyve -s x,lpc web", "no slot and device"),
    ],
)
def test_what_is_no_guest(text: str, why: str) -> None:
    """A sentence that says what is wrong."""
    with pytest.raises(ForeignError, match=why.replace("$", r"\$")):
        script.from_script(text, here="/", bridges={})


VM_BHYVE = """\
loader="uefi"
uefi_vars="yes"
cpu="4"
cpu_sockets="1"
cpu_cores="4"
memory=2G   # of RAM
graphics="yes"
graphics_port="5905"
graphics_listen="0.0.0.0"
xhci_mouse="yes"
network0_type="virtio-net"
network0_switch="public"
network0_mac="58:9c:fc:0a:0b:0c"
network1_type="e1000"
network1_switch="lab"
disk0_type="nvme"
disk0_name="disk0"
disk0_dev="sparse-zvol"
disk1_type="virtio-blk"
disk1_name="disk1.img"
disk1_opts="direct,sectorsize=512/4096"
disk2_type="ahci-cd"
disk2_name="/iso/tools.iso"
disk2_dev="custom"
virt_random="yes"
uuid="0f0f0f0f-1111-2222-3333-444455556666"
prestart="mount.sh"
limit_pcpu="50"
limit_rbps="10m"
limit_wbps="1000000"
limit_wiops="2k"
bhyve_options="-w -p 0:2 -o x86.x2apic=true -s 20,virtio-scsi,/dev/cam/ctl1.1"
  debug="yes"
"""
SYSTEM = """\
switch_list="public wan other"
type_public="standard"
type_wan="manual"
bridge_wan="bridge7"
type_other="vale"
"""


def vm_bhyve(text: str, **changed: Any) -> Imported:
    given: dict[str, Any] = {"name": "web", "directory": "/zroot/vm/web", "dataset": "zroot/vm/web", "bridges": vmbhyve.switches(SYSTEM)}
    return vmbhyve.translate(text, **{**given, **changed})


@pytest.mark.parametrize(
    ("word", "loader"), [("yes", "uefi"), ("csm", "uefi-csm"), ("no", "bhyveload"), ("NO", "bhyveload"), ("", "bhyveload")]
)
def test_an_old_guest_of_vm_bhyve_says_its_loader_by_uefi(word: str, loader: str) -> None:
    """Before vm-bhyve 1.2 there was no option `loader`."""
    assert vm_bhyve(f'memory="1G"\nuefi="{word}"\n').table["boot"]["loader"] == loader


def test_a_guest_of_vm_bhyve() -> None:
    """Every device is where vm-bhyve puts it: disks from slot 4, then cards, randomness, screen and tablet."""
    imported = vm_bhyve(VM_BHYVE)
    spec = spec_of(imported)

    assert [(disk.path, disk.model, disk.slot) for disk in spec.disk] == [
        ("/dev/zvol/zroot/vm/web/disk0", "nvme", "0:4:0"),
        ("/zroot/vm/web/disk1.img", "virtio-blk", "0:5:0"),
    ]
    assert (spec.disk[1].sync, spec.disk[1].sector_size) == (True, "512/4096")
    assert (spec.cdrom[0].path, spec.cdrom[0].slot) == ("/iso/tools.iso", "0:6:0")
    assert [(card.bridge, card.model, card.slot, card.mac) for card in spec.network] == [
        ("vm-public", "virtio-net", "0:7:0", "58:9c:fc:0a:0b:0c"),
        ("vm-lab", "e1000", "0:7:1", None),
    ]
    assert spec.graphics is not None
    assert (spec.random.slot, spec.graphics.slot, spec.graphics.tablet_slot) == ("0:8:0", "0:9:0", "0:10:0")
    assert (spec.graphics.listen, spec.cpus.sockets, spec.cpus.cores, spec.memory, spec.clock) == ("0.0.0.0:5905", 1, 4, 2 << 30, "utc")
    assert spec.boot.vars == "/zroot/vm/web/uefi-vars.fd"
    assert [note.partition(" ")[0] for note in imported.notes] == ["network1:", "the", "where", "prestart='mount.sh'", "whether"]
    assert imported.table["limits"] == {"pcpu": 50, "readbps": "10M", "writebps": "977K", "writeiops": 2048}
    assert spec.cpus.pin == ("0:2",)
    assert imported.table["bhyve"]["options"] == {
        "x86.x2apic": "true",
        "pci.0.20.0.device": "virtio-scsi",
        "pci.0.20.0.dev": "/dev/cam/ctl1.1",
    }


def test_without_firmware_eight_disks_share_a_slot() -> None:
    """As vm-bhyve counts functions; the cards come behind the last slot of a disk."""
    disks = "".join(f'disk{number}_type="virtio-blk"\ndisk{number}_name="d{number}"\n' for number in range(9))
    spec = spec_of(vm_bhyve(f'loader="bhyveload"\ncpu=1\nmemory=1G\n{disks}network0_type="virtio-net"\nnetwork0_switch="wan"\n'))
    assert [disk.slot for disk in spec.disk] == [*(f"0:4:{function}" for function in range(8)), "0:5:0"]
    assert (spec.network[0].slot, spec.network[0].bridge) == ("0:6:0", "bridge7")
    assert not spec.random.enabled


def test_grub_of_vm_bhyve() -> None:
    """Commands in a row, without the last boot, which bhyved adds."""
    text = 'loader="grub"\ncpu=1\nmemory=512M\ngrub_run_partition="msdos1"\ngrub_run_dir="/grub2"\n'
    text += 'grub_run0="linux /vmlinuz"\ngrub_run1="initrd /initrd"\ngrub_run2="boot"\ngrub_install0="linux /k"\n'
    boot = spec_of(vm_bhyve(text)).boot
    assert (boot.loader, boot.grub.root, boot.grub.directory) == ("grub", "hd0,msdos1", "/grub2")
    assert (boot.grub.commands, boot.grub.install_commands) == (("linux /vmlinuz", "initrd /initrd"), ("linux /k",))


@pytest.mark.parametrize("options", ["-Z", "-s x", "'", "web other"])
def test_options_of_vm_bhyve_that_bhyve_does_not_take(options: str) -> None:
    """The guest could not have run with them."""
    with pytest.raises(ForeignError, match="bhyve_options="):
        vm_bhyve(f"loader=uefi\ncpu=1\nmemory=1G\nbhyve_options={options}\n")


def test_a_limit_that_rctl_does_not_take() -> None:
    """vm-bhyve gives it to rctl(8) as it is."""
    with pytest.raises(ForeignError, match="limit_rbps='fast'"):
        vm_bhyve("loader=uefi\ncpu=1\nmemory=1G\nlimit_rbps=fast\n")


def test_a_zvol_needs_its_dataset() -> None:
    """Else the path of the disk would be a guess."""
    with pytest.raises(ForeignError, match="--dataset"):
        vm_bhyve(VM_BHYVE, dataset="")


DOMAIN = """\
<domain type='bhyve'>
  <name>db</name>
  <uuid>0f0f0f0f-1111-2222-3333-444455556666</uuid>
  <memory unit='MiB'>1536</memory>
  <vcpu>4</vcpu>
  <cpu><topology sockets='1' cores='2' threads='2'/></cpu>
  <os><type>hvm</type><loader readonly='yes' type='pflash'>/usr/local/share/uefi-firmware/BHYVE_UEFI.fd</loader><nvram>/v/db.fd</nvram></os>
  <clock offset='localtime'/>
  <on_reboot>destroy</on_reboot><on_crash>restart</on_crash>
  <devices>
    <disk type='file' device='disk'><source file='/vm/db.img'/><target dev='vda' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></disk>
    <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='hdc' bus='sata'/><readonly/></disk>
    <disk type='file' device='cdrom'><target dev='hdd' bus='sata'/></disk>
    <interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='bridge3'/><model type='e1000'/></interface>
    <interface type='network'><source network='default'/></interface>
    <serial type='nmdm'><source master='/dev/nmdm0A' slave='/dev/nmdm0B'/><target port='0'/></serial>
    <console type='nmdm'><target type='serial' port='0'/></console>
    <graphics type='vnc' port='5904' passwd='secret'><listen type='address' address='127.0.0.1'/></graphics>
    <video><driver vgaconf='off'/><model type='gop'><resolution x='1280' y='720'/></model></video>
    <filesystem type='mount'><source dir='/srv'/><target dir='shared'/><readonly/></filesystem>
    <tpm model='tpm-crb'/>
  </devices>
  <bhyve:commandline xmlns:bhyve='http://libvirt.org/schemas/domain/bhyve/1.0'><bhyve:arg value='-somearg'/></bhyve:commandline>
</domain>
"""


def test_a_domain_of_libvirt() -> None:
    """What virsh prints, device by device; a secret is named, never copied."""
    imported = domain.translate(DOMAIN, bridges={"default": "bridge1"})
    spec = spec_of(imported)

    assert (spec.name, spec.memory, spec.cpus.cores, spec.clock) == ("db", 1536 << 20, 2, "localtime")
    assert (spec.boot.loader, spec.boot.firmware, spec.boot.vars) == ("uefi", None, "/v/db.fd")
    assert [(disk.path, disk.slot) for disk in spec.disk] == [("/vm/db.img", "0:5:0")]
    assert [drive.path for drive in spec.cdrom] == ["/iso/a.iso"]
    assert [(card.bridge, card.model) for card in spec.network] == [("bridge3", "e1000"), ("bridge1", "virtio-net")]
    assert spec.graphics is not None
    assert (spec.graphics.listen, spec.graphics.resolution, spec.graphics.vga) == ("127.0.0.1:5904", "1280x720", "off")
    assert (spec.restart.on_reboot, spec.restart.on_crash) == ("stop", "restart")
    assert (spec.share[0].name, spec.share[0].read_only) == ("shared", True)
    told = "\n".join(imported.notes)
    assert "secret" not in told + toml(imported.table)
    for word in ("without a medium", "password-file", "<tpm>", "-somearg"):
        assert word in told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<domain type='kvm'/>", "not bhyve"),
        ("<domain type='bhyve'><memory>x</memory></domain>", "should be a number"),
        ("<domain", "not well-formed"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><domain type='bhyve'/>", "no document type"),
        ("<x><domainx/></x>", "no <domain>"),
    ],
)
def test_what_is_no_domain(text: str, why: str) -> None:
    """A sentence, and no entity is expanded."""
    with pytest.raises(ForeignError, match=why):
        domain.translate(text, bridges={})


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)
OPTIONS = st.sampled_from(
    ["-s", "-l", "-c", "-m", "-o", "-p", "-n", "-A", "3,ahci,hd:/a", "31,lpc", "com1,tcp=", "passthru", "web", "bhyve", "&&"]
)


@given(st.lists(st.one_of(WORDS, OPTIONS), max_size=12))
def test_any_line_is_a_guest_or_a_sentence(words: list[str]) -> None:
    """No text makes the importer fail otherwise, or write what is no TOML."""
    with suppress(ForeignError):
        imported = script.from_script("bhyve " + " ".join(words), here="/", bridges={})
        assert tomllib.loads(toml(imported.table)) == imported.table


KEYS = st.sampled_from([line.partition("=")[0] for line in VM_BHYVE.split() if "=" in line])


@given(st.dictionaries(KEYS, st.text(st.characters(codec="ascii", exclude_characters='\n\r"#'), max_size=12)))
def test_any_options_of_vm_bhyve_are_a_guest_or_a_sentence(keys: dict[str, str]) -> None:
    """The same for its files."""
    with suppress(ForeignError):
        imported = vm_bhyve("".join(f'{key}="{value}"\n' for key, value in keys.items()))
        assert tomllib.loads(toml(imported.table)) == imported.table
