"""Guests of CBSD and iohyve: put together as these do, and read as any command line."""

import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.imports import ForeignError, Imported, cbsd, iohyve, script
from bhyved.core.imports.cbsd import Rows
from bhyved.core.imports.variables import bhyves_mac
from bhyved.ctl.newguest import toml
from tests.core.test_imports import WORDS, same_machine, spec_of

CBSD = """\
vm_boot='hdd'
bhyveload_cmd=''
jname='web'
bhyve_flags=''
# with topology
vm_cpus='cpus=2,sockets=1,cores=2,threads=1'
vm_ram='4294967296'
vm_efi='uefi'
hostbridge_args='-s 0,hostbridge'
lpc_args='-s 31,lpc'
pci_passthru_args=' -s 10,passthru,2/0/0'
virtiornd_args='-s 6,virtio-rnd'
nic_args=' -s 5,virtio-net,tap5,mtu=1500,mac=00:a0:98:11:22:33 -s 11,e1000,tap6,mac=00:a0:98:11:22:34'
uefi_boot_args=''
dsk_args='-s 4,virtio-blk,/usr/jails/jails-data/web-data/dsk1.vhd,sectorsize=512/4096'
dsk_controller_args='-s 12,ahci,hd:/a.vhd,hd:/b.vhd'
cd_args=' -s 7,ahci-cd,/usr/jails/jails-system/web/seed.iso,ro'
nvme_args='-s 8,nvme,/dev/zvol/zroot/nvme,ram=0'
efi_args='-l bootrom,/usr/local/cbsd/upgrade/patch/efi.fd,/usr/jails/jails-system/web/BHYVE_UEFI_VARS.fd,fwcfg=qemu'
vnc_args='-s 9,fbuf,tcp=127.0.0.1:5901,w=1024,h=768'
console_args='-l com1,/dev/nmdm3A -l com2,/dev/nmdm4A'
mytap='tap5 tap6'
vm_vnc_port='0'
bhyve_generate_acpi='1'
bhyve_wire_memory='0'
bhyve_rts_keeps_utc='1'
bhyve_force_msi_irq='0'
bhyve_x2apic_mode='1'
bhyve_mptable_gen='1'
bhyve_ignore_msr_acc='1'
vnc_password="secret"
virtio_9p_args=" -s 13,virtio-9p,share=/srv,ro"
bhyve_vnc_vgaconf="off"
bhyve_vnc_kbdlayout="de"
tpm="/dev/tpm0"
nice='5'
debug_engine='none'
on_poweroff='destroy'
on_reboot='restart'
on_crash='destroy'
xhci='1'
tablet='1'
soundhw_args='none'
bhyve_cmd='/usr/sbin/bhyve'
uuid='0f0f0f0f-1111-2222-3333-444455556666'
nic_address_cmd=''
bhyverun_wrapper='/usr/local/cbsd/share/bhyverun.sh'
mytap_tap5_members="bridge1"
"""
ROWS: Rows = {
    "settings": [{"astart": "1", "vm_ram": "2g", "vm_cpus": "2", "boot_delay": "5", "cpuset": "0"}],
    "bhyvenic": [{"nic_parent": "auto", "nic_persistent": "0"}, {"nic_parent": "tap6", "nic_persistent": "1", "nic_flags": "private"}],
}
# What bhyverun.sh makes of it.
CBSD_RUN = (
    "bhyve -c cpus=2,sockets=1,cores=2,threads=1 -m 4294967296 -H -A -S -u -x -w -U 0f0f0f0f-1111-2222-3333-444455556666 -K de"
    " -l tpm,passthru,/dev/tpm0 -s 0,hostbridge -s 13,virtio-9p,share=/srv,ro"
    " -s 4,virtio-blk,/usr/jails/jails-data/web-data/dsk1.vhd,sectorsize=512/4096"
    " -s 7,ahci-cd,/usr/jails/jails-system/web/seed.iso,ro -s 5,virtio-net,tap5,mtu=1500,mac=00:a0:98:11:22:33"
    " -s 11,e1000,tap6,mac=00:a0:98:11:22:34 -s 8,nvme,/dev/zvol/zroot/nvme -s 6,virtio-rnd -s 10,passthru,2/0/0"
    " -s 9,fbuf,tcp=127.0.0.1:5901,w=1024,h=768,vga=off -s 30,xhci,tablet -s 31,lpc -l com1,/dev/nmdm3A -l com2,/dev/nmdm4A"
    " -l bootrom,/usr/local/cbsd/upgrade/patch/efi.fd,/usr/jails/jails-system/web/BHYVE_UEFI_VARS.fd,fwcfg=qemu web"
)
#: Of bhyved's own choice: backends, the path of com2, what it always adds, and that a medium is read-only.
OURS = ("pci.0.5.0.backend", "lpc.com2.path", "x86.vmexit_on_pause", "pci.0.7.0.port.0.ro")


