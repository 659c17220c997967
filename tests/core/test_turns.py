"""Whose turn it is: dependencies by readiness, the pace of a booting host, and the words for those who wait."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.room import HostMemory, Room, Share
from bhyved.core.spec import Order
from bhyved.core.status import Desired, Phase, VmStatus
from bhyved.core.turns import Pace, Seen, Turns, Waiting, may_start, waits_for

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
PACE = Pace(parallel=2, gap_s=3.0)


def status(name: str, phase: Phase, *, desired: Desired = Desired.UP, ready: bool = False) -> VmStatus:
    return VmStatus(name=name, phase=phase, desired=desired, ready=ready, since_at=NOON)


def board(*statuses: VmStatus) -> dict[str, VmStatus]:
    return {each.name: each for each in statuses}


def wants(name: str, *, paced: bool = True, **order: tuple[str, ...]) -> Waiting:
    return Waiting(name=name, order=Order(**order), paced=paced)


def ask(
    *queue: Waiting, last: float | None = None, paced: frozenset[str] = frozenset(), now: float = 100.0, among: tuple[VmStatus, ...] = ()
) -> Turns:
    return may_start(queue, board(*among), PACE, now=now, last_paced=last, paced=paced)


COMING = [phase for phase in Phase if phase not in (Phase.UP, Phase.DOWN, Phase.BACKOFF, Phase.HELD)]


@pytest.mark.parametrize("phase", COMING)
def test_after_waits_for_a_guest_on_its_way(phase: Phase) -> None:
    """Whatever is between the wish and ready may still come up."""
    assert waits_for(Order(after=("db",)), board(status("db", phase))) == f"waiting for db, which comes first and is {phase}"


def test_after_waits_until_ready() -> None:
    """Up is not enough."""
    order = Order(after=("db",))

    assert waits_for(order, board(status("db", Phase.UP))) == "waiting for db, which comes first and is up but not ready yet"
    assert waits_for(order, board(status("db", Phase.UP, ready=True))) == ""


def test_after_goes_on_when_the_time_to_become_ready_is_over() -> None:
    """A requirement does not."""
    late = board(msgspec.structs.replace(status("db", Phase.UP), late=True))

    assert waits_for(Order(after=("db",)), late) == ""
    assert waits_for(Order(requires=("db",)), late) == "waiting for db, which it requires and which is up but not ready yet"


@pytest.mark.parametrize("phase", [Phase.DOWN, Phase.HELD, Phase.BACKOFF])
def test_after_does_not_wait_for_what_will_not_come(phase: Phase) -> None:
    """A guest that is down, held, or fails and fails again keeps no other from starting."""
    assert waits_for(Order(after=("db", "gone")), board(status("db", phase))) == ""


def test_after_does_not_wait_for_a_guest_that_is_stopped_for_good() -> None:
    """Nobody wishes it up."""
    assert waits_for(Order(after=("db",)), board(status("db", Phase.STOPPING, desired=Desired.DOWN))) == ""


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.UP])
def test_requires_waits_for_ever(phase: Phase) -> None:
    """Only up and ready will do."""
    assert waits_for(Order(requires=("db",)), board(status("db", phase))) == f"waiting for db, which it requires and which is {phase}"


def test_a_requirement_is_met_by_up_and_ready() -> None:
    """As soon as it is."""
    assert waits_for(Order(requires=("db",)), board(status("db", Phase.UP, ready=True))) == ""


def test_what_was_ready_and_is_not_up_any_more_is_waited_for() -> None:
    """A guest that goes down is not at once said to be unready."""
    db = board(status("db", Phase.STOPPING, ready=True))
    assert waits_for(Order(requires=("db",)), db) == "waiting for db, which it requires and which is stopping"


def test_what_is_required_must_exist() -> None:
    """A guest whose file has gone is waited for, and named."""
    assert waits_for(Order(requires=("db",)), {}) == "waiting for db, which it requires and which does not exist"


def test_a_booting_host_starts_so_many_at_a_time() -> None:
    """The names decide, so that each boot is the same; the others hear why they wait and when to look again."""
    turns = may_start((wants("c"), wants("b"), wants("a")), {}, Pace(parallel=2, gap_s=0.0), now=100.0, last_paced=None, paced=frozenset())

    assert turns.go == ("a", "b")
    assert turns.why == {"c": "waiting for a place: 2 guests are starting, and start-parallel is 2"}
    assert turns.look_again is None


def test_the_gap_between_two_starts() -> None:
    """One now, the next when the gap is over."""
    first = ask(wants("a"), wants("b"))
    assert (first.go, first.look_again) == (("a",), 103.0)
    assert first.why == {"b": "waiting for start-gap after the guest before it"}

    assert ask(wants("b"), last=100.0, now=102.9).look_again == 103.0
    assert ask(wants("b"), last=100.0, now=103.0).go == ("b",)


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.LOADING, Phase.STARTING])
def test_a_starting_guest_keeps_its_place(phase: Phase) -> None:
    """Two of them fill start-parallel."""
    among = (status("x", phase), status("y", phase))

    assert ask(wants("a"), paced=frozenset({"x", "y"}), among=among).go == ()
    assert ask(wants("a"), paced=frozenset({"x"}), among=among).go == ("a",)


@pytest.mark.parametrize("phase", [Phase.UP, Phase.BACKOFF, Phase.DOWN, Phase.HELD])
def test_a_guest_that_has_started_or_failed_frees_its_place(phase: Phase) -> None:
    """The place is for the work of starting."""
    among = (status("x", phase), status("y", phase))

    assert ask(wants("a"), paced=frozenset({"x", "y", "gone"}), among=among).go == ("a",)


def test_a_person_and_a_restart_are_not_paced() -> None:
    """They go first, in the order in which they asked, whatever the places and the gap are."""
    busy = (status("x", Phase.STARTING), status("y", Phase.STARTING))

    turns = ask(wants("a"), wants("z", paced=False), wants("m", paced=False), last=100.0, paced=frozenset({"x", "y"}), among=busy)

    assert turns.go == ("z", "m")
    assert turns.why.keys() == {"a"}


def test_a_person_waits_for_what_the_guest_requires() -> None:
    """Order is not pace."""
    assert ask(wants("a", paced=False, requires=("db",)), among=(status("db", Phase.DOWN),)).go == ()


def test_a_guest_that_something_is_done_to_waits_for_its_end() -> None:
    """A person's start too; the others go."""
    queue = (wants("a", paced=False), wants("b"))
    turns = may_start(queue, {}, PACE, now=100.0, last_paced=None, paced=frozenset(), barred={"a": "waiting for a rollback of its disks"})

    assert turns.go == ("b",)
    assert turns.why == {"a": "waiting for a rollback of its disks"}


