"""`[metrics]` in bhyved.toml: what it may say, and what is said of what it may not."""

import pytest

from bhyved.core.config import Source, load
from bhyved.core.spec import Metrics


def problems(text: str) -> list[str]:
    return [str(problem) for problem in load(Source("bhyved.toml", f"[metrics]\n{text}\n"), {}, {}).problems]


@pytest.mark.parametrize(
    "text",
    [
        'listen = ""',
        'listen = "[::1]:9747"',
        'listen = "0.0.0.0:0"',
        'listen = "unix:/var/run/bhyved/web.sock"\nbasic-auth-file = "/usr/local/etc/bhyved/auth"',
        'tls-cert = "/c"\ntls-key = "/k"',
    ],
)
def test_sound(text: str) -> None:
    """An address and port, a socket, or nothing; TLS with both of its files."""
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('listen = "localhost:9747"', "numeric address and a port"),
        ('listen = "127.0.0.1"', 'or "unix:/path", or "" for none'),
        ('listen = "127.0.0.1:99999"', "a port is a number"),
        ('listen = "unix:web.sock"', "absolute path"),
        (f'listen = "unix:/{"x" * 110}"', "shorter than 104 bytes"),
        ('tls-cert = "/c"', "metrics.tls-key: is missing"),
        ('tls-key = "/k"', "metrics.tls-cert: is missing"),
        ('listen = "unix:/s"\ntls-cert = "/c"\ntls-key = "/k"', "no use on a UNIX socket"),
    ],
)
def test_unsound(text: str, sentence: str) -> None:
    """What cannot be listened on is found by the check, not when the daemon starts."""
    (problem,) = problems(text)
    assert sentence in problem


def test_loopback_is_the_default() -> None:
    """Nobody else reaches the figures unless an operator wants it."""
    assert Metrics().listen == "127.0.0.1:9747"
