"""The client's half of the wire: JSON without `json`, long answers, and what is said when there is no daemon."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import units
from bhyved.core.room import amount
from bhyved.core.units import Size
from bhyved.ctl import connection as connections
from bhyved.ctl import message
from bhyved.ctl.amounts import one_line, size, span
from bhyved.ctl.connection import Connection, Failure, unreachable
from bhyved.ctl.message import dump, load
from tests.ctl.conftest import Vmctl
from tests.ctl.played import Stream, playing, row

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_json(value: Any) -> None:
    """What we write `json` reads, what `json` writes we read, and nothing of it has a line end."""
    assert json.loads(dump(value)) == value
    assert load(json.dumps(value).encode() + b"\n") == value
    assert "\n" not in dump(value)


@pytest.mark.parametrize("line", [b"", b"{", b"nope", b'{"a": 1} x', b"\xff", b'{"a"'])
def test_what_is_no_json(line: bytes) -> None:
    """One kind of error, whatever is wrong with it."""
    with pytest.raises(ValueError):
        load(line)


def test_an_interpreter_without_the_c_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """`json` itself takes their place."""
    monkeypatch.setitem(sys.modules, "_json", None)
    scan, encode = message._find()

    assert scan('{"a": [1]}', 0) == ({"a": [1]}, 10)
    assert encode({"a": "é"}) == dump({"a": "é"})


def test_what_json_has_no_word_for() -> None:
    """A bug of ours is loud."""
    with pytest.raises(TypeError, match="bytes"):
        dump({"a": b"x"})
    with pytest.raises(ValueError):
        dump(float("nan"))


@given(st.floats(0, 1e8))
def test_durations_read_as_the_daemon_writes_them(seconds: float) -> None:
    """`list` and `why` say the same of the same guest."""
    assert span(seconds) == units.span(seconds)


@given(st.integers(1, 1 << 20), st.sampled_from("KMGT"))
def test_sizes_that_are_round_read_as_they_are_written(count: int, unit: str) -> None:
    """`memory = "3G"` is 3G in the table."""
    written = Size.parse(f"{count}{unit}")
    if count < 1000:
        assert size(written) == str(written)


@given(st.one_of(st.integers(1 << 20, 1 << 50), st.integers(1, 1 << 24).map(lambda megabytes: megabytes << 20)))
def test_sizes_read_as_the_daemon_writes_them(count: int) -> None:
    """A guest of 2000M has 1.9G in `list`, on the page and in the sentence that says what is left; nobody has more than there is."""
    assert size(count) == amount(count)


@given(st.text())
def test_one_line_is_harmless(text: str) -> None:
    """No control character and no second line, and nothing printable is lost."""
    assert one_line(text).isprintable() or not any(character < " " or character == "\x7f" for character in one_line(text))


@pytest.fixture
def run() -> Iterator[Path]:
    """A daemon's run directory."""
    with tempfile.TemporaryDirectory(prefix="bhc") as directory:
        yield Path(directory)


def test_no_socket(run: Path) -> None:
    """It does not run."""
    path = str(run / "control.sock")
    with pytest.raises(Failure) as failure:
        Connection(path)

    assert (failure.value.status, failure.value.text) == (69, f"bhyved does not run: there is no {path}")


def test_how_to_start_it() -> None:
    """For the socket of the host's own daemon, how it is started is said as well."""
    failure = unreachable(connections.SOCKET, FileNotFoundError(errno.ENOENT, "no such file"))

    assert failure.text.endswith("; start it with `service bhyved start`")


def test_a_socket_that_was_left_behind(run: Path) -> None:
    """A killed daemon leaves its socket, and its guests."""
    with playing() as daemon:
        daemon.vanish(keep_socket=True)
        with pytest.raises(Failure) as failure:
            Connection(str(daemon.path))

    assert failure.value.status == 69
    assert "nobody listens" in failure.value.text
    assert "run on" in failure.value.text


