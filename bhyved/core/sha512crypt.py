"""Check a password against a `$6$` hash: SHA-512 crypt, what `openssl passwd -6` and FreeBSD's own passwd(1) write.

Python has dropped its crypt module. Source: U. Drepper, "Unix crypt using SHA-256 and SHA-512", version 0.6; the test has its vectors.
A check takes 5000 rounds, some ten milliseconds: call it in a thread.
"""

import hashlib
import hmac
import re

_HASH = re.compile(r"\$6\$(?:rounds=([1-9][0-9]{0,8})\$)?([^$:\n]{0,16})\$([./0-9A-Za-z]{86})")
_ROUNDS = 5000
_LEAST, _MOST = 1000, 1_000_000  # more is not refused by the standard, but would take a processor for a minute
_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LONGEST = 1024  # bytes of a password: the work grows with them


def is_hash(text: str) -> bool:
    """Whether `verify` can do anything with it."""
    match = _HASH.fullmatch(text)
    return match is not None and _LEAST <= int(match[1] or _ROUNDS) <= _MOST


def verify(password: str, crypted: str) -> bool:
    """Whether `password` is the one of the hash. False for a hash of another kind."""
    secret = password.encode("utf-8", "surrogateescape")
    match = _HASH.fullmatch(crypted)
    if match is None or not is_hash(crypted) or len(secret) > _LONGEST:
        return False
    digest = _digest(secret, match[2].encode(), int(match[1] or _ROUNDS))
    return hmac.compare_digest(_encoded(digest), match[3])


def _digest(secret: bytes, salt: bytes, rounds: int) -> bytes:
    size = len(secret)
    b = hashlib.sha512(secret + salt + secret).digest()
    a = hashlib.sha512(secret + salt + _stretched(b, size))
    bits = size
    while bits:
        a.update(b if bits & 1 else secret)
        bits >>= 1
    c = a.digest()
    p = _stretched(hashlib.sha512(secret * size).digest(), size)
    s = _stretched(hashlib.sha512(salt * (16 + c[0])).digest(), len(salt))
    for i in range(rounds):
        first, last = (p, c) if i & 1 else (c, p)
        c = hashlib.sha512(first + (s if i % 3 else b"") + (p if i % 7 else b"") + last).digest()
    return c


def _stretched(data: bytes, size: int) -> bytes:
    return data * (size // len(data)) + data[: size % len(data)]


def _encoded(digest: bytes) -> str:
    text = ""
    for i in range(21):
        # Triples of bytes that lie 21 apart, turned by one place from each to the next.
        x, y, z = ((i, i + 21, i + 42), (i + 21, i + 42, i), (i + 42, i, i + 21))[i % 3]
        text += _base64(digest[x] << 16 | digest[y] << 8 | digest[z], 4)
    return text + _base64(digest[63], 2)


def _base64(value: int, count: int) -> str:
    return "".join(_DIGITS[value >> 6 * i & 63] for i in range(count))
