"""`vmctl create`: a file that `check` accepts, a disk that is there, and nothing at all where either is impossible."""

import errno
import json
import os
import re
import shutil
import stat
import tomllib
from pathlib import Path

import pytest

from bhyved.host import configfiles, durable
from bhyved.lab import layout, settle
from tests.ctl.conftest import Vmctl
from tests.ctl.played import playing

TEMPLATES = Path(__file__).parents[2] / "etc/template.d"
NAMES = sorted(path.stem for path in TEMPLATES.glob("*.toml"))


class Place:
    """A host in a directory, its configuration and nothing running."""

    def __init__(self, root: Path) -> None:
        self.root = root
        layout.make(root)
        layout.boot(root)
        settle.write(root, settle.Wanted())
        shutil.copytree(TEMPLATES, root / "etc/template.d", dirs_exist_ok=True)
        self.main = str(root / "etc/bhyved.toml")

    def file(self, name: str = "web1") -> Path:
        return self.root / f"etc/vm.d/{name}.toml"

    def left(self) -> list[Path]:
        """Guests' files and disks."""
        return [*(self.root / "etc/vm.d").iterdir(), *(self.root / "db").rglob("*.img"), *(self.root / "dev").rglob("zvol/**/web*")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("template", NAMES)
def test_every_template_makes_a_guest(vmctl: Vmctl, place: Place, template: str) -> None:
    """A guest of each template is accepted by `check`, with the templates' values under its own."""
    words = ["--template", template, "--disk", "16M", "--bridge", "bridge0", "--memory", "512M", "--cpus", "2"]
    ran = vmctl(None, "create", "web1", *words, "-c", place.main)

    assert (ran.status, ran.err) == (0, "")
    assert vmctl(None, "check", "-c", place.main).status == 0
    spec = configfiles.read(place.main).loaded.vms["web1"]
    assert (spec.cpus.count, str(spec.memory)) == (2, "512M")
    assert spec.boot.loader == loader_of(template)


def loader_of(template: str) -> str:
    """The loader that a template, or the one it stands on, names."""
    table = tomllib.loads((TEMPLATES / f"{template}.toml").read_text())
    loader: str = table["boot"]["loader"] if "boot" in table else loader_of(table["template"][0])
    return loader


def test_the_file_is_short_and_says_what_was_asked(vmctl: Vmctl, place: Place) -> None:
    """Only the options stand in it; what follows is printed."""
    iso = place.root / "debian.iso"
    words = ["-T", "linux-uefi,openbsd", "-d", "20G", "--disk-model", "nvme", "-b", "bridge0", "--card", "e1000", "--iso", str(iso)]
    ran = vmctl(None, "create", "web1", *words, "-c", place.main)

    disk = place.root / "db/disk/web1.img"
    following = "vmctl reload; vmctl start web1 --install; when it is installed, autostart = true in its file"
    assert ran.out == f"{disk}: made\n{place.file()}: made\nnext: {following}\n"
    assert tomllib.loads(place.file().read_text()) == {
        "autostart": False,  # a reload would boot it from its empty disk
        "template": ["linux-uefi", "openbsd"],
        "disk": [{"path": str(disk), "create": {"size": "20G"}, "model": "nvme"}],
        "cdrom": [{"path": str(iso), "when": "install"}],
        "network": [{"bridge": "bridge0", "model": "e1000"}],
    }
    assert stat.S_IMODE(place.file().stat().st_mode) == 0o644


def test_what_will_surprise_is_said_at_once(vmctl: Vmctl, place: Place) -> None:
    """The installer of Windows finds neither disk nor network where it needs a driver; with other models nothing is said."""
    words = ["-T", "windows11", "-d", "64G", "-b", "bridge0", "--iso", "/iso/win11.iso", "-c", place.main]
    warned = vmctl(None, "create", "win1", *words)
    quiet = vmctl(None, "create", "win2", *words, "--disk-model", "nvme", "--card", "e1000")

    assert [line.partition(" model")[0].split(": ")[:2] for line in warned.err.splitlines()] == [
        ["warning", "disk[0].model"],
        ["warning", "network[0].model"],
    ]
    assert (warned.status, quiet.status, quiet.err) == (0, 0, "")


def test_what_cloud_init_is_told(vmctl: Vmctl, place: Place) -> None:
    """A user and his key, in a file or as it is; or a file of one's own. Paths are those of the shell that they were typed in."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK alice"
    keys, script = place.root / "alice.pub", place.root / "user-data"
    keys.write_text(f"{key}\n")
    script.write_text("#cloud-config\n")
    by_file = vmctl(None, "create", "web1", "--user", "alice", "--ssh-key", os.path.relpath(keys), "-c", place.main)
    by_key = vmctl(None, "create", "web2", "--ssh-key", key, "-c", place.main)
    by_script = vmctl(None, "create", "web3", "--user-data", os.path.relpath(script), "-c", place.main)

    assert [ran.status for ran in (by_file, by_key, by_script)] == [0, 0, 0]
    assert tomllib.loads(place.file().read_text())["cloud-init"] == {"user": "alice", "ssh-keys": [str(keys)]}
    assert tomllib.loads(place.file("web2").read_text())["cloud-init"] == {"ssh-keys": [key]}
    assert tomllib.loads(place.file("web3").read_text())["cloud-init"] == {"user-data": str(script)}


@pytest.mark.parametrize("where", ["file", "volume"])
def test_an_image_is_written_onto_the_disk(vmctl: Vmctl, place: Place, where: str) -> None:
    """All of it, in place; where it has nothing the disk stays sparse, and what is behind it stays empty."""
    image = place.root / "system.raw"
    content = b"boot".ljust(1 << 20, b"\1") + bytes(8 << 20) + b"end".ljust(700, b"\2")
    image.write_bytes(content)
    disk = place.root / ("x.img" if where == "file" else "dev/zvol/zroot/web1")
    ran = vmctl(None, "create", "web1", "--disk", f"{disk}=32M", "--image", os.path.relpath(image), "-c", place.main)

    assert (ran.status, ran.err) == (0, "")
    data = disk.read_bytes()
    assert (len(data), data.startswith(content)) == (32 << 20, True)
    assert not any(data[len(content) :])
    assert disk.stat().st_blocks * 512 < 4 << 20
    assert tomllib.loads(place.file().read_text()) == {"disk": [{"path": str(disk), "create": {"size": "32M"}}]}


@pytest.mark.parametrize(
    ("content", "disk", "status", "said"),
    [
        (b"QFI\xfb" + bytes(512), "32M", 1, "is qcow2, and a plain one is needed: qemu-img convert -O raw"),
        (b"\xfd7zXZ\0" + bytes(512), "32M", 1, "is packed with xz, and a plain one is needed: unxz"),
        (b"", "32M", 1, "is empty"),
        (None, "32M", 1, "system.raw: no such file or directory"),
        (bytes(2 << 20), "1M", 64, "web1.img must have 2M at least: that is the size of the image "),
        (bytes(512), "", 64, "--image needs a disk that is made for it: --disk 20G, or --disk /PATH=20G"),
        (bytes(512), "/etc/hostname", 64, "--image needs a disk that is made for it: --disk 20G, or --disk /PATH=20G"),
    ],
)
def test_an_image_that_cannot_be_used(vmctl: Vmctl, place: Place, content: bytes | None, disk: str, status: int, said: str) -> None:
    """What it is, and what would be right; nothing is made."""
    image = place.root / "system.raw"
    if content is not None:
        image.write_bytes(content)
    words = ["--disk", disk] if disk else []
    ran = vmctl(None, "create", "web1", *words, "--image", str(image), "-c", place.main)

    assert (ran.status, said in ran.err) == (status, True), ran.err
    assert place.left() == []


def test_a_disk_that_cannot_take_the_image(vmctl: Vmctl, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept and named, and there is no guest with half a system on its disk."""

    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    image = place.root / "system.raw"
    image.write_bytes(b"boot".ljust(512))
    monkeypatch.setattr(durable, "write_whole", full)
    ran = vmctl(None, "create", "web1", "--disk", "1M", "--image", str(image), "-c", place.main)

    disk = place.root / "db/disk/web1.img"
    assert ran.status == 1
    assert f"the image cannot be written to {disk}: no space left on device; made and kept: {disk}" in ran.err
    assert not place.file().exists()


def test_a_file_of_a_disk_is_sparse_and_private(vmctl: Vmctl, place: Place) -> None:
    """The guest's data is root's, and takes no space before it is written."""
    path = place.root / "x.img"
    ran = vmctl(None, "create", "web1", "--disk", f"{path}=1G", "-c", place.main)

    found = path.stat()
    assert ran.status == 0
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (1 << 30, 0o600)
    assert found.st_blocks * 512 < 1 << 20


def test_a_path_below_zvol_becomes_a_volume(vmctl: Vmctl, place: Place) -> None:
    """The host does not taste it (volmode=dev), and it is there when create returns."""
    path = place.root / "dev/zvol/zroot/web1"
    ran = vmctl(None, "create", "web1", "--disk", f"{path}=64M", "-c", place.main)

    assert (ran.status, ran.err) == (0, "")
    assert path.exists()
    volume = json.loads((place.root / "lab/zfs.json").read_text())
    assert '"volmode": "dev"' in json.dumps(volume)
    assert str(64 << 20) in json.dumps(volume)


def test_zfs_complaint_is_told(vmctl: Vmctl, place: Place) -> None:
    """A dataset whose parent is missing cannot be made, and then there is no guest either."""
    ran = vmctl(None, "create", "web1", "--disk", f"{place.root}/dev/zvol/zroot/no/such/web1=64M", "-c", place.main)

    assert ran.status == 1
    assert "zroot/no/such/web1` failed with exit status 1: cannot create 'zroot/no/such/web1': parent does not exist" in ran.err
    assert place.left() == []


def test_a_disk_that_is_there_is_used(vmctl: Vmctl, place: Place) -> None:
    """A path without a size names a disk, which is left as it is; with a size it would have been made, so it is refused."""
    path = place.root / "old.img"
    path.write_bytes(b"data")

    again = vmctl(None, "create", "web1", "--disk", f"{path}=1G", "-c", place.main)
    assert (again.status, place.left()) == (1, [])
    assert "exists already" in again.err

    assert vmctl(None, "create", "web1", "--disk", str(path), "-c", place.main).status == 0
    assert path.read_bytes() == b"data"
    assert tomllib.loads(place.file().read_text()) == {"disk": [{"path": str(path)}]}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--disk", "/no/such/disk"], 1, "does not exist; with a size"),
        (["--disk", "20"], 64, 'a size is a number and K, M, G or T, for example "2G"; or a path, or both'),
        (["--disk", "20G", "--disk-model", "scsi"], 78, "disk[0].model"),
        (["--template", "linx-uefi"], 78, "there is no such template; did you mean"),
        (["--memory", "lots", "--disk", "1G"], 78, "memory"),
        (["--bridge", "a bridge", "--disk", "1G"], 78, "network[0].bridge"),
        (["--card", "e1000"], 64, "--card is of no use without --bridge"),
        (["--ssh-key", "/no/such.pub", "--disk", "1G"], 78, 'cloud-init.ssh-keys[0]: found "/no/such.pub"; does not exist'),
        (["--user-data", "/etc/hostname", "--user", "alice"], 78, "cloud-init.user: "),
        (["--disk-model", "nvme"], 64, "--disk-model is of no use without --disk"),
    ],
)
def test_what_cannot_be_leaves_nothing_behind(vmctl: Vmctl, place: Place, words: list[str], status: int, said: str) -> None:
    """A refused guest has neither file nor disk."""
    ran = vmctl(None, "create", "web1", *words, "-c", place.main)

    assert ran.status == status
    assert said in ran.err
    assert place.left() == []


