"""`bhyved lab`, with a played daemon: start, ready, signals, deaths, taking over, what is left."""

import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bhyved.host import hostlock
from bhyved.lab import foreground, layout, power, settle
from bhyved.lab.host import HostLock
from tests.lab.labhost import PATIENCE_S
from tests.waiting import until

_MAIN = "import sys; from bhyved.lab.foreground import main; sys.exit(main(sys.argv[2:], daemon=(sys.executable, *sys.argv[1].split())))"
_PLAYED = str(Path(__file__).with_name("played_daemon.py"))
_TREE = str(Path(__file__).parents[2])


class Command:
    """One `bhyved lab`."""

    def __init__(self, root: Path, *words: str, daemon: str = "") -> None:
        argv = [sys.executable, "-c", _MAIN, f"{_PLAYED} {daemon}", "--root", str(root), *words]
        env = {**os.environ, "PYTHONPATH": _TREE}
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_TREE, env=env)

    def ready(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> tuple[int, str, str]:
        """Status, the rest of stdout, and stderr."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err

    def stop(self) -> None:
        """As ^C and TERM do it, with success."""
        self.process.terminate()
        assert self.end()[0] == 0


Start = Callable[..., Command]


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lab") as directory:
        yield Path(directory) / "root"


@pytest.fixture
def lab(root: Path) -> Iterator[Start]:
    """Starts the command; whatever a test leaves is gone afterwards."""
    commands: list[Command] = []

    def start(*words: str, daemon: str = "") -> Command:
        commands.append(Command(root, *words, daemon=daemon))
        return commands[-1]

    yield start
    assert start("--destroy").end() == (0, "", "")
    for command in commands:
        command.process.kill()
        command.process.communicate()
    assert list(power.of(root)) == []
    assert HostLock(root).holder() is None


def daemon_of(root: Path) -> int:
    pid = hostlock.holder(str(root / "run"))
    assert pid is not None
    return pid


def start_guest(root: Path) -> "subprocess.Popen[bytes]":
    """A keeper and its bhyve that does nothing; the keeper."""
    bhyve = root / "bin" / "bhyve"
    bhyve.write_text(f"{bhyve.read_text().splitlines()[0]}\nimport time\ntime.sleep(600)\n")
    keeper = subprocess.Popen(["/bin/sh", "-c", '"$@"; true', "keeper", str(bhyve), "-k", "x", "web1"])
    until(lambda: len(list(power.of(root))) == 2)
    return keeper


def lives(root: Path) -> list[str]:
    return [line.split(maxsplit=1)[1] if " " in line.strip() else "" for line in (root / "log" / "lives").read_text().splitlines()]


def config(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "etc" / "bhyved.toml").read_text())


def test_ready_is_one_line(lab: Start, root: Path) -> None:
    """It says where the socket and the metrics are, once they are, and nothing else; TERM ends everything of the lab with 0."""
    command = lab()

    assert command.ready() == f"ready socket={root}/run/control.sock metrics=http://127.0.0.1:1/metrics\n"
    host = HostLock(root).holder()
    assert host is not None
    command.process.terminate()
    assert command.end() == (0, "", "")
    assert lives(root) == ["", "SIGTERM"]
    assert HostLock(root).holder() is None
    assert list((root / "dev").iterdir()) == []


def test_int_is_told_as_int(lab: Start, root: Path) -> None:
    """^C reaches the daemon as such: a second one skips the grace."""
    command = lab()
    command.ready()

    command.process.send_signal(signal.SIGINT)

    assert command.end()[0] == 0
    assert lives(root) == ["", "SIGINT"]


def test_sessions_of_their_own(lab: Start, root: Path) -> None:
    """Daemon and lab host are in other sessions than the foreground command, so ^C of its terminal passes them by."""
    command = lab()
    command.ready()
    host = HostLock(root).holder()
    assert host is not None

    sessions = {os.getsid(command.process.pid), os.getsid(daemon_of(root)), os.getsid(host)}

    assert len(sessions) == 3
    command.stop()


def test_a_killed_daemon_leaves_the_lab_host(lab: Start, root: Path) -> None:
    """kill -9 of the daemon ends the command with a sentence and not 0; a second one takes over in the same boot."""
    command = lab()
    command.ready()
    host = HostLock(root).holder()
    boot = (root / "lab" / "settings.json").read_text()

    os.kill(daemon_of(root), signal.SIGKILL)

    status, _, said = command.end()
    assert status == 1
    assert "was killed by signal 9" in said
    assert HostLock(root).holder() == host
    again = lab()
    assert again.ready().startswith("ready ")
    assert (HostLock(root).holder(), (root / "lab" / "settings.json").read_text()) == (host, boot)
    again.stop()


def test_a_daemon_that_cannot_start(lab: Start, root: Path) -> None:
    """Its status becomes the command's, and what it said is shown."""
    status, out, said = lab(daemon="fails").end()

    assert (status, out) == (78, "")
    assert "ended with status 78" in said
    assert "it cannot be" in said


def test_a_daemon_that_fails_to_stop_is_followed_by_stop_all(lab: Start, root: Path) -> None:
    """As the rc script does: when TERM did not end it with 0, `--stop-all` looks after the guests."""
    command = lab(daemon="dies")
    command.ready()

    command.stop()

    assert lives(root) == ["", "--stop-all"]


def test_a_killed_command_leaves_the_daemon_and_is_taken_over(lab: Start, root: Path) -> None:
    """A second command asks the daemon to leave its guests (USR1) and starts its own."""
    command = lab()
    command.ready()
    first = daemon_of(root)
    command.process.kill()
    command.end()
    assert daemon_of(root) == first

    again = lab()

    assert again.ready().startswith("ready ")
    assert daemon_of(root) != first
    assert lives(root)[:2] == ["", "SIGUSR1"]
    again.stop()


def test_a_deaf_daemon_is_killed_for_the_next(lab: Start, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not leave when asked is killed: guests outlive that as well."""
    monkeypatch.setattr(foreground, "LEAVE_S", 0.2)
    command = lab(daemon="deaf")
    until((root / "run" / "deaf").exists)
    command.process.kill()

    foreground.part_with_daemon(root)

    assert hostlock.holder(str(root / "run")) is None


def test_one_command_a_lab(lab: Start, root: Path) -> None:
    """A second one beside a living first is refused, and the first goes on."""
    command = lab()
    command.ready()

    status, out, said = lab().end()

    assert (status, out) == (1, "")
    assert "another `bhyved lab` looks after" in said
    assert command.process.poll() is None
    command.stop()


def test_destroy_ends_whatever_is_left(lab: Start, root: Path) -> None:
    """Daemon, lab host, guests and their keepers go; configuration and logs stay; doing it again is no error."""
    command = lab()
    command.ready()
    keeper = start_guest(root)
    (root / "lab" / "node").mkdir(exist_ok=True)
    (root / "lab" / "node" / "web1").touch()

    assert lab("--destroy").end() == (0, "", "")

    keeper.wait(PATIENCE_S)
    assert list(power.of(root)) == []
    assert command.end()[0] == 1
    assert not (root / "lab" / "node" / "web1").exists()
    assert (root / "etc" / "vm.d" / "web1.toml").exists()
    assert lab("--destroy").end() == (0, "", "")


def test_destroy_of_nothing(lab: Start, root: Path) -> None:
    """A directory that is no lab is left alone."""
    assert lab("--destroy").end() == (0, "", "")
    assert not root.exists()


def test_a_new_boot_ends_what_the_last_one_left(lab: Start, root: Path) -> None:
    """When the lab host is gone its guests are, as on a host that crashed: another boot id, no nodes, no old guests."""
    command = lab()
    command.ready()
    host = HostLock(root).holder()
    assert host is not None
    boot = (root / "lab" / "settings.json").read_text()
    os.kill(host, signal.SIGKILL)
    until(lambda: HostLock(root).holder() is None)
    os.kill(daemon_of(root), signal.SIGKILL)
    command.end()
    (root / "run" / "left").touch()
    keeper = start_guest(root)

    again = lab()

    assert again.ready().startswith("ready ")
    keeper.wait(PATIENCE_S)
    assert list(power.of(root)) == []
    assert (root / "lab" / "settings.json").read_text() != boot
    assert not (root / "run" / "left").exists()
    again.stop()


def test_what_is_asked_for_reaches_the_daemon(lab: Start, root: Path, tmp_path: Path) -> None:
    """--config is a start: its keys stay, its paths are the lab's; --vm-dir and --metrics go over it; a later call keeps them."""
    main = tmp_path / "bhyved.toml"
    main.write_text('start-parallel = 7\n[paths]\nrun = "/var/run/elsewhere"\n[metrics]\nlisten = "127.0.0.1:9999"\n')
    guests = tmp_path / "guests" / "vm.d"
    (tmp_path / "guests" / "template.d").mkdir(parents=True)
    guests.mkdir()
    command = lab("--config", str(main), "--vm-dir", str(guests), "--metrics", "127.0.0.1:0", "--release", "14", "--arch", "arm64")
    command.ready()

    asked = config(root)
    command.stop()

    assert asked["start-parallel"] == 7
    assert asked["metrics"] == {"listen": "127.0.0.1:0"}
    assert asked["paths"]["run"] == f"{root}/run"
    assert asked["paths"]["vm-dir"] == str(guests)
    assert asked["paths"]["template-dir"] == str(tmp_path / "guests" / "template.d")
    assert asked["paths"]["bin"][0] == f"{root}/bin"
    assert list(guests.iterdir()) == []
    again = lab()
    again.ready()
    assert config(root) == asked
    said = subprocess.run([root / "bin" / "sysctl", "-n", "hw.machine_arch", "kern.osreldate"], capture_output=True, text=True, check=True)
    assert said.stdout == "aarch64\n1402000\n"
    again.stop()


def test_a_new_lab_has_the_templates(root: Path) -> None:
    """So that the guide's first guest can be tried; what is taken out of them stays out."""
    layout.make(root)
    settle.write(root, settle.Wanted())
    settle.add_templates(root)
    templates = root / "etc" / "template.d"
    (templates / "freebsd.toml").unlink()
    settle.add_templates(root)

    assert {path.name for path in templates.iterdir()} == {
        path.name for path in Path(_TREE, "etc", "template.d").iterdir() if path.name != "freebsd.toml"
    }


def test_guests_beside_the_main_file_are_found(lab: Start, root: Path, tmp_path: Path) -> None:
    """With --config alone, the vm.d and template.d beside that file are used, as the daemon itself would."""
    (tmp_path / "bhyved.toml").touch()
    (tmp_path / "vm.d").mkdir()
    command = lab("--config", str(tmp_path / "bhyved.toml"))
    command.ready()

    assert config(root)["paths"]["vm-dir"] == str(tmp_path / "vm.d")
    assert "template-dir" not in config(root)["paths"]
    command.stop()


def test_a_new_lab_has_guests(lab: Start, root: Path) -> None:
    """Two samples, unless there are guests already; what a user has changed stays."""
    (root / "etc" / "vm.d").mkdir(parents=True)
    (root / "etc" / "vm.d" / "mine.toml").touch()
    command = lab()
    command.ready()

    assert [path.name for path in (root / "etc" / "vm.d").iterdir()] == ["mine.toml"]
    command.stop()


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--guest", "vmware"], 64, "invalid choice"),
        (["--config", "/nonexistent/bhyved.toml"], 1, "No such file"),
        (["--config", __file__], 78, "at line 1"),
    ],
)
def test_what_cannot_be_is_refused(lab: Start, root: Path, words: list[str], status: int, text: str) -> None:
    """A sentence and sysexits' status, no traceback."""
    ended, out, said = lab(*words).end()

    assert (ended, out) == (status, "")
    assert text in said
    assert "Traceback" not in said


