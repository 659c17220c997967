"""One daemon a host, over directories that nobody else can write."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bhyved.core.errors import HostError
from bhyved.host.hostlock import HostLock, holder, make_directories, make_directory, state_directories


def test_the_second_is_refused_naming_the_first(tmp_path: Path) -> None:
    """A second daemon of the same run directory is refused with the pid of the first; after its end there is room."""
    first = HostLock.take(str(tmp_path))

    with pytest.raises(HostError, match=rf"^bhyved is already running \(pid {os.getpid()}\); it holds {tmp_path}/bhyved.pid$") as refusal:
        HostLock.take(str(tmp_path))
    assert refusal.value.fatal
    assert holder(str(tmp_path)) == os.getpid()

    first.release()
    assert holder(str(tmp_path)) is None
    HostLock.take(str(tmp_path)).release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    """After kill -9 of the holder its pid file is there but holds nobody up."""
    script = (
        "import sys, signal; from bhyved.host.hostlock import HostLock;"
        f" lock = HostLock.take({str(tmp_path)!r}); print('locked', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        assert holder(str(tmp_path)) == child.pid
        with pytest.raises(HostError, match=f"pid {child.pid}"):
            HostLock.take(str(tmp_path))
        child.kill()

    assert (tmp_path / "bhyved.pid").read_text() == f"{child.pid}\n"
    assert holder(str(tmp_path)) is None
    lock = HostLock.take(str(tmp_path))
    assert (tmp_path / "bhyved.pid").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_file_removed_between_open_and_lock_is_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last holder removes the file while we open it, the lock ends up on the file that is there for everybody."""
    real_open = os.open

    def open_old(path: str, flags: int, mode: int = 0o777) -> int:
        fd = real_open(path, flags, mode)
        monkeypatch.setattr(os, "open", real_open)
        os.unlink(path)
        return fd

    monkeypatch.setattr(os, "open", open_old)
    lock = HostLock.take(str(tmp_path))

    with pytest.raises(HostError, match="already running"):
        HostLock.take(str(tmp_path))
    lock.release()


def test_only_root_can_open_the_lock(tmp_path: Path) -> None:
    """flock(2) asks for no right to write: who may read the file could keep the next daemon from starting."""
    before = os.umask(0)
    try:
        (tmp_path / "bhyved.pid").touch()
        lock = HostLock.take(str(tmp_path))
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / "bhyved.pid").stat().st_mode)]
    lock.release()
    lock = HostLock.take(str(tmp_path))
    modes.append(stat.S_IMODE((tmp_path / "bhyved.pid").stat().st_mode))
    lock.release()

    assert modes == [0o600, 0o600]


def test_a_look_at_the_lock_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    """Whoever asks just then whether a daemon runs (vmctl, which cannot reach it) is waited for."""
    (tmp_path / "bhyved.pid").touch()
    looking = os.open(tmp_path / "bhyved.pid", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    gone = threading.Timer(0.05, os.close, (looking,))
    gone.start()
    lock = HostLock.take(str(tmp_path))

    assert holder(str(tmp_path)) == os.getpid()
    lock.release()
    gone.join()


def test_a_lock_that_is_looked_at_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody does that; it is a sentence and no daemon that hangs."""
    monkeypatch.setattr("bhyved.host.hostlock._LOOKED_AT_S", 0.02)
    (tmp_path / "bhyved.pid").touch()
    looking = os.open(tmp_path / "bhyved.pid", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with pytest.raises(HostError, match=r"^bhyved is already running \(pid not yet known\)"):
        HostLock.take(str(tmp_path))
    os.close(looking)


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_full_disk_keeps_no_daemon_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The lock counts; its pid is for people and rc.d, and a daemon of which they know less is better than none."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    lock = HostLock.take(str(tmp_path))
    with pytest.raises(HostError, match="already running"):
        HostLock.take(str(tmp_path))
    lock.release()


@pytest.mark.parametrize(("number", "fatal"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EACCES, True)])
def test_what_passes_by_itself_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fatal: bool) -> None:
    """With `fatal` the respawner gives the daemon up, and a guest is held."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", refuse)
        with pytest.raises(HostError, match=f"^{tmp_path}/web: ") as told:
            make_directory(str(tmp_path / "web"), 0o700)
    assert told.value.fatal is fatal
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(HostError, match=f"^{tmp_path}/bhyved.pid: ") as told:
            HostLock.take(str(tmp_path))
    assert told.value.fatal is fatal


def test_a_link_in_place_of_the_pid_file_is_not_followed(tmp_path: Path) -> None:
    """A planted link cannot make the daemon write its pid elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "bhyved.pid").symlink_to(victim)

    with pytest.raises(HostError, match=r"bhyved\.pid: "):
        HostLock.take(str(tmp_path))

    assert victim.read_text() == "precious"


def test_directories_are_made_with_their_modes(tmp_path: Path) -> None:
    """Run is readable, everything with records or consoles is not, whatever the umask; twice is the same as once."""
    run, db, log = (str(tmp_path / "deep" / name) for name in ("run", "db", "log"))
    before = os.umask(0)
    try:
        for _ in range(2):
            make_directories(state_directories(run, db, log))
    finally:
        os.umask(before)

    modes = {path: stat.S_IMODE(os.stat(path).st_mode) for path in state_directories(run, db, log)}
    assert modes == {
        run: 0o755,
        f"{run}/vm": 0o700,
        db: 0o700,
        **{f"{db}/{name}": 0o700 for name in ("vm", "history", "events", "good", "good/vm.d", "good/template.d", "vars", "cloud-init")},
        log: 0o750,
    }


def test_directories_above_are_for_all_to_pass(tmp_path: Path) -> None:
    """Under the daemon's own umask, too: other users reach the socket, and grub-bhyve, as nobody, its configuration (contract 2.3)."""
    before = os.umask(0o077)
    try:
        make_directory(str(tmp_path / "vm/bhyved/run"), 0o755)
    finally:
        os.umask(before)

    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("vm", "vm/bhyved", "vm/bhyved/run")] == [0o755] * 3


def test_a_directory_that_others_could_write_is_closed(tmp_path: Path) -> None:
    """A directory of ours with a wrong mode gets the right one."""
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(0o777)

    make_directory(str(path), 0o755)

    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    """A file where a directory should be is a sentence with its path."""
    (tmp_path / "run").write_text("")

    with pytest.raises(HostError, match=f"^{tmp_path}/run: not a directory$"):
        make_directory(str(tmp_path / "run"), 0o755)


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that belongs to another user is not used, and says whose it should be."""
    (tmp_path / "run").mkdir()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(HostError, match=rf"^{tmp_path}/run belongs to uid {owner}; it must belong to uid {owner + 1}$"):
        make_directory(str(tmp_path / "run"), 0o755)


def test_only_an_administrators_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own link to another disk is followed; a stranger's link is refused."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "db").symlink_to(tmp_path / "elsewhere")

    make_directory(str(tmp_path / "db"), 0o700)
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700

    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result((*real(path)[:4], 4711, *real(path)[5:])))
    with pytest.raises(HostError, match=r"is a symbolic link of uid 4711; remove it$"):
        make_directory(str(tmp_path / "db"), 0o700)
