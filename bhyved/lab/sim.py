"""The sim engine: a guest that follows a script (see `script`), in the bhyve process itself, and needs nothing installed.

On its serial console it also obeys the lines `poweroff`, `reboot`, `halt`, `panic` and `flood SIZE`, as soon as it has booted, and
echoes everything. It sleeps whenever the script lets it.
"""

from __future__ import annotations

import time

from bhyved.lab.channel import Channel
from bhyved.lab.engine import HALT, POWEROFF, REBOOT, TRIPLE_FAULT, Engine
from bhyved.lab.freebsd import warn
from bhyved.lab.script import ScriptError, Step, size_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.board import Board

_ENDS = {"reboot": REBOOT, "poweroff": POWEROFF, "halt": HALT, "triple-fault": TRIPLE_FAULT}
_CONSOLE = "com1"
_FOREVER = float("inf")
_FLOOD_BYTES = 16384
#: How long output waits for a reader who does read before it is lost. A real guest's UART is so slow that a reader keeps up; this is none.
_READER_S = 0.2
_FLOOD_LINE = b"the quick brown fox jumps over the lazy dog 0123456789\r\n"


class Sim(Engine):
    """One run of a script."""

    def __init__(self, steps: list[Step], board: Board, *, has_button: bool, typed: bytes = b"") -> None:
        """`has_button`: the machine has ACPI at all (on amd64, with ACPI tables: contract 1.8). `typed`: as `state` gave it."""
        self._steps = iter(steps)
        self._ports = board.ports
        self._channels = [Channel(listener) for listener in board.sockets.values()]
        self._has_button = has_button
        self._button = "off"
        self._button_number = 0.0
        self._presses = 0
        self._off_at = _FOREVER  # a slow shutdown is under way until then
        self._wakes_at = 0.0  # the present step lasts until then
        self._flood_bytes = 0
        self._unsent = b""
        self._gives_up_at = time.monotonic() + _READER_S  # the output that the line has not taken by then is lost
        self._spins = False
        self._line = typed
        self._at_line_start = True
        self._outcome: int | None = None
        self.listens = False

    def fds(self) -> tuple[int, ...]:
        return tuple(fd for channel in self._channels for fd in channel.fds())

    def wait_s(self) -> float | None:
        if self.frozen:
            return None
        if self._spins or self._outcome is not None:
            return 0
        until = min(self._wakes_at, self._off_at, self._gives_up_at if self._unsent else _FOREVER)
        if self._flood_bytes and not self._unsent:
            return 0
        return None if until == _FOREVER else max(0.0, until - time.monotonic())

    def writable(self) -> tuple[int, ...]:
        sink = self._ports[_CONSOLE].sink if self._unsent else -1
        return () if sink < 0 else (sink,)

    def step(self) -> int | None:
        for channel in self._channels:
            channel.serve()
        now = time.monotonic()
        if now >= self._off_at:
            self._outcome = POWEROFF
        self._pour(now)
        while (
            self._outcome is None
            and not self._spins
            and not self.frozen
            and not self._flood_bytes
            and not self._unsent
            and now >= self._wakes_at
        ):
            self._take(next(self._steps, Step("wait")), now)
        return self._outcome

    def state(self) -> bytes:
        return self._line

    def has_acpi(self) -> bool:
        return self._has_button and self._button != "off"

    def press(self) -> None:
        if self._spins or self.frozen or self._off_at != _FOREVER:
            return
        self._presses += 1
        if self._button == "reboot":
            self._outcome = REBOOT
        elif self._button == "on" or (self._button == "press" and self._presses >= self._button_number):
            self._outcome = POWEROFF
        elif self._button == "slow":
            self._off_at = time.monotonic() + self._button_number

    def typed(self, port: str, data: bytes) -> None:
        for byte in data:
            if port != _CONSOLE:
                self._ports[port].put(bytes([byte]))
            elif byte in b"\r\n":
                self._write(b"\r\n")
                line, self._line = self._line, b""
                self._obey(line.decode(errors="replace").strip())
            elif byte in b"\b\x7f":
                self._line = self._line[:-1]
                self._write(b"\b \b")
            else:
                self._line += bytes([byte])
                self._write(bytes([byte]))

    def _take(self, step: Step, now: float) -> None:
        self.listens = step.verb not in ("boot", "spin", "freeze")
        if step.verb in _ENDS:
            self._outcome = _ENDS[step.verb]
        elif step.verb in ("boot", "sleep"):
            self._wakes_at = now + step.number
        elif step.verb == "wait":
            self._wakes_at = _FOREVER
        elif step.verb == "print":
            self._write((b"" if self._at_line_start else b"\r\n") + step.text.encode())
        elif step.verb == "stderr":
            warn(step.text)
        elif step.verb == "acpi":
            self._button, self._button_number, self._presses = step.word, step.number, 0
        elif step.verb == "flood":
            self._flood_bytes = int(step.number)
        elif step.verb == "spin":
            self._spins = True
        elif step.verb == "freeze":
            self.frozen = True
        else:
            self._outcome = int(step.number) if step.verb == "exit" else -int(step.number)

    def _obey(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        if line in ("poweroff", "reboot", "halt"):
            self._outcome = _ENDS[line]
        elif line == "panic":
            self._write(b"panic: asked for on the console\r\n")
            self._outcome = TRIPLE_FAULT
        elif verb == "flood":
            try:
                self._flood_bytes += size_bytes(rest.strip())
            except ScriptError as error:
                self._write(f"{error}\r\n".encode())

    def _write(self, data: bytes) -> None:
        self._at_line_start = data.endswith(b"\n")
        self._unsent += data
        self._send(time.monotonic())

    def _pour(self, now: float) -> None:
        """The next piece of the flood."""
        self._send(now)
        if self._flood_bytes and not self._unsent:
            piece = (_FLOOD_LINE * (_FLOOD_BYTES // len(_FLOOD_LINE)))[: self._flood_bytes]
            self._flood_bytes -= len(piece)
            self._write(piece)

    def _send(self, now: float) -> None:
        """What the line takes; the rest is kept for a moment, if somebody has been reading lately, and is lost then."""
        if not self._unsent:
            return
        taken = self._ports[_CONSOLE].put(self._unsent) if _CONSOLE in self._ports else 0
        self._unsent = self._unsent[taken:]
        if taken:
            self._gives_up_at = now + _READER_S
        if now >= self._gives_up_at:
            self._unsent = b""
