"""The stand-ins of zfs, zpool, jail, jexec and jls."""

from pathlib import Path

import pytest

from bhyved.lab import layout
from tests.lab.labhost import Lab
from tests.waiting import until


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def volume(lab: Lab) -> Path:
    """A zvol of 1 MiB, its link there."""
    lab.said("zfs", "create", "-p", "-V", "1M", "-o", "volmode=dev", "zroot/vm/web1")
    link = lab.root / "dev" / "zvol" / "zroot" / "vm" / "web1"
    until(link.exists)
    return link


def test_a_volume_is_sparse_and_its_link_comes_late(lab: Lab) -> None:
    """zfs create ends before /dev/zvol/… is there (contract 5.7)."""
    lab.settle(zvol_delay_s=0.3)
    link = lab.root / "dev" / "zvol" / "zroot" / "disk0"

    lab.said("zfs", "create", "-V16G", "-s", "zroot/disk0")

    assert not link.exists()
    until(link.exists)
    assert link.stat().st_size == 16 << 30
    assert link.stat().st_blocks == 0


def test_snapshot_and_rollback(lab: Lab, volume: Path) -> None:
    """What was written after the snapshot is gone after the rollback, through the same link."""
    volume.write_bytes(b"before".ljust(1 << 20, b"\0"))
    lab.said("zfs", "snapshot", "zroot/vm/web1@clean")
    volume.write_bytes(b"after".ljust(1 << 20, b"\0"))

    lab.said("zfs", "rollback", "zroot/vm/web1@clean")

    assert volume.read_bytes().startswith(b"before")
    assert lab.said("zfs", "list", "-H", "-t", "snapshot", "-o", "name", "zroot/vm/web1") == "zroot/vm/web1@clean\n"


def test_rollback_over_newer_snapshots_needs_r(lab: Lab, volume: Path) -> None:
    """Without -r they are listed and nothing is done; with it they go."""
    lab.said("zfs", "snapshot", "zroot/vm/web1@one")
    lab.said("zfs", "snapshot", "zroot/vm/web1@two")

    assert lab.refused("zfs", "rollback", "zroot/vm/web1@one").endswith("zroot/vm/web1@two")
    lab.said("zfs", "rollback", "-r", "zroot/vm/web1@one")
    assert "@two" not in lab.said("zfs", "list", "-Hr", "-t", "all", "-o", "name", "zroot")
    assert volume.exists()


def test_volumes_outlive_a_boot(lab: Lab, volume: Path) -> None:
    """After power-on the links are there before anybody asks."""
    layout.boot(lab.root)

    assert volume.exists()


def test_several_snapshots_are_all_or_none(lab: Lab, volume: Path) -> None:
    """One that exists keeps the others from being made."""
    lab.said("zfs", "create", "-V", "1M", "zroot/vm/db1")
    lab.said("zfs", "snapshot", "zroot/vm/web1@now")

    lab.refused("zfs", "snapshot", "zroot/vm/db1@now", "zroot/vm/web1@now")

    assert lab.refused("zfs", "list", "zroot/vm/db1@now") == "cannot open 'zroot/vm/db1@now': dataset does not exist"
    assert volume.exists()


def test_a_clone_is_a_volume_of_its_own(lab: Lab, volume: Path) -> None:
    """It has the bytes of the snapshot, and keeps its own from then on."""
    volume.write_bytes(b"golden".ljust(1 << 20, b"\0"))
    lab.said("zfs", "snapshot", "zroot/vm/web1@gold")
    lab.said("zfs", "clone", "zroot/vm/web1@gold", "zroot/vm/copy")
    link = volume.with_name("copy")
    until(link.exists)

    link.write_bytes(b"own".ljust(1 << 20, b"\0"))

    assert volume.read_bytes().startswith(b"golden")
    assert lab.said("zfs", "get", "-H", "-o", "value", "origin", "zroot/vm/copy") == "zroot/vm/web1@gold\n"


