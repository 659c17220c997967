"""What consoles have recorded, and what they print while one looks."""

import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.ansi import plain
from bhyved.ctl.loglines import Lines
from tests.ctl.conftest import Vmctl
from tests.ctl.played import PATIENCE_S, PlayedDaemon, Refusal, Stream, playing, row
from tests.ctl.playedconsole import PlayedConsole

NOON = 1767268800.0
Page = dict[str, Any]


def out(offset: int, data: bytes, at: float | None = NOON) -> Page:
    return {"offset": offset, "data": b64encode(data).decode(), **({} if at is None else {"at": at})}


def mark(offset: int, kind: str, text: str, **more: Any) -> Page:
    return {"offset": offset, "at": NOON, "mark": kind, "text": text, **more}


def page(*records: Page, next: int = 100, more: bool = False, until: int | None = None, port: str = "com1") -> Page:
    return {"name": "a", "port": port, "stream": "s1", "records": list(records), "next": next, "until": until, "more": more}


BOOT = page(
    mark(0, "boot", "run 1 by autostart"),
    mark(0, "attach", "bob"),
    out(0, b"hello\r\nsta\x1b[3"),
    out(14, b"1mrt\xc3"),
    out(19, b"\xbc\r\n"),
    mark(22, "gap", "bhyved was away", lost=7),
    out(29, b"login: "),
    mark(36, "exit", "the guest powered off"),
)


def test_a_log(vmctl: Vmctl) -> None:
    """Lines put together from pieces, without escape sequences, and what became of the guest between them."""
    with playing(console_log=BOOT) as daemon:
        ran = vmctl(daemon, "log", "a")

        assert daemon.asked == [("console.log", {"name": "a", "raw": True})]
    assert ran.out.splitlines() == [
        "--- 2026-01-01T12:00:00Z boot: run 1 by autostart ---",
        "hello",
        "startü",
        "--- 2026-01-01T12:00:00Z gap: 7 bytes are missing here ---",
        "--- 2026-01-01T12:00:00Z gap: bhyved was away ---",
        "login: ",
        "--- 2026-01-01T12:00:00Z exit: the guest powered off ---",
    ]


def test_a_console_that_has_said_nothing(vmctl: Vmctl) -> None:
    """Whoever looks is told that it is not the log that is broken; marks alone are shown as they are."""
    with playing(console_log=page(mark(0, "exit", "no firmware"), next=0)) as daemon:
        ran = vmctl(daemon, "log", "a")

    assert (ran.status, ran.out) == (0, "--- 2026-01-01T12:00:00Z exit: no firmware ---\n")
    assert ran.err == "a has printed nothing on com1 yet\n"


def test_pages_are_one_log(vmctl: Vmctl) -> None:
    """A character may be cut in two by the end of a page; the daemon is asked on from there, up to the same end."""
    pages = [page(out(0, b"one\ntw\xc3"), next=8, more=True, until=20), page(out(8, b"\xb6\nthree"), next=20, until=20)]
    with playing(console_log=lambda params: pages.pop(0)) as daemon:
        ran = vmctl(daemon, "log", "a", "--boot", "-1", "-p", "com2")

        assert ran.out == "one\ntwö\nthree\n"
        assert [params for _, params in daemon.asked] == [
            {"name": "a", "port": "com2", "raw": True, "boot": -1},
            {"name": "a", "port": "com2", "raw": True, "since": 8, "until": 20},
        ]


@pytest.mark.parametrize(
    ("words", "asked", "printed"),
    [
        (("-n", "2"), {"lines": 2}, ["login: ", "exit: the guest powered off"]),
        (("-n", "1", "--boot", "0"), {"boot": 0}, ["exit: the guest powered off"]),
        (("--since", "2026-01-01T12:00:00Z"), {"since-time": NOON}, None),
        (("--grep", "^(hel|log)"), {}, ["hello", "login: "]),
        (("--grep", "l", "-n1"), {}, ["login: "]),
    ],
)
def test_some_of_a_log(vmctl: Vmctl, words: tuple[str, ...], asked: Page, printed: list[str] | None) -> None:
    """The daemon looks for the place, vmctl counts and filters what is shown, marks included."""
    with playing(console_log=BOOT) as daemon:
        ran = vmctl(daemon, "log", "a", *words)

        assert daemon.asked[0][1] == {"name": "a", "raw": True, **asked}
    if printed is not None:
        assert [line.removeprefix("--- 2026-01-01T12:00:00Z ").removesuffix(" ---") for line in ran.out.splitlines()] == printed


