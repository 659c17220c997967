"""Consoles for scripts: --send, --wait-for and --expect."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.ansi import plain_bytes
from bhyved.ctl.connection import Failure
from bhyved.ctl.expect import Send, Wait, parse_steps
from bhyved.ctl.sequences import Whole, without_questions
from tests.ctl.conftest import Vmctl
from tests.ctl.played import PlayedDaemon, playing, refuse
from tests.ctl.playedconsole import PlayedConsole


class Guest(PlayedConsole):
    """Prints an answer to what `console.send` types."""

    def __init__(self, kept: bytes = b"", answers: dict[str, bytes] | None = None) -> None:
        super().__init__(kept)
        self.answers = answers or {}
        self.sent: list[dict[str, Any]] = []

    def send(self, params: dict[str, Any]) -> dict[str, Any]:
        self.sent.append(params)
        offset = len(self.kept)
        answer = self.answers.get(params["text"], b"")
        if answer and self._client is not None:
            self.write(answer)
        else:
            self.kept += answer
        return {"taken": len(params["text"].encode()), "offset": offset}


@contextmanager
def guest(kept: bytes = b"", **answers: bytes) -> Iterator[tuple[Guest, PlayedDaemon]]:
    playing_guest = Guest(kept, {f"{text}\r": answer for text, answer in answers.items()})
    with playing(console_attach=playing_guest.attach, console_send=playing_guest.send) as daemon:
        yield playing_guest, daemon


def test_send(vmctl: Vmctl) -> None:
    """The text with its escapes made real; exit 0 when all of it was taken."""
    with guest() as (console, daemon):
        ran = vmctl(daemon, "console", "a", "--send", r"a\\b\t\e\x7eé\r\n", "-p", "com2", "--steal")

    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert console.sent == [{"name": "a", "port": "com2", "text": "a\\b\t\x1b~é\r\n", "steal": True}]
    assert console.asked == []


def test_a_guest_that_does_not_read(vmctl: Vmctl) -> None:
    """Exit 1, and how much was taken."""
    with playing(console_send={"taken": 3, "offset": 0}) as daemon:
        ran = vmctl(daemon, "console", "a", "--send", "12345")

    assert (ran.status, ran.err) == (1, "vmctl: a does not read: 3 of 5 bytes were taken\n")


def test_a_keyboard_that_somebody_has(vmctl: Vmctl) -> None:
    """Exit 1, who it is, and what to do about it."""

    with playing(console_send=refuse(-32003, "keyboard-busy", "bob has the keyboard of a's com1")) as daemon:
        ran = vmctl(daemon, "console", "a", "--send", "x")

    assert (ran.status, ran.err) == (1, "vmctl: bob has the keyboard of a's com1; --steal types all the same\n")


def test_wait_for(vmctl: Vmctl) -> None:
    """What the guest has printed since its start counts, escape sequences between the letters do not."""
    with guest(b"boot\r\nlo\x1b[1mgin: ") as (console, daemon):
        ran = vmctl(daemon, "console", "a", "--wait-for", "^login: $", "--json")

    assert json.loads(ran.out) == {"version": 1, "done": True, "steps": 1, "found": "login: ", "offset": len(console.kept)}
    assert console.asked == [{"name": "a", "read-only": True, "since": "boot"}]


def test_a_wait_in_vain(vmctl: Vmctl) -> None:
    """Exit 75, with what was printed instead."""
    with guest(b"one\r\n\x1b[2Jtwo\r\n") as (_, daemon):
        ran = vmctl(daemon, "console", "a", "--wait-for", "three", "-t", "100ms", "--json")

    assert ran.status == 75
    assert ran.err == 'vmctl: a has not printed "three" within 100ms, but\n  one\n  two\n'
    assert json.loads(ran.out)["done"] is False


def test_an_answer_is_waited_for_behind_the_question(vmctl: Vmctl) -> None:
    """What looks like the answer and was printed before does not count."""
    with guest(b"# old\r\n# ", date=b"date\r\nJan 1\r\n# ") as (console, daemon):
        ran = vmctl(daemon, "console", "a", "--send", r"date\r", "--wait-for", r"Jan \d")
        early = vmctl(daemon, "console", "a", "--send", r"nothing\r", "--wait-for", "old", "-t", "50ms")

    assert (ran.status, early.status) == (0, 75)
    assert console.asked[0]["since"] == len(b"# old\r\n# ")


def test_since_overrules_that(vmctl: Vmctl) -> None:
    """A script that wants to look at what was before says so."""
    with guest(b"old", x=b"new") as (console, daemon):
        assert vmctl(daemon, "console", "a", "--send", r"x\r", "--wait-for", "old", "--since", "all").status == 0
        assert vmctl(daemon, "console", "a", "--wait-for", "old", "--since", "-5").status == 0

    assert [params.get("since", params.get("lines")) for params in console.asked] == ["all", 5]


def test_steps_of_a_file(vmctl: Vmctl, tmp_path: Path) -> None:
    """Each wait begins behind what the last one found, even when all of it came in one piece."""
    file = tmp_path / "steps"
    file.write_text("# log in\nwait login:\nsend root\\r\n\nwait 5s assword:\n  send secret\\r\nwait one\nwait one\n")
    with guest(b"login: ", root=b"Password: ", secret=b"one two one") as (console, daemon):
        ran = vmctl(daemon, "console", "a", "--expect", str(file))

    assert (ran.status, ran.err) == (0, "")
    assert [params["text"] for params in console.sent] == ["root\r", "secret\r"]


def test_steps_that_are_not_all_done(vmctl: Vmctl, tmp_path: Path) -> None:
    """The same text is not found twice, and nothing is typed behind a wait in vain."""
    file = tmp_path / "steps"
    file.write_text("wait one\nwait 50ms one\nsend never\n")
    with guest(b"one") as (console, daemon):
        ran = vmctl(daemon, "console", "a", "--expect", str(file), "--json")

    assert ran.status == 75
    assert (json.loads(ran.out)["steps"], console.sent) == (1, [])


def test_a_wait_goes_on_over_a_restart_of_the_daemon(vmctl: Vmctl) -> None:
    """Half of a text before, half of it after: it is found."""
    with guest(b"log") as (console, daemon):

        def restart() -> None:
            console.attached()
            daemon.vanish()
            console.kept += b"in: "
            daemon.listen()

        restarting = threading.Thread(target=restart)
        restarting.start()
        ran = vmctl(daemon, "console", "a", "--wait-for", "login: ")
        restarting.join()

    assert ran.status == 0
    assert console.asked[1]["since"] == 3


def test_a_flood_is_searched_to_its_end(vmctl: Vmctl) -> None:
    """Megabytes without a match cost no memory and little time."""
    with guest(b"x" * (4 << 20) + b"needle") as (_, daemon):
        began = time.monotonic()
        assert vmctl(daemon, "console", "a", "--wait-for", "needle", "-t", "20s").status == 0

    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("wait", "f:1: a pattern must not be empty"),
        ("wait 5s", "f:1: a pattern must not be empty"),
        ("\nwait [", 'f:2: "[" is no regular expression'),
        ("sned x", 'f:1: a step is "send TEXT" or "wait [DURATION] REGEX", not "sned"'),
        (r"send \q", r'f:1: "\q" is none of \r \n \t \e \\ \xHH'),
        ("send \\", "f:1: "),
    ],
)
def test_steps_that_make_no_sense(text: str, sentence: str) -> None:
    """File, line, and what would be right; nothing has been typed by then."""
    with pytest.raises(Failure) as failure:
        parse_steps(text, "f")

    assert failure.value.status == 64
    assert failure.value.text.startswith(sentence)


def test_steps_as_they_are_read() -> None:
    """Blanks within a text are the text's; a first word that is no duration belongs to the pattern."""
    send, wait, other = parse_steps("send  a b \nwait 2m30s  x y\nwait 2 x\n", "f", 7.0)

    assert isinstance(send, Send)
    assert send.keys == " a b "
    assert isinstance(wait, Wait)
    assert (wait.pattern.pattern, wait.seconds) == (" x y", 150.0)
    assert isinstance(other, Wait)
    assert (other.pattern.pattern, other.seconds) == ("2 x", 7.0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--expect", "/nowhere"), "/nowhere: no such file or directory"),
        (("--expect", "x", "--send", "y"), "console: --expect goes without --send and --wait-for"),
        (("--wait-for", "("), '"(" is no regular expression'),
        (("--send", r"\xZZ"), r'"\x" is none of \r \n \t \e \\ \xHH'),
    ],
)
def test_bad_usage(vmctl: Vmctl, words: tuple[str, ...], sentence: str) -> None:
    """Exit 64."""
    ran = vmctl(None, "console", "a", *words)

    assert ran.status == 64
    assert ran.err.startswith(f"vmctl: {sentence}")