def needs(*queue: Waiting, known: dict[str, str], among: tuple[VmStatus, ...] = (), told: bool = False) -> Turns:
    seen = Seen(known=known, period_s=5.0, told=told)
    return may_start(queue, board(*among), PACE, now=100.0, last_paced=None, paced=frozenset(), seen=seen)


def test_what_is_needed_of_the_host_is_waited_for() -> None:
    """Also by a person's start; what has not been looked at counts as missing, and is asked for."""
    queue = wants("a", paced=False, needs=("interface:bridge0", "pool:tank"))
    unseen = needs(queue, known={})
    assert unseen.why == {"a": "waiting to see whether the interface bridge0 is there"}
    assert unseen.needs == {"interface:bridge0", "pool:tank"}

    missing = needs(queue, known={"interface:bridge0": "", "pool:tank": "it is not imported"})
    assert missing.why == {"a": "waiting for the pool tank: it is not imported (looked at every 5s)"}
    assert missing.go == ()

    told = needs(queue, known={"interface:bridge0": "it does not exist"}, told=True)
    assert told.why == {
        "a": "waiting for the interface bridge0: it does not exist (looked at when the host tells of something new, and every 5s)"
    }

    there = needs(queue, known={"interface:bridge0": "", "pool:tank": ""})
    assert there.go == ("a",)
    assert there.needs == frozenset()


def test_nothing_is_looked_at_for_a_guest_that_waits_for_another() -> None:
    """It may wait for days."""
    turns = needs(wants("a", requires=("db",), needs=("path:/x",)), known={}, among=(status("db", Phase.DOWN),))

    assert turns.needs == frozenset()


def test_a_guest_that_needs_something_holds_up_nobody_else() -> None:
    """It takes no place while it waits."""
    assert needs(wants("a", needs=("path:/x",)), wants("b"), known={"path:/x": "it does not exist"}).go == ("b",)