def test_times_json_and_raw(vmctl: Vmctl) -> None:
    """A time before each line; an object a line; the very bytes."""
    with playing(console_log=BOOT) as daemon:
        timed = vmctl(daemon, "log", "a", "--timestamps").out.splitlines()
        objects = [json.loads(line) for line in vmctl(daemon, "log", "a", "--json").out.splitlines()]
        words = [sys.executable, "-m", "bhyved.cli.ctl", "log", "a", "--raw", "--socket", str(daemon.path)]
        raw = subprocess.run(words, check=True, capture_output=True).stdout

    assert timed[1] == "2026-01-01T12:00:00Z  hello"
    assert timed[-1] == "2026-01-01T12:00:00Z  --- exit: the guest powered off ---"
    assert objects[1] == {"name": "a", "port": "com1", "at": NOON, "text": "hello"}
    assert objects[-1] == {"name": "a", "port": "com1", "at": NOON, "text": "the guest powered off", "mark": "exit"}
    assert raw == b"hello\r\nsta\x1b[31mrt\xc3\xbc\r\nlogin: "


def test_several_guests(vmctl: Vmctl) -> None:
    """Each line has its guest's name; one without a console is said, and costs the status, not the others."""

    def log(params: Page) -> Page:
        if params["name"] == "bare":
            raise Refusal(-32003, "no-console", "bare has no console that bhyved keeps")
        return page(out(0, b"hello\n"))

    with playing(console_log=log, vm_list={"vms": [row("a"), row("off", serials=[]), row("longer")]}) as daemon:
        ran = vmctl(daemon, "log", "a", "bare", "longer")
        every = vmctl(daemon, "log", "--all")

    assert (ran.status, ran.out) == (1, "a       hello\nlonger  hello\n")
    assert ran.err == "vmctl: bare: bare has no console that bhyved keeps\n"
    assert (every.status, every.out) == (0, "a       hello\nlonger  hello\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("a", "b", "--raw"), "log: --raw is of one guest"),
        (("a", "--raw", "--grep", "x"), "log: --raw is of one guest"),
        (("a", "--boot", "0", "--since", "5m"), "log: give --boot or --since, not both"),
        (("a", "--boot", "1"), "log: --boot is 0 for the present or last run, -1 for the one before"),
        (("a", "--grep", "("), '--grep "(" is no regular expression'),
    ],
)
def test_bad_usage(vmctl: Vmctl, words: tuple[str, ...], sentence: str) -> None:
    """Exit 64."""
    with playing() as daemon:
        ran = vmctl(daemon, "log", *words)

    assert ran.status == 64
    assert ran.err.startswith(f"vmctl: {sentence}")


# --- following -----------------------------------------------------------------------------------------------------------------


