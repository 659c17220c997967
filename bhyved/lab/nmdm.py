"""The lab's nmdm(4): pairs of terminals joined like a null-modem cable, made of two pseudo-terminals each and a relay (contract 4.4).

    bhyve ── side A: slave ⇄ master ── relay ── master ⇄ slave: side B ── the console hub

The relay, part of the lab host, holds the masters only. So it sees who is there: no process has a side open when reading its master
fails with EIO, and inotify tells when one opens it. That is what the rest is made of:

- a side that nobody holds loses what the other prints, and what was waiting for it; its next open finds default settings (echo);
- a side that is open and not read keeps the oldest 23 to 41 kB, after which its peer's writes fail with EAGAIN (nmdm: 25 kB);
- when its peer is closed, a side without CLOCAL is hung up until it is closed and opened again; with CLOCAL nothing happens.

Not as on FreeBSD: pairs are made beforehand (`make`) and stay; an open without O_NONBLOCK does not wait for the peer. Linux only.
"""

import ctypes
import os
import select
import struct
import termios
import tty
from pathlib import Path
from typing import Protocol

CHUNK = 1 << 16
_EPOLLIN, _EPOLLOUT, _EPOLLHUP = 0x1, 0x4, 0x10  # sys/epoll.h
_ROUNDS = 64  # of one side before the others have their turn
_IN_OPEN = 0x20  # sys/inotify.h
_IN_EVENT = struct.Struct("iIII")


class Side:
    """One end of a pair."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.peer = self
        self.master = -1
        self.watch = -1
        self.is_open = False  # somebody has it open, as far as we have seen
        self.waiting = b""  # for this side to be read; its peer is not read meanwhile
        self.events = 0  # registered with epoll; 0: not
        self.defaults: list[int | list[bytes | int]] = []  # terminal settings of a first open

    def has_opener(self) -> bool:
        """Whether some process has it open now."""
        poll = select.poll()
        poll.register(self.master, 0)
        return not poll.poll(0)

    def wants_hangup(self) -> bool:
        """No CLOCAL: the line follows the carrier. A master's settings are those of its slave."""
        return not termios.tcgetattr(self.master)[tty.CFLAG] & termios.CLOCAL