def test_a_daemon_that_does_not_serve_yet(run: Path) -> None:
    """Its pid file is locked: it runs, and to start it would be wrong advice."""
    lock = os.open(run / "bhyved.pid", os.O_RDWR | os.O_CREAT)
    os.write(lock, b"4242\n")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(Failure) as failure:
        Connection(str(run / "control.sock"))
    os.close(lock)

    assert "bhyved runs (pid 4242) but does not serve" in failure.value.text


def test_a_socket_that_is_not_ours_to_use(run: Path) -> None:
    """Exit 77."""
    failure = unreachable("/x", PermissionError(errno.EACCES, "permission denied"))

    assert (failure.status, failure.text) == (77, "you may not connect to /x")


def test_a_path_that_no_socket_can_have(vmctl: Vmctl) -> None:
    """A sentence, not a traceback."""
    ran = vmctl(None, "list", "--socket", "/" + "x" * 200)

    assert ran.status == 69
    assert ran.err.startswith("vmctl: cannot connect to /xxx")


@pytest.mark.parametrize("line", [b"SSH-2.0-OpenSSH\n", b"[]\n", b"\xff\xfe\n"])
def test_something_else_answers(run: Path, line: bytes) -> None:
    """It is no bhyved, and that is said."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run / "s"))
        listener.listen()
        with Connection(str(run / "s")) as connection:
            client, _ = listener.accept()
            with client:
                client.sendall(line)
                with pytest.raises(Failure, match="is no bhyved"):
                    connection.call("vm.list")


def test_a_daemon_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """vmctl does not hang with it."""
    monkeypatch.setattr(connections, "ANSWER_S", 0.05)
    with playing() as daemon:
        daemon.handlers["vm.list"] = lambda params: Stream({})
        with Connection(str(daemon.path)) as connection:
            connection.call("vm.list")
            gate = threading.Event()
            daemon.handlers["vm.list"] = lambda params: gate.wait(30)
            with pytest.raises(Failure, match="does not answer") as failure:
                connection.call("vm.list")
            gate.set()

    assert failure.value.status == 69


def test_an_error_about_the_connection() -> None:
    """`too-many-connections` has no id, and is told all the same."""
    with tempfile.TemporaryDirectory(prefix="bhc") as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/s")
        listener.listen()
        with Connection(f"{directory}/s") as connection:
            client, _ = listener.accept()
            with client:
                error = {"code": -32003, "message": "there are too many connections already", "data": {"code": "too-many-connections"}}
                client.sendall(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode() + b"\n")
                with pytest.raises(Failure, match="too many connections"):
                    connection.call("vm.list")


def test_long_answers_arrive_whole(vmctl: Vmctl) -> None:
    """Thousands of guests, in as many pieces as the kernel likes."""
    rows = [row(f"guest{number}", reason="ü" * 50) for number in range(5000)]
    with playing(vm_list={"version": 1, "vms": rows}) as daemon:
        ran = vmctl(daemon, "list", "-q")

    assert ran.out.splitlines() == [row["name"] for row in rows]


def test_the_socket_option_wins_over_the_environment(vmctl: Vmctl) -> None:
    """--socket, then BHYVED_SOCKET, then the usual place."""
    with playing(vm_list={"version": 1, "vms": []}) as daemon, playing() as other:
        assert vmctl(other, "list", "--socket", str(daemon.path)).status == 0
        assert vmctl(other, "--socket", str(daemon.path), "--json", "list").status == 0
        assert vmctl(other, f"--socket={daemon.path}", "list").status == 0
        assert other.asked == []
        assert len(daemon.asked) == 3


def test_a_reader_that_has_seen_enough() -> None:
    """`vmctl list | head -1` ends quietly."""
    with playing(vm_list={"version": 1, "vms": [row(f"guest{number}") for number in range(5000)]}) as daemon:
        command = f"{sys.executable} -m bhyved.cli.ctl list --socket {daemon.path} | head -1"
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("NAME")
    assert done.stderr == ""
