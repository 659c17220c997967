"""Whatever a host command prints, a guest's agent says or a guest's console carries: it is read, or it is passed over."""

import re

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import ansi, exits, ifconfig, logindex, pattern, snapshots, usage
from bhyved.core.exits import Outcome, Stage
from bhyved.daemon.agent import AgentError, Visit
from bhyved.host import facts, processes
from tests.fuzz import examples

#: Pieces of what these commands print, and of what they never should.
NUMBERS = st.sampled_from(["7", "1500", "-1", "²", "9" * 5000, "-", "1e9"])
WORDS = st.sampled_from(
    [
        "tap0:",
        " flags=8843<UP>",
        " metric 0 mtu ",
        "\t",
        "\tmember: ",
        "\tOpened by PID ",
        "\tgroups: ",
        "hw.physmem: ",
        "hw.pagesize: ",
        "@",
        "#",
        " ",
    ]
)
TITLES = st.sampled_from(["vcpu0 stats:", "vcpu²: stats:", "bhyve: web", " (bhyve)", "\0", "\u2028", "\x1b[31m", "\x85"])
TEXTS = st.lists(st.lists(NUMBERS | WORDS | TITLES | st.text(max_size=5), max_size=5).map("".join), max_size=8).map("\n".join)
PARSERS = [ifconfig.parse_ifconfig, usage.parse_stats, snapshots.parse, facts.parse_memory, processes.parse_ps]


@pytest.mark.parametrize("parse", PARSERS)
@given(text=TEXTS)
def test_any_output_of_a_command(parse, text: str) -> None:  # type: ignore[no-untyped-def]
    """Lines that nobody knows are no reason to fail."""
    parse(text)


@given(stderr=TEXTS, status=st.none() | st.integers(0, 255), up=st.booleans(), asked=st.booleans())
def test_any_last_words_of_a_bhyve(stderr: str, status: int | None, up: bool, asked: bool) -> None:
    """Every end has a kind and a sentence."""
    end = exits.classify(Outcome(stage=Stage.RUNNING, status=status, stderr=stderr), was_up=up, asked=asked)

    assert end.text
    assert "\n" not in end.text


CONSOLE = st.lists(
    st.binary(max_size=20) | st.sampled_from([b"\x1b[", b"\x1b]0;", b"\x9b", b"\r\n", b"\b\b", b"login: ", b"\xe2\x80"]), max_size=20
)


@given(pieces=CONSOLE)
def test_any_bytes_of_a_console(pieces: list[bytes]) -> None:
    """No terminal obeys what is left of them, and a pattern is found in pieces where it is found in the whole."""
    stream = b"".join(pieces)
    shown = ansi.plain(ansi.decode(stream))
    assert not {char for char in shown if ord(char) < 32 or 127 <= ord(char) < 160} - {"\n", "\t"}

    watch, whole = pattern.Watch(re.compile(rb"login: \Z")), pattern.Watch(re.compile(rb"login: \Z"))
    found = [watch.feed(piece) for piece in pieces]
    assert not whole.feed(stream) or found[-1]


@given(pieces=CONSOLE, line_start=st.booleans())
def test_any_bytes_in_a_log_with_timestamps(pieces: list[bytes], line_start: bool) -> None:
    """What is read back is what the guest printed, stamps of its own included."""
    stream = b"".join([*pieces, b"2026-11-25T12:00:00.000Z its own\n", *pieces])
    stamp = b"2026-11-25T12:00:00.123Z "

    assert logindex.unstamped(logindex.stamped(stream, stamp, line_start=line_start), line_start=line_start) == stream


SAID = st.sampled_from(
    [
        b"\n",
        b"\xff",
        b'{"return": {}}\n',
        b'{"error": {"desc": "no"}}\n',
        b'{"error": 7}\n',
        b'{"return": 1}',
        b"[" * 60_000 + b"\n",
        b"9" * 9000 + b"\n",
    ]
)


@examples(50)
@given(said=st.lists(SAID | st.binary(max_size=60), max_size=12))
def test_anything_that_a_guests_agent_says(said: list[bytes]) -> None:
    """It is an answer, or the agent is no good; the guest's side decides what comes, and no more than that."""

    async def ask() -> None:
        ours, guests = trio.socket.socketpair()
        with guests:
            async with trio.SocketStream(ours) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(say, guests)
                visit = Visit(stream)
                for _ in range(3):
                    try:
                        await visit.ask("guest-ping", 5.0)
                    except AgentError as error:
                        assert str(error).isprintable()  # noqa: PT017 - both ends are right
                nursery.cancel_scope.cancel()

    async def say(guests: trio.socket.SocketType) -> None:
        for piece in said:
            while piece:
                piece = piece[await guests.send(piece) :]
        guests.shutdown(trio.socket.SHUT_WR)

    trio.run(ask)
