"""The ring: what is kept of a console, and what a reader is told is missing."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.ring import Ring, buffer_bytes, found


def ring(first: int = 8, latest: int = 16, origin: int = 0) -> Ring:
    made = Ring(bytearray(buffer_bytes(first, latest)), first, latest)
    made.begin(origin, "abcd")
    return made


def test_keeps_everything_that_fits() -> None:
    """What is shorter than the latest part is read back whole."""
    kept = ring()
    kept.append(b"hello ")
    kept.append(b"world")

    assert kept.read(0) == [(0, b"hello world")]


def test_keeps_the_start_of_the_run_and_the_latest_bytes() -> None:
    """Of a long run the first and the latest bytes are left, with a hole between them whose size the offsets tell."""
    kept = ring(first=4, latest=6)
    kept.append(b"0123456789abcdef")

    assert kept.read(0) == [(0, b"0123"), (10, b"abcdef")]


def test_a_new_run_begins_the_first_part_anew() -> None:
    """The first part belongs to the present run; the latest part reaches back into the one before."""
    kept = ring(first=4, latest=8)
    kept.append(b"panic: at the disco")
    kept.start_run("run-2")
    kept.append(b"boot")

    assert kept.read(0) == [(15, b"iscoboot")]
    assert kept.run_start == 19
    assert kept.run == "run-2"


def test_offsets_go_on_from_the_origin() -> None:
    """A ring made behind an older log counts on from its end."""
    kept = ring(origin=1000)

    assert kept.append(b"x") == 1000
    assert kept.read(0) == [(1000, b"x")]


def test_another_ring_in_the_same_buffer_finds_it_all() -> None:
    """What a killed daemon left in the buffer is there for the next, with its offsets, run and stream."""
    buffer = bytearray(buffer_bytes(8, 16))
    first = Ring(buffer, 8, 16)
    first.begin(0, "abcd")
    first.start_run("run-1")
    first.append(b"login: ")
    second = Ring(buffer, 8, 16)

    assert second.is_whole()
    assert (second.end, second.run, second.stream, second.running) == (7, "run-1", "abcd", True)
    assert second.read(0) == [(0, b"login: ")]


def test_a_buffer_of_zeros_is_no_ring() -> None:
    """A buffer that nobody has begun, or one of other sizes, is not taken for a ring."""
    empty = Ring(bytearray(buffer_bytes(8, 16)), 8, 16)
    buffer = bytearray(buffer_bytes(8, 16))
    Ring(buffer, 16, 8).begin(0, "")

    assert not empty.is_whole()
    assert not Ring(buffer, 8, 16).is_whole()


def test_takes_over_a_ring_of_another_size() -> None:
    """When the configured size changes, what was kept moves over, offsets and start of the run included."""
    old = ring(first=4, latest=8)
    old.append(b"0123456789")
    old.start_run("run-1")
    old.append(b"ab")
    new = Ring(bytearray(buffer_bytes(16, 32)), 16, 32)
    new.take_over(old)

    assert new.read(0) == [(4, b"456789ab")]
    assert (new.end, new.run_start, new.run, new.running) == (12, 10, "run-1", True)


def test_takes_over_the_end_of_a_run() -> None:
    """A run that is over stays over, one that began long ago is the whole of what is left."""
    old = ring(first=4, latest=8)
    old.start_run("run-1")
    old.append(b"0123456789abcdef")
    old.end_run()
    new = Ring(bytearray(buffer_bytes(16, 32)), 16, 32)
    new.take_over(old)

    assert not old.running
    assert (new.run, new.stream, new.running) == ("run-1", "abcd", False)
    assert new.read(0) == [(8, b"89abcdef")]
    assert (new.origin, new.run_start, new.end) == (8, 8, 16)


def test_a_ring_is_found_whatever_its_sizes() -> None:
    """They stand in its buffer, which is then just as long."""
    buffer = bytearray(buffer_bytes(8, 16))
    Ring(buffer, 8, 16).begin(5, "abcd")
    there = found(buffer)

    assert there is not None
    assert (there.origin, there.end, there.stream) == (5, 5, "abcd")
    assert found(buffer + b"\0") is None
    assert found(buffer[:-1]) is None
    assert found(bytearray(buffer_bytes(8, 16))) is None
    assert found(bytearray(b"short")) is None


@pytest.mark.parametrize(
    ("end", "origin", "run_start", "is_whole"),
    [
        (20, 10, 15, True),
        (10, 10, 10, True),
        (20, 10, 10, True),
        (20, 10, 20, True),
        (20, 10, 21, False),
        (20, 10, 9, False),
        (9, 10, 9, False),
    ],
)
def test_offsets_that_cannot_be_are_no_ring(end: int, origin: int, run_start: int, is_whole: bool) -> None:
    """A damaged file: a run that began behind the end, or before the ring did."""
    buffer = bytearray(buffer_bytes(8, 16))
    Ring(buffer, 8, 16).begin(0, "abcd")
    struct.pack_into("=QQQ", buffer, 24, end, origin, run_start)

    assert Ring(buffer, 8, 16).is_whole() is is_whole


def test_the_earliest_byte_is_the_runs_first_where_that_is_kept() -> None:
    """Else it is the oldest from which on nothing is missing."""
    kept = ring(first=4, latest=8)
    kept.append(b"0123")
    assert (kept.earliest, kept.oldest) == (0, 0)
    kept.start_run("run-1")
    kept.append(b"0123456789abcdef")
    assert (kept.earliest, kept.oldest) == (4, 12)

    without = ring(first=0, latest=8)
    without.append(b"0123456789abcdef")
    assert (without.earliest, without.oldest) == (8, 8)


def test_a_name_that_is_too_long_is_cut() -> None:
    """What stands behind it stays what it was."""
    kept = ring()
    kept.append(b"x")
    kept.start_run("r" * 1000)
    assert set(kept.run) == {"r"}
    assert (kept.stream, kept.end, kept.read(0)) == ("abcd", 1, [(0, b"x")])


def test_a_ring_that_is_released_lets_its_buffer_go() -> None:
    """So that the mapping below it can be closed."""
    buffer = bytearray(buffer_bytes(8, 16))
    kept = Ring(buffer, 8, 16)
    with pytest.raises(BufferError):
        buffer.clear()
    kept.release()
    buffer.clear()


def test_last_lines_begin_after_the_right_newline() -> None:
    """The last N lines are counted with or without a final newline."""
    kept = ring(latest=64)
    kept.append(b"one\ntwo\nthree\n")

    assert kept.line_offset(1) == 8
    kept.append(b"login: ")
    assert kept.line_offset(1) == 14
    assert kept.line_offset(2) == 8
    assert kept.line_offset(99) == 0


@given(
    first=st.integers(0, 12),
    latest=st.integers(1, 24),
    steps=st.lists(st.one_of(st.binary(max_size=40), st.just(None)), max_size=30),
    since=st.integers(0, 300),
)
def test_agrees_with_an_endless_list(first: int, latest: int, steps: list[bytes | None], since: int) -> None:
    """Whatever is appended and whenever runs begin, what is read is what was written there, and the promised parts are kept."""
    kept, everything, run_start = ring(first, latest), b"", 0
    for step in steps:
        if step is None:
            kept.start_run("run")
            run_start = len(everything)
        else:
            kept.append(step)
            everything += step
    pieces = kept.read(since)
    covered = {offset + n for offset, data in pieces for n in range(len(data))}
    promised = set(range(max(0, len(everything) - latest), len(everything))) | set(
        range(run_start, min(run_start + first, len(everything)))
    )

    assert kept.end == len(everything)
    assert all(everything[offset : offset + len(data)] == data for offset, data in pieces)
    assert covered == {n for n in promised if n >= since}
    assert [piece.offset for piece in pieces] == sorted(piece.offset for piece in pieces)
