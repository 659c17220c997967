"""Whether the host has memory for one more guest, and the words for those that wait for it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import room
from bhyved.core.room import HostMemory, Room, Share, lacks
from bhyved.core.spec import DaemonSpec, Order, VmSpec
from bhyved.core.status import Phase, VmStatus
from bhyved.core.units import Size

G = 1 << 30
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOST = Room(host=HostMemory(total_bytes=16 * G, wired_bytes=4 * G), reserve_bytes=G)


def test_what_is_missing_is_said_beside_whom() -> None:
    """How much it needs, how much is left of how much, and who has the rest, the largest first."""
    having = {"db1": Share(4 * G), "web1": Share(8 * G - (200 << 20))}

    assert lacks(HOST, Share(8 * G), having) == "needs 8G; 3.1G of 15G are left beside web1 (7992M), db1 (4G)"
    assert lacks(HOST, Share(3 * G), having) == ""


def test_of_two_that_have_as_much_the_first_by_name_is_named_first() -> None:
    """So that the sentence stays the same from one look to the next."""
    having = {"web2": Share(6 * G), "db1": Share(6 * G), "web1": Share(2 * G)}

    assert lacks(HOST, Share(8 * G), having) == "needs 8G; 1G of 15G are left beside db1 (6G), web2 (6G), web1 (2G)"


def test_a_host_that_is_overfull_has_nothing_left() -> None:
    """People start what they want, and no sentence says that less than nothing is left."""
    assert lacks(HOST, Share(G), {"web1": Share(20 * G)}) == "needs 1G; 0K of 15G are left beside web1 (20G)"


def test_what_guests_have_is_what_their_statuses_say() -> None:
    """Those that have none are not among them, and wired memory is counted apart."""
    statuses = {
        "db1": VmStatus(name="db1", since_at=NOON, room_bytes=4 * G, room_wired=True),
        "web1": VmStatus(name="web1", since_at=NOON, room_bytes=2 * G),
        "down1": VmStatus(name="down1", since_at=NOON),
    }

    assert room.shares(statuses) == {"db1": Share(4 * G, wired=True), "web1": Share(2 * G)}
    assert room.taken(statuses.values()) == room.Taken(size=6 * G, wired=4 * G)


def test_a_wired_guest_asks_for_wired_memory() -> None:
    """As its file says."""
    assert room.share_of(VmSpec(name="db1", memory=Size(2 * G), wired=True)) == Share(2 * G, wired=True)
    assert room.share_of(VmSpec(name="web1", memory=Size(2 * G))) == Share(2 * G)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0K"),
        (1023, "0K"),
        (1024, "1K"),
        (2047, "1K"),
        ((1 << 20) - 1, "1023K"),
        (1 << 20, "1M"),
        ((1 << 30) - 1, "1023M"),
        (3 * G // 2, "1.5G"),
        (100 * G - 1, "99.9G"),
        (100 * G + (G >> 1), "100G"),
        (1 << 40, "1T"),
    ],
)
def test_an_amount_as_one_reads_it(size: int, text: str) -> None:
    """With one decimal below a hundred, and none where it would be 0."""
    assert room.amount(size) == text


def test_a_crowd_is_counted() -> None:
    """Four are named, the others added up."""
    having = {f"vm{n}": Share((n + 1) * (G >> 2)) for n in range(9)}

    assert lacks(HOST, Share(8 * G), having).endswith("beside vm8 (2304M), vm7 (2G), vm6 (1792M), vm5 (1536M), 5 more (3.7G)")


def test_one_byte_decides() -> None:
    """What fits exactly, fits."""
    assert lacks(HOST, Share(11 * G), {"db1": Share(4 * G)}) == ""
    assert lacks(HOST, Share(11 * G), {"db1": Share(4 * G + 1)})


def test_a_guest_that_can_never_fit_is_told_what_would_be_right() -> None:
    """Beside nobody, and with the figures that would have to change."""
    assert lacks(HOST, Share(64 * G), {}) == (
        "needs 64G, more than this host ever has for guests, which is 15G (16G less memory-reserve, which is 1G); "
        "give it less memory, or set overcommit = true in bhyved.toml"
    )
    assert lacks(HOST, Share(5 * G, wired=True), {}) == (
        "needs 5G wired, more than this host lets be wired, which is 4G; "
        "sysctl vm.max_user_wired=1310720 and vmctl reload, or give it less memory"
    )


def test_wired_memory_has_a_limit_of_its_own() -> None:
    """Guests that are not wired do not count against it; overcommit does not lift it, since the kernel would not give more."""
    having = {"db1": Share(3 * G, wired=True), "web1": Share(4 * G)}
    generous = Room(host=HOST.host, overcommit=True)

    for each in (HOST, generous):
        assert lacks(each, Share(2 * G, wired=True), having) == "needs 2G wired; 1G of 4G are left beside db1 (3G)"
        assert lacks(each, Share(G, wired=True), having) == ""
    assert lacks(generous, Share(64 * G), having) == ""


def test_a_host_that_does_not_say_holds_nobody_back() -> None:
    """Nor does one whose reserve is more than it has let anybody in."""
    assert not Room(reserve_bytes=G).is_limited
    assert lacks(Room(reserve_bytes=G), Share(64 * G, wired=True), {}) == ""
    assert Room(host=HostMemory(total_bytes=G), reserve_bytes=2 * G).limit_bytes == 0


def test_the_main_file_decides() -> None:
    """memory-reserve and overcommit."""
    made = room.room_of(DaemonSpec(memory_reserve=Size(2 * G)), HOST.host)
    assert made.limit_bytes == 14 * G
    assert room.room_of(DaemonSpec(overcommit=True), HOST.host).limit_bytes is None


@pytest.mark.parametrize("phase", Phase)
def test_who_keeps_its_memory(phase: Phase) -> None:
    """Whoever runs, prepares or is cleaned up behind; between two runs a guest that comes again; never one that is down or held."""
    runs = phase not in (Phase.DOWN, Phase.HELD, Phase.WAITING, Phase.BACKOFF)

    assert room.is_kept(phase, again=False, stuck=False) is runs
    assert room.is_kept(phase, again=True, stuck=False) is (runs or phase in (Phase.WAITING, Phase.BACKOFF))
    assert room.is_kept(phase, again=False, stuck=True)


def test_a_boot_goes_by_order() -> None:
    """What comes first has its memory first, smaller ones pass, and who requires one that waits, waits."""
    specs = {
        "a": VmSpec(name="a", memory=Size(8 * G), order=Order(after=("z",))),
        "b": VmSpec(name="b", memory=Size(2 * G)),
        "c": VmSpec(name="c", memory=Size(G), order=Order(requires=("a",))),
        "d": VmSpec(name="d", memory=Size(64 * G), autostart=False),
        "z": VmSpec(name="z", memory=Size(6 * G)),
    }

    assert room.at_boot(specs, HOST) == {
        "a": "needs 8G; 7G of 15G are left beside z (6G), b (2G)",
        "c": "waits for a, which it requires",
    }


@given(st.integers(min_value=1, max_value=1 << 45))
def test_an_amount_is_never_more_than_there_is(size: int) -> None:
    """Rounded down to a tenth."""
    text = room.amount(size)
    number, unit = (float(text[:-1]), text[-1]) if text[-1].isalpha() else (float(text), "B")
    shown = number * {"T": 1 << 40, "G": 1 << 30, "M": 1 << 20, "K": 1 << 10, "B": 1}[unit]

    assert shown <= size


shares_of = st.builds(Share, st.integers(min_value=1, max_value=8), st.booleans())


@given(st.integers(0, 20), st.integers(0, 10), st.dictionaries(st.text("abc", min_size=1), shares_of, max_size=6), shares_of)
def test_the_quick_answer_is_the_long_one(total: int, wired: int, having: dict[str, Share], wanted: Share) -> None:
    """`fits` adds up what `lacks` looks at one by one."""
    limits = Room(host=HostMemory(total_bytes=total, wired_bytes=wired))
    taken = room.Taken()
    for share in having.values():
        taken.add(share)

    assert room.fits(limits, wanted, taken) is (lacks(limits, wanted, having) == "")
