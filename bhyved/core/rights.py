"""Who may do what over the control socket: pure, from the peer's ids and names, the `[control]` table and a guest's `owner`.

A role holds for the whole daemon; owning a guest adds rights over that guest alone. `daemon.methods` asks before each request and each
event, never once for a connection: a reload may have changed the answer. docs/protocol.md has the table method by role.
"""

import enum
from collections.abc import Iterable

import msgspec


class Right(enum.StrEnum):
    """What a method needs."""

    READ = "read"
    OPERATE = "operate"
    CONSOLE_READ = "console-read"
    CONSOLE_WRITE = "console-write"
    ADMIN = "admin"


class Role(enum.StrEnum):
    """What a user is to the daemon as a whole."""

    ROOT = "root"  # also the user that the daemon itself runs as
    OPERATOR = "operator"  # in [control] group
    READER = "reader"  # in [control] read-group
    NONE = "none"  # may still own guests


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever is at the other end of a connection. `user` is empty for a uid that no name belongs to."""

    uid: int
    gid: int
    pid: int | None = None
    user: str = ""
    groups: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """For `by` and for people."""
        return self.user or f"uid {self.uid}"

    def __str__(self) -> str:
        uid = f"uid {self.uid}" if self.pid is None else f"uid {self.uid}, pid {self.pid}"
        return f"{self.name} ({uid})"


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the configuration trusts besides root: group names, and the daemon's own user."""

    euid: int = 0
    group: str | None = None
    read_group: str | None = None


_OF_ROLE = {
    Role.ROOT: frozenset(Right),
    Role.OPERATOR: frozenset(Right),
    Role.READER: frozenset({Right.READ, Right.CONSOLE_READ}),
    Role.NONE: frozenset[Right](),
}
_OF_OWNER = frozenset({Right.READ, Right.OPERATE, Right.CONSOLE_READ, Right.CONSOLE_WRITE})


def role_of(peer: Peer, grants: Grants) -> Role:
    """What a peer is to the daemon."""
    if peer.uid in (0, grants.euid):
        return Role.ROOT
    if grants.group is not None and grants.group in peer.groups:
        return Role.OPERATOR
    if grants.read_group is not None and grants.read_group in peer.groups:
        return Role.READER
    return Role.NONE


def owns(peer: Peer, owner: Iterable[str]) -> bool:
    """Whether a guest's `owner` names the peer, or `@` one of its groups."""
    return any(name[1:] in peer.groups if name.startswith("@") else name == peer.user for name in owner)


def over_all(role: Role) -> frozenset[Right]:
    """What a role may do to the daemon and to every guest."""
    return _OF_ROLE[role]


def over_guest(role: Role, *, owned: bool) -> frozenset[Right]:
    """What a peer may do to one guest. Nothing at all: to this peer, the guest does not exist."""
    return _OF_ROLE[role] | _OF_OWNER if owned else _OF_ROLE[role]