def from_cbsd(text: str = CBSD, rows: Rows | None = ROWS, bridges: dict[str, str] | None = None) -> Imported:
    return cbsd.translate(text, rows=rows, bridges=bridges or {})


def test_a_guest_of_cbsd_is_the_same_machine(tmp_path: Path) -> None:
    """Put together as bhyverun.sh does, but for a controller of several disks, whose slot is bhyved's to choose."""
    assert cbsd.is_config(CBSD)
    same_machine(from_cbsd(CBSD.replace("-s 12,ahci,hd:/a.vhd,hd:/b.vhd", "")), CBSD_RUN, tmp_path, OURS)

    spec = spec_of(from_cbsd())
    assert (spec.boot.firmware, spec.boot.fwcfg) == ("/usr/local/cbsd/upgrade/patch/efi.fd", "qemu")
    assert [disk.controller for disk in spec.disk if disk.controller] == ["sata0-12-0"] * 2
    assert [(card.bridge, card.tap) for card in spec.network] == [("bridge1", None), (None, "tap6")]
    assert (spec.restart.on_crash, spec.restart.on_poweroff, spec.restart.on_reboot) == ("stop", "stop", "restart")


def test_what_cbsd_has_and_bhyved_has_not_is_told() -> None:
    """Of the file and of the database; a secret is named, never copied."""
    imported = from_cbsd(CBSD + "new_args='-s 20,new'\n")
    told = "\n".join(imported.notes)

    assert "secret" not in told + toml(imported.table)
    for words in (
        "password-file",
        "efi.fd belongs to the package cbsd",
        "seed.iso: CBSD makes it anew",
        "nice='5' is left out",
        "new_args='-s 20,new' is left out",
        "astart=1: it starts with the host there",
        "vm_ram=2g in local.sqlite is for the next start there; taken is 4294967296",
        "boot_delay=5 is left out",
        "network[1]: nic_flags=private is left out",
    ):
        assert words in told
    assert "cpuset" not in told
    assert "vm_cpus=" not in told


def test_bridges_of_cbsd_are_said_by_tap_or_by_bridge() -> None:
    """--bridge knows both."""
    for there in ("tap5", "bridge1"):
        assert spec_of(from_cbsd(bridges={there: "bridge7"})).network[0].bridge == "bridge7"


def test_a_tap_that_stays_is_kept() -> None:
    """It has a bridge of its own doing, unless --bridge says otherwise."""
    text = CBSD + 'mytap_tap6_members="bridge2"\n'
    assert spec_of(from_cbsd(text)).network[1].tap == "tap6"
    assert spec_of(from_cbsd(text, bridges={"tap6": "bridge2"})).network[1].bridge == "bridge2"


