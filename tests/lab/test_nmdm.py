"""Null-modem pairs of the lab: what contract 4.4 says of nmdm(4), as far as pseudo-terminals go."""

import os
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from bhyved.lab.nmdm import Relay
from tests.lab.labhost import PATIENCE_S, Lab, is_silent, read
from tests.waiting import until

_LFLAG, _CFLAG, _SPEED = 3, 2, 4
_WRITER = """
import os, select, sys
fd, left = int(sys.argv[1]), int(sys.argv[2])
poll = select.poll()
poll.register(fd, select.POLLOUT)
while left:
    poll.poll()
    try:
        left -= os.write(fd, b"x" * min(left, 65536))
    except BlockingIOError:
        pass
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    with lab.host():
        lab.said("kldload", "-n", "nmdm")
        yield lab


def fill(fd: int) -> int:
    """Print until the line takes nothing more for a while; how much it took."""
    taken = 0
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while poll.poll(200):
        try:
            taken += os.write(fd, b"%07d\n" % (taken // 8) * 16)
        except BlockingIOError:
            continue
    return taken


def test_both_sides_talk(lab: Lab) -> None:
    """What one side prints, the other reads, in both directions."""
    a, b = lab.open("A"), lab.open("B")

    os.write(a, b"login: ")
    os.write(b, b"root\r")

    assert read(b, 7) == b"login: "
    assert read(a, 5) == b"root\r"


def test_what_nobody_is_there_for_is_lost(lab: Lab) -> None:
    """Output printed while B is closed is not there when B opens, be it for the first time or again."""
    a = lab.open("A")
    for _ in range(2):
        os.write(a, b"unseen")
        until(lambda: asleep(lab))
        b = lab.open("B")

        os.write(a, b"seen")

        assert read(b, 4) == b"seen"
        os.write(a, b"unread")
        until(lambda: asleep(lab))
        os.close(b)
        until(lambda: has_defaults(lab))


def has_defaults(lab: Lab) -> bool:
    """Whether the next open of B finds default settings, which takes the relay a moment."""
    b = lab.open("B", raw=False, clocal=False)
    try:
        return bool(termios.tcgetattr(b)[_LFLAG] & termios.ECHO)
    finally:
        os.close(b)


def test_an_unread_side_keeps_the_oldest(lab: Lab) -> None:
    """B open and not read keeps the first 20 to 45 kB without a gap; then A's writes fail and the newest is dropped."""
    a, b = lab.open("A"), lab.open("B")

    taken = fill(a)

    assert 20_000 < taken < 45_000
    assert read(b, taken) == b"".join(b"%07d\n" % (start // 8) * 16 for start in range(0, taken, 128))[:taken]
    os.write(a, b"later")
    assert read(b, 5) == b"later"


def test_a_side_that_goes_away_unblocks_its_peer(lab: Lab) -> None:
    """A is full because nobody reads B; when B closes, A's output flows again, into nothing."""
    a, b = lab.open("A"), lab.open("B")
    fill(a)

    os.close(b)

    until(lambda: select.select([], [a], [], 0)[1])
    for _ in range(20):
        until(lambda: select.select([], [a], [], 0)[1])
        os.write(a, b"x" * 8192)


def test_whoever_opened_before_it_was_printed_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B opens, then A prints, and the relay sees the output first: it is not lost."""
    relay = Relay(tmp_path)
    relay.make("x")
    a = os.open(tmp_path / "nmdmxA", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(a)
    relay.turn()
    monkeypatch.setattr("bhyved.lab.nmdm._Inotify.read", lambda _: [])
    b = os.open(tmp_path / "nmdmxB", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(b)
    os.write(a, b"now")

    until(lambda: relay.turn() or not is_silent(b))

    assert read(b, 3) == b"now"
    os.close(a)
    os.close(b)
    relay.close()


def test_a_first_open_finds_default_settings(lab: Lab) -> None:
    """A freshly opened B echoes what the guest prints back into the guest, until it is set raw; 9600, no CLOCAL."""
    a = lab.open("A")
    b = lab.open("B", raw=False, clocal=False)

    os.write(a, b"prompt")

    assert read(a, 6) == b"prompt"
    mode = termios.tcgetattr(b)
    assert mode[_LFLAG] & termios.ICANON
    assert not mode[_CFLAG] & termios.CLOCAL
    assert mode[_SPEED] == termios.B9600


def test_settings_live_while_any_descriptor_does(lab: Lab) -> None:
    """A copy of B's descriptor keeps B raw when it is closed and opened again; when the last goes, the defaults are back."""
    first = lab.open("B")
    keeper = os.dup(first)
    os.close(first)

    again = lab.open("B", raw=False, clocal=False)

    assert not termios.tcgetattr(again)[_LFLAG] & termios.ECHO
    os.close(again)
    os.close(keeper)
    until(lambda: has_defaults(lab))


def test_with_clocal_the_peer_comes_and_goes_unseen(lab: Lab) -> None:
    """A closes and opens again: B, which has CLOCAL, reads on as if nothing had been, and keeps what was unread."""
    a, b = lab.open("A"), lab.open("B")
    os.write(a, b"before ")
    os.close(a)
    a = lab.open("A")

    os.write(a, b"after")

    assert read(b, 12) == b"before after"
    assert is_silent(b)


def test_without_clocal_the_peers_end_is_a_hang_up(lab: Lab) -> None:
    """B without CLOCAL reads the end and cannot write when A closes, until it is opened again."""
    a, b = lab.open("A"), lab.open("B", clocal=False)
    os.write(a, b"hello")
    assert read(b, 5) == b"hello"

    os.close(a)

    assert select.select([b], [], [], PATIENCE_S)[0]
    assert os.read(b, 1) == b""
    with pytest.raises(OSError, match="Input/output error"):
        os.write(b, b"x")
    os.close(b)
    a, b = lab.open("A"), lab.open("B")
    os.write(a, b"again")
    assert read(b, 5) == b"again"


def test_unread_output_outlives_its_writer(lab: Lab) -> None:
    """A closes while B has not read: B still gets all that A's writes took."""
    a, b = lab.open("A"), lab.open("B")
    taken = fill(a)

    os.close(a)

    assert len(read(b, taken)) == taken


@pytest.mark.parametrize("state", ["open", "full", "half closed", "closed"])
def test_idle_is_asleep(lab: Lab, state: str) -> None:
    """The lab host does not run while nothing happens, whatever state its pairs are in."""
    a, b = lab.open("A"), lab.open("B")
    if state in ("full", "half closed"):
        fill(a)
    if state in ("half closed", "closed"):
        os.close(a)
    if state == "closed":
        os.close(b)
        until(lambda: has_defaults(lab))
    status = Path(f"/proc/{pid_of(lab)}/status")

    def switches() -> int:
        return sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_switches" in line)

    until(lambda: asleep(lab))
    before = switches()
    select.select([], [], [], 0.3)

    assert switches() == before


def pid_of(lab: Lab) -> int:
    return int((lab.root / "lab" / "host.pid").read_text())


def asleep(lab: Lab) -> bool:
    """Whether the lab host has had no work for a moment."""
    account = Path(f"/proc/{pid_of(lab)}/schedstat")
    before = account.read_text()
    select.select([], [], [], 0.05)
    return account.read_text() == before


def test_a_flood_arrives_whole(lab: Lab) -> None:
    """A writer that waits for room loses nothing of 16 MiB, and the relay is no bottleneck beside pseudo-terminals."""
    a, b = lab.open("A"), lab.open("B")
    total = 16 << 20
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(a), str(total)], pass_fds=[a]) as writer:
        got = len(read(b, total))

        assert writer.wait() == 0
    assert got == total
    assert total / (time.monotonic() - began) > 4e6  # thirty on an idle machine


