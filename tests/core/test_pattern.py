"""Waiting for a pattern."""

import re

from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.pattern import Watch


@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=20))
def test_a_match_is_found_however_it_is_cut(cuts: list[int]) -> None:
    """A prompt in colour is found in any pieces, and not before its last letter has come."""
    stream = b"FreeBSD/amd64 (web1) (ttyu0)\r\n\r\n\x1b[1mlo\x1b[0;32mgin\x1b[0m: "
    watch, turn = Watch(re.compile(rb"^login: ", re.MULTILINE)), 0
    while len(stream) > 1:
        size = min(cuts[turn % len(cuts)], len(stream) - 1)
        assert not watch.feed(stream[:size])
        stream, turn = stream[size:], turn + 1

    assert watch.feed(stream)
    assert watch.feed(b"later")


def test_what_lies_far_back_is_forgotten() -> None:
    """A match may not begin further back than the window: a search has a bounded cost."""
    watch = Watch(re.compile(rb"begin.*end", re.DOTALL))
    watch.feed(b"begin" + b"." * 5000)

    assert not watch.feed(b"end")


def test_a_long_piece_is_searched_as_a_whole() -> None:
    """What is longer than the window does not hide its own beginning."""
    assert Watch(re.compile(rb"login:")).feed(b"login:" + b"." * 100_000)
