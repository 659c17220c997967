"""The `~.` of cu(1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.escape import Escape, Wish, help_text


@pytest.mark.parametrize(
    ("typed", "out"),
    [
        (b"~.", [Wish.LEAVE]),
        (b"ls\r~.", [b"ls\r", Wish.LEAVE]),
        (b"ls ~.", [b"ls ~."]),
        (b"X~.", [b"X~."]),
        (b"~~", [b"~"]),
        (b"~~.", [b"~."]),
        (b"~x", [b"~x"]),
        (b"~\r~.", [b"~\r", Wish.LEAVE]),
        (b"\n~?", [b"\n", Wish.HELP]),
        (b"\r~#a", [b"\r", Wish.BREAK, b"a"]),
        (b"\r~\x1a", [b"\r", Wish.SUSPEND]),
        (b"~?~w~.", [Wish.HELP, Wish.WRITE, Wish.LEAVE]),
        (b"~", []),
        (b"", []),
    ],
)
def test_wishes_are_seen_at_the_start_of_a_line_only(typed: bytes, out: list[bytes | Wish]) -> None:
    """The escape character counts after Return, Newline or at the very beginning, and doubled it is sent once."""
    assert Escape().feed(typed) == out


@given(typed=st.lists(st.sampled_from([b"~", b".", b"\r", b"\n", b"a", b"?", b"#", b"\x1a", b"w"]), max_size=30))
def test_reading_in_pieces_changes_nothing(typed: list[bytes]) -> None:
    """Keys that come one by one mean the same as keys that come together."""
    together = Escape().feed(b"".join(typed))
    machine = Escape()
    apart: list[bytes | Wish] = []
    for key in typed:
        for item in machine.feed(key):
            if isinstance(item, bytes) and apart and isinstance(apart[-1], bytes):
                apart[-1] += item
            else:
                apart.append(item)

    assert apart == together


@given(typed=st.binary(max_size=50))
def test_without_an_escape_character_every_byte_is_sent(typed: bytes) -> None:
    """A script that switches the escape off sends what it says."""
    assert b"".join(item for item in Escape(b"").feed(typed) if isinstance(item, bytes)) == typed


def test_another_character_can_be_chosen() -> None:
    """With `-e` the tilde is an ordinary key: useful through a second cu or ssh."""
    assert Escape(b"%").feed(b"~.%.") == [b"~.%."]
    assert Escape(b"%").feed(b"\r%.") == [b"\r", Wish.LEAVE]
    with pytest.raises(ValueError, match=r"^the escape character must be a single one$"):
        Escape(b"~~")


def test_help_names_every_wish() -> None:
    """What `~?` shows has a line for each escape."""
    assert help_text("%").splitlines() == [
        "after Return:",
        "  %.   leave; the guest runs on and is still recorded",
        "  %w   take the keyboard from whoever has it",
        "  %^Z  suspend this client",
        "  %#   no break can be sent; vmctl nmi may do what it was for",
        "  %?   this text",
        "  %%   send the escape character itself",
    ]
