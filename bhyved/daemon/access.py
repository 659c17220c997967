"""What one client may do now: its role, and which guests it owns, looked up at each question, since a reload may change both."""

from collections.abc import Awaitable, Callable
from typing import Any

from bhyved.core import rights
from bhyved.core.jsonrpc import Fault, no_such_guest, not_permitted
from bhyved.core.rights import Grants, Peer, Right, Role
from bhyved.daemon.guests import Guests


class Access:
    """The rights of a connection's peer. `euid`: the daemon's own user, who may do everything."""

    def __init__(self, guests: Guests, peer: Peer, euid: int) -> None:
        self.peer = peer
        self._guests, self._euid = guests, euid

    @property
    def role(self) -> Role:
        trusted = self._guests.daemon_spec.control
        return rights.role_of(self.peer, Grants(euid=self._euid, group=trusted.group, read_group=trusted.read_group))

    @property
    def owned(self) -> list[str]:
        """Guests of which the peer is an owner."""
        return [name for name in self._guests.names() if self._owns(name)]

    def may(self, right: Right, name: str = "") -> bool:
        """Whether the peer has a right over a guest; without a name, or for a guest that is no longer there, over all of them."""
        if right in rights.over_guest(self.role, owned=False):
            return True  # whoever owns it
        return bool(name) and self._owns(name) and right in rights.over_guest(self.role, owned=True)

    def guests(self, right: Right) -> list[str]:
        """The guests over which the peer has a right."""
        names, role = self._guests.names(), self.role
        if right in rights.over_guest(role, owned=False):
            return names
        return [name for name in names if right in rights.over_guest(role, owned=self._owns(name))]

    @property
    def sees_all(self) -> bool:
        """The peer may see every guest, whoever owns it."""
        return Right.READ in rights.over_guest(self.role, owned=False)

    def visible(self, names: tuple[str, ...]) -> set[str]:
        """The named guests; without names, all that the peer may see. Raises Fault for one that it may not."""
        for name in names:
            refusal = self.refusal(Right.READ, name)
            if refusal is not None:
                raise refusal
        return set(names or self.guests(Right.READ))

    def require(self, right: Right) -> None:
        """The right over all guests. Raises Fault."""
        if not self.may(right):
            raise self._not_permitted(right)

    def require_somewhere(self, right: Right) -> None:
        """The right over some guest, or over those that may come. Raises Fault."""
        if not self.may(right) and not self.guests(right):
            raise self._not_permitted(right, _or_owner(right))

    def refusal(self, right: Right, name: str) -> Fault | None:
        """Why the peer may not do this to that guest; None: it may. One that it may not see sounds like one that is not there."""
        if self._guests.board.get(name) is None or not self.may(Right.READ, name):
            return no_such_guest(name)
        return None if self.may(right, name) else self._not_permitted(right, _or_owner(right), to=f" to {name}")

    def require_over(self, right: Right, name: str) -> None:
        """Raises Fault."""
        self.require_somewhere(right)
        refusal = self.refusal(right, name)
        if refusal is not None:
            raise refusal

    def _owns(self, name: str) -> bool:
        status = self._guests.board.get(name)
        return status is not None and rights.owns(self.peer, status.owner)

    def _not_permitted(self, right: Right, or_owner: tuple[str, ...] = (), *, to: str = "") -> Fault:
        who = ["root", "[control] group", *(["read-group"] if right in rights.over_all(Role.READER) else []), *or_owner]
        return not_permitted(f"{self.peer.name} may not do this{to}: that needs {', '.join(who[:-1])} or {who[-1]}")


def _or_owner(right: Right) -> tuple[str, ...]:
    return ("the guest's owner",) if right in rights.over_guest(Role.NONE, owned=True) else ()


#: What does a method: takes the caller and the method's params, gives a result or raises Fault.
Handler = Callable[[Access, Any], Awaitable[Any]]
