"""Passwords against `$6$` hashes: the vectors of the specification, and what is no such hash."""

import pytest

from bhyved.core.sha512crypt import is_hash, verify

# Vectors of "Unix crypt using SHA-256 and SHA-512", version 0.6.
VECTORS = (
    (
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "Hello world!",
        "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
    (
        "a very much longer text to encrypt.  This one even stretches over morethan one line.",
        "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1",
    ),
)


@pytest.mark.parametrize(("password", "crypted"), VECTORS)
def test_vectors(password: str, crypted: str) -> None:
    """The right password fits, another does not."""
    assert is_hash(crypted)
    assert verify(password, crypted)
    assert not verify(password + "!", crypted)
    assert not verify("", crypted)


@pytest.mark.parametrize(
    "crypted",
    ["", "*", "hunter2", "$1$salt$hash", "$6$salt$short", "$6$rounds=999999999$salt$" + "a" * 86, "$6$rounds=10$salt$" + "a" * 86, "$6$$"],
)
def test_other_hashes_fit_nothing(crypted: str) -> None:
    """What is no SHA-512 crypt of bearable cost is never a user's."""
    assert not is_hash(crypted)
    assert not verify("hunter2", crypted)


def test_endless_passwords_cost_nothing() -> None:
    """A password longer than anybody's is refused unread."""
    assert not verify("x" * 1_000_000, VECTORS[0][1])