def test_a_guest_is_never_overwritten(vmctl: Vmctl, place: Place) -> None:
    """A name that has a file is refused before a disk is made, whatever is in the file."""
    place.file().write_text("broken [")
    ran = vmctl(None, "create", "web1", "--disk", "1G", "-c", place.main)

    assert (ran.status, place.file().read_text()) == (1, "broken [")
    assert "exists already: edit it, or choose another name" in ran.err
    assert place.left() == [place.file()]


def test_a_clash_with_another_guest_is_told(vmctl: Vmctl, place: Place) -> None:
    """A disk that another guest has can be meant, for two that never run together: it is a warning, as `check` has it."""
    path = place.root / "x.img"
    assert vmctl(None, "create", "web1", "--disk", f"{path}=1M", "-c", place.main).status == 0
    ran = vmctl(None, "create", "web2", "--disk", str(path), "-c", place.main)

    assert ran.status == 0
    assert ran.err.startswith("warning: ")
    assert "web1" in ran.err


def test_somebody_elses_broken_file_is_no_obstacle(vmctl: Vmctl, place: Place) -> None:
    """It is pointed out, as `reload` will refuse it."""
    place.file("bad").write_text("cpus = 0\n")
    ran = vmctl(None, "create", "web1", "-c", place.main)

    assert ran.status == 0
    assert ran.err.startswith("warning: `vmctl reload` will refuse this: ")
    assert "cpus" in ran.err


