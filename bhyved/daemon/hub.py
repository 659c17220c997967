"""One console: reads its line always, keeps ring and log, serves viewers, types for one of them.

Everything that changes a hub is plain synchronous code; its tasks only wait for the line. The guest never waits for any of this: what a
viewer, the log or a stuck guest does not take is dropped at that end, counted, and told.
"""

import os
import re
from typing import Literal

import trio

from bhyved.core.ansi import decode, plain
from bhyved.core.console import ConsoleSpec, ConsoleStats, Mark, MarkKind, Output
from bhyved.core.errors import HostError
from bhyved.core.pattern import Watch
from bhyved.core.ring import Ring
from bhyved.daemon.consoleports import LogReader, RingHandle, Shared
from bhyved.daemon.keyboard import Keyboard
from bhyved.daemon.logpump import Book
from bhyved.daemon.ports import Tty
from bhyved.daemon.viewer import CHUNK_BYTES, Viewer
from bhyved.threads import in_thread

#: B's input queue at 115200 (contract 4.4): when so much waited, what the guest printed after it was dropped.
LINE_QUEUE_BYTES = 23_040
#: Between two attempts to open a line: it may be there in a moment (bhyve makes its sockets as it starts), or not for days.
REOPEN_SOCKET_S, REOPEN_TTY_S, REOPEN_LAST_S = 0.02, 1.0, 60.0
#: For the kernel to drain a line that is closed (contract 4.4); longer means that the thread is left behind.
CLOSE_S = 2.0

Claim = Literal["granted", "busy", "read-only"]