def room(total: int, *queue: Waiting, among: tuple[VmStatus, ...] = (), wired: int | None = None) -> Turns:
    limits = Room(host=HostMemory(total_bytes=total, wired_bytes=wired))
    return may_start(queue, board(*among), Pace(parallel=100, gap_s=0.0), now=100.0, last_paced=None, paced=frozenset(), room=limits)


def sized(name: str, size: int, **fields: bool) -> Waiting:
    return Waiting(name=name, order=Order(), paced=True, share=Share(size), **fields)


def test_a_guest_waits_for_memory_and_a_smaller_one_passes() -> None:
    """Whoever is let in counts for those behind it."""
    turns = room(10, sized("a", 6), sized("b", 6), sized("c", 4), sized("d", 1))

    assert turns.go == ("a", "c")
    assert turns.roomless == {"b", "d"}
    assert turns.why["b"] == "waiting for memory: needs 6; 0K of 0K are left beside a (6)"
    assert turns.short == {}


def test_a_person_and_a_restart_do_not_wait_for_memory() -> None:
    """A person hears of it; a restart has its memory already, and is not counted twice."""
    has = msgspec.structs.replace(status("again", Phase.WAITING), room_bytes=6)
    turns = room(10, sized("again", 6, again=True), sized("mine", 6, asked=True), sized("z", 4), among=(has,))

    assert turns.go == ("again", "mine")
    assert turns.short == {"mine": "needs 6; 0K of 0K are left beside again (6)"}
    assert turns.roomless == {"z"}


def test_only_a_person_is_warned() -> None:
    """Where memory suffices nobody is, and a restart never."""
    has = msgspec.structs.replace(status("again", Phase.WAITING), room_bytes=20)

    assert room(10, sized("again", 20, again=True), among=(has,)).short == {}
    assert room(10, sized("mine", 10, asked=True)).short == {}


def test_whoever_merely_comes_after_does_not_wait_for_memory_that_another_waits_for() -> None:
    """It may take days; a requirement waits all the same."""
    big = msgspec.structs.replace(status("big", Phase.WAITING), roomless=True)

    assert waits_for(Order(after=("big",)), board(big)) == ""
    assert waits_for(Order(requires=("big",)), board(big)) == "waiting for big, which it requires and which is waiting"


GUEST = st.tuples(st.integers(min_value=1, max_value=9), st.booleans(), st.sampled_from(["auto", "asked", "again"]))


@given(st.integers(0, 30), st.integers(0, 15), st.lists(GUEST, max_size=8), st.lists(GUEST, max_size=5))
def test_automatic_starts_never_exceed_the_host(
    total: int, wired: int, queue: list[tuple[int, bool, str]], running: list[tuple[int, bool, str]]
) -> None:
    """With one that is let in, all have no more than there is; and nobody is held back who would fit in the end."""
    among = tuple(
        msgspec.structs.replace(status(f"r{n}", Phase.UP), room_bytes=size, room_wired=is_wired)
        for n, (size, is_wired, _) in enumerate(running)
    )
    again = tuple(
        msgspec.structs.replace(status(f"q{n}", Phase.WAITING), room_bytes=size, room_wired=is_wired)
        for n, (size, is_wired, how) in enumerate(queue)
        if how == "again"
    )
    asking = {
        f"q{n}": Waiting(
            name=f"q{n}", order=Order(), paced=how == "auto", share=Share(size, is_wired), asked=how == "asked", again=how == "again"
        )
        for n, (size, is_wired, how) in enumerate(queue)
    }
    turns = room(total, *asking.values(), among=(*among, *again), wired=wired)

    having = {each.name: Share(each.room_bytes, each.room_wired) for each in (*among, *again)}
    for name in turns.go:
        having[name] = asking[name].share
        if asking[name].paced:
            assert sum(share.size for share in having.values()) <= total
            if asking[name].share.wired:
                assert sum(share.size for share in having.values() if share.wired) <= wired
    assert {name for name, each in asking.items() if each.asked or each.again} <= set(turns.go)
    for name in turns.roomless:
        mine = asking[name].share
        too_much = sum(share.size for share in having.values()) + mine.size > total
        assert too_much or (mine.wired and sum(share.size for share in having.values() if share.wired) + mine.size > wired)
