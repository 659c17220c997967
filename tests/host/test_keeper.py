"""The keeper: what it writes down, what it and its child survive, what they inherit. Under every sh that is here."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bhyved.core.errors import HostError
from bhyved.host import keeper as module
from bhyved.host.keeper import Trace, spawn_keeper
from bhyved.host.liveness import Liveness
from bhyved.host.spawn import reap
from tests.host.scripts import until

SHELLS = [path for name in ("sh", "dash", "bash", "ksh", "mksh") if (path := shutil.which(name))]


@pytest.fixture(params=SHELLS)
def sh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "SH", request.param)
    return str(request.param)


class Post:
    """One keeper's place."""

    def __init__(self, directory: Path) -> None:
        self.trace = Trace(str(directory))
        self.liveness = Liveness(str(directory / "alive"))
        self.log = directory / "log"
        self.never = str(directory / "never")  # reading it waits for ever
        os.mkfifo(self.never)

    def keep(self, *argv: str, ignore_term: bool = True, consoles: tuple[int, ...] = ()) -> int:
        """Start one; returns the keeper's pid."""
        self.trace.allocate(1.5, 7)
        alive = self.liveness.open_writer()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            env = {"PATH": "/usr/bin:/bin"}
            return spawn_keeper(argv, self.trace, alive=alive, log=log, consoles=consoles, env=env, ignore_term=ignore_term)
        finally:
            os.close(alive)
            os.close(log)

    def keep_sh(self, text: str, *, ignore_term: bool = True) -> int:
        return self.keep("/bin/sh", "-c", text, ignore_term=ignore_term)

    async def child(self) -> int:
        await until(self.trace.pid)
        pid = self.trace.pid()
        assert pid is not None
        return pid

    @property
    def status(self) -> int | None:
        end = self.trace.end()
        return None if end is None else end.status


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


@contextlib.contextmanager
def ended(*pids: int) -> Iterator[None]:
    """A test that fails leaves no child behind."""
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_every_status_is_written_down(tmp_path: Path) -> None:
    """Each exit status from 0 to 127 is in the file as it was, with its newline, when the keeper has ended."""
    posts = []
    for status in range(128):
        (tmp_path / str(status)).mkdir()
        posts.append(Post(tmp_path / str(status)))
    keepers = [post.keep_sh(f"exit {status}") for status, post in enumerate(posts)]
    for keeper in keepers:
        assert os.waitstatus_to_exitcode(reap(keeper)) == 0

    assert [post.status for post in posts] == list(range(128))
    assert Path(posts[7].trace.exit_path).read_bytes() == b"7\n              "


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGUSR1])
def test_a_signal_is_written_down_as_the_shell_says_it(post: Post, sh: str, number: signal.Signals) -> None:
    """A child that a signal ends has 128 and its number."""
    reap(post.keep_sh(f"kill -{number.value} $$"))

    assert post.status == 128 + number


def test_a_command_that_cannot_be_run(post: Post, sh: str, tmp_path: Path) -> None:
    """A missing program is status 127, one that may not be executed 126, and sh's own words are in the log."""
    reap(post.keep(str(tmp_path / "bhyve")))
    assert post.status == 127
    (tmp_path / "bhyve").write_text("no program")
    reap(post.keep(str(tmp_path / "bhyve")))
    assert post.status == 126

    assert str(tmp_path / "bhyve") in post.log.read_text()


async def test_keeper_and_child_survive_what_a_terminal_sends(post: Post, sh: str, tmp_path: Path) -> None:
    """INT, HUP, QUIT, PIPE and TERM to the keeper and to its child end neither; the child's own status is still written down."""
    keeper = post.keep_sh(f"trap 'exit 5' USR1; : >{tmp_path}/ready; read never <>{post.never}")
    with ended(keeper):
        await until((tmp_path / "ready").exists)
        child = await post.child()
        with ended(child):
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1):
                os.kill(child, number)
                if number is not signal.SIGUSR1:
                    os.kill(keeper, number)
            await until(post.trace.end)
        reap(keeper)

    assert post.status == 5


