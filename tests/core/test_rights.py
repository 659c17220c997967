"""Who may do what, and that the protocol's page says the same."""

import re
from pathlib import Path

import pytest

from bhyved.core import rights
from bhyved.core.methods import METHODS
from bhyved.core.rights import Grants, Peer, Right, Role

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def peer(uid: int = 1001, user: str = "alice", *groups: str) -> Peer:
    return Peer(uid=uid, gid=uid, pid=4242, user=user, groups=frozenset(groups))


@pytest.mark.parametrize(
    ("who", "grants", "role"),
    [
        (peer(0, "root"), Grants(), Role.ROOT),
        (peer(0, "toor"), Grants(group="wheel"), Role.ROOT),
        (peer(0, "root"), Grants(euid=1001), Role.ROOT),
        (peer(1001), Grants(euid=1001), Role.ROOT),
        (peer(1, "daemon"), Grants(), Role.NONE),
        (peer(1001, "alice", "other"), Grants(group="ops", read_group="mon"), Role.NONE),
        (peer(1001), Grants(), Role.NONE),
        (peer(1001, "alice", "ops"), Grants(), Role.NONE),
        (peer(1001, "alice", "ops"), Grants(group="ops"), Role.OPERATOR),
        (peer(1001, "alice", "ops", "mon"), Grants(group="ops", read_group="mon"), Role.OPERATOR),
        (peer(1001, "alice", "mon"), Grants(group="ops", read_group="mon"), Role.READER),
        (peer(1001, "ops"), Grants(group="ops"), Role.NONE),
        (peer(1001, ""), Grants(), Role.NONE),
    ],
)
def test_a_role_comes_from_ids_and_groups(who, grants, role):
    """Root and the daemon's own user are root; groups count by their names, a user's name never as a group."""
    assert rights.role_of(who, grants) is role


@pytest.mark.parametrize(
    ("who", "owner", "is_owner"),
    [
        (peer(), ("alice",), True),
        (peer(), ("bob", "alice"), True),
        (peer(), ("@alice",), False),
        (peer(1001, "alice", "webops"), ("@webops",), True),
        (peer(1001, "alice", "webops"), ("webops",), False),
        (peer(), (), False),
    ],
)
def test_owners_are_users_and_groups(who, owner, is_owner):
    """A name is a user's, a name behind @ a group's."""
    assert rights.owns(who, owner) is is_owner


def test_a_uid_without_a_name_owns_nothing():
    """Neither the empty name nor an empty group matches anything that a file can say."""
    nobody = Peer(uid=70000, gid=70000)

    assert not rights.owns(nobody, ("uid 70000", "@", "alice"))
    assert (nobody.name, str(nobody)) == ("uid 70000", "uid 70000 (uid 70000)")
    assert str(peer()) == "alice (uid 1001, pid 4242)"


def test_owning_adds_and_takes_nothing_away():
    """An owner who is a reader as well keeps both; an operator needs no owning."""
    for role in Role:
        assert rights.over_guest(role, owned=False) == rights.over_all(role)
        assert rights.over_guest(role, owned=True) >= rights.over_all(role)
    assert Right.ADMIN not in rights.over_guest(Role.NONE, owned=True)
    assert Right.OPERATE not in rights.over_guest(Role.READER, owned=False)


def in_words(method: str, role: Role, *, owner: bool) -> str:
    """What the page's table should say."""
    known = METHODS[method]
    if known.right is None or known.right in rights.over_all(role):
        return "yes"
    if owner and known.of != "host" and known.right in rights.over_guest(role, owned=True):
        return "own"
    return "no"


def test_the_page_has_the_same_table():
    """Each method has its row, and each cell is what the code decides."""
    table = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 6 and re.fullmatch(r"`[a-z.-]+`", cells[0]):
            table[cells[0].strip("`")] = tuple(cells[1:])

    assert table == {
        method: (
            in_words(method, Role.ROOT, owner=False),
            in_words(method, Role.OPERATOR, owner=False),
            in_words(method, Role.NONE, owner=True),
            in_words(method, Role.READER, owner=False),
            in_words(method, Role.NONE, owner=False),
        )
        for method in METHODS
    }