class Follower:
    """A `vmctl log -f` whose output is read as it comes."""

    def __init__(self, daemon: PlayedDaemon, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bhyved.cli.ctl", "log", "-f", *words, "--socket", str(daemon.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._seen = b""

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def prints(self, text: bytes) -> None:
        """Exactly that, next."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        watchdog.start()
        while len(self._seen) < len(text):
            data = os.read(self.process.stdout.fileno(), 4096)
            assert data, f"it ended: {self._seen!r}"
            self._seen += data
        watchdog.cancel()
        assert self._seen[: len(text)] == text
        self._seen = self._seen[len(text) :]

    def says(self, text: bytes) -> None:
        """On standard error, next."""
        assert self.process.stderr is not None
        watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        watchdog.start()
        assert self.process.stderr.readline() == text
        watchdog.cancel()


def test_following_one_guest() -> None:
    """From where the log ends, byte for byte, over a restart of the daemon; a prompt is shown when the guest pauses."""
    console = PlayedConsole(b"x" * 36)
    with (
        playing(console_log=page(out(29, b"one\nlog"), next=36), console_attach=console.attach) as daemon,
        Follower(daemon, "a") as follower,
    ):
        console.attached()
        follower.prints(b"one\nlog")
        console.write(b"in: ")
        follower.prints(b"in: ")
        console.write(b"root\r\n\x1b[1m")
        console.write(b"# ")
        follower.prints(b"root\n# ")
        console.tell("exit", text="the guest powered off", at=NOON)
        console.tell("attach", text="bob")
        follower.prints(b"\n--- 2026-01-01T12:00:00Z exit: the guest powered off ---\n")
        daemon.vanish()
        follower.says(b"bhyved has gone; waiting for it\n")
        console.kept += b"missed\n"
        daemon.listen()
        console.attached()
        console.lose(5, "slow")
        console.write(b"again\n")
        follower.prints(b"missed\n--- ")

        assert daemon.asked[0][1] == {"name": "a", "raw": True, "lines": 10}
        assert console.asked == [
            {"name": "a", "port": "com1", "read-only": True, "since": 36, "stream": "s1"},
            {"name": "a", "port": "com1", "read-only": True, "since": 52, "stream": "s1"},
        ]


def notice(name: str, offset: int, text: str) -> tuple[str, Page]:
    return "console.output", {"name": name, "port": "com1", "offset": offset, "size": len(text.encode()), "text": text}


def test_following_many_guests() -> None:
    """First the connection, then what was before: what comes by both ways is shown once; later, what a restart missed is fetched."""
    gate = threading.Event()
    tails = [
        Stream(
            {"consoles": [["a", "com1"], ["bb", "com1"]]},
            notice("a", 90, "old\n"),
            notice("a", 94, "half over\n"),
            notice("bb", 100, "new\n"),
            ("console.gap", {"name": "a", "port": "com1", "offset": 104, "size": 6, "why": "slow"}),
            ("console.event", {"name": "bb", "port": "com1", "event": "boot", "text": "run 2", "at": NOON}),
            close=True,
        ),
        Stream({"consoles": [["a", "com1"], ["bb", "com1"]]}, notice("bb", 104, "end\n")),
    ]

    def log(params: Page) -> Page:
        if params.get("since") == 110:
            gate.set()
            return page(out(110, b"missed\n"), next=117)
        return page(out(95, b"page\n"), next=100) if "since" not in params else page(next=104)

    with playing(console_log=log, console_tail=lambda params: tails.pop(0), vm_list={"vms": [row("a"), row("bb")]}) as daemon:
        with Follower(daemon, "--all") as follower:
            follower.prints(b"a   page\nbb  page\n")
            follower.prints(b"a   ver\n")
            follower.prints(b"bb  new\na   --- ")
            assert gate.wait(PATIENCE_S)
            rest = b""
            while not rest.endswith(b"bb  end\n"):
                follower.prints(b"")
                assert follower.process.stdout is not None
                rest += os.read(follower.process.stdout.fileno(), 4096)

        assert daemon.params("console.tail")[0] == {"strip": False}
        assert daemon.params("console.log")[0] == {"name": "a", "port": "com1", "raw": True, "lines": 10}
        assert daemon.params("console.log")[2:] == [
            {"name": "a", "port": "com1", "raw": True, "since": 110},
            {"name": "bb", "port": "com1", "raw": True, "since": 104},
        ]


TEXT = st.text(st.sampled_from("ab\n\r\x1b[m;1ü"), max_size=40)


@given(TEXT, st.lists(st.integers(0, 60), max_size=6))
def test_lines_do_not_depend_on_the_pieces(text: str, cuts: list[int]) -> None:
    """Any pieces, the same lines."""
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    lines = Lines("a", "com1")
    shown = [line.text for start, end in pairwise(edges) for line in lines.feed(data[start:end], None)]
    shown += [line.text for line in lines.rest()]

    expected = [plain(line) for line in text.split("\n")]
    assert shown == (expected[:-1] if text.endswith("\n") or not text else expected)