def test_properties(lab: Lab, volume: Path) -> None:
    """Set, got with and without -p; volsize changes the size of the volume."""
    lab.said("zfs", "set", "volsize=2M", "primarycache=metadata", "zroot/vm/web1")

    assert volume.stat().st_size == 2 << 20
    assert lab.said("zfs", "get", "-Hp", "-o", "value", "volsize,primarycache,volmode", "zroot/vm/web1") == "2097152\nmetadata\ndev\n"
    assert lab.said("zfs", "get", "-H", "-o", "value", "volsize", "zroot/vm/web1") == "2M\n"
    assert "NAME" in lab.said("zfs", "list", "-t", "volume")
    assert lab.said("zpool", "list", "-H", "-o", "name") == "zroot\n"


def test_all_properties(lab: Lab, volume: Path) -> None:
    """zfs's own and those of users, of a dataset and of its snapshot."""
    lab.said("zfs", "set", "iohyve:ram=1G", "zroot/vm/web1")
    lab.said("zfs", "snapshot", "zroot/vm/web1@a")
    rows = dict(line.split("\t") for line in lab.said("zfs", "get", "-H", "-o", "property,value", "all", "zroot/vm/web1").splitlines())
    of_snapshot = lab.said("zfs", "get", "-H", "-o", "property,value", "all", "zroot/vm/web1@a").splitlines()

    assert (rows["type"], rows["volsize"], rows["volmode"], rows["iohyve:ram"]) == ("volume", "1M", "dev", "1G")
    assert of_snapshot[-2:] == ["type\tsnapshot", "iohyve:ram\t1G"]


def test_destroy(lab: Lab, volume: Path) -> None:
    """A volume with snapshots goes only with -r; its link goes with it."""
    lab.said("zfs", "snapshot", "zroot/vm/web1@a")
    assert lab.refused("zfs", "destroy", "zroot/vm/web1") == "cannot destroy 'zroot/vm/web1': volume has children"

    lab.said("zfs", "destroy", "-r", "zroot/vm/web1")

    assert not volume.is_symlink()
    assert lab.said("zfs", "list", "-H", "-o", "name") == "zroot\nzroot/vm\n"


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ("create -V 1M zroot", 1, "cannot create 'zroot': dataset already exists"),
        ("create -V 1M zroot/no/such", 1, "cannot create 'zroot/no/such': parent does not exist"),
        ("create -V 1000 zroot/odd", 1, "'volsize' must be a multiple of volume block size (16K)"),
        ("create", 2, "missing argument"),
        ("destroy zroot/none", 1, "cannot open 'zroot/none': dataset does not exist"),
        ("snapshot zroot", 2, "cannot create snapshot 'zroot': missing '@' delimiter in snapshot name"),
        ("rollback zroot@none", 1, "cannot open 'zroot@none': dataset does not exist"),
        ("frobnicate", 2, "unrecognized command 'frobnicate'"),
    ],
)
def test_zfs_refuses(lab: Lab, words: str, status: int, text: str) -> None:
    """1 for what cannot be done, 2 for what was not understood (contract 5.7)."""
    done = lab.run("zfs", *words.split())

    assert (done.returncode, done.stdout, done.stderr.strip()) == (status, "", text)


def test_jails(lab: Lab) -> None:
    """Made, listed, entered and removed."""
    lab.said("jail", "-c", "name=guests", "path=/jails/guests", "allow.vmm", "persist")

    assert lab.refused("jail", "-c", "name=guests") == 'jail: "guests" already exists'
    assert lab.said("jls", "-j", "guests", "jid", "path") == "1 /jails/guests\n"
    assert lab.said("jexec", "guests", "sysctl", "-n", "kern.ostype") == "FreeBSD\n"
    lab.said("jail", "-r", "guests")
    assert lab.refused("jls", "-j", "guests") == 'jls: jail "guests" not found'
    assert lab.refused("jexec", "guests", "true") == 'jexec: jail "guests" not found'


def test_bhyve_needs_a_jail_that_allows_it(lab: Lab) -> None:
    """Without allow.vmm creating a VM is not permitted (contract 7)."""
    lab.said("jail", "-c", "name=plain", "persist")

    done = lab.run("jexec", "plain", "bhyve", "-k", "x", "web1")

    assert (done.returncode, done.stderr) == (4, "vm_create: Operation not permitted\n")
