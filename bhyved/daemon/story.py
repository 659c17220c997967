"""What `why` and the page say of a guest: gathers the case for `core.explain` from where its parts are."""

from bhyved.core import advice
from bhyved.core.explain import Case, Explanation, explain
from bhyved.daemon.guests import Guests


def explain_guest(guests: Guests, name: str) -> Explanation:
    """The present state of one guest in sentences. KeyError."""
    status, spec = guests.board.get(name), guests.spec(name)
    if status is None:
        raise KeyError(name)
    firsts = () if spec is None else (*spec.order.requires, *spec.order.after)
    return explain(
        Case(
            status=status,
            now=guests.now(),
            now_at=guests.utc(),
            spec=spec,
            runs=guests.runs(name, 1),
            others={other.name: other for first in firsts if (other := guests.board.get(first)) is not None},
            changes=guests.changes(name),
            drain=guests.drain,
            closing=guests.closing,
            objections=() if spec is None else advice.objections(spec, guests.target),
        )
    )