class ConsoleHub:
    """One port of one guest, for as long as it is configured."""

    def __init__(self, name: str, spec: ConsoleSpec, shared: Shared, *, first: bool) -> None:
        self.name = name
        self.spec = spec
        self.viewers: list[Viewer] = []
        self.writer: Viewer | None = None
        self._shared, self._ports, self._tell, self._clock = shared, shared.ports, shared.tell, shared.clock
        self._first = first
        self._handle: RingHandle | None = None
        # Until history is open nothing reads the line, and so nothing is lost: this one only answers questions.
        self._ring = Ring(bytearray(256), 0, 1)
        self._ring.begin(0, "")
        self._book: Book | None = None
        self._line: Tty | None = None
        self._line_problem = "not open yet"
        self._history = trio.Event()
        self._opened = trio.Event()
        self._early: list[tuple[MarkKind, str, str]] = []
        self._kick = trio.Event()
        self._listeners: set[trio.Event] = set()
        self._watches: list[tuple[Watch, trio.Event]] = []
        self._keyboard = Keyboard()
        self._output_bytes = self._dropped_bytes = 0

    # --- what others ask -----------------------------------------------------------------------------------------------------

    @property
    def port(self) -> str:
        return self.spec.port

    @property
    def ring(self) -> Ring:
        """The history. Changed only by the hub."""
        return self._ring

    @property
    def offset(self) -> int:
        """The offset of the next byte. Goes on across runs and daemon restarts."""
        return self._ring.end

    @property
    def fd(self) -> int | None:
        """Side B, for a keeper to inherit; None where there is no such thing, or not now."""
        return self._line.fd if self._line is not None and self.spec.kind == "nmdm" else None

    @property
    def is_open(self) -> bool:
        """Whether there is a line to type into."""
        return self._line is not None

    @property
    def problem(self) -> str:
        """Why something is not as it should be, in one sentence; empty when all is well."""
        problems = (self._line_problem, self._book.problem if self._book else "", self._handle.problem if self._handle else "")
        return "; ".join(filter(None, problems))

    def stats(self) -> ConsoleStats:
        return ConsoleStats(
            port=self.port,
            open=self._line is not None,
            problem=self.problem,
            offset=self.offset,
            output_bytes=self._output_bytes,
            input_bytes=self._keyboard.taken_bytes,
            dropped_bytes=self._dropped_bytes + sum(viewer.backlog.lost_bytes for viewer in self.viewers),
            unlogged_bytes=self._book.lost_bytes if self._book else 0,
            viewers=len(self.viewers),
            writer=self.writer.who if self.writer else "",
        )

    def reader(self) -> LogReader:
        """What the log files of this console say."""
        return self._ports.reader(self.name, self.spec, first=self._first)

    async def logged(self) -> bool:
        """Wait until the log holds what has been read by now; whether there is a log that does."""
        if self._book is None:
            return False
        await self._shared.pump.flushed()
        return not self._book.problem

    def tail(self, lines: int, *, of_run: bool = False) -> str:
        """The last lines as plain text, for run records and the page; `of_run`: none from before the present run."""
        since = self._ring.line_offset(lines)
        data = b"".join(piece.data for piece in self._ring.read(max(since, self._ring.run_start) if of_run else since))
        return plain(decode(data)).rstrip("\n")

    # --- what waits ----------------------------------------------------------------------------------------------------------

    async def history(self) -> None:
        """Return when what earlier daemons recorded is at hand."""
        await self._history.wait()

    async def opened(self) -> None:
        """Return when the line has been opened or has refused for the first time."""
        await self._opened.wait()

    async def first_byte(self, since: int) -> None:
        """Return when a byte at or after `since` has come."""
        while self._ring.end <= since:
            event = trio.Event()
            self.listen(event)
            await event.wait()

    def listen(self, event: trio.Event) -> None:
        """Have `event` set by the next output."""
        self._listeners.add(event)

    async def wait_for(self, pattern: re.Pattern[bytes], since: int) -> int:
        """Return when `pattern` has been printed at or after `since`, with the offset at that moment.

        Escape sequences between its letters do not hide it. The pattern must be trusted: a bad one can hold up the loop.
        """
        watch, found = Watch(pattern), trio.Event()
        if any(watch.feed(piece.data) for piece in self._ring.read(since)):
            await trio.lowlevel.checkpoint()
            return self._ring.end
        entry = (watch, found)
        self._watches.append(entry)
        try:
            await found.wait()
        finally:
            self._watches.remove(entry)
        return self._ring.end

    # --- what the driver tells -----------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Record what the line holds now, and return the offset after it."""
        if self._line is not None:
            for _ in range(4):  # a flood has no end
                data, _ = _drain(self._line)
                if not data:
                    break
                self._took(data)
        return self._ring.end

    def mark(self, kind: MarkKind, text: str, *, run: str = "") -> None:
        """Write a mark at the present offset and tell the viewers. `boot` begins a run, `exit` ends it."""
        if not self._history.is_set():
            self._early.append((kind, text, run))
            return
        self.settle()
        if kind == "boot":
            self._ring.start_run(run)
            self._kick.set()
        elif kind == "exit":
            self._ring.end_run()
            self._keyboard.clear()  # typed for the guest that has gone, not for the next
        self._note(kind, text)

    def _note(self, kind: MarkKind, text: str) -> None:
        at = self._clock()
        if self._book is not None:
            self._book.add(Mark(self._ring.end, kind, text, at))
        for viewer in self.viewers:
            viewer.note({"event": kind, "text": text, "offset": self._ring.end, "at": at})

    # --- viewers -------------------------------------------------------------------------------------------------------------

    def join(self, viewer: Viewer, *, write: bool, steal: bool = False) -> None:
        """Give `viewer` what is kept from its offset on, then everything that comes."""
        since = viewer.backlog.next_offset
        for piece in self._ring.read(since):
            for start in range(0, len(piece.data), CHUNK_BYTES):
                viewer.output(piece.offset + start, piece.data[start : start + CHUNK_BYTES])
        if viewer.backlog.next_offset < self._ring.end:
            viewer.output(self._ring.end, b"")
        self._note("attach", f"{viewer.who} reads" if not write else viewer.who)
        self.viewers.append(viewer)
        if write:
            self.claim(viewer, steal=steal)

    def leave(self, viewer: Viewer) -> None:
        """The viewer has gone; if it had the keyboard, whoever comes next finds it free."""
        self.viewers.remove(viewer)
        self._dropped_bytes += viewer.backlog.lost_bytes
        self._note("detach", f"{viewer.who}, {viewer.sent_bytes} bytes read, {viewer.typed_bytes} typed")
        if self.writer is viewer:
            self.writer = None
            if self.spec.on_detach:
                self.send(self.spec.on_detach)
            self._tell_writer()

    def claim(self, viewer: Viewer, *, steal: bool) -> Claim:
        """Ask for the keyboard."""
        if not viewer.may_write:
            verdict: Claim = "read-only"
        elif self.writer is None or steal:
            self.writer, verdict = viewer, "granted"
        else:
            verdict = "granted" if self.writer is viewer else "busy"
        if verdict == "granted":
            self._tell_writer()
        else:
            viewer.note({"event": "refused", "why": verdict, "writer": self.writer.who if self.writer else ""})
        return verdict

    def _tell_writer(self) -> None:
        for viewer in self.viewers:
            viewer.note({"event": "writer", "writer": self.writer.who if self.writer else "", "you": viewer is self.writer})

    def send(self, data: bytes) -> int:
        """Type `data`, in order; how many bytes of it were taken. Never waits."""
        return 0 if self._line is None else self._keyboard.send(self._line, data)

    # --- the line ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the console until cancelled."""
        await self._open_history()
        try:
            while True:
                line = await self._open_line()
                try:
                    await self._serve(line)
                finally:
                    self._line = None
                    with trio.move_on_after(CLOSE_S, shield=True):
                        await in_thread(line.close, abandon_on_cancel=True)
        finally:
            for viewer in self.viewers:
                viewer.close()
            if self._handle is not None:
                self._handle.close()
                self._ring = Ring(bytearray(256), 0, 1)  # the mapping has gone; late questions are answered with nothing

    async def _open_history(self) -> None:
        """Ring and log, made to agree: what a killed daemon had read but not logged is logged now."""
        log = self._ports.open_log(self.name, self.spec, first=self._first) if self.spec.log.enabled else None

        def open_both() -> tuple[RingHandle, int | None, str]:
            handle = self._ports.open_ring(self.name, self.spec)
            try:
                return handle, log.resume() if log else None, ""
            except HostError as error:
                return handle, None, str(error)

        handle, logged, problem = await self._shared.histories.run(open_both)
        ring = handle.ring
        if not handle.found or ring.end < (logged or 0):
            ring.begin(logged or 0, os.urandom(4).hex())
        self._handle, self._ring = handle, ring
        if log is not None:
            self._book = Book(log, self._shared.pump, self._log_trouble)
            at = self._clock()
            for piece in ring.read(ring.oldest if logged is None else logged):
                self._book.add(Output(piece.offset, piece.data, at))
        for trouble in filter(None, (handle.problem, problem)):
            self.trouble(trouble)
        self._history.set()
        for kind, text, run in self._early:
            self.mark(kind, text, run=run)

    def trouble(self, reason: str) -> None:
        """Tell the operator, once, of something that is not as it should be."""
        self._tell(self.name, "console-trouble", {"port": self.port, "reason": reason})

    def broken(self, error: Exception) -> None:
        """A bug of ours ended the hub's tasks."""
        self._line_problem = f"internal error: {error!r}"
        self.trouble(self._line_problem)
        self._opened.set()

    def _log_trouble(self, problem: str) -> None:
        text = problem or f"the log of {self.port} is written again"
        self._tell(self.name, "console-log", {"port": self.port, "reason": text})

    async def _open_line(self) -> Tty:
        """Open the line; wait for as long as it refuses, at most until a run begins."""
        delay_s = first_s = REOPEN_TTY_S if self.spec.kind == "nmdm" else REOPEN_SOCKET_S
        while True:
            self._kick = trio.Event()
            try:
                line = await self._ports.open_line(self.spec)
            except HostError as error:
                if self._line_problem != str(error) and self.spec.kind == "nmdm":
                    self.trouble(str(error))
                self._line_problem = str(error)
                self._opened.set()
            else:
                self._line, self._line_problem = line, ""
                return line
            # A socket of bhyve's is there as long as a run is; without one there is nothing to try for.
            limit_s = delay_s if self.spec.kind == "nmdm" or self._ring.running else float("inf")
            with trio.move_on_after(limit_s) as waiting:
                await self._kick.wait()
            delay_s = min(delay_s * 2, REOPEN_LAST_S) if waiting.cancelled_caught else first_s

    async def _serve(self, line: Tty) -> None:
        """Read until the line is dead."""
        data, dead = _drain(line)
        if self._handle is not None and self._handle.found:
            self._handle.found = False
            self._tell_away(len(data))
        if data:
            self._took(data)
        self._opened.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keyboard.type, line)
            while not dead:
                await trio.lowlevel.wait_readable(line.fd)
                data, dead = _drain(line)
                if data:
                    self._took(data)
            nursery.cancel_scope.cancel()

    def _tell_away(self, waited: int) -> None:
        """Say in the log, before what waited, that no daemon was there for a while."""
        if not self._ring.running:
            return
        if waited < LINE_QUEUE_BYTES:
            self._note("gap", f"bhyved was away; {waited} bytes waited in the line, nothing was lost while it was held open")
        else:
            self._note("gap", f"bhyved was away; {waited} bytes waited in the line, what the guest printed after them is lost")

    def _took(self, data: bytes) -> None:
        """Guest output, just read: keep it first, then hand it on."""
        offset = self._ring.append(data)
        self._output_bytes += len(data)
        for viewer in self.viewers:
            viewer.output(offset, data)
        if self._book is not None:
            self._book.add(Output(offset, data, self._clock()))
        if self._listeners:
            for event in self._listeners:
                event.set()
            self._listeners.clear()
        for watch, found in self._watches:
            if watch.feed(data):
                found.set()


def _drain(line: Tty) -> tuple[bytes, bool]:
    """What the line holds, at most CHUNK_BYTES, and whether it is dead."""
    parts: list[bytes] = []
    size = 0
    while size < CHUNK_BYTES:
        part = line.read(CHUNK_BYTES - size)
        if not part:
            return b"".join(parts), part is not None
        parts.append(part)
        size += len(part)
    return b"".join(parts), False