def test_a_guest_of_cbsd_with_its_loader() -> None:
    """bhyveload behind lockf, as CBSD has it; without a database that is told."""
    text = CBSD.replace("vm_efi='uefi'", "vm_efi='none'").replace("efi_args='-l bootrom", "ignored='-l bootrom")
    loader = "/usr/bin/lockf -s -t0 /x.lock /usr/sbin/bhyveload -m 4294967296 -d /usr/jails/jails-data/web-data/dsk1.vhd web"
    imported = from_cbsd(text.replace("bhyveload_cmd=''", f"bhyveload_cmd='{loader}'"), rows=None)

    assert imported.table["boot"] == {"loader": "bhyveload", "bhyveload": {"disk": ["/usr/jails/jails-data/web-data/dsk1.vhd"]}}
    assert any("local.sqlite (astart), which is not beside the file" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("jname='web'", "jname=''", "jname says no name"),
        ("vm_ram='4294967296'", "", "vm_ram is missing"),
        ("nice='5'", "nice='5", "line 36: the value of nice has no closing quote"),
        ("-s 31,lpc", "-s x,lpc", "no slot and device"),
        ("-s 31,lpc", "'", "has no closing quote"),
        ("vm_ram='4294967296'", "vm_ram='many'", "no size of memory"),
    ],
)
def test_what_is_no_guest_of_cbsd(old: str, new: str, why: str) -> None:
    """A sentence that says where."""
    with pytest.raises(ForeignError, match=why.replace("(", r"\(")):
        from_cbsd(CBSD.replace(old, new))


IOHYVE = """\
zroot/iohyve/web\ttype\tfilesystem\t-
zroot/iohyve/web\tcreation\tFri Nov 27 10:00 2026\t-
zroot/iohyve/web\tiohyve:name\tweb\tlocal
zroot/iohyve/web\tiohyve:ram\t2G\tlocal
zroot/iohyve/web\tiohyve:cpu\t2\tlocal
zroot/iohyve/web\tiohyve:tap\ttap3,tap4=em1\tlocal
zroot/iohyve/web\tiohyve:mac_tap3\t58:9c:fc:00:00:01\tlocal
zroot/iohyve/web\tiohyve:con\tnmdm3\tlocal
zroot/iohyve/web\tiohyve:persist\t1\tlocal
zroot/iohyve/web\tiohyve:boot\t1\treceived
zroot/iohyve/web\tiohyve:loader\tuefi\tlocal
zroot/iohyve/web\tiohyve:fw\tBHYVE_UEFI.fd\tlocal
zroot/iohyve/web\tiohyve:utc\tYES\tlocal
zroot/iohyve/web\tiohyve:sectorsize\t512\tlocal
zroot/iohyve/web\tiohyve:vnc\tYES\tlocal
zroot/iohyve/web\tiohyve:vnc_ip\t127.0.0.1\tlocal
zroot/iohyve/web\tiohyve:vnc_port\t5907\tlocal
zroot/iohyve/web\tiohyve:vnc_tablet\tYES\tlocal
zroot/iohyve/web\tiohyve:os\tdefault\tlocal
zroot/iohyve/web\tiohyve:description\tmade on Fri Nov 27\tlocal
zroot/iohyve/web\tiohyve:bargs\t-A_-H_-P_-S\tlocal
zroot/iohyve/web\tiohyve:template\tNO\tlocal
zroot/iohyve/web\tiohyve:pcidev:2\tpassthru,2/0/0\tlocal
zroot/iohyve/web\tiohyve:pcidev:1\tahci-hd,/dev/zvol/zroot/iohyve/web/disk1\tlocal
zroot/iohyve/web\tiohyve:shoe\tsize\tlocal
zroot/iohyve/web/disk0\tiohyve:name\tweb\tinherited from zroot/iohyve/web
zroot/iohyve/web@monday\tiohyve:name\tweb\tinherited from zroot/iohyve/web
"""
IOHYVE_RUN = (
    "bhyve -c 2 -A -H -P -S -m 2G -s 0,hostbridge -s 1,ahci-hd,/dev/zvol/zroot/iohyve/web/disk0,sectorsize=512"
    " -s 2,ahci-hd,/dev/zvol/zroot/iohyve/web/disk1 -s 3,passthru,2/0/0 -s 4,virtio-net,tap3,mac=58:9c:fc:00:00:01 -s 5,virtio-net,tap4"
    " -s 6,fbuf,tcp=127.0.0.1:5907,w=800,h=600 -s 7,xhci,tablet -s 31,lpc -u -l com1,/dev/nmdm3A"
    " -l bootrom,/iohyve/Firmware/BHYVE_UEFI.fd/BHYVE_UEFI.fd ioh-web"
)