@pytest.mark.parametrize("name", ["../x", "a/b", ".a", "a b", "x" * 31])
def test_a_bad_name_is_a_usage_error(vmctl: Vmctl, place: Place, name: str) -> None:
    """The file's name is the guest's: nothing is looked for or made under a name that no guest can have."""
    assert vmctl(None, "create", name, "-c", place.main).status == 64
    assert place.left() == []


def test_json(vmctl: Vmctl, place: Place) -> None:
    """For programs: what was made, and what to do next."""
    ran = vmctl(None, "create", "web1", "--disk", "1M", "--json", "-c", place.main)

    disk = str(place.root / "db/disk/web1.img")
    assert json.loads(ran.out) == {
        "version": 1,
        "vm": "web1",
        "file": str(place.file()),
        "made": [disk],
        "next": ["vmctl reload", "vmctl start web1"],
    }


def test_an_impossible_neighbour_is_refused(vmctl: Vmctl, place: Place) -> None:
    """Two guests with one MAC address can never be: the second is not made."""
    (place.root / "etc/template.d/lan.toml").write_text('network = [{ bridge = "bridge0", mac = "58:9c:fc:00:00:01" }]\n')
    assert vmctl(None, "create", "web1", "-T", "lan", "-c", place.main).status == 0
    ran = vmctl(None, "create", "web2", "-T", "lan", "--disk", "1M", "-c", place.main)

    assert ran.status == 78
    assert "58:9c:fc:00:00:01" in ran.err
    assert place.left() == [place.file()]


