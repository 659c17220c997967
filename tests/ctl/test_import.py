"""`vmctl import`: a file that `check` accepts, nothing over one that is there, and every refusal a line."""

import json
import os
import pwd
import sqlite3
import tomllib
from pathlib import Path

import pytest

from bhyved.ctl import foreignfiles
from tests.core.test_imports import DOMAIN, SYSTEM, VM_BHYVE
from tests.core.test_imports_managers import CBSD, IOHYVE
from tests.ctl.conftest import Vmctl
from tests.ctl.test_create import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "lab")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A guest of vm-bhyve, with its switches."""
    for directory in ("vm/.config", "vm/web1"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "vm/.config/system.conf").write_text(SYSTEM)
    conf = tmp_path / "vm/web1/web1.conf"
    conf.write_text(VM_BHYVE)
    return conf


def test_a_guest_of_vm_bhyve_moves_in(vmctl: Vmctl, place: Place, there: Path) -> None:
    """Its file is accepted, says where it is from and what was left out, and starts nothing by itself."""
    ran = vmctl(None, "import", str(there), "--dataset", "zroot/vm/web1", "-c", place.main)

    warning = "warning: graphics.listen: VNC on 0.0.0.0 without password-file is open to the whole network\n"
    assert (ran.status, ran.err) == (0, warning)
    assert ran.out.splitlines()[-2:] == [
        f"{place.file()}: made",
        "next: vmctl reload; vmctl plan web1; when the guest no longer runs elsewhere, vmctl start web1; then autostart = true in its file",
    ]
    assert vmctl(None, "check", "-c", place.main).status == 0
    text = place.file().read_text()
    assert text.startswith(f"# Imported from {there}.\n# - network1: whether")
    table = tomllib.loads(text)
    assert (table["autostart"], table["network"][0]["bridge"]) == (False, "vm-public")
    assert there.read_text() == VM_BHYVE


def test_bridges_are_said(vmctl: Vmctl, place: Place, there: Path) -> None:
    """--bridge wins over what the other tool says."""
    words = ["--dataset", "zroot/vm/web1", "--bridge", "public=bridge0,lab=bridge1", "--dry-run", "-c", place.main]
    ran = vmctl(None, "import", str(there), *words)
    assert [card["bridge"] for card in tomllib.loads(ran.out)["network"]] == ["bridge0", "bridge1"]
    assert not place.file().exists()


def test_json_names_file_and_notes(vmctl: Vmctl, place: Place, tmp_path: Path) -> None:
    """For programs: what was made, what was left out, what comes next."""
    (tmp_path / "db.xml").write_text(DOMAIN)
    told = json.loads(vmctl(None, "import", str(tmp_path / "db.xml"), "--bridge", "default=bridge0", "--json", "-c", place.main).out)
    assert (told["version"], told["vm"], told["file"]) == (1, "db", str(place.file("db")))
    assert any("password-file" in note for note in told["notes"])


def test_a_guest_of_bmd_moves_in(vmctl: Vmctl, place: Place, tmp_path: Path) -> None:
    """Files that bmd.conf includes are read beside it, and --guest says which of all guests it is."""
    (tmp_path / "bmd.d").mkdir()
    (tmp_path / "bmd.conf").write_text('template lan { network = bridge0; comport = auto; }\n.include "bmd.d/*.conf";\n')
    for name in ("web1", "db1"):
        (tmp_path / f"bmd.d/{name}.conf").write_text(f"vm {name} {{ loader = uefi; memory = 1G; disk = /vm/{name}.img; .apply lan; }}\n")
    words = ("import", str(tmp_path / "bmd.conf"), "-c", place.main)

    assert "2 guests are in it: --guest takes one of db1, web1" in vmctl(None, *words).err
    assert vmctl(None, *words, "--guest", "web1").status == 0
    assert tomllib.loads(place.file().read_text())["disk"][0]["path"] == "/vm/web1.img"
    assert "db1.conf line 1: there is no template 'lan'" in failure_without_template(vmctl, place, tmp_path)


def test_whose_file_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bmd goes by the owner of a file: root's and one's own are as good as each other, anybody else is named."""
    path = tmp_path / "bmd.conf"
    path.touch()
    assert foreignfiles.source(foreignfiles.Found(str(path), "", "")).owner == ""
    if os.geteuid() == 0:
        os.chown(path, 65534, -1)
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    assert foreignfiles.source(foreignfiles.Found(str(path), "", "")).owner == pwd.getpwuid(path.stat().st_uid).pw_name