class _Epoll(Protocol):
    """`select.epoll`: unlike `poll` it costs the same for one pair and for hundreds."""

    def fileno(self) -> int: ...
    def register(self, fd: int, eventmask: int, /) -> None: ...
    def modify(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float, /) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class Relay:
    """All pairs of a lab. Wait until `fileno()` is readable, then call `turn`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pairs: dict[str, tuple[Side, Side]] = {}
        self._masters: dict[int, Side] = {}
        self._watches: dict[int, Side] = {}
        self._inotify = _Inotify()
        self._epoll: _Epoll = getattr(select, "epoll")()  # noqa: B009 - type checkers know it on Linux only
        self._epoll.register(self._inotify.fd, _EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def has(self, name: str) -> bool:
        """Whether there is a pair nmdmNAMEA, nmdmNAMEB."""
        return name in self._pairs

    def make(self, name: str) -> None:
        """Make a pair, if there is none of that name. Raises OSError when the system has no more terminals."""
        if name in self._pairs:
            return
        a, b = (Side(self._directory / f"nmdm{name}{letter}") for letter in "AB")
        a.peer, b.peer = b, a
        self._plug(a)
        self._plug(b)
        self._pairs[name] = (a, b)

    def close(self) -> None:
        """Everybody who has a side open is hung up."""
        for side in [side for pair in self._pairs.values() for side in pair]:
            side.link.unlink(missing_ok=True)
            os.close(side.master)
        self._epoll.close()
        os.close(self._inotify.fd)

    def turn(self) -> None:
        """Do what there is to do; returns when there is nothing for now, or after a fair share."""
        for _ in range(_ROUNDS):
            ready = dict(self._epoll.poll(0))
            if not ready:
                return
            if ready.pop(self._inotify.fd, 0):
                for watch in self._inotify.read():
                    self._opened(self._watches.get(watch))
            for master, events in ready.items():
                side = self._masters.get(master)
                if side is not None:
                    self._ready(side, events)

    def _plug(self, side: Side) -> None:
        """Give a side a terminal of its own, fresh and closed, in one step for those who look."""
        side.master, slave = os.openpty()
        os.set_blocking(side.master, False)
        name = os.ttyname(slave)
        os.close(slave)  # from now on reading the master fails with EIO until somebody opens the side
        settings = termios.tcgetattr(side.master)
        settings[tty.ISPEED] = settings[tty.OSPEED] = termios.B9600
        side.defaults = settings
        termios.tcsetattr(side.master, termios.TCSANOW, settings)
        side.is_open, side.waiting, side.events = False, b"", 0
        side.watch = self._inotify.add(name)
        self._masters[side.master] = side
        self._watches[side.watch] = side
        fresh = side.link.with_name(f".{side.link.name}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.rename(side.link)

    def _opened(self, side: Side | None) -> None:
        if side is not None and not side.is_open:
            side.is_open = True
            self._attend(side)

    def _attend(self, side: Side) -> None:
        """Register what we wait for. Never without need: a hang-up is reported whatever one waits for, again and again."""
        wanted = 0
        if side.is_open:
            wanted = (0 if side.peer.waiting else _EPOLLIN) | (_EPOLLOUT if side.waiting else 0)
        if wanted == side.events:
            return
        if side.events == 0:
            self._epoll.register(side.master, wanted)
        elif wanted == 0:
            self._epoll.unregister(side.master)
        else:
            self._epoll.modify(side.master, wanted)
        side.events = wanted

    def _ready(self, side: Side, events: int) -> None:
        if side.waiting and events & (_EPOLLHUP | _EPOLLOUT):
            waiting, side.waiting = side.waiting, b""
            if not events & _EPOLLHUP:  # else nobody is there to read it
                self._give(side, waiting)
            self._attend(side.peer)
        if not side.peer.waiting and not self._pump(side):
            self._closed(side)
        self._attend(side)

    def _pump(self, side: Side) -> bool:
        """Carry over what a side printed. False: nobody has the side open any more, and all is read."""
        peer = side.peer
        for _ in range(_ROUNDS):
            try:
                data = os.read(side.master, CHUNK)
            except BlockingIOError:
                break
            except OSError:
                return False
            # Asked after the read: whoever opened the peer before this was printed must get it, though we may not have heard yet.
            if not peer.is_open and not peer.has_opener():
                continue
            self._opened(peer)
            self._give(peer, data)
            if peer.waiting:
                break
        return True

    def _give(self, side: Side, data: bytes) -> None:
        try:
            taken = os.write(side.master, data)
        except OSError:  # EAGAIN: full; EIO: closed, of which we hear next
            taken = 0
        if taken < len(data):
            side.waiting = data[taken:]
            self._attend(side)

    def _closed(self, side: Side) -> None:
        """The last descriptor is gone, in whatever process it was."""
        side.is_open = False
        side.waiting = b""
        self._attend(side.peer)
        before = termios.tcgetattr(side.master)
        # What waits to be read there: the one call empties the buffer between the terminals, the other that of the line discipline.
        termios.tcflush(side.master, termios.TCOFLUSH)
        termios.tcsetattr(side.master, termios.TCSAFLUSH, side.defaults)
        if side.has_opener():  # just now: it may have made the line raw before we spoiled that
            termios.tcsetattr(side.master, termios.TCSANOW, before)
            self._opened(side)
        elif side.peer.is_open and side.peer.wants_hangup():
            self._hang_up(side.peer)

    def _hang_up(self, side: Side) -> None:
        """Whoever has it open reads 0 bytes and cannot write until it is opened again, which is a fresh terminal."""
        side.is_open = False
        self._attend(side)
        old = side.master
        del self._masters[old], self._watches[side.watch]
        self._plug(side)
        os.close(old)  # last: the name leads somewhere at any time


class _Inotify:
    """inotify(7), which Python has no module for."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def add(self, path: str) -> int:
        """Be told when somebody opens `path`. A terminal that is gone takes its watch along."""
        watch: int = self._libc.inotify_add_watch(self.fd, os.fsencode(path), _IN_OPEN)
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        return watch

    def read(self) -> list[int]:
        """The watches that something happened to."""
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return []
        watches = []
        while data:
            watch, _, _, length = _IN_EVENT.unpack_from(data)
            watches.append(watch)
            data = data[_IN_EVENT.size + length :]
        return watches
