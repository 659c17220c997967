"""One run of a guest, between its set-up and its end: a loop that joins engine, consoles, screen, signals and node.

Both engines run under it. It sleeps in poll(2) until one of them has news; a guest that waits costs nothing.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

from bhyved.lab.engine import POWEROFF, REBOOT, SUSPENDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.board import Board
    from bhyved.lab.engine import Engine
    from bhyved.lab.node import Node
    from bhyved.lab.uart import Port, TcpPort

_FORCED = {"poweroff": POWEROFF, "reset": REBOOT, "suspend": SUSPENDED}


class Destroyed(Exception):  # noqa: N818 - what has happened to the VM
    """Its node has been taken away while it ran."""


class Run:
    """The vCPUs of one bhyve. Signals: SIGTERM is the power button, SIGURG says that something was asked of the node."""

    def __init__(self, engine: Engine, board: Board, node: Node, *, outlives_node: bool) -> None:
        """`outlives_node`: the idle guest of contract 8.10 that ran on when its node was destroyed."""
        self._engine = engine
        self._board = board
        self._node = node
        self._outlives_node = outlives_node
        self._told_frozen = False
        self._inherited = signal.getsignal(signal.SIGTERM)
        self._bell, bell = os.pipe()
        for fd in (self._bell, bell):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGURG):
            signal.signal(number, lambda _number, _frame: None)

    def to_end(self) -> int:
        """The engine's outcome, or what was forced upon it. Raises Destroyed."""
        if self._board.screen is not None:
            self._engine.show(self._board.screen)  # to the viewer that was waited for
        forced = self._asked()
        while forced is None:
            outcome = self._engine.step()
            if outcome is not None:
                return outcome
            if self._engine.frozen and not self._told_frozen:
                self._told_frozen = True
                self._node.update(frozen_at=time.monotonic())
            forced = self._attend(self._ready())
        return forced

    def _ready(self) -> set[int]:
        poll = select.poll()
        engine = self._engine
        inputs = [self._bell, *engine.fds()]
        if engine.listens:
            inputs += self._lines()
        if self._board.screen is not None:
            inputs += self._board.screen.fds()
        for fd in inputs:
            poll.register(fd, select.POLLIN)
        for fd in engine.writable():
            poll.register(fd, select.POLLOUT | (select.POLLIN if fd in inputs else 0))
        wait_s = engine.wait_s()
        # A timeout is rounded up, lest the last millisecond be spent in turning round.
        return {fd for fd, _ in poll.poll(None if wait_s is None else -int(-wait_s * 1000 // 1))}

    def _lines(self) -> dict[int, tuple[str, Port | TcpPort]]:
        return {fd: (name, port) for name, port in self._board.ports.items() for fd in port.fds()}

    def _attend(self, ready: set[int]) -> int | None:
        if self._engine.listens:
            for fd, (name, port) in self._lines().items():
                if fd in ready:
                    data = port.take(fd)
                    if data:
                        self._engine.typed(name, data)
        screen = self._board.screen
        if screen is not None and ready.intersection(screen.fds()):
            self._engine.show(screen)
        if self._bell not in ready:
            return None
        rung = os.read(self._bell, 4096)
        if signal.SIGTERM in rung:
            self._press()
        return self._asked() if signal.SIGURG in rung else None

    def _press(self) -> None:
        """The button, if the guest has ACPI on; else SIGTERM does what it would have done to any program (contract 1.8)."""
        if self._engine.has_acpi():
            self._engine.press()
        elif self._inherited != signal.SIG_IGN:
            raise Killed(signal.SIGTERM)

    def _asked(self) -> int | None:
        try:
            how = self._node.state().suspend
        except OSError as error:
            if error.errno != errno.ENXIO or self._outlives_node:
                return None
            raise Destroyed from None
        return None if self._engine.frozen else _FORCED.get(how)  # that takes CPUs that run (contract 1.9)


class Killed(Exception):  # noqa: N818 - what happens to the process
    """It is to die of a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
