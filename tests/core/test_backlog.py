"""A viewer's backlog: order, bounds, and exact losses."""

from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.backlog import EVENTS_MAX, Backlog, Note, Piece
from bhyved.core.frames import Gap


def taken(backlog: Backlog, size: int = 1 << 16) -> list[object]:
    out: list[object] = []
    while (item := backlog.take(size)) is not None:
        out.append((item.offset, item.data) if isinstance(item, Piece) else item.event if isinstance(item, Note) else item)
    return out


def test_gives_back_what_came_in_order() -> None:
    """Output that follows on is joined; events stay between what came before and after them."""
    backlog = Backlog(0)
    backlog.data(0, b"ab")
    backlog.data(2, b"cd")
    backlog.note(b"down")
    backlog.data(4, b"ef")

    assert taken(backlog) == [(0, b"abcd"), b"down", (4, b"ef")]
    assert not backlog


def test_a_hole_before_output_is_a_gap() -> None:
    """Output that begins later than the viewer expects is preceded by what is missing."""
    backlog = Backlog(10)
    backlog.data(15, b"x", "not kept")

    assert taken(backlog) == [Gap(10, 5, "not kept"), (15, b"x")]


def test_a_slow_viewer_loses_the_oldest_half() -> None:
    """Beyond the bound the oldest output becomes a gap, of exactly the bytes that are missing."""
    backlog = Backlog(0, limit=10)
    backlog.data(0, b"0123456")
    backlog.note(b"event")
    backlog.data(7, b"789abc")

    assert taken(backlog) == [Gap(0, 7, "slow"), b"event", Gap(7, 1, "slow"), (8, b"89abc")]
    assert backlog.lost_bytes == 8


def test_events_do_not_pile_up() -> None:
    """A viewer that reads nothing costs a bounded number of events: the oldest go."""
    backlog = Backlog(0)
    for number in range(EVENTS_MAX + 5):
        backlog.note(str(number).encode())

    assert taken(backlog) == [str(number).encode() for number in range(5, EVENTS_MAX + 5)]


@given(
    limit=st.integers(2, 40),
    steps=st.lists(
        st.one_of(st.binary(min_size=1, max_size=30), st.integers(1, 20), st.just("event"), st.tuples(st.integers(1, 9))), max_size=40
    ),
)
def test_every_byte_is_delivered_or_in_a_gap(limit: int, steps: list[bytes | int | str | tuple[int]]) -> None:
    """Whatever comes and however it is read, pieces and gaps follow on without overlap, and the bound holds."""
    backlog, everything, at = Backlog(0, limit), b"", 0
    out: list[object] = []
    for step in steps:
        if isinstance(step, bytes):
            backlog.data(len(everything), step)
            everything += step
        elif isinstance(step, int):
            item = backlog.take(step)
            out.append(item)
        elif isinstance(step, tuple):
            everything += b"?" * step[0]  # never shown to this viewer: the next output has a hole before it
        else:
            backlog.note(b"{}")
        assert backlog.waiting_bytes <= limit
    while (rest := backlog.take(7)) is not None:
        out.append(rest)
    for item in out:
        if isinstance(item, Piece):
            assert item.offset == at
            assert everything[at : at + len(item.data)] == item.data
            at += len(item.data)
        elif isinstance(item, Gap):
            assert item.offset == at
            at += item.size

    assert at == backlog.next_offset <= len(everything)
