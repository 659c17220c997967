"""The null-modem pairs that consoles go through: nmdm (contract 4.4)."""

import contextlib
import os
import select
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator

import trio

from bhyved.host.selftest.bench import Bench, Check, Wrong
from bhyved.host.tty import open_tty

_COMES_S = 2.0
_STAYS_AWAY_S = 0.2
_PAUSES_S = (0.1, 0.5, 2.0)


@contextlib.contextmanager
def _open(path: str) -> Iterator[int]:
    """One side as it comes: nothing set."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _open_raw(path: str) -> Iterator[int]:
    """One side as bhyve and bhyved set it: raw, CLOCAL."""
    line = open_tty(path)
    try:
        yield line.fd
    finally:
        line.close()


def _read(fd: int, limit_s: float = _COMES_S) -> bytes | None:
    """What comes first; None: nothing within the time. b'': the line has hung up."""
    if not select.select([fd], [], [], limit_s)[0]:
        return None
    try:
        return os.read(fd, 256)
    except OSError:
        return b""


def _unhurried(try_it: Callable[[Bench, float], Awaitable[str]]) -> Callable[[Bench], Awaitable[str]]:
    """Tried with longer and longer pauses: a side that was closed a moment ago may still be draining (contract 4.4).

    Wrong after the longest is wrong.
    """

    async def tried(bench: Bench) -> str:
        await bench.needs.pair()
        for pause_s in _PAUSES_S:
            with contextlib.suppress(Wrong):
                return await try_it(bench, pause_s)
        return await try_it(bench, _PAUSES_S[-1])

    return tried


async def _fresh_side_echoes(bench: Bench, pause_s: float) -> str:
    await trio.sleep(pause_s)
    with _open_raw(bench.side_a) as a, _open(bench.side_b) as b:
        if not termios.tcgetattr(b)[tty.LFLAG] & termios.ECHO:
            raise Wrong("side B was opened without echo")
        os.write(a, b"boot\n")
        echo = _read(a)
        if not echo or not echo.startswith(b"b"):
            raise Wrong(f"nothing came back: {echo!r}")
        return f"what side A writes comes back: {echo!r}"


async def _raw_side_is_silent(bench: Bench, pause_s: float) -> str:
    await trio.sleep(pause_s)
    with _open_raw(bench.side_b) as b, _open_raw(bench.side_a) as a:
        os.write(a, b"boot\n")
        got, echo = _read(b), _read(a, _STAYS_AWAY_S)
        if got != b"boot\n" or echo is not None:
            raise Wrong(f"side B read {got!r}, and {echo!r} came back")
        return "side B reads it as it was written, and nothing comes back"


async def _settings_last_while_held(bench: Bench, pause_s: float) -> str:
    await trio.sleep(pause_s)
    with _open_raw(bench.side_b) as held:
        with _open(bench.side_b) as again:
            mode = termios.tcgetattr(again)
        if mode[tty.LFLAG] & termios.ECHO or not mode[tty.CFLAG] & termios.CLOCAL:
            raise Wrong("a second open of side B found the default settings")
        with _open_raw(bench.side_a) as a:
            os.write(a, b"one")
            first = _read(held)
        silent = _read(held, _STAYS_AWAY_S)
        with _open_raw(bench.side_a) as a:
            os.write(a, b"two")
            second = _read(held)
        if (first, silent, second) != (b"one", None, b"two"):
            raise Wrong(f"side B read {first!r}, then {silent!r} when A was closed, then {second!r}")
        return "no hang-up when side A closes, and the next opener of A is heard"


async def _hangs_up_without_clocal(bench: Bench, pause_s: float) -> str:
    await trio.sleep(pause_s)
    with _open_raw(bench.side_b) as b:
        with _open_raw(bench.side_a):
            mode = termios.tcgetattr(b)
            mode[tty.CFLAG] &= ~termios.CLOCAL
            termios.tcsetattr(b, termios.TCSANOW, mode)
        with contextlib.suppress(BlockingIOError):
            os.read(b, 1)  # the driver looks whether the peer is still there only when one side moves: seen on 12.1
        end = _read(b)
        if end != b"":
            raise Wrong(f"side B read {end!r} when A was closed")
        return "side B reads the end of file"


async def _lost_while_closed(bench: Bench, pause_s: float) -> str:
    await trio.sleep(pause_s)
    with _open_raw(bench.side_a) as a:
        os.write(a, b"lost")
        await trio.sleep(pause_s)
        with _open_raw(bench.side_b) as b:
            got = _read(b, _STAYS_AWAY_S)
            if got is not None:
                raise Wrong(f"side B read {got!r}")
            return "side B reads nothing of it"


CHECKS = {
    "consoles (nmdm)": (
        Check("4.4", "a freshly opened side echoes", _unhurried(_fresh_side_echoes)),
        Check("4.4", "a raw side does not", _unhurried(_raw_side_is_silent)),
        Check("4.4", "settings last, and CLOCAL hides hang-ups, while somebody holds a side", _unhurried(_settings_last_while_held)),
        Check("4.4", "without CLOCAL the end of the peer is a hang-up", _unhurried(_hangs_up_without_clocal)),
        Check("4.4", "what is written while the other side is closed is lost", _unhurried(_lost_while_closed)),
    )
}
