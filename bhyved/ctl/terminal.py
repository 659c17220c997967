"""The terminal of a console session: raw while the guest has it, and given back as it was, however the session ends.

Signals change nothing where they strike: they wake the session's poll, which then ends, suspends or goes on in order.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
#: Output that may wait for a terminal that does not take it, such as one behind a network that stalls.
WAITING_BYTES = 1 << 18

#: Terminals that keep a title, and a stack of titles (XTWINOPS 22 and 23); the others would print it.
_TITLED = ("xterm", "screen", "tmux", "rxvt", "alacritty", "foot", "kitty", "konsole", "gnome", "vte", "st-", "wezterm", "contour")
_PUSH_TITLE, _POP_TITLE = "\x1b[22;2t", "\x1b[23;2t"

# What a guest may have left behind that a shell would suffer from: colours, a hidden cursor, mouse reports, bracketed paste, keypad and
# cursor keys of an application, line drawing.
_RESET = b"\x1b[m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>\x1b(B\x0f"


class Terminal:
    """Use as a context manager. `keys` and `screen` are descriptors to poll, `woken` too."""

    def __init__(self, title: str) -> None:
        self.keys = sys.stdin.fileno()
        self.is_raw = os.isatty(self.keys)
        self.signals: list[int] = []
        self.woken, self._wakes = os.pipe()
        self._title = title
        self._is_screen = os.isatty(sys.stdout.fileno())
        self._has_title = self._is_screen and os.environ.get("TERM", "").startswith(_TITLED)
        self._pending = bytearray()
        self._saw_escape = self._is_titled = False
        self._old_attributes: list[Any] = []
        self._old_handlers: dict[int, Any] = {}
        self._old_wakeup = -1
        self.screen = _opened_again(sys.stdout.fileno()) if self._is_screen else sys.stdout.fileno()
        self._is_ours = self.screen != sys.stdout.fileno()

    def __enter__(self) -> Terminal:
        sys.stdout.flush()
        os.set_blocking(self._wakes, False)
        self._old_wakeup = signal.set_wakeup_fd(self._wakes)
        for number in (*ENDS, signal.SIGTSTP, signal.SIGCONT):
            self._old_handlers[number] = signal.signal(number, self._caught)
        if self.is_raw:
            self._old_attributes = termios.tcgetattr(self.keys)
            self._set_raw()
        self._set_title()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        for descriptor in (self.woken, self._wakes):
            os.close(descriptor)
        if self._is_ours:
            os.close(self.screen)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def taken_signals(self) -> list[int]:
        """What has been caught since, in order."""
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(self.woken, False)
            os.read(self.woken, 512)
        taken, self.signals = self.signals, []
        return taken

    # --- modes ---------------------------------------------------------------------------------------------------------------

    def _set_raw(self) -> None:
        tty.setraw(self.keys, termios.TCSANOW)

    def _set_title(self) -> None:
        if self._has_title:
            push = "" if self._is_titled else _PUSH_TITLE
            self._is_titled = True
            self._put(f"{push}\x1b]2;{self._title}\x07".encode())

    def _give_back(self) -> None:
        """As it was: what waits is shown if the terminal takes it now."""
        with contextlib.suppress(OSError):
            self._put(_RESET if self._is_screen and self._saw_escape else b"")
            self._put(_POP_TITLE.encode() if self._is_titled else b"")
        self._is_titled = False
        if self._old_attributes:
            with contextlib.suppress(termios.error):  # it has been closed
                termios.tcsetattr(self.keys, termios.TCSANOW, self._old_attributes)

    def suspend(self) -> None:
        """Give the terminal back and stop, together with whoever was started with us; return when we are continued."""
        self._give_back()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(0, signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)
        self.resume()

    def resume(self) -> None:
        """After SIGCONT: the shell has set the terminal for itself."""
        if self.is_raw:
            self._set_raw()
        self._set_title()

    # --- output --------------------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """The terminal lags: nothing more should be read for it. The daemon then counts what is lost, and says so."""
        return len(self._pending) >= WAITING_BYTES

    @property
    def wants_room(self) -> bool:
        return bool(self._pending)

    def write(self, data: bytes) -> None:
        """Show what the guest printed, in order, as soon as the terminal takes it."""
        self._saw_escape = self._saw_escape or b"\x1b" in data
        self._put(data)

    def _put(self, data: bytes) -> None:
        if data:
            self._pending += data
            self.flush()

    def flush(self) -> None:
        """Raises OSError when nobody reads any more."""
        while self._pending and (room := self._room()):
            try:
                written = os.write(self.screen, self._pending[:room])
            except BlockingIOError:
                return
            del self._pending[:written]

    def _room(self) -> int:
        """How much may be written without being kept waiting: a pipe that is ready takes PIPE_BUF."""
        if self._is_ours:
            return WAITING_BYTES
        poll = select.poll()
        poll.register(self.screen, select.POLLOUT)
        return select.PIPE_BUF if poll.poll(0) else 0

    def say(self, text: str) -> None:
        """A remark of our own: on the screen between the guest's lines, or on standard error where output goes elsewhere."""
        if self._is_screen:
            end = "\r\n" if self.is_raw else "\n"
            self._put(f"{end}[{text.replace(chr(10), end)}]{end}".encode())
        else:
            print(f"[{text}]", file=sys.stderr, flush=True)


def _opened_again(descriptor: int) -> int:
    """The same terminal through a descriptor of our own, which can be non-blocking without making the shell's so."""
    try:
        return os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return descriptor
