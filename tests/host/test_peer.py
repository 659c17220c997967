"""Who connected, and the socket they connect to."""

import os
import pwd
import socket
import stat
import struct
from pathlib import Path

import pytest

from bhyved.core.errors import HostError
from bhyved.core.rights import Peer
from bhyved.host import controlsocket
from bhyved.host.peer import named, parse_ucred, parse_xucred, peer_of


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """A path for a socket, short enough for sockaddr_un wherever the tests' own directory is."""
    monkeypatch.chdir(tmp_path_factory.mktemp("control"))
    return "control.sock"


def xucred(*, version: int = 0, uid: int = 1001, groups: tuple[int, ...] = (1001, 5), ngroups: int | None = None, pid: int = 4242) -> bytes:
    """What FreeBSD's getsockopt(LOCAL_PEERCRED) gives on a 64-bit machine."""
    padded = (*groups, *(0,) * (16 - len(groups)))
    return struct.pack("=IIh2x16I4xi4x", version, uid, len(groups) if ngroups is None else ngroups, *padded, pid)


def test_freebsd_says_uid_group_and_pid():
    """The effective group is the first of the list, and the pid comes after the groups, aligned like a pointer."""
    assert len(xucred()) == 88
    assert parse_xucred(xucred()) == Peer(uid=1001, gid=1001, pid=4242)
    assert parse_xucred(xucred(uid=0, groups=(0,), pid=0)) == Peer(uid=0, gid=0, pid=None)
    assert parse_xucred(xucred(uid=0xFFFF_FFFE, groups=tuple(range(70, 86)))).gid == 70


@pytest.mark.parametrize("data", [xucred(version=1), xucred(ngroups=0), xucred(ngroups=17), xucred()[:80], xucred(uid=0xFFFF_FFFF), b""])
def test_credentials_that_are_not_understood_are_nobodys(data):
    """A struct of another version, without groups or too short never becomes a uid."""
    with pytest.raises(HostError, match="who connected"):
        parse_xucred(data)


def test_linux_says_pid_uid_and_group():
    """struct ucred has the pid first."""
    assert parse_ucred(struct.pack("=iII", 4242, 1001, 100)) == Peer(uid=1001, gid=100, pid=4242)
    with pytest.raises(HostError, match="too short"):
        parse_ucred(b"\0" * 8)


def test_the_kernel_knows_this_process():
    """Over a real socket the peer is this process, with the names that the user database has for it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = peer_of(ours)

    assert (peer.uid, peer.gid, peer.pid) == (os.geteuid(), os.getegid(), os.getpid())
    assert named(peer).user == pwd.getpwuid(os.geteuid()).pw_name
    assert named(peer).groups


def test_a_socket_without_a_peer_is_nobodys():
    """What is no connected local socket gives no ids."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(HostError, match="does not say who connected"):
        peer_of(sock)


def test_a_uid_without_a_name_has_no_groups_but_its_own():
    """Ids that the user database does not have stay numbers."""
    peer = named(Peer(uid=3_999_999_999, gid=3_999_999_999, pid=7))

    assert (peer.user, peer.groups) == ("", frozenset())
    assert (peer.name, str(peer)) == ("uid 3999999999", "uid 3999999999 (uid 3999999999, pid 7)")


def test_everybody_may_connect(place):
    """The socket has mode 0666 whatever the umask is, and nothing else is left beside it."""
    before = os.umask(0o077)
    try:
        listener = controlsocket.listen(place)
    finally:
        os.umask(before)

    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o666
        assert os.listdir() == [place]


def test_a_stale_socket_is_replaced(place):
    """A socket that a killed daemon left behind, and a half-made one, are in nobody's way."""
    controlsocket.listen(place).close()
    Path(".control.new").touch()

    with controlsocket.listen(place), socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
        assert os.listdir() == [place]


def test_a_live_socket_is_not_replaced(place):
    """A second daemon is refused, and the first one goes on answering."""
    with controlsocket.listen(place) as first:
        with pytest.raises(HostError, match="another bhyved"):
            controlsocket.listen(place)
        first.accept()[0].close()  # the question whether somebody answers
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(place)
            first.accept()[0].close()


def test_what_is_no_socket_is_left_alone(place):
    """A file of somebody's at the socket's path is an error for a person to clear up."""
    Path(place).write_text("precious")

    with pytest.raises(HostError, match="no socket"):
        controlsocket.listen(place)
    assert Path(place).read_text() == "precious"


def test_a_path_that_cannot_be_is_a_sentence(place):
    """A missing directory and a path too long for sockaddr_un are refused in words."""
    with pytest.raises(HostError, match="no such file"):
        controlsocket.listen("missing/control.sock")
    os.makedirs("long" * 30)
    with pytest.raises(HostError, match="too long"):
        controlsocket.listen("long" * 30 + "/control.sock")


def test_a_daemon_takes_only_its_own_socket_away(place):
    """At its end a daemon removes its socket, but not that of one that has taken its place."""
    first = controlsocket.listen(place)
    controlsocket.withdraw(place, first)
    assert os.listdir() == []
    second = controlsocket.listen(place)
    os.unlink(place)
    with controlsocket.listen(place):
        controlsocket.withdraw(place, second)
        assert os.listdir() == [place]
