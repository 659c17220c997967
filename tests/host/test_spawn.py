"""Starting a process, by posix_spawn and by the way of systems whose posix_spawn makes no sessions."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from bhyved.host import spawn as module
from bhyved.host.spawn import reap, seal_inherited, spawn

LOOK = """
import json, os, signal, sys
open_fds = {}
for n in range(0, 200):
    try:
        s = os.fstat(n)
        open_fds[n] = [s.st_dev, s.st_ino]
    except OSError:
        pass
said = {"fds": open_fds, "sid": os.getsid(0), "pid": os.getpid(), "env": sorted(os.environ)}
with open(sys.argv[1], "w") as f:
    json.dump(said, f)
"""


@pytest.fixture(params=["posix_spawn", "popen"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "popen":
        monkeypatch.setattr(module, "posix_spawn_makes_sessions", lambda: False)
    elif not module.posix_spawn_makes_sessions():
        pytest.skip("posix_spawn makes no sessions here")
    return str(request.param)


@pytest.fixture(autouse=True)
def sealed() -> None:
    """The test runner leaves descriptors inheritable; the daemon seals its own the same way."""
    seal_inherited()


def look(tmp_path: Path, fds: dict[int, int], **more: str) -> dict[str, object]:
    """What a child with these descriptors sees of itself."""
    pid = spawn([sys.executable, "-I", "-c", LOOK, str(tmp_path / "seen")], fds, {"PATH": "/bin"}, **more)  # type: ignore[arg-type]
    assert reap(pid) == 0
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["pid"] == pid
    assert seen["sid"] == pid
    return dict(seen)


def identity(fd: int) -> list[int]:
    return [os.fstat(fd).st_dev, os.fstat(fd).st_ino]


@pytest.mark.usefixtures("way")
def test_keepers_descriptors(tmp_path: Path) -> None:
    """A keeper gets its log as 1 and 2, two further files under the numbers asked for, /dev/null as stdin and nothing else."""
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    alive = os.open(tmp_path / "alive", os.O_RDWR | os.O_CREAT)
    line = os.open(tmp_path / "line", os.O_RDWR | os.O_CREAT)
    try:
        seen = look(tmp_path, {1: log, 2: log, 3: line, 4: alive})

        assert seen["fds"] == {
            "0": identity(null),
            "1": identity(log),
            "2": identity(log),
            "3": identity(line),
            "4": identity(alive),
        }
    finally:
        for fd in (null, log, alive, line):
            os.close(fd)


@pytest.mark.usefixtures("way")
def test_numbers_that_cross(tmp_path: Path) -> None:
    """Descriptors whose numbers are each other's targets arrive unmixed."""
    taken = []
    try:
        for number in (3, 4):
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            os.dup2(os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT), number)
            taken.append(number)
        fds = look(tmp_path, {3: 4, 4: 3})["fds"]

        assert isinstance(fds, dict)
        assert (fds["3"], fds["4"]) == (identity(4), identity(3))
    finally:
        for number in taken:
            os.close(number)


@pytest.mark.usefixtures("way")
def test_same_number_is_inherited(tmp_path: Path) -> None:
    """A descriptor asked for under its own number is there although it is close-on-exec here."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        seen = look(tmp_path, {fd: fd})

        fds = seen["fds"]
        assert isinstance(fds, dict)
        assert fds[str(fd)] == identity(fd)
        assert len(fds) == 4
    finally:
        os.close(fd)


def test_what_not_every_system_can_do_is_refused_everywhere(tmp_path: Path) -> None:
    """A renumbering that works only where posix_spawn makes sessions is a ValueError on all systems."""
    with pytest.raises(ValueError, match="cannot be handed on"):
        spawn(["/bin/true"], {0: 0, 5: 1}, {})
    with pytest.raises(ValueError, match="cannot be handed on"):
        spawn(["/bin/true"], {1: 1, 5: 1}, {})


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("default_signals", "ends"), [(True, -signal.SIGPIPE), (False, 0)])
def test_sigpipe(default_signals: bool, ends: int) -> None:
    """SIGPIPE kills a tool and is ignored in a keeper's descendants."""
    pid = spawn(["/bin/sh", "-c", "sh -c 'kill -PIPE $$'; kill -PIPE $$; exit 0"], {}, {}, default_signals=default_signals)

    assert os.waitstatus_to_exitcode(reap(pid)) == ends


@pytest.mark.usefixtures("way")
def test_no_signal_is_blocked() -> None:
    """A signal that the daemon blocks is not blocked in the child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        pid = spawn(["/bin/sh", "-c", "kill -USR1 $$; exit 0"], {}, {})
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    assert os.waitstatus_to_exitcode(reap(pid)) == -signal.SIGUSR1


@pytest.mark.usefixtures("way")
def test_a_program_that_is_not_there() -> None:
    """A missing program is an OSError in the caller, not an exit status."""
    with pytest.raises(FileNotFoundError):
        spawn(["/nonexistent/bhyve"], {}, {})


def test_inherited_descriptors_are_sealed() -> None:
    """What the daemon itself inherited is not handed on to guests."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        seal_inherited(writing + 1)

        assert not os.get_inheritable(writing)
    finally:
        os.close(reading)
        os.close(writing)
