"""vmctl snapshot and rollback: what is asked of the daemon, and what a person reads."""

import json
import time
from typing import Any

import pytest

from tests.ctl.conftest import Vmctl
from tests.ctl.played import playing, refuse, told


def snapshot(name: str, age_s: float, **changes: Any) -> dict[str, Any]:
    known = {"consistency": "clean", "used-bytes": 12 << 20, "by": "root", "own": True, "datasets": ["z/a", "z/b"], "missing": []}
    return {"name": name, "at-s": int(time.time() - age_s), **known, **changes}


def test_the_table(vmctl: Vmctl) -> None:
    """Name, age, worth, room and disks; and what a person has to know of one that is no way back."""
    theirs = snapshot("daily", 86_400 * 3 + 60, consistency="unknown", own=False, datasets=["z/a"], missing=["z/b"])
    answer = {"version": 1, "name": "a", "datasets": ["z/a", "z/b"], "snapshots": [theirs, snapshot("nightly", 7260)]}
    with playing(vm_snapshots=answer) as daemon:
        ran = vmctl(daemon, "snapshot", "a", "--list")

        assert ran.out.splitlines() == [
            "NAME      AGE  CONSISTENCY  USED  DISKS   REMARK",
            "daily      3d  unknown       12M  1 of 2  not of z/b: cannot be rolled back to; not by bhyved",
            "nightly  2h1m  clean         12M  2",
        ]
        assert json.loads(vmctl(daemon, "snapshot", "a", "-l", "--json").out) == answer
        assert daemon.params("vm.snapshots") == [{"name": "a"}] * 2


def test_tables_of_several_guests(vmctl: Vmctl) -> None:
    """Each under its guest's name, and apart."""
    answer = {"version": 1, "datasets": ["z/a", "z/b"], "snapshots": [snapshot("nightly", 7260)]}
    with playing(vm_snapshots=answer) as daemon:
        lines = vmctl(daemon, "snapshot", "a", "b", "--list").out.splitlines()

    assert (lines[0], lines[3], lines[4]) == ("a:", "", "b:")
    assert lines[1:3] == lines[5:]


def test_json_of_what_has_been_done(vmctl: Vmctl) -> None:
    """For programs, what the daemon has said."""
    back = {"text": "a is rolled back to x", "config-changes": ["cpus"]}
    with playing(vm_snapshot__delete={"text": "gone"}, vm_rollback=back) as daemon:
        assert json.loads(vmctl(daemon, "rollback", "a", "x", "--json").out) == back
        assert json.loads(vmctl(daemon, "snapshot", "a", "--delete", "x", "--json").out) == {"text": "gone"}


def test_none_yet(vmctl: Vmctl) -> None:
    """That is said, and is no failure."""
    with playing(vm_snapshots={"version": 1, "name": "a", "datasets": ["z/a"], "snapshots": []}) as daemon:
        ran = vmctl(daemon, "snapshot", "a", "--list")

    assert (ran.status, ran.out, ran.err) == (0, "", "a has no snapshots\n")


def test_taking_one(vmctl: Vmctl) -> None:
    """One line a guest, and a guest that could not costs the exit status, not the others."""
    answers = [told("a", text="snapshot x taken: clean, 1 disk"), told("db1", ok=False, code="host", text="disk /x.img is not on ZFS")]
    with playing(vm_snapshot={"answers": answers}) as daemon:
        ran = vmctl(daemon, "snapshot", "--all", "--name", "x")

        assert ran.status == 1
        assert ran.out == "a: snapshot x taken: clean, 1 disk\n"
        assert ran.err == "vmctl: db1: disk /x.img is not on ZFS\n"
        assert daemon.params("vm.snapshot") == [{"all": True, "snapshot": "x"}]


def test_destroying_and_going_back(vmctl: Vmctl) -> None:
    """The daemon's sentence is printed; what it refuses is, too."""
    refusal = refuse(-32003, "not-down", "a is up: vmctl stop a")
    with playing(vm_snapshot__delete={"text": "snapshot x of a destroyed"}, vm_rollback=refusal) as daemon:
        assert vmctl(daemon, "snapshot", "a", "--delete", "x").out == "snapshot x of a destroyed\n"
        assert daemon.params("vm.snapshot-delete") == [{"name": "a", "snapshot": "x"}]
        ran = vmctl(daemon, "rollback", "a", "x", "--destroy-newer")

        assert (ran.status, ran.err) == (1, "vmctl: a is up: vmctl stop a\n")
        assert daemon.params("vm.rollback") == [{"name": "a", "snapshot": "x", "destroy-newer": True}]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("snapshot", "a", "--name", "x", "--list"), "--name does not go with --list"),
        (("snapshot", "--all", "--delete", "x"), "--delete wants the names of guests, not --all"),
        (("snapshot", "a", "b", "--delete", "x"), "--delete takes one guest"),
        (("rollback", "a"), "a guest and the name of a snapshot"),
        (("rollback", "a", "x", "y"), "a guest and the name of a snapshot"),
    ],
)
def test_what_is_asked_for_must_be_one_thing(vmctl: Vmctl, words: tuple[str, ...], text: str) -> None:
    """Wrong usage is said before anything is asked of the daemon."""
    with playing() as daemon:
        ran = vmctl(daemon, *words)

        assert ran.status == 64
        assert text in ran.err
        assert daemon.asked == []
