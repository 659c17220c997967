"""Who can be suspended, and which state fits what would be started."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from bhyved.core.saved import DiskMark, Here, SavedState, devices_in, mismatch, moved, objections, risks
from bhyved.core.spec import VmSpec, undump

STATE = SavedState(
    run="r1", by="alice", at=datetime(2026, 11, 25, 12, tzinfo=UTC), spec="", bhyve="1:2", cpu="Zen", disks={"/web1.img": DiskMark(10, 20)}
)
HERE = Here(bhyve="1:2", cpu="Zen", disks={"/web1.img": DiskMark(10, 20)})


def guest(**table: Any) -> VmSpec:
    return undump({"name": "web1", "disk": [{"path": "/web1.img", "model": "ahci-hd"}], **table})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"passthru": [{"device": "2/0/0"}], "wired": True},
            "a guest with a [[passthru]] device cannot be saved: the device's state is not bhyve's",
        ),
        (
            {"disk": [{"path": "/web1.img", "model": "nvme"}]},
            'bhyve cannot save a disk with model = "nvme": "ahci-hd" is what it saves best',
        ),
        (
            {"disk": [{"path": "/web1.img", "model": "virtio-scsi"}]},
            'bhyve cannot save a disk with model = "virtio-scsi": "ahci-hd" is what it saves best',
        ),
        ({"share": [{"name": "home", "path": "/home"}]}, "bhyve cannot save the device of [[share]]"),
        ({"virtio-console": [{"name": "agent"}]}, "bhyve cannot save the device of [[virtio-console]]"),
        ({"sound": {"play": "/dev/dsp0"}}, "bhyve cannot save the device of [sound]"),
        ({"tpm": {"type": "swtpm"}}, "bhyve cannot save the device of [tpm]"),
    ],
)
def test_devices_without_a_state(table: dict[str, Any], words: str) -> None:
    """Each is named; a guest without them has nothing against it."""
    assert objections(guest(**table), "amd64") == (words,)
    assert objections(guest(), "amd64") == ()


def test_arm64_saves_nothing() -> None:
    """Contract 6.1."""
    assert objections(guest(), "arm64") == ("bhyve saves a guest's state on amd64 only, and this is arm64",)


def test_what_is_risky() -> None:
    """virtio-blk, and several of a kind; the safest guest has no remark."""
    card = {"bridge": "bridge0"}

    assert risks(guest(network=[card])) == ()
    assert risks(guest(disk=[{"path": "/a"}, {"path": "/b"}], network=[card, card], graphics={})) == (
        'model = "virtio-blk" has code to be saved, and the Handbook says that it does not work: "ahci-hd" is safer',
        "it has 2 network cards, and older copies of bhyve restore one device of a kind only",
        "it has 2 virtio-blk disks, and older copies of bhyve restore one device of a kind only",
        "[graphics] is saved, but seldom tried",
    )


def test_disks_of_one_controller_are_one_device() -> None:
    """Those that name none have one each, drives too; a drive for the installation only is not there."""
    disks = [{"path": f"/{name}", "model": "ahci-hd"} for name in "ab"]
    together = [{**disk, "controller": "c1"} for disk in disks]
    cdrom = {"path": "/iso"}

    def controllers(**table: Any) -> list[str]:
        return [sentence.partition(",")[0] for sentence in risks(guest(**table))]

    assert controllers(disk=together) == []
    assert controllers(disk=disks) == ["it has 2 ahci controllers"]
    assert controllers(disk=together, cdrom=[{**cdrom, "when": "always"}]) == ["it has 2 ahci controllers"]
    assert controllers(disk=together, cdrom=[{**cdrom, "when": "always", "controller": "c1"}]) == []
    assert controllers(disk=together, cdrom=[{**cdrom, "when": "install"}]) == []
    assert controllers(disk=disks, cdrom=[{**cdrom, "when": "always"}], **{"cloud-init": {}}) == ["it has 4 ahci controllers"]


def test_a_seeds_drive_is_one_of_a_kind_too() -> None:
    """As a CD it is a second controller beside the disk's; as a disk it is one that bhyve may not restore."""
    (as_cd,) = risks(guest(**{"cloud-init": {}}))
    (as_disk,) = risks(guest(**{"cloud-init": {"model": "virtio-blk"}}))

    assert as_cd.startswith("it has 2 ahci controllers")
    assert "Handbook" in as_disk


@pytest.mark.parametrize(
    ("state", "new", "here", "words"),
    [
        (STATE, guest(), HERE, ""),
        (STATE, guest(restart={"on-crash": "stop"}, stop={"timeout": "5s", "ignore-early-term": False}), HERE, ""),
        (STATE, guest(memory="2G"), HERE, "changed since (memory)"),
        (STATE, guest(serial=[]), HERE, "changed since (serial[0])"),
        (STATE, guest(memory="2G", wired=True), HERE, "changed since (memory, wired)"),
        (replace(STATE, bhyve="3:4"), guest(), HERE, "bhyve has been upgraded since, and a state fits only the bhyve that saved it"),
        (replace(STATE, cpu="Xeon"), guest(), HERE, "another kind of CPU (Xeon)"),
        (replace(STATE, cpu=""), guest(), HERE, ""),
        (STATE, guest(), replace(HERE, disks={"/web1.img": DiskMark(10, 21)}), "/web1.img has been written to"),
        (STATE, guest(), replace(HERE, disks={}), "/web1.img has been written to"),
        (replace(STATE, disks={"/a": DiskMark(1, 1), "/b": DiskMark(1, 1)}), guest(), HERE, "/a, /b has been written to since"),
    ],
)
def test_what_a_state_fits(state: SavedState, new: VmSpec, here: Here, words: str) -> None:
    """The devices, bhyve, the kind of CPU and the disks; nothing that they do not see."""
    said = mismatch(state, guest(), new, here)

    assert words in said
    assert bool(said) is bool(words)


def test_a_state_of_another_bhyved_is_not_guessed_at() -> None:
    """What it was saved with cannot be read."""
    assert mismatch(STATE, None, guest(), HERE) == (
        "it was saved by another version of bhyved, which wrote the configuration in another way"
    )


def test_devices_that_would_be_elsewhere() -> None:
    """Places and MAC addresses count, names of taps do not."""
    conf = "memory.size=1G\npci.0.5.0.device=virtio-net\npci.0.5.0.mac=58:9c:fc:00:00:01\npci.0.5.0.backend=tap7\n"
    state = replace(STATE, devices=devices_in(conf))

    assert moved(state, conf.replace("tap7", "tap8")) == ""
    assert moved(state, conf.replace("0.5.0.device", "0.6.0.device")) == (
        "its devices would be elsewhere: pci.0.5.0.device=virtio-net, pci.0.6.0.device=virtio-net"
    )
    assert "pci.0.5.0.mac=58:9c:fc:00:00:02" in moved(state, conf.replace("00:01", "00:02"))


def test_a_path_that_reads_like_a_device_is_none() -> None:
    """Only keys count."""
    assert devices_in("pci.0.5.0.path=/a.device=b\npci.0.5.0.device=ahci\n") == ("pci.0.5.0.device=ahci",)
