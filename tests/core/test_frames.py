"""Frames: bytes in pieces of any size become the frames that were sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import frames
from bhyved.core.frames import Frame, FrameError, Gap, Kind, Parser


@given(
    sent=st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=50)), max_size=20),
    cuts=st.lists(st.integers(1, 60), min_size=1),
)
def test_survive_any_fragmentation(sent: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
    """However a stream is cut, the same frames come out in order."""
    stream = b"".join(frames.frame(kind, payload) for kind, payload in sent)
    parser, got, turn = Parser(), list[Frame](), 0
    while stream:
        size = cuts[turn % len(cuts)]
        got += parser.feed(stream[:size])
        stream, turn = stream[size:], turn + 1

    assert got == [Frame(kind, payload) for kind, payload in sent]


def test_data_carries_its_offset() -> None:
    """Offsets beyond 4 GiB survive the wire."""
    (frame,) = Parser().feed(frames.data_header(1 << 40, 5) + b"hello")

    assert frames.parse_data(frame.payload) == (1 << 40, b"hello")


def test_gap_says_where_how_much_and_why() -> None:
    """A gap arrives as it was told."""
    (frame,) = Parser().feed(frames.gap(Gap(7, 1 << 33, "slow")))

    assert frame.kind is Kind.GAP
    assert frames.parse_gap(frame.payload) == Gap(7, 1 << 33, "slow")


@pytest.mark.parametrize("wrong", [b"GET / HTTP/1.1\r\n", b"D\xff\xff\xff\xff", b'{"jsonrpc":"2.0"}\n'])
def test_refuse_what_is_no_frame(wrong: bytes) -> None:
    """A peer that speaks something else is found out at its first bytes, before anything is collected for it."""
    with pytest.raises(FrameError):
        list(Parser().feed(wrong))


@pytest.mark.parametrize("parse", [frames.parse_data, frames.parse_gap])
def test_refuse_short_payloads(parse: object) -> None:
    """A payload without its numbers is refused, not read beyond its end."""
    assert callable(parse)
    with pytest.raises(FrameError):
        parse(b"short")
