"""ZFS snapshots of guests in a whole lab: daemon, vmctl and the stand-in of zfs(8)."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest

from bhyved.ctl.connection import FAILED
from tests.system.labkit import QUICK, LabHost, sim
from tests.waiting import until

LOGIN = "boot 0.1s; acpi on; print login: ; wait"


class ZfsLab(LabHost):
    """A lab whose guests have zvols: web1 two, db1 one."""

    def disk(self, name: str) -> str:
        return f"{self.root}/dev/zvol/zroot/vm/{name}"

    def guest(self, name: str, *disks: str) -> None:
        tables = "".join(f'[[disk]]\npath = "{path}"\n' for path in disks)
        self.write(name, sim(LOGIN, more=f"autostart = false\n{tables}"))

    def zfs(self, *words: str) -> str:
        return subprocess.run([f"{self.root}/bin/zfs", *words], check=True, capture_output=True, text=True).stdout

    def begin(self) -> None:
        """Fresh disks without snapshots, and the two guests as they were; nothing of them runs."""
        self.guest("web1", self.disk("web1"), self.disk("web1-data"))
        self.guest("db1", self.disk("db1"))
        for disk in ("web1", "web1-data", "db1"):
            self.zfs("create", "-p", "-V", "1M", f"zroot/vm/{disk}")
            until(lambda disk=disk: os.path.exists(self.disk(disk)))  # type: ignore[misc]
        self.call("config.reload")

    def end(self) -> None:
        """Take all of that back."""
        self.call("vm.poweroff", all=True)
        self.until(lambda rows: all(row["phase"] == "down" for row in rows.values()), "all down")
        for file in (self.root / "etc/vm.d").iterdir():
            file.unlink()
        self.call("config.reload", prune=True)
        self.until(lambda rows: not rows, "all forgotten")
        for dataset in ("zroot/vm", "zroot/files"):
            subprocess.run([f"{self.root}/bin/zfs", "destroy", "-r", dataset], check=False, capture_output=True)


@pytest.fixture(scope="module")
def host() -> Iterator[ZfsLab]:
    """One lab for all tests here: its start takes longer than most of them."""
    with ZfsLab({"db1": sim(more="autostart = false")}, daemon=QUICK) as host:
        yield host


@pytest.fixture
def lab(host: ZfsLab) -> Iterator[ZfsLab]:
    host.begin()
    yield host
    host.end()


def written(lab: ZfsLab, text: str) -> None:
    for disk in ("web1", "web1-data"):
        with open(lab.disk(disk), "r+b") as file:
            file.write(text.encode())


def read(lab: ZfsLab, disk: str, size: int) -> str:
    with open(lab.disk(disk), "rb") as file:
        return file.read(size).decode()


def test_disks_go_back_together(lab: ZfsLab) -> None:
    """What was written after the snapshot is gone from every disk, and the guest starts again."""
    written(lab, "before")
    assert "clean, 2 disks" in lab.vmctl("snapshot", "web1", "--name", "one")
    written(lab, "after!")

    assert "web1 is rolled back to one: 2 disks" in lab.vmctl("rollback", "web1", "one")

    assert [read(lab, disk, 6) for disk in ("web1", "web1-data")] == ["before", "before"]
    assert "web1: up" in lab.vmctl("start", "web1")
    assert lab.rows()["web1"]["hold"] is None


def test_a_running_guest_is_snapshotted_and_not_rolled_back(lab: ZfsLab) -> None:
    """Its snapshot is called what it is, and a rollback says what is to be done first."""
    lab.vmctl("start", "web1")

    assert "crash-consistent, 2 disks" in lab.vmctl("snapshot", "web1", "--name", "one")
    refused = lab.vmctl("rollback", "web1", "one", status=FAILED)

    assert "web1 is up: its disks go back only while it is down: vmctl stop web1" in refused


def test_cut_power_is_not_clean(lab: ZfsLab) -> None:
    """A guest that did not shut itself down has left its file systems as a power cut does."""
    lab.vmctl("start", "web1", "db1")
    lab.vmctl("poweroff", "--wait", "web1")
    lab.vmctl("stop", "db1")

    said = lab.vmctl("snapshot", "--all", "--name", "one")

    assert "web1: snapshot one taken: crash-consistent" in said
    assert "db1: snapshot one taken: clean" in said


def test_the_list_shows_whose_and_of_what(lab: ZfsLab) -> None:
    """Snapshots of others are listed too; one that is not of all disks is no way back."""
    lab.vmctl("snapshot", "web1", "--name", "ours")
    lab.zfs("snapshot", "zroot/vm/web1@theirs")

    heads, ours, theirs = lab.vmctl("snapshot", "web1", "--list").splitlines()

    assert heads.split() == ["NAME", "AGE", "CONSISTENCY", "USED", "DISKS", "REMARK"]
    assert ours.split()[0] == "ours"
    assert ours.split()[2] == "clean"
    assert "1 of 2  not of zroot/vm/web1-data: cannot be rolled back to; not by bhyved" in theirs
    assert "zroot/vm/web1-data has no snapshot theirs" in lab.vmctl("rollback", "web1", "theirs", status=FAILED)
    assert "was not taken by bhyved" in lab.vmctl("snapshot", "web1", "--delete", "theirs", status=FAILED)
    lab.vmctl("snapshot", "web1", "--delete", "zroot/vm/web1@theirs")
    lab.vmctl("snapshot", "web1", "--delete", "ours")
    assert json.loads(lab.vmctl("snapshot", "web1", "--list", "--json"))["snapshots"] == []


def test_newer_snapshots_are_destroyed_only_when_that_is_said(lab: ZfsLab) -> None:
    """Without --destroy-newer they are named and nothing has happened, on any disk."""
    written(lab, "before")
    lab.vmctl("snapshot", "web1", "--name", "one")
    written(lab, "after!")
    lab.zfs("snapshot", "zroot/vm/web1-data@theirs")

    refused = lab.vmctl("rollback", "web1", "one", status=FAILED)

    assert "zroot/vm/web1-data@theirs; --destroy-newer does it" in refused
    assert read(lab, "web1", 6) == "after!"
    lab.vmctl("rollback", "web1", "one", "--destroy-newer")
    assert [read(lab, disk, 6) for disk in ("web1", "web1-data")] == ["before", "before"]
    assert "theirs" not in lab.zfs("list", "-H", "-t", "snapshot", "-o", "name", "zroot/vm/web1-data")


def test_files_on_a_dataset(lab: ZfsLab) -> None:
    """A file's dataset is found by its path; one that another guest has a disk in too does not go back."""
    lab.zfs("create", "-o", f"mountpoint={lab.root}/tank", "zroot/files")
    for name in ("f1", "f2"):
        (lab.root / f"tank/{name}.img").write_bytes(b"before".ljust(4096, b"\0"))
        lab.guest(name, f"{lab.root}/tank/{name}.img")
    lab.vmctl("reload")
    assert "clean, 1 disk, with all that is in zroot/files" in lab.vmctl("snapshot", "f1", "--name", "one")
    (lab.root / "tank/f1.img").write_bytes(b"after")

    refused = lab.vmctl("rollback", "f1", "one", status=FAILED)

    assert f"all that is in it would go back, also {lab.root}/tank/f2.img of f2" in refused
    lab.guest("f2", lab.disk("db1"))
    lab.vmctl("reload")
    lab.vmctl("rollback", "f1", "one")
    assert (lab.root / "tank/f1.img").read_bytes().startswith(b"before")


