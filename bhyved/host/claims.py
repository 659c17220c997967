"""Whose a thing of the host is: what the ledgers say, the other way round.

`host.ledger` keeps it as ledgers come and go. A start asks what other guests have, and with five hundred of them does not read through
five hundred ledgers for it.
"""

from collections.abc import Container, Iterable, Iterator


class Claims:
    """Things of one kind (taps, disks), and the guests whose runs have them: one each, but for what is shared."""

    def __init__(self) -> None:
        self._owners: dict[str, list[str]] = {}

    def change(self, name: str, old: Iterable[str], new: Iterable[str]) -> None:
        """A guest's run has `new` where it had `old`."""
        for thing in old:
            owners = self._owners[thing]
            owners.remove(name)
            if not owners:
                del self._owners[thing]
        for thing in new:
            self._owners.setdefault(thing, []).append(name)

    def others(self, thing: str, but: str) -> Iterator[str]:
        """The guests that have it, without one."""
        return (name for name in self._owners.get(thing, ()) if name != but)

    def things(self, but: str) -> set[str]:
        """All that guests have, without one."""
        return {thing for thing, owners in self._owners.items() if owners != [but]}

    def taken(self, but: str) -> Container[str]:
        """The same, to ask for one thing after the other."""
        return _Taken(self, but)


class _Taken(Container[str]):
    def __init__(self, claims: Claims, but: str) -> None:
        self._claims, self._but = claims, but

    def __contains__(self, thing: object) -> bool:
        return isinstance(thing, str) and any(True for _ in self._claims.others(thing, self._but))
