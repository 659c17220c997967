"""Names, labels and decisions about snapshots."""

from datetime import UTC, datetime

import msgspec
import pytest

from bhyved.core import snapshots
from bhyved.core.exits import ExitKind
from bhyved.core.snapshots import COLUMNS, CONFIG, CONSISTENCY, RUN, VM, Consistency, Dataset, Refused, Seen
from bhyved.core.spec import BhyveOptions, VmSpec
from bhyved.core.status import LastExit, Phase, Suspension, VmStatus
from bhyved.core.units import Settings
from bhyved.core.values import AbsPath

NOON = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DOWN = VmStatus(name="web1", since_at=NOON)
A, B = Dataset(name="zroot/a"), Dataset(name="zroot/b")


def ended(kind: ExitKind, *, forced: bool = False) -> VmStatus:
    return msgspec.structs.replace(DOWN, last_exit=LastExit(kind=kind, status=1, signal=None, at=NOON, forced=forced))


def seen(full: str, txg: int = 1, **more: object) -> Seen:
    dataset, _, name = full.partition("@")
    return msgspec.convert({"dataset": dataset, "name": name, "txg": txg, "at_s": txg, "vm": "web1", **more}, Seen)


@pytest.mark.parametrize(
    ("path", "volume"),
    [
        ("/dev/zvol/zroot/vm/web1", "zroot/vm/web1"),
        ("/dev/zvol//zroot/./web1", "zroot/web1"),
        ("/dev/zvol", ""),
        ("/dev/zvol/../ada0", ""),
        ("/dev/zvol/zroot/web1@snap", ""),
        ("/dev/ada0", ""),
        ("/zroot/web1.img", ""),
    ],
)
def test_a_volume_is_known_by_its_path(path: str, volume: str) -> None:
    """Below /dev/zvol a path is the volume's name; a snapshot's device is no disk to write."""
    assert snapshots.volume_of(path, "/dev") == volume


@pytest.mark.parametrize(
    ("status", "pools", "how"),
    [
        (DOWN, 1, Consistency.CLEAN),
        (ended(ExitKind.POWEROFF), 2, Consistency.CLEAN),
        (ended(ExitKind.POWEROFF, forced=True), 1, Consistency.CRASH),
        (ended(ExitKind.TRIPLE_FAULT), 1, Consistency.CRASH),
        (ended(ExitKind.KILLED), 1, Consistency.CRASH),
        (msgspec.structs.replace(DOWN, suspended=Suspension(at=NOON, by="root", path="/x")), 1, Consistency.SUSPENDED),
        (msgspec.structs.replace(DOWN, phase=Phase.UP), 1, Consistency.CRASH),
        (msgspec.structs.replace(DOWN, phase=Phase.UP), 2, Consistency.PER_POOL),
        (msgspec.structs.replace(DOWN, phase=Phase.CLEANING), 1, Consistency.CRASH),
        (msgspec.structs.replace(DOWN, phase=Phase.HELD, stuck=True), 1, Consistency.CRASH),
    ],
)
def test_a_snapshot_promises_no_more_than_it_holds(status: VmStatus, pools: int, how: Consistency) -> None:
    """Clean is what shut itself down; a process that may still write makes it a power cut at best."""
    assert snapshots.consistency(status, is_frozen=False, pools=pools) is how


def test_a_frozen_guest_is_better_than_a_power_cut() -> None:
    """Over several pools too: nothing writes meanwhile. A guest that does not run is not called frozen."""
    up = msgspec.structs.replace(DOWN, phase=Phase.UP)

    assert snapshots.consistency(up, is_frozen=True, pools=2) is Consistency.FROZEN
    assert snapshots.consistency(DOWN, is_frozen=True, pools=1) is Consistency.CLEAN


