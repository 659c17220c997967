"""QEMU's machine protocol, as much of it as one guest needs: ask and be answered, and hear events in between.

The lab's qemu engine is the only caller. A call blocks until the answer is there: QEMU answers in a millisecond, and a
stand-in `bhyve` serves one guest only. Events that arrive meanwhile are kept for `take_events`.
"""

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ANSWER_S = 20.0  # QEMU answers at once; on a machine crowded with guests it may have to wait for a turn
_CHUNK = 65536


class QmpError(Exception):
    """QEMU refused a command, or is gone."""


@dataclass(frozen=True)
class QmpEvent:
    """Something QEMU tells unasked, such as SHUTDOWN with its reason in `data`."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)


class Qmp:
    """One connection, over a socket whose other end QEMU holds."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over `connection`. `negotiate` comes first, once QEMU runs."""
        self._socket = connection
        self._unread = b""
        self._events: list[QmpEvent] = []
        self._hung_up = False

    def fileno(self) -> int:
        """The descriptor to wait on for events."""
        return self._socket.fileno()

    def negotiate(self) -> None:
        """Leave the mode in which QEMU only greets. QEMU reads this as soon as it has started."""
        self.call("qmp_capabilities")

    def call(self, command: str, arguments: dict[str, Any] | None = None, fds: Sequence[int] = ()) -> Any:
        """The value QEMU returns. Raises QmpError when it refuses, is gone or stays silent for ANSWER_S."""
        request = json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n"
        deadline = time.monotonic() + ANSWER_S
        try:
            self._socket.settimeout(ANSWER_S)
            socket.send_fds(self._socket, [request], list(fds))
            while True:
                for message in self._messages(max(0.001, deadline - time.monotonic())):
                    if "return" in message:
                        return message["return"]
                    if "error" in message:
                        raise QmpError(f"{command}: {message['error'].get('desc', 'refused')}")
                if self._hung_up:
                    raise QmpError(f"{command}: QEMU has gone")
        except OSError as failure:
            raise QmpError(f"{command}: {failure.strerror or 'no answer in time'}") from failure

    def monitor(self, line: str) -> str:
        """What the human monitor prints for `line`: the things QMP proper does not tell."""
        printed: str = self.call("human-monitor-command", {"command-line": line})
        return printed

    def take_events(self) -> list[QmpEvent]:
        """The events so far, without waiting. `has_hung_up` may turn true here."""
        try:
            for message in self._messages(0.0):
                del message  # an answer nobody waits for any more
        except OSError as failure:
            if not isinstance(failure, BlockingIOError):
                self._hung_up = True
        events, self._events = self._events, []
        return events

    def has_hung_up(self) -> bool:
        """QEMU has closed its end, which it does by ending."""
        return self._hung_up

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def _messages(self, timeout_s: float) -> list[dict[str, Any]]:
        """The answers in the next bytes that arrive; events among them are put aside."""
        self._socket.settimeout(timeout_s)
        received = self._socket.recv(_CHUNK)
        self._hung_up = not received
        *lines, self._unread = (self._unread + received).split(b"\n")
        messages: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
        self._events += [QmpEvent(each["event"], each.get("data", {})) for each in messages if "event" in each]
        return [each for each in messages if "event" not in each]