def test_too_long_a_root_is_refused() -> None:
    """The sockets would not fit into a sockaddr_un."""
    status, _, said = Command(Path("/tmp") / ("x" * 90)).end()

    assert status == 64
    assert "choose a shorter --root" in said


def test_help_fits() -> None:
    """--help explains every option in 80 columns, and prints nothing else."""
    argv = [sys.executable, "-c", _MAIN, "", "--help"]
    done = subprocess.run(argv, env={**os.environ, "COLUMNS": "80"}, cwd=_TREE, capture_output=True, text=True, check=True)

    assert max(map(len, done.stdout.splitlines())) <= 80
    for option in ("--root", "--guest", "--vm-dir", "--config", "--metrics", "--release", "--arch", "--destroy"):
        assert f"{option} " in done.stdout


def test_a_real_network_needs_root(root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Anybody else is told so, and the lab stays what it was."""
    monkeypatch.setattr(os, "geteuid", lambda: 1001)

    assert foreground.main(["--root", str(root), "--network", "real"]) == 1

    assert capfd.readouterr().err == "bhyved lab: --network real needs root, who alone may make interfaces\n"
    assert layout.network(root) == "simulated"


@pytest.mark.parametrize("before", ["", "127.0.0.1:0", "unix:{root}/run/metrics.sock"])
def test_metrics_are_where_one_gets_at_them(root: Path, before: str) -> None:
    """Nobody outside reaches the 127.0.0.1 of a real network; an address that somebody chose stays."""
    for network, listen in (("real", f"unix:{root}/run/metrics.sock"), ("simulated", "127.0.0.1:0")):
        layout.make(root, network=network)
        settle.write(root, settle.Wanted(metrics=before.format(root=root) or None))
        settle.write(root, settle.Wanted())
        assert config(root)["metrics"]["listen"] == listen

    settle.write(root, settle.Wanted(metrics="127.0.0.1:9747"))
    settle.write(root, settle.Wanted())
    assert config(root)["metrics"]["listen"] == "127.0.0.1:9747"
