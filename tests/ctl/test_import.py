"""`vmctl import`: a file that `check` accepts, nothing over one that is there, and every refusal a line."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.core.test_imports import DOMAIN, SYSTEM, VM_BHYVE
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

    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[-2:] == [
        f"{place.file()}: made",
        "next: vmctl plan web1; when the guest no longer runs elsewhere, vmctl reload; vmctl start web1; then autostart = true in its file",
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


@pytest.mark.parametrize(
    ("text", "words", "status", "why"),
    [
        ("hello\n", (), 1, "there is no guest in it"),
        ("bhyve -m 1G -s 3,virtio-blk,$DISK web", (), 1, "for the shell to expand"),
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
