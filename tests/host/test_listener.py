"""Listening for HTTP: where, with which certificate, for which users; and what is said when that cannot be."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from bhyved.core.errors import HostError
from bhyved.core.spec import Metrics
from bhyved.core.values import AbsPath
from bhyved.host.listener import Users, open_listener

HASH = "$6$saltstring$" + "a" * 86


def test_port_zero_is_told() -> None:
    """The URL has the port that the kernel chose, and the socket is not for children."""
    listener = open_listener(Metrics(listen="127.0.0.1:0"))
    with listener.sock:
        assert listener.url == f"http://127.0.0.1:{listener.sock.getsockname()[1]}"
        assert not listener.sock.get_inheritable()


def test_everywhere_is_found_here() -> None:
    """What listens on all addresses is shown with one that works."""
    listener = open_listener(Metrics(listen="0.0.0.0:0"))
    with listener.sock:
        assert listener.url.startswith("http://127.0.0.1:")


def test_taken_port() -> None:
    """A port that another program has is a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(HostError, match=f"^metrics.listen: cannot listen on {listen}: address already in use$"):
            open_listener(Metrics(listen=listen))


def test_unix_socket_is_private(tmp_path: Path) -> None:
    """Only the daemon's own user reaches a UNIX socket; a dead one is replaced, and it goes with the listener."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = open_listener(Metrics(listen=f"unix:{path}"))
    assert path.stat().st_mode & 0o777 == 0o600
    listener.close()
    assert not path.exists()


def test_a_living_socket_or_a_file_stays(tmp_path: Path) -> None:
    """What somebody else uses is not taken away."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(HostError, match="address already in use"):
            open_listener(Metrics(listen=f"unix:{path}"))
        assert path.exists()
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(HostError, match="cannot listen on"):
        open_listener(Metrics(listen=f"unix:{file}"))
    assert file.read_text() == "precious"


def test_certificates(tmp_path: Path) -> None:
    """A missing certificate, a wrong one and a locked key are sentences, and nothing listens."""
    cert, key = tmp_path / "crt", tmp_path / "key"
    spec = Metrics(listen="127.0.0.1:0", tls_cert=AbsPath(cert), tls_key=AbsPath(key))
    with pytest.raises(HostError, match=r"metrics.tls-cert: cannot read .*no such file"):
        open_listener(spec)
    cert.write_text("no certificate")
    key.write_text("no key")
    with pytest.raises(HostError, match="are no certificate and its key"):
        open_listener(spec)
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-passout",
        "pass:x",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        "-subj",
        "/CN=x",
    ]
    subprocess.run(make, check=True, capture_output=True)
    with pytest.raises(HostError, match=r"metrics.tls-key: .* the key is encrypted"):
        open_listener(spec)


def test_users_are_read_anew(tmp_path: Path) -> None:
    """A user added to the file may come in at once, one taken out may not."""
    path = tmp_path / "auth"
    path.write_text(f"# comment\n\nalice:{HASH}\n")
    path.chmod(0o600)
    users = Users(str(path))
    assert users.hashes() == {"alice": HASH}
    path.write_text(f"bob:{HASH}\n")
    assert users.hashes() == {"bob": HASH}


@pytest.mark.parametrize("line", ["alice", "alice:hunter2", f":{HASH}", "alice:$1$salt$x"])
def test_users_with_other_hashes(tmp_path: Path, line: str) -> None:
    """A line that is none says where it is and what it should be."""
    path = tmp_path / "auth"
    path.write_text(f"root:{HASH}\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(HostError, match=r"auth:2: must be user:hash, the hash as `openssl passwd -6` prints it"):
        Users(str(path)).hashes()


@pytest.mark.parametrize(
    ("mode", "why"),
    [(0o604, "is open to everybody: chmod 600 it"), (0o602, "may be written by anybody"), (0o620, "may be written by members of group")],
)
def test_users_file_that_others_may_touch(tmp_path: Path, mode: int, why: str) -> None:
    """A file of hashes that anybody may read or write is not used, from the moment on at which they may."""
    path = tmp_path / "auth"
    path.write_text(f"alice:{HASH}\n")
    path.chmod(0o600)
    users = Users(str(path))
    assert list(users.hashes()) == ["alice"]
    path.chmod(mode)
    with pytest.raises(HostError, match=f"^metrics.basic-auth-file: {path} {why}"):
        users.hashes()


def test_users_file_that_is_none(tmp_path: Path) -> None:
    """Nor is a link, which leads to where its maker likes, nor what is not there."""
    (tmp_path / "auth").write_text(f"alice:{HASH}\n")
    (tmp_path / "auth").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "auth")
    for name, why in (("none", "does not exist"), ("link", "cannot be read: ")):
        with pytest.raises(HostError, match=f"^metrics.basic-auth-file: {tmp_path}/{name} {why}"):
            Users(str(tmp_path / name)).hashes()