def test_all_configured_ports_get_a_pair(lab: Lab) -> None:
    """kldload makes a pair for every nmdm port of every guest, and for com1 of one whose file is broken; and one for the selftest."""
    guests = lab.root / "etc" / "vm.d"
    (guests / "db1.toml").write_text('[[serial]]\n[[serial]]\nport = "com2"\nmode = "external"\n[[serial]]\nport = "com3"\nmode = "tcp"\n')
    with (guests / "db1.toml").open("a") as file:
        file.write('address = "127.0.0.1:4001"\n')
    (guests / "broken.toml").write_text("memory = \n")
    assert lab.run("kldstat", "-q", "-m", "nmdm").returncode == 1

    lab.said("kldload", "-n", "nmdm")

    assert lab.run("kldstat", "-q", "-m", "nmdm").returncode == 0
    assert sorted(path.name for path in (lab.root / "dev").glob("nmdm*B")) == [
        "nmdm-bhyved-selftest.1B",
        "nmdm-broken.1B",
        "nmdm-db1.1B",
        "nmdm-db1.2B",
        "nmdm-web1.1B",
    ]


def test_more_pairs_leave_the_others_alone(lab: Lab) -> None:
    """A pair that is in use survives kldload for a new guest."""
    a, b = lab.open("A"), lab.open("B")
    (lab.root / "etc" / "vm.d" / "new.toml").touch()

    lab.said("kldload", "-n", "nmdm")
    os.write(a, b"still here")

    assert read(b, 10) == b"still here"


def test_the_end_of_the_lab_host_hangs_everybody_up(tmp_path: Path) -> None:
    """After TERM the pairs are gone from dev, and an open side reads the end."""
    lab = Lab(tmp_path)
    with lab.host() as pid:
        lab.said("kldload", "nmdm")
        b = lab.open("B")

        os.kill(pid, signal.SIGTERM)

        assert select.select([b], [], [], PATIENCE_S)[0]
        assert os.read(b, 1) == b""
        assert list((tmp_path / "dev").iterdir()) == []


def test_one_lab_host_a_root(lab: Lab) -> None:
    """A second one says so and ends with 1, and the first goes on."""
    second = subprocess.run([sys.executable, "-m", "bhyved.lab.host", str(lab.root)], capture_output=True, text=True, check=False)

    assert (second.returncode, second.stdout) == (1, "")
    assert "runs already" in second.stderr
    lab.said("kldload", "-n", "nmdm")
