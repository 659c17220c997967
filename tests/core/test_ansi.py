"""Plain text from what a guest printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.ansi import decode, plain, plain_bytes


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]52;c;cm0gLXJm\x1b\\clipboard", "clipboard"),
        ("\x1bPq#0;2;0\x1b\\sixel", "sixel"),
        ("\x1b]0;never ended\nnext line", "\nnext line"),
        ("\x1b[2J\x1b[Hclear", "clear"),
        ("\x1b(B\x1b)0charset", "charset"),
        ("\x9b31mC1\x9d0;x\x9c", "C1"),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        ("|\b/\b-\b\\\bdone", "done"),
        ("10%\r55%\r100%\n", "100%\n"),
        ("lss\b \b -l", "ls -l"),
        ("50% done\r100", "100 done"),
        ("tab\there\x07\x00", "tab\there"),
        ("gnirts\u202estring", "gnirtsstring"),
        ("größe ✓ 漢字", "größe ✓ 漢字"),
    ],
)
def test_only_text_is_left(printed: str, text: str) -> None:
    """Colours, titles, clipboards and overwritten characters do not reach the reader of a log."""
    assert plain(printed) == text


@given(printed=st.text(alphabet=st.sampled_from("ab;0m[]\x1b\x9b\x07\x9c\x90P\\\n\r\b\t?"), max_size=60))
def test_nothing_a_terminal_obeys_is_left(printed: str) -> None:
    """Whatever a guest makes of escape characters, none is left, and cleaning twice is cleaning once."""
    cleaned = plain(printed)

    assert not set(cleaned) & {chr(n) for n in (*range(9), *range(11, 32), *range(127, 160))}
    assert plain(cleaned) == cleaned


def test_patterns_see_bytes_without_sequences() -> None:
    """A prompt in colour is still a prompt."""
    assert plain_bytes(b"\x1b[1mlo\x1b[0mgin:\x1b[K \r\n") == b"login: \n"


def test_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    """Latin-1 and broken sequences become U+FFFD, not an exception."""
    assert decode(b"caf\xe9 \xe2\x9c\x93") == "caf\ufffd ✓"