def test_the_guides_create_guests_that_way(vmctl: Vmctl, place: Place) -> None:
    """Every `vmctl create` of the guides works as it stands, but for its paths."""
    guides = TEMPLATES.parents[1] / "docs/guide"
    shown = [
        line
        for name in ("guests.md", "handbook.md")
        for line in re.findall(r"vmctl (create [^`\n]*(?:\n[^`\n]+`)?)", (guides / name).read_text())
    ]
    lines = [line.replace("\n", " ").rstrip("`") for line in shown if " --" in line]

    assert len(lines) == 4
    for line in lines:
        words = line.replace("/vm/", f"{place.root}/").replace("/dev/", f"{place.root}/dev/").split()
        ran = vmctl(None, *words, "-c", place.main)
        assert (ran.status, ran.err) == (0, ""), line


def test_whose_files_they_are(vmctl: Vmctl, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that -c names; else the daemon's; an older one has not said which, and at a socket of one's own nobody else is asked."""
    with playing(daemon_info={"config": place.main}) as daemon:
        assert vmctl(daemon, "create", "web1", "-m", "1G").status == 0
        assert vmctl(daemon, "create", "web1", "-m", "1G", "-c", "/none.toml").status == 78
    assert place.file().exists()

    monkeypatch.setattr(configfiles, "MAIN", str(place.root / "default.toml"))
    with playing(daemon_info={}) as daemon:
        assert f"{configfiles.MAIN}: does not exist" in vmctl(daemon, "create", "web2", "-m", "1G").err
    gone = vmctl(None, "create", "web2", "-m", "1G", "--socket", str(place.root / "none.sock"))
    assert (gone.status, "where its files are, --config says without it" in gone.err) == (69, True)