async def test_the_child_may_have_the_default_for_sigterm(post: Post, sh: str, tmp_path: Path) -> None:
    """With `ignore-early-term = false` SIGTERM ends the child, not the keeper: 143 is written down."""
    keeper = post.keep_sh(f"kill -TERM $PPID; : >{tmp_path}/ready; read never <>{post.never}", ignore_term=False)
    with ended(keeper):
        await until((tmp_path / "ready").exists)
        with ended(await post.child()):
            os.kill(keeper, signal.SIGTERM)
            os.kill(await post.child(), signal.SIGTERM)
            await until(post.trace.end)
        assert os.waitstatus_to_exitcode(reap(keeper)) == 0

    assert post.status == 143


async def test_a_keeper_whose_child_has_the_default_still_waits(post: Post, sh: str, tmp_path: Path) -> None:
    """SIGTERM to a keeper alone is no end of its child: the status that is written down is the child's, when it ends."""
    keeper = post.keep_sh(f"trap 'exit 6' USR1; : >{tmp_path}/ready; read never <>{post.never}", ignore_term=False)
    with ended(keeper):
        await until((tmp_path / "ready").exists)
        child = await post.child()
        with ended(child):
            os.kill(keeper, signal.SIGTERM)
            os.kill(child, signal.SIGUSR1)
            reap(keeper)

    assert post.status == 6


#: A daemon whose first console happens to be descriptor 3, in a process of its own: the test runner needs its descriptors.
DAEMON = """
import os, sys
from bhyved.host import keeper
from bhyved.host.liveness import Liveness
directory, keeper.SH, look = sys.argv[1:]
log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT)
consoles = [os.open(f"{directory}/{name}", os.O_RDWR | os.O_CREAT) for name in ("a", "b")]
if 3 not in consoles:
    if log == 3:
        log = os.dup(log)
    os.dup2(consoles[0], 3, inheritable=False)
    consoles[0] = 3
trace = keeper.Trace(directory)
trace.allocate(1.5, 7)
alive = Liveness(f"{directory}/alive").open_writer()
argv = (sys.executable, "-I", "-c", look)
os.waitpid(keeper.spawn_keeper(argv, trace, alive=alive, log=log, consoles=consoles, env={}, ignore_term=True), 0)
"""
LOOK = """
import json, os, sys
fds = {}
for n in range(200):
    try:
        s = os.fstat(n)
        fds[n] = [s.st_dev, s.st_ino]
    except OSError:
        pass
json.dump({"fds": fds, "umask": os.umask(0)}, sys.stdout)
"""


def test_what_the_child_inherits(sh: str, tmp_path: Path) -> None:
    """/dev/null, the log twice, the FIFO as 3 and the consoles, even one that was 3 itself; nothing else. umask 077."""
    if sh.endswith(("ksh", "mksh")):
        pytest.skip("this sh keeps descriptors of its own")
    subprocess.run([sys.executable, "-c", DAEMON, tmp_path, sh, LOOK], check=True)
    seen = json.loads((tmp_path / "log").read_text())
    expected = [identity(path) for path in (Path(os.devnull), tmp_path / "log", tmp_path / "log", tmp_path / "alive")]

    assert [seen["fds"].pop(str(number)) for number in range(4)] == expected
    assert sorted(seen["fds"].values()) == sorted(identity(tmp_path / name) for name in ("a", "b"))
    assert seen["umask"] == 0o77


def identity(path: Path) -> list[int]:
    return [path.stat().st_dev, path.stat().st_ino]


def test_a_session_of_its_own(post: Post, sh: str) -> None:
    """A keeper and its child are a session: what a terminal or a service manager sends to the daemon's group does not reach them."""
    keeper = post.keep(sys.executable, "-I", "-c", "import os; print(os.getsid(0))")
    reap(keeper)

    assert post.log.read_text() == f"{keeper}\n"