def test_what_is_written_down_has_no_password() -> None:
    """Any user of the host can read the properties of a snapshot."""
    spec = VmSpec(name="web1", bhyve=BhyveOptions(options=Settings({"pci.0.2.0.password": "secret", "x86.strictmsr": "false"})))

    found = snapshots.properties(msgspec.structs.replace(DOWN, run="r1"), spec, Consistency.CLEAN, "alice")

    assert "secret" not in found[CONFIG]
    assert "x86.strictmsr" in found[CONFIG]
    assert (found[VM], found[CONSISTENCY], found[RUN]) == ("web1", "clean", "r1")
    assert snapshots.config_changes(found[CONFIG], spec) == ()
    assert snapshots.config_changes(found[CONFIG], msgspec.structs.replace(spec, wired=True)) == ("wired",)


def test_a_configuration_that_does_not_fit_is_left_out() -> None:
    """A property has room for 8 KiB."""
    spec = VmSpec(name="web1", owner=tuple("x" * 100 for _ in range(90)))

    assert snapshots.config_text(spec) == ""
    assert CONFIG not in snapshots.properties(DOWN, spec, Consistency.CLEAN, "alice")
    assert snapshots.config_changes("", spec) == snapshots.config_changes("{", spec) == ()


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_property_with_what_else_ends_lines(end: str) -> None:
    """zfs(8) prints it as it is, and a configuration may have it: the snapshot is seen all the same."""
    cells = ["zroot/a@then", "1", "2", "3", "0", "-", "web1", "clean", "alice", f'{{"x":"a{end}b"}}']

    (found,) = snapshots.parse("\t".join(cells) + "\n")
    assert (found.full, found.config) == ("zroot/a@then", f'{{"x":"a{end}b"}}')
    assert snapshots.counted(f"zroot/a@th{end}en\t7\n") == {"zroot/a": {f"th{end}en": 7}}


def test_a_listing_is_read_as_zfs_prints_it() -> None:
    """Tabs between columns, a dash for what is not there, bookmarks by their #."""
    lines = ("zroot/a@one\t7\t99\t4096\t1\tzroot/c,zroot/d\tweb1\tclean\talice\t-", "zroot/a#mark\t8\t100\t-\t-\t-\t-\t-\t-\t-", "no line")
    assert len(COLUMNS) == 10

    one, mark = snapshots.parse("\n".join(lines))

    assert (one.dataset, one.name, one.txg, one.at_s, one.used_bytes, one.holds) == ("zroot/a", "one", 7, 99, 4096, 1)
    assert one.clones == ("zroot/c", "zroot/d")
    assert one.tie == "zroot/a@one has the clone zroot/c"
    assert (mark.full, mark.is_bookmark, mark.vm) == ("zroot/a#mark", True, "")


def test_a_snapshot_is_one_name_on_all_disks() -> None:
    """What is missing is named, and only what bhyved took of this guest has a consistency that it vouches for."""
    parts = [seen("zroot/a@one", 1, consistency="clean"), seen("zroot/b@one", 1, consistency="clean"), seen("zroot/a@two", 2, vm="")]

    one, two = snapshots.of_guest("web1", (A, B), [*parts, seen("zroot/c@one")])

    assert (one.name, one.consistency, one.own, one.missing) == ("one", Consistency.CLEAN, True, ())
    assert (two.name, two.consistency, two.own, two.missing) == ("two", Consistency.UNKNOWN, False, ("zroot/b",))


def test_only_whole_snapshots_count() -> None:
    """The metrics have those that a guest could go back to, whoever took them."""
    found = snapshots.counted("zroot/a@one\t10\nzroot/b@one\t11\nzroot/a@two\t20\nzroot/a\t5\n")

    assert snapshots.stock(["zroot/a", "zroot/b"], found) == snapshots.Stock(count=1, newest_s=11)
    assert snapshots.stock(["zroot/a"], found) == snapshots.Stock(count=2, newest_s=20)
    assert snapshots.stock(["zroot/gone"], found) == snapshots.Stock(count=0, newest_s=None)


