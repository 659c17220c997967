"""Consoles: what a viewer gets through the daemon, against what the terminal itself gives, and a flood that nobody watches."""

import os
import select
import socket
import struct
import threading
import time
import tty
from collections.abc import Callable

from tests.bench.figures import Figure
from tests.bench.freehost import FreeHost
from tests.bench.lives import quantile
from tests.system.labkit import Connection

_CHUNK = 1 << 16
_PATTERN = bytes(range(256)) * 1021 + b"\n"  # its length is odd: a chunk that is lost or moved shows
_LINE_BYTES_S = 115_200  # ten times what a serial line of that name carries
_TICK_S = 0.02

Reading = Callable[[], bytes]  # takes what is there, and waits for it


class Attached:
    """A viewer: the frames of `console.attach`."""

    def __init__(self, host: FreeHost, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(host.socket))
        request = f'{{"jsonrpc":"2.0","id":1,"method":"console.attach","params":{{"name":"{name}","read-only":true}}}}\n'
        self._socket.sendall(request.encode())
        self._buffer = bytearray()
        while b"\n" not in self._buffer:
            self._more()
        del self._buffer[: self._buffer.index(b"\n") + 1]
        self.lost = 0

    def output(self) -> bytes:
        """The next piece of output; what is missing is counted in `lost`."""
        while True:
            while len(self._buffer) < 5:
                self._more()
            kind, size = struct.unpack_from(">cI", self._buffer)
            while len(self._buffer) < 5 + size:
                self._more()
            payload = bytes(self._buffer[5 : 5 + size])
            del self._buffer[: 5 + size]
            if kind == b"D":
                return payload[8:]
            if kind == b"G":
                self.lost += struct.unpack_from(">QQ", payload)[1]

    def _more(self) -> None:
        data = self._socket.recv(1 << 18)
        assert data, "the daemon has closed the console"
        self._buffer += data

    def close(self) -> None:
        self._socket.close()


def _pour(fd: int, total: int) -> None:
    """A guest that prints without a pause."""
    sent = 0
    while sent < total:
        at = sent % len(_PATTERN)
        select.select([], [fd], [])
        sent += os.write(fd, _PATTERN[at : at + min(_CHUNK, total - sent)])


def throughput(host: FreeHost, name: str, total: int) -> list[Figure]:
    """One viewer, recording on; and the bare terminal, poured and read by the same code."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    bare_s = _timed(master, total, lambda: os.read(slave, _CHUNK))
    echo_bare = _echo(master, lambda: os.read(slave, _CHUNK))
    os.close(master)
    os.close(slave)
    viewer = Attached(host, name)
    seen = bytearray()

    def piece() -> bytes:
        data = viewer.output()
        seen.extend(data)
        return data

    ours_s = _timed(host.masters[name], total, piece)
    whole = _PATTERN * (total // len(_PATTERN) + 1)
    exact = bytes(seen) == whole[:total] and not viewer.lost
    echo = _echo(host.masters[name], viewer.output)
    viewer.close()
    rates = f"{total / ours_s / 1e6:.3g} of {total / bare_s / 1e6:.3g} MB/s"
    return [
        Figure("console, one viewer, recording on", bare_s / ours_s, "of the bare terminal", 0.8, more=True, also=rates),
        Figure("what the viewer got was byte-exact", float(exact), "", 1, more=True),
        Figure("added to an echo, p50", (echo - echo_bare) * 1e6, "us", 150, also=f"bare {echo_bare * 1e6:.3g} us"),
    ]


def _timed(fd: int, total: int, read: Reading) -> float:
    pouring = threading.Thread(target=_pour, args=(fd, total))
    began = time.monotonic()
    pouring.start()
    got = 0
    while got < total:
        got += len(read())
    pouring.join()
    return time.monotonic() - began


def _echo(fd: int, read: Reading) -> float:
    took = []
    for _ in range(300):
        began = time.monotonic()
        os.write(fd, b"x")
        read()
        took.append(time.monotonic() - began)
    return quantile(sorted(took), 0.5)


def flood(host: FreeHost, count: int, seconds: float) -> list[Figure]:
    """Many guests print steadily, nobody watches: do they get rid of it, and what does the daemon need for that?"""
    masters = [host.masters[name] for name in host.names[:count]]
    share = bytes(int(_LINE_BYTES_S * _TICK_S))
    wanted = taken = 0
    cpu, began = host.cpu_s(), time.monotonic()
    next_at = began
    while time.monotonic() - began < seconds:
        for master in masters:
            wanted += len(share)
            try:
                taken += os.write(master, share)
            except BlockingIOError:
                continue
        next_at += _TICK_S
        time.sleep(max(0.0, next_at - time.monotonic()))
    took_s = time.monotonic() - began
    rate = f"{wanted / took_s / 1e6:.3g} MB/s in all"
    return [
        Figure(f"{len(masters)} guests flooding: what they got rid of", taken / wanted, "of it", 1, more=True, also=rate),
        Figure("daemon meanwhile", (host.cpu_s() - cpu) / took_s, "cores", 1),
    ]


class Prober:
    """Asks the daemon again and again while something else happens; the longest it had to wait."""

    def __init__(self, host: FreeHost, name: str) -> None:
        self._host, self._name = host, name
        self._over = threading.Event()
        self.control_s = self.console_s = 0.0
        self._threads = [threading.Thread(target=self._control), threading.Thread(target=self._console)]

    def __enter__(self) -> "Prober":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _control(self) -> None:
        connection = Connection(self._host.socket)
        while not self._over.wait(_TICK_S):
            began = time.monotonic()
            connection.call("daemon.info")
            self.control_s = max(self.control_s, time.monotonic() - began)
        connection.close()

    def _console(self) -> None:
        viewer = Attached(self._host, self._name)
        while not self._over.wait(_TICK_S):
            began = time.monotonic()
            os.write(self._host.masters[self._name], b"x")
            viewer.output()
            self.console_s = max(self.console_s, time.monotonic() - began)
        viewer.close()