def test_the_beginning(post: Post) -> None:
    """The next daemon learns when the process was started and where its output begins; a file cut short tells nothing."""
    post.trace.allocate(1234.5, 77)
    begin = post.trace.begin()
    assert begin is not None
    assert (begin.monotonic, begin.log_from) == (1234.5, 77)
    assert begin.at.timestamp() == pytest.approx(Path(post.trace.begin_path).stat().st_mtime)
    Path(post.trace.begin_path).write_text("1234.5 7")

    assert post.trace.begin() is None


async def test_pid_and_end_are_told_twice(post: Post, sh: str) -> None:
    """The child's pid and status are in their files, and as lines in the FIFO for whoever waits there."""
    heard: list[bytes] = []
    alive = post.liveness.open_writer()
    watch = post.liveness.watch()
    assert watch is not None
    keeper = post.keep_sh("exit 0")
    os.close(alive)
    with trio.fail_after(10):
        await watch.wait_end(heard.append)
    reap(keeper)
    watch.close()

    assert b"".join(heard) == f"pid {await post.child()}\nexit 0\n".encode()


def test_blank_files_are_neither_a_pid_nor_an_end(post: Post) -> None:
    """What the daemon allocates before the start says nothing yet; a number without its newline is not complete."""
    post.trace.allocate(1.5, 7)
    assert (post.trace.exists(), post.trace.pid(), post.trace.end()) == (True, None, None)

    Path(post.trace.exit_path).write_text("1")
    assert post.trace.end() is None
    Path(post.trace.exit_path).write_text("12\n             ")
    assert post.status == 12


def test_a_file_that_somebody_removed_is_made_again(post: Post) -> None:
    """The status is written down although the file was removed under the keeper."""
    reap(post.keep_sh(f"rm {post.trace.exit_path}; exit 3"))

    assert post.status == 3


def test_what_lies_in_the_way_is_replaced_not_followed(post: Post, tmp_path: Path) -> None:
    """A symbolic link in the place of a file is replaced; what it points to stays as it is."""
    (tmp_path / "precious").write_text("1\n")
    os.symlink(tmp_path / "precious", post.trace.exit_path)
    assert post.trace.end() is None
    post.trace.allocate(1.5, 7)

    assert (tmp_path / "precious").read_text() == "1\n"


def test_a_directory_in_the_place_of_a_file_is_said(tmp_path: Path) -> None:
    """It cannot be removed as a file is, and is no bug of ours."""
    trace = Trace(str(tmp_path))
    (tmp_path / "pid").mkdir()

    with pytest.raises(HostError, match=r"/pid cannot be removed: "):
        trace.remove()


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Without room for the files nothing is started."""
    with pytest.raises(HostError, match=r"nowhere/begin: no such file or directory$"):
        Trace(str(tmp_path / "nowhere")).allocate(1.5, 7)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="fills a small tmpfs, which needs Linux and root")
def test_a_full_file_system_swallows_no_end(tmp_path: Path) -> None:
    """Pid and status are written although the file system has filled up since the start."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        post = Post(tmp_path)
        reap(post.keep_sh(f"dd if=/dev/zero of={tmp_path}/filler 2>/dev/null; echo x >{tmp_path}/more; exit 9"))

        assert post.status == 9
        assert post.trace.pid() is not None
        with pytest.raises(HostError, match="no space left on device"):
            Trace(str(tmp_path), "another.").allocate(1.5, 7)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_trace_is_forgotten_once(post: Post) -> None:
    """What a second start left is forgotten like the first, though nothing was there to forget in between."""
    for status in (3, 4):
        reap(post.keep_sh(f"exit {status}"))
        assert post.status == status
        post.trace.remove()
        post.trace.remove()
        assert not post.trace.exists()
        assert (post.status, post.trace.pid(), post.trace.begin()) == (None, None, None)