def from_iohyve(text: str = IOHYVE, guest: str = "", dataset: str = "") -> Imported:
    return iohyve.translate(text, guest=guest, dataset=dataset, bridges={"em1": "bridge7"})


def test_a_guest_of_iohyve_is_the_same_machine(tmp_path: Path) -> None:
    """Every device in the slot of its turn; an address that bhyve made up is that of the name that iohyve gives to bhyve."""
    assert iohyve.is_listing(IOHYVE)
    imported = from_iohyve()
    same_machine(imported, IOHYVE_RUN, tmp_path, ("pci.0.4.0.backend", "pci.0.5.0.backend", "pci.0.5.0.mac"))

    spec = spec_of(imported)
    assert (spec.name, spec.network[1].mac) == ("web", bhyves_mac("ioh-web", (0, 5, 0)))
    assert [card.bridge for card in spec.network] == ["bridge0", "bridge7"]
    told = "\n".join(imported.notes)
    for words in (
        "bhyve calls it ioh-web there",
        "without uuid = … it changes",
        "iohyve:tap=tap3: whether bridge0 is",
        "iohyve:boot=1: it starts with the host",
        "iohyve:description: made on Fri Nov 27",
        "iohyve:shoe=size is left out",
        'restart.on-reboot = "stop"',
    ):
        assert words in told
    assert "tap4" not in told


@pytest.mark.parametrize("columns", ["name,property,value", "property,value", "blanks"])
def test_whatever_columns_zfs_prints(columns: str) -> None:
    """With and without names, sources and tabs."""
    rows = [line.split("\t") for line in IOHYVE.splitlines()[:-2]]
    if columns == "blanks":
        text = "NAME  PROPERTY  VALUE  SOURCE\n" + "\n".join("   ".join(word.ljust(20) for word in row) for row in rows)
    else:
        text = "\n".join("\t".join(row[0 if columns.startswith("name") else 1 : 3]) for row in rows)
    assert from_iohyve(text, dataset="zroot/iohyve/web").table == from_iohyve().table


@pytest.mark.parametrize(
    ("system", "grub"),
    [
        ("debian", {"root": "hd0,msdos1"}),
        ("centos7", {"root": "hd0,msdos1", "directory": "/grub2"}),
        ("openbsd61", {"commands": ["kopenbsd -h com0 -r sd0a (hd0,openbsd1)/bsd"]}),
        ("custom", {"root": "host", "directory": "/iohyve/web"}),
    ],
)
def test_grub_of_iohyve(system: str, grub: dict[str, str]) -> None:
    """By the name of the system; lpc is in slot 1 without firmware, and the clock shows what -u in bargs says."""
    text = IOHYVE.replace("loader\tuefi", "loader\tgrub-bhyve").replace("os\tdefault", f"os\t{system}").replace("persist\t1", "persist\t0")
    imported = from_iohyve(text)

    assert imported.table["boot"] == {"loader": "grub", "grub": grub}
    assert imported.table["bhyve"]["lpc-slot"] == "0:1:0"
    assert "sector-size" not in imported.table["disk"][0]
    assert imported.table["restart"] == {"on-reboot": "stop", "on-crash": "stop"}
    assert spec_of(imported).clock == "localtime"


def test_bhyveload_of_iohyve() -> None:
    """It loads from the first disk."""
    imported = from_iohyve(IOHYVE.replace("loader\tuefi", "loader\tbhyveload"))
    assert imported.table["boot"] == {"loader": "bhyveload", "bhyveload": {"disk": ["/dev/zvol/zroot/iohyve/web/disk0"]}}