def failure_without_template(vmctl: Vmctl, place: Place, tmp_path: Path) -> str:
    (tmp_path / "bmd.conf").write_text('.include "bmd.d/*.conf";\n')
    return vmctl(None, "import", str(tmp_path / "bmd.conf"), "--guest", "db1", "-c", place.main).err


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    """What CBSD keeps of a guest: the file of its last start, and its database."""
    directory = tmp_path / "jails-system/web"
    directory.mkdir(parents=True)
    (directory / "bhyve.conf").write_text(CBSD)
    connection = sqlite3.connect(directory / "local.sqlite")
    connection.executescript("create table settings (astart integer, vm_ram integer); insert into settings values (1, 4294967296);")
    connection.close()
    return directory


@pytest.mark.parametrize("file", ["", "bhyve.conf", "local.sqlite"])
def test_a_guest_of_cbsd_moves_in(vmctl: Vmctl, place: Place, jail: Path, file: str) -> None:
    """The directory, the file and the database are the same guest; the database stays as it was."""
    before = (jail / "local.sqlite").read_bytes()
    ran = vmctl(None, "import", str(jail / file), "--bridge", "tap6=bridge2", "-c", place.main)

    assert ran.status == 0
    assert "note: astart=1: it starts with the host there" in ran.out
    assert place.file("web").read_text().startswith(f"# Imported from {jail}/bhyve.conf.\n")
    assert (jail / "local.sqlite").read_bytes() == before


def test_a_database_of_cbsd_that_cannot_be_read(vmctl: Vmctl, place: Place, jail: Path) -> None:
    """The guest is there without it, and the rest is told."""
    (jail / "local.sqlite").write_bytes(b"SQLite format 3\0" + bytes(100))
    ran = vmctl(None, "import", str(jail), "-n", "-c", place.main)
    assert ran.status == 0
    assert f"# - {jail}/local.sqlite cannot be read: file is not a database" in ran.out


def test_a_guest_that_cbsd_has_never_started(vmctl: Vmctl, place: Place, jail: Path) -> None:
    """What CBSD would run is not known before it writes it, and it is told how it does."""
    (jail / "bhyve.conf").unlink()
    assert "cbsd bstart cfg_only=FILE jname=NAME" in vmctl(None, "import", str(jail / "local.sqlite"), "-c", place.main).err
    assert "neither web.conf of vm-bhyve nor bhyve.conf of CBSD" in vmctl(None, "import", str(jail), "-c", place.main).err