def refused(*parts: Seen, name: str = "one", destroy_newer: bool = False) -> str:
    with pytest.raises(Refused) as caught:
        snapshots.to_roll_back("web1", (A, B), parts, name, destroy_newer=destroy_newer)
    return caught.value.code


def test_a_rollback_that_cannot_be_whole_is_refused() -> None:
    """Before the first disk: the name is on all of them, nothing newer is lost unasked, and nothing newer is in use."""
    both = (seen("zroot/a@one"), seen("zroot/b@one"))
    mark = seen("zroot/b@mark", 2, is_bookmark=True)

    assert refused() == "no-such-snapshot"
    assert refused(both[0]) == "incomplete"
    assert refused(*both, seen("zroot/b@two", 2)) == "newer-snapshots"
    assert refused(*both, mark) == "newer-snapshots"
    assert refused(*both, mark, name="mark") == "no-such-snapshot"
    assert refused(*both, seen("zroot/b@two", 2, holds=1), destroy_newer=True) == "in-use"
    assert refused(*both, seen("zroot/b@two", 2, clones=("zroot/c",)), destroy_newer=True) == "in-use"
    assert snapshots.to_roll_back("web1", (A, B), [*both, seen("zroot/b@two", 2)], "one", destroy_newer=True) == list(both)
    assert snapshots.to_roll_back("web1", (A,), [both[0], seen("zroot/c@two", 2)], "one", destroy_newer=False) == [both[0]]


def test_what_others_took_is_destroyed_only_in_full() -> None:
    """A name alone means what bhyved took of this guest; what is in use stays."""
    parts = [seen("zroot/a@one"), seen("zroot/a@theirs", vm=""), seen("zroot/a@held", holds=1), seen("zroot/b@one")]

    def codes(wanted: str) -> str:
        with pytest.raises(Refused) as caught:
            snapshots.to_destroy("web1", (A, B), parts, wanted)
        return caught.value.code

    assert snapshots.to_destroy("web1", (A, B), parts, "one") == [parts[0], parts[3]]
    assert snapshots.to_destroy("web1", (A, B), parts, "zroot/a@theirs") == [parts[1]]
    assert codes("theirs") == "not-ours"
    assert codes("held") == "in-use"
    assert codes("zroot/c@one") == "no-such-snapshot"


def test_a_file_system_goes_back_alone() -> None:
    """Not with another guest's disks, nor with bhyved's own directories."""
    tank = Dataset(name="zroot/tank", mountpoint="/tank", disks=("/tank/a.img",))
    root = Dataset(name="zroot/root", mountpoint="/", disks=("/a.img",))

    assert snapshots.stands_in_the_way(tank, {}, ["/var/db/bhyved"]) == ""
    assert snapshots.stands_in_the_way(A, {}, ["/var/db/bhyved"]) == ""
    assert "also /tank/b.img of db1" in snapshots.stands_in_the_way(tank, {"/tank/b.img": "db1"}, [])
    assert "also /var/db/bhyved of bhyved" in snapshots.stands_in_the_way(root, {}, ["/var/db/bhyved"])


@pytest.mark.parametrize("name", ["", "-r", "a@b", "a/b", "a b", "a#b", "x" * 101, "%recv"])
def test_names_that_zfs_would_not_take(name: str) -> None:
    """Or would take for something else."""
    assert snapshots.name_problem(name)


def test_the_name_of_a_moment() -> None:
    """It is a good name, and says when."""
    assert snapshots.default_name(NOON) == "bhyved-20260102T030405Z"
    assert snapshots.name_problem(snapshots.default_name(NOON)) == ""


def test_disks_that_are_only_read_do_not_change() -> None:
    """They need not be on ZFS."""
    from bhyved.core.devices import Disk

    spec = VmSpec(name="web1", disk=(Disk(path=AbsPath("/a")), Disk(path=AbsPath("/b"), read_only=True), Disk(path=AbsPath("/a"))))

    assert snapshots.disk_paths(spec) == ("/a",)