@pytest.mark.parametrize(
    ("text", "guest", "why"),
    [
        (IOHYVE + IOHYVE.replace("web", "db"), "", "2 guests are in it: --guest takes one of db, web"),
        (IOHYVE, "db", "'db' is none of the guests in it"),
        (IOHYVE.replace("loader\tuefi", "loader\txyz"), "", "loader=xyz"),
        (IOHYVE.replace("fw\tBHYVE_UEFI.fd", "fw\t-"), "", "no iohyve:fw"),
        (IOHYVE.replace("ram\t2G", "ram\t-"), "", "no iohyve:ram"),
        (IOHYVE.replace("bargs\t-A", "bargs\t-Z"), "", "no such command line"),
        ("iohyve:name\tweb\niohyve:ram\t1G\n", "", "--dataset says it"),
        ("a/b\tiohyve:ram\t1G\n", "", "no guest in it"),
    ],
)
def test_what_is_no_guest_of_iohyve(text: str, guest: str, why: str) -> None:
    """A sentence."""
    with pytest.raises(ForeignError) as raised:
        from_iohyve(text, guest)
    assert why in str(raised.value)


def test_more_devices_than_slots() -> None:
    """iohyve gives them none, and so does the new file; which ones is told."""
    text = IOHYVE + "".join(f"zroot/iohyve/web\tiohyve:pcidev:9{number:02}\tvirtio-rnd\tlocal\n" for number in range(30))
    assert any("left out, as iohyve does behind slot 30" in note for note in from_iohyve(text).notes)


def test_chyves_is_recognised() -> None:
    """Its file is not read, but it is known."""
    assert iohyve.is_of_chyves("bargs=-A\nbhyve_disk_type=ahci-hd\nloader=bhyveload\nnet_ifaces=tap1\n")
    assert not iohyve.is_of_chyves(IOHYVE)
    assert not iohyve.is_of_chyves(CBSD)


def test_a_bootrom_with_options() -> None:
    """Behind the ROM come its variables, if any, and options of the LPC bridge (pci_lpc.c, `lpc_device_parse`)."""
    for words, variables in (("/r.fd,/v.fd,fwcfg=qemu", "/v.fd"), ("/r.fd,fwcfg=qemu", None)):
        boot = script.from_script(f"bhyve -m 1G -s 31,lpc -l bootrom,{words} web", here="/", bridges={}).table["boot"]
        assert (boot["fwcfg"], boot.get("vars")) == ("qemu", variables)


CBSD_KEYS = st.sampled_from([line.partition("=")[0] for line in CBSD.splitlines() if "=" in line])
VALUES = st.text(st.sampled_from("-s0123,lpc=/ahdmir'\"\\$ x:"), max_size=16)


@given(st.dictionaries(CBSD_KEYS, st.one_of(WORDS, VALUES)), st.dictionaries(st.sampled_from(["astart", "vm_ram", "vm_cpus"]), WORDS))
def test_any_file_of_cbsd_is_a_guest_or_a_sentence(changed: dict[str, str], settings: dict[str, str]) -> None:
    """No text makes the importer fail otherwise, or write what is no TOML."""
    text = CBSD + "".join(f"{key}='{value}'\n" for key, value in changed.items())
    with suppress(ForeignError):
        imported = from_cbsd(text, {"settings": [settings]})
        assert tomllib.loads(toml(imported.table)) == imported.table


PROPERTIES = st.sampled_from([line.split("\t")[1] for line in IOHYVE.splitlines() if "iohyve:" in line])


@given(st.dictionaries(PROPERTIES, st.one_of(WORDS, VALUES)))
def test_any_properties_are_a_guest_or_a_sentence(changed: dict[str, str]) -> None:
    """The same for iohyve's."""
    text = IOHYVE + "".join(f"zroot/iohyve/web\t{key}\t{value}\tlocal\n" for key, value in changed.items())
    with suppress(ForeignError):
        imported = from_iohyve(text)
        assert tomllib.loads(toml(imported.table)) == imported.table