# --- sequences over pieces -----------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from([b"\x1b", b"[", b"]", b"0;", b"title", b"\x07", b"\x1b\\", b"31", b"m", b"P", b"text ", b"\n", b"6n", b"?", b"("]),
    max_size=20,
)


@given(PIECES)
def test_whole_sequences_are_the_stream(pieces: list[bytes]) -> None:
    """Nothing is lost or moved, and what is shown is the same in whatever pieces it came."""
    whole = Whole()
    out = [whole.feed(piece) for piece in pieces]
    shown = b"".join(map(plain_bytes, out)) + plain_bytes(rest := whole.rest())

    assert b"".join(out) + rest == b"".join(pieces)
    if b"\x1b" not in rest:
        assert shown == b"".join(plain_bytes(each) for each in [b"".join(out)])


@pytest.mark.parametrize(
    "question",
    [b"\x05", b"\x1b[c", b"\x1b[>0c", b"\x1b[6n", b"\x1b[?25$p", b"\x1b[18t", b"\x1bP+q544e\x1b\\", b"\x1b]52;c;?\x07", b"\x1b[?u"],
)
def test_questions(question: bytes) -> None:
    """What makes a terminal answer."""
    assert without_questions(b"a" + question + b"b") == b"ab"


@pytest.mark.parametrize("order", [b"\x1b[31m", b"\x1b[2J", b"\x1b]0;what?now\x07", b"\x1b[8;24;80t", b"\x1b[4h", b"\x1b[u", b"c"])
def test_orders(order: bytes) -> None:
    """What only draws is left alone."""
    assert without_questions(b"a" + order + b"b") == b"a" + order + b"b"