def test_a_disk_elsewhere_is_named(lab: ZfsLab) -> None:
    """A guest with a disk that is not on ZFS has no snapshot, not even of its other disks."""
    (lab.root / "plain.img").write_bytes(bytes(4096))
    lab.guest("db1", lab.disk("db1"), f"{lab.root}/plain.img")
    lab.vmctl("reload")

    refused = lab.vmctl("snapshot", "db1", status=FAILED)

    assert f"disk {lab.root}/plain.img is not on ZFS" in refused
    assert lab.zfs("list", "-H", "-t", "snapshot", "-o", "name", "zroot/vm/db1") == ""


def test_what_the_configuration_was_is_told(lab: ZfsLab) -> None:
    """A rollback names the keys that have changed since the snapshot."""
    lab.vmctl("snapshot", "db1", "--name", "one")
    lab.write("db1", sim(LOGIN, more=f'autostart = false\ncpus = 2\n[[disk]]\npath = "{lab.disk("db1")}"\n'))
    lab.vmctl("reload")

    assert "its configuration was different then: cpus" in lab.vmctl("rollback", "db1", "one")


def test_metrics_have_the_newest(lab: ZfsLab) -> None:
    """Its time and the count, of each guest on ZFS, soon after it was taken."""
    lab.vmctl("snapshot", "db1", "--name", "one")
    deadline = time.monotonic() + 30

    while 'bhyved_vm_snapshots{vm="db1"} 1' not in (text := scraped(lab)):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)

    (line,) = [line for line in text.splitlines() if line.startswith('bhyved_vm_newest_snapshot_time_seconds{vm="db1"}')]
    assert abs(float(line.split()[1]) - time.time()) < 60
    assert 'bhyved_vm_snapshots{vm="web1"} 0' in text


def scraped(lab: ZfsLab) -> str:
    with urllib.request.urlopen(lab.metrics, timeout=30) as answer:
        return str(answer.read().decode())
