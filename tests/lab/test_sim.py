"""The sim engine by itself: time, the button, the console, and that it sleeps when it can."""

import itertools
import time

import pytest

from bhyved.lab.engine import HALT, POWEROFF, REBOOT, TRIPLE_FAULT
from bhyved.lab.script import parse
from bhyved.lab.sim import Sim


class Line:
    """A com port that takes as much as it is told to."""

    sink = -1

    def __init__(self) -> None:
        self.taken = b""
        self.room = 1 << 30

    def put(self, data: bytes) -> int:
        piece = data[: self.room]
        self.room -= len(piece)
        self.taken += piece
        return len(piece)


class Board:
    """A machine with one line and nothing else."""

    def __init__(self) -> None:
        self.line = Line()
        self.ports = {"com1": self.line}
        self.sockets: dict[str, object] = {}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the engine takes for the time."""
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def guest(script: str, *, has_button: bool = True) -> tuple[Sim, Board]:
    """A guest that has been switched on."""
    board = Board()
    sim = Sim(parse(script), board, has_button=has_button)  # type: ignore[arg-type]  # as much of a Board as it looks at
    return sim, board


def outcome(sim: Sim) -> int | None:
    """What it comes to when it may go on."""
    return next((found for _ in range(100) if (found := sim.step()) is not None), None)


@pytest.mark.parametrize(
    ("script", "ends"),
    [
        ("reboot", REBOOT),
        ("poweroff", POWEROFF),
        ("halt", HALT),
        ("triple-fault", TRIPLE_FAULT),
        ("exit 100", 100),
        ("signal 6", -6),
    ],
)
def test_a_script_ends(script: str, ends: int, clock: Clock) -> None:
    """A signal is a negative status."""
    assert outcome(guest(script)[0]) == ends


def test_steps_take_their_time_and_no_turns(clock: Clock) -> None:
    """The engine says how long it sleeps."""
    sim, _ = guest("boot 2s; sleep 3s; poweroff")

    assert outcome(sim) is None
    assert sim.wait_s() == 2
    assert not sim.listens
    clock.now += 2
    assert outcome(sim) is None
    assert sim.wait_s() == 3
    assert sim.listens
    clock.now += 3
    assert outcome(sim) == POWEROFF


@pytest.mark.parametrize("script", ["wait", "", "acpi on; print x"])
def test_a_waiting_guest_sleeps_for_ever(script: str, clock: Clock) -> None:
    """After its last step, too."""
    sim, _ = guest(script)

    assert outcome(sim) is None

    assert sim.wait_s() is None
    assert sim.writable() == ()


def test_a_spinning_guest_never_sleeps_and_hears_nothing(clock: Clock) -> None:
    """No console, no button."""
    sim, _ = guest("acpi on; spin")
    outcome(sim)

    sim.press()

    assert outcome(sim) is None
    assert sim.wait_s() == 0
    assert not sim.listens


@pytest.mark.parametrize(
    ("script", "presses", "ends"),
    [
        ("acpi on", 1, POWEROFF),
        ("acpi reboot", 1, REBOOT),
        ("acpi ignore", 5, None),
        ("acpi press 3", 2, None),
        ("acpi press 3", 3, POWEROFF),
        ("acpi ignore; acpi on", 1, POWEROFF),
    ],
)
def test_the_button(script: str, presses: int, ends: int | None, clock: Clock) -> None:
    """It does what the script said last."""
    sim, _ = guest(script)
    outcome(sim)
    for _ in range(presses):
        assert sim.has_acpi()
        sim.press()

    assert outcome(sim) == ends


def test_a_slow_shutdown_is_not_hurried(clock: Clock) -> None:
    """Presses while it is under way count for nothing."""
    sim, _ = guest("acpi slow 3s")
    outcome(sim)
    sim.press()
    clock.now += 2
    sim.press()
    assert outcome(sim) is None
    assert sim.wait_s() == 1

    clock.now += 1

    assert outcome(sim) == POWEROFF


@pytest.mark.parametrize(("script", "has_button"), [("acpi off", True), ("wait", True), ("acpi on", False)])
def test_without_acpi_there_is_no_button(script: str, has_button: bool, clock: Clock) -> None:
    """Before the guest switches it on, and where the machine has none."""
    sim, _ = guest(script, has_button=has_button)
    outcome(sim)

    assert not sim.has_acpi()


def test_each_print_begins_a_line(clock: Clock) -> None:
    """And ends none, so that a prompt looks like one."""
    sim, board = guest("print one; print two\\n; print login: ")

    outcome(sim)

    assert board.line.taken == b"one\r\ntwo\r\nlogin: "


@pytest.mark.parametrize(("line", "ends"), [("poweroff", POWEROFF), ("reboot", REBOOT), ("halt", HALT), ("panic", TRIPLE_FAULT)])
def test_the_console_obeys(line: str, ends: int, clock: Clock) -> None:
    """By the line, however it ends."""
    for end in ("\r", "\n"):
        sim, _ = guest("wait")
        outcome(sim)
        sim.typed("com1", f"x\x7f{line}".encode())
        assert outcome(sim) is None

        sim.typed("com1", end.encode())

        assert outcome(sim) == ends


def test_the_console_echoes_the_rest(clock: Clock) -> None:
    """Byte by byte, Return as a new line."""
    sim, board = guest("wait")

    sim.typed("com1", "grüße\r".encode())

    assert board.line.taken == "grüße\r\n".encode()


def test_a_flood_is_exactly_as_long_as_it_is_told(clock: Clock) -> None:
    """In lines, by script or by hand."""
    sim, board = guest("flood 100000")
    outcome(sim)
    assert len(board.line.taken) == 100000

    sim.typed("com1", b"flood 50\r")
    outcome(sim)

    assert len(board.line.taken) == 100000 + len(b"flood 50\r\n") + 50


def test_a_slow_reader_is_waited_for_and_an_absent_one_is_not(clock: Clock) -> None:
    """Output waits a moment for a reader who reads; then what is left is lost, and the guest goes on."""
    sim, board = guest("flood 1MiB; poweroff")
    board.line.room = 1000
    outcome(sim)
    board.line.room = 1000
    assert outcome(sim) is None
    assert len(board.line.taken) == 2000

    clock.now += 1

    assert next(found for found in (sim.step() for _ in itertools.repeat(None)) if found is not None) == POWEROFF
    assert len(board.line.taken) == 2000
