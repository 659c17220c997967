"""What is asked of zfs(8), on a host of scripts: which command, in which order, and what is undone."""

from pathlib import Path

import pytest

from bhyved.core.errors import HostError
from bhyved.core.snapshots import Dataset
from bhyved.host.liveness import Liveness
from bhyved.host.zfs import HostDatasets
from tests.host.scripts import Scripts, until

A, B, C = (Dataset(name=name, disks=("/x",)) for name in ("p1/a", "p1/b", "p2/c"))


@pytest.fixture
def zfs(scripts: Scripts, tmp_path: Path) -> HostDatasets:
    scripts.write("zfs", "exit 0")
    return HostDatasets(scripts.tools, str(tmp_path / "dev"), str(tmp_path / "run"))


async def test_one_command_a_pool(scripts: Scripts, zfs: HostDatasets) -> None:
    """All disks of a pool are taken by one command, which is one moment."""
    await zfs.snapshot((A, C, B), "one", {"bhyved:vm": "web1"}, limit_s=60)

    assert scripts.calls == ["zfs snapshot -o bhyved:vm=web1 p1/a@one p1/b@one", "zfs snapshot -o bhyved:vm=web1 p2/c@one"]


async def test_all_or_none_over_pools(scripts: Scripts, zfs: HostDatasets) -> None:
    """When the second pool refuses, what the first has taken goes; what the second had, stays."""
    scripts.write("zfs", 'case "$*" in *p2/c@one) echo "cannot create snapshot: out of space" >&2; exit 1;; esac')

    with pytest.raises(HostError, match="out of space"):
        await zfs.snapshot((A, B, C), "one", {}, limit_s=60)
    assert scripts.calls[2:] == ["zfs destroy p1/a@one", "zfs destroy p1/b@one"]


async def test_what_failed_is_a_sentence(scripts: Scripts, zfs: HostDatasets) -> None:
    """The configuration that is kept with a snapshot is not what somebody reads who has no room for one."""
    scripts.write("zfs", 'echo "cannot create snapshots : out of space; no snapshots were created" >&2; exit 1')

    with pytest.raises(HostError, match=r"p1/a@one` failed with exit status 1: cannot create snapshots : out of space") as refused:
        await zfs.snapshot((A,), "one", {"bhyved:vm": "web1", "bhyved:config": "x" * 4000}, limit_s=60)
    assert "bhyved:vm=web1" in str(refused.value)
    assert len(str(refused.value)) < 400


async def test_a_snapshot_that_was_killed_is_undone(scripts: Scripts, zfs: HostDatasets) -> None:
    """It may have been taken all the same, and nobody would know what it is worth."""
    scripts.write("zfs", '[ "$1" != snapshot ] || exec sleep 60')

    with pytest.raises(HostError, match="did not end within"):
        await zfs.snapshot((A,), "one", {}, limit_s=0.3)
    assert scripts.calls[1:] == ["zfs destroy p1/a@one"]


async def test_disks_are_found_where_they_are(scripts: Scripts, zfs: HostDatasets, tmp_path: Path) -> None:
    """A volume by its path, also behind a link; a file by asking; two files of one file system are one dataset."""
    scripts.write("zfs", "printf 'p1/files\\t/tank\\n'")
    (tmp_path / "disk0").symlink_to(tmp_path / "dev/zvol/p1/b")

    found = await zfs.locate([f"{tmp_path}/dev/zvol/p1/a", f"{tmp_path}/disk0", "/tank/1.img", "/tank/2.img"])

    assert found == (
        Dataset(name="p1/a", disks=(f"{tmp_path}/dev/zvol/p1/a",)),
        Dataset(name="p1/b", disks=(f"{tmp_path}/disk0",)),
        Dataset(name="p1/files", mountpoint="/tank", disks=("/tank/1.img", "/tank/2.img")),
    )
    assert scripts.calls == ["zfs list -H -o name,mountpoint /tank/1.img", "zfs list -H -o name,mountpoint /tank/2.img"]


async def test_a_disk_elsewhere_is_named(scripts: Scripts, zfs: HostDatasets) -> None:
    """With what zfs says of it."""
    scripts.write("zfs", "echo \"'$5': not a ZFS filesystem\" >&2; exit 1")

    with pytest.raises(HostError, match=r"disk /ufs/1\.img is not on ZFS: .*not a ZFS filesystem") as caught:
        await zfs.locate(["/ufs/1.img"])
    assert caught.value.fatal


async def test_a_missing_dataset_costs_only_itself(scripts: Scripts, zfs: HostDatasets) -> None:
    """The figures of all other guests are there."""
    scripts.write("zfs", "printf 'p1/a@one\\t7\\n'; echo \"cannot open 'p2/c': dataset does not exist\" >&2; exit 1")

    assert await zfs.count(["p1/a", "p2/c"]) == {"p1/a": {"one": 7}}


async def test_a_rollback_is_work_for_the_guest(scripts: Scripts, zfs: HostDatasets, tmp_path: Path) -> None:
    """The command holds the guest's FIFO, also without us: a daemon that comes after this one does not start the guest under it."""
    scripts.write("zfs", f"(while [ ! -e {tmp_path}/go ]; do sleep 0.05; done) >/dev/null 2>&1 &")

    await zfs.roll_back("web1", "p1/a@one", destroy_newer=True)

    liveness = Liveness(f"{tmp_path}/run/vm/web1/alive")
    assert liveness.is_held()
    (tmp_path / "go").touch()
    await until(lambda: not liveness.is_held())
    assert scripts.calls == ["zfs rollback -r p1/a@one"]


async def test_nothing_but_a_snapshot_is_destroyed(zfs: HostDatasets, scripts: Scripts) -> None:
    """A dataset's name is our bug, and stops here."""
    with pytest.raises(AssertionError):
        await zfs.destroy("p1/a")
    assert scripts.calls == []