def test_a_dataset_of_iohyve_moves_in(vmctl: Vmctl, place: Place, tmp_path: Path) -> None:
    """zfs(8) is asked, and what it says is read as what it prints."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "listing").write_text("\n".join(line.rpartition("\t")[0] for line in IOHYVE.splitlines()[:-2]))
    zfs = tmp_path / "bin/zfs"
    zfs.write_text(
        f'#!/bin/sh\n[ "$*" = "get -H -o name,property,value all zroot/iohyve/web" ] && exec cat {tmp_path}/listing\necho no >&2; exit 1\n'
    )
    zfs.chmod(0o755)
    main = tmp_path / "bhyved.toml"
    main.write_text(f'[paths]\nbin = ["{tmp_path}/bin", "/bin", "/usr/bin"]\nvm-dir = "{place.root}/etc/vm.d"\n')

    ran = vmctl(None, "import", "zroot/iohyve/web", "-c", str(main))
    assert ran.status == 0
    assert place.file("web").read_text().startswith("# Imported from zroot/iohyve/web.\n")
    assert "zroot/none is no file, and as a dataset: `zfs get" in vmctl(None, "import", "zroot/none", "-c", str(main)).err


def test_a_directory_of_vm_bhyve(vmctl: Vmctl, place: Place, there: Path) -> None:
    """Is as good as the file in it."""
    ran = vmctl(None, "import", str(there.parent), "--dataset", "zroot/vm/web1", "-n", "-c", place.main)
    assert ran.out.startswith(f"# Imported from {there}.\n")


def test_what_is_not_there_is_told(vmctl: Vmctl, place: Place, tmp_path: Path) -> None:
    """Disks, media and firmware: the guest may be another machine's, or has never run there."""
    (tmp_path / "there.img").touch()
    line = f"bhyve -m 1G -s 0,hostbridge -s 3,virtio-blk,{tmp_path}/there.img -s 4,nvme,/no/disk -s 5,ahci-cd,/no/iso -s 31,lpc"
    (tmp_path / "run").write_text(f"{line} -l bootrom,/no/rom.fd,/no/vars.fd web1")
    told = vmctl(None, "import", str(tmp_path / "run"), "-n", "-c", place.main).out

    for path in ("/no/disk", "/no/iso", "/no/rom.fd"):
        assert f"# - {path} is not there\n" in told
    assert "# - /no/vars.fd is not there; without boot.vars bhyved makes its own\n" in told
    assert "there.img is not there" not in told


def test_another_name_is_another_guest_to_bhyve(vmctl: Vmctl, place: Place, tmp_path: Path) -> None:
    """bhyved cannot see that the old one still runs, and bhyve makes another UUID."""
    (tmp_path / "run").write_text("bhyve -m 1G -s 0,hostbridge -s 31,lpc -l com1,stdio old")
    ran = vmctl(None, "import", str(tmp_path / "run"), "--name", "new", "-n", "-c", place.main)
    assert "# - bhyve calls it old there: bhyved, which looks for new, does not see it run" in ran.out
    assert "# - bhyve makes its UUID from the names" in ran.out


@pytest.mark.parametrize(
    ("text", "words", "status", "why"),
    [
        ("hello\n", (), 1, "there is no guest in it"),
        ("bhyve -m 1G -s 3,virtio-blk,$DISK web", (), 1, "for the shell to expand"),
        ("bhyve_disk_type=ahci-hd\nnet_ifaces=tap1\nloader=uefi\n", (), 1, "a guest of chyves"),
        ("vm web { loader = uefi }", (), 1, "line 1: '}' stands where ';' should"),
        ("memory.size=1G\n", (), 64, "does not say what the guest is called"),
        ("bhyve -m 1G -s 0,hostbridge web", ("--bridge", "tap0"), 64, "public=bridge0"),
        ("bhyve -m 1G -s 0,hostbridge web", ("--name", "a/b"), 64, "a guest's name begins"),
        ("bhyve -m 1G -s 3,virtio-net,tap0,mac=01:00:00:00:00:00 web", (), 78, "must be a unicast MAC address"),
    ],
)
def test_what_cannot_be_imported(
    vmctl: Vmctl, place: Place, tmp_path: Path, text: str, words: tuple[str, ...], status: int, why: str
) -> None:
    """A line, its status, and no file."""
    (tmp_path / "guest").write_text(text)
    ran = vmctl(None, "import", str(tmp_path / "guest"), *words, "-c", place.main)
    assert (ran.status, ran.out) == (status, "")
    assert why in ran.err
    assert list((place.root / "etc/vm.d").iterdir()) == []


@pytest.mark.parametrize("words", [(), ("a", "b")])
def test_it_takes_one_file(vmctl: Vmctl, words: tuple[str, ...]) -> None:
    """Not none, and not two."""
    ran = vmctl(None, "import", *words)
    assert ran.status == 64
    assert "it takes one file" in ran.err


def test_no_file_is_overwritten(vmctl: Vmctl, place: Place, there: Path) -> None:
    """Not even by the same guest."""
    words = ("import", str(there), "--dataset", "zroot/vm/web1", "-c", place.main)
    vmctl(None, *words)
    place.file().write_text("memory = '1G'\n")
    assert "exists already" in vmctl(None, *words).err
    assert place.file().read_text() == "memory = '1G'\n"
