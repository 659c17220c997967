"""The socket of the HTTP server, its certificate and its users, as `[metrics]` describes them."""

import os
import socket
import ssl
import stat
from contextlib import suppress

from bhyved.core.errors import HostError, in_words
from bhyved.core.sha512crypt import is_hash
from bhyved.core.spec import Metrics
from bhyved.core.values import split_endpoint
from bhyved.host.ownedfile import read_owned, text_of, why_unread

BACKLOG = 64
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where a client on this host finds what listens everywhere


class Listener:
    """A socket that listens; `url` is where a client on this host finds it, `unix:PATH` for a UNIX socket."""

    def __init__(self, sock: socket.socket, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.sock, self.url, self.tls = sock, url, tls

    def close(self) -> None:
        """Stop listening. The file of a UNIX socket goes too."""
        path = self.sock.getsockname() if self.sock.family == socket.AF_UNIX else ""
        self.sock.close()
        if path:
            with suppress(OSError):
                os.unlink(path)


def open_listener(spec: Metrics) -> Listener:
    """Listen as the configuration says. Raises HostError."""
    if spec.listen.startswith("unix:"):
        path = spec.listen.removeprefix("unix:")
        return Listener(_unix(path), spec.listen)
    address, port = split_endpoint(spec.listen, least=0)
    tls = _tls(str(spec.tls_cert), str(spec.tls_key)) if spec.tls_cert is not None else None
    sock = _tcp(address, port, spec.listen)
    shown = _ANY.get(address, address)
    host = f"[{shown}]" if ":" in shown else shown
    return Listener(sock, f"{'http' if tls is None else 'https'}://{host}:{sock.getsockname()[1]}", tls)


def _tcp(address: str, port: int, listen: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # inherited: the kernel finds out about clients that are gone
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise HostError(f"metrics.listen: cannot listen on {listen}: {in_words(error)}") from None
    return sock


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, 0o600)  # nobody can connect before listen(): the mode is right by then
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise HostError(f"metrics.listen: cannot listen on {path}: {in_words(error)}") from None
    return sock


def _is_stale(path: str) -> bool:
    """Whether a socket is left over from a daemon that was killed. What is alive, or no socket, is not touched."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) != 0


def _tls(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        raise HostError(f"metrics.tls-cert: {cert} and {key} are no certificate and its key: {error.reason or error}") from None
    except OSError as error:
        raise HostError(f"metrics.tls-cert: cannot read {cert} or {key}: {in_words(error)}") from None
    except ValueError as error:
        raise HostError(f"metrics.tls-key: {key}: {error}") from None
    return context


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


class Users:
    """The file of `metrics.basic-auth-file`: lines of user, colon, `$6$` hash. Read anew whenever it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._hashes: dict[str, str] = {}

    def hashes(self) -> dict[str, str]:
        """The hash of every user. Raises HostError."""
        try:
            found = os.lstat(self._path)
            stamp = found.st_ino, found.st_ctime_ns, found.st_size  # ctime: a new owner or mode is a change, too
            if stamp != self._stamp:
                self._hashes = self._parse(text_of(read_owned(self._path, secret=True)))
                self._stamp = stamp
        except (OSError, ValueError) as error:
            raise HostError(f"metrics.basic-auth-file: {self._path} {why_unread(error)}") from None
        return self._hashes

    def _parse(self, text: str) -> dict[str, str]:
        hashes = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, _, crypted = line.strip().partition(":")
            if not user or not is_hash(crypted):
                raise HostError(
                    f"metrics.basic-auth-file: {self._path}:{number}: must be user:hash, the hash as `openssl passwd -6` prints it"
                )
            hashes[user] = crypted
        return hashes
