"""In which order guests start and stop: the graph of `[order] after` and `requires`, and where it bites its own tail."""

from collections.abc import Iterable, Mapping

from bhyved.core.spec import VmSpec

Graph = Mapping[str, frozenset[str]]  # guest → those that must be ready before it


def before(vms: Mapping[str, VmSpec]) -> dict[str, frozenset[str]]:
    """For each guest, the guests that come before it. Names of guests that do not exist are left out."""
    return {name: frozenset((*spec.order.after, *spec.order.requires)) & vms.keys() for name, spec in vms.items()}


def behind(vms: Mapping[str, VmSpec]) -> dict[str, frozenset[str]]:
    """For each guest, the guests that must be down before it may stop: the same graph the other way round."""
    graph: dict[str, set[str]] = {name: set() for name in vms}
    for name, firsts in before(vms).items():
        for first in firsts:
            graph[first].add(name)
    return {name: frozenset(names) for name, names in graph.items()}


def start_order(vms: Mapping[str, VmSpec]) -> tuple[str, ...]:
    """A total order for lists and plans: what comes first, then by name. Guests of a cycle come last, by name."""
    order, rest = _peel(before(vms))
    return (*order, *sorted(rest))


def stop_order(vms: Mapping[str, VmSpec]) -> tuple[str, ...]:
    """The reverse of `start_order`."""
    return tuple(reversed(start_order(vms)))


def cycles(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """One witness for each knot, each beginning and ending with the same guest: `("a", "b", "a")` means a waits for b waits for a."""
    found = []
    _, rest = _peel(graph)
    while rest:
        cycle = _walk(rest)
        found.append(cycle)
        # The knot is taken out whole: a second cycle through the same guests would be named after this one is untied.
        gone = frozenset(cycle)
        _, rest = _peel({name: firsts - gone for name, firsts in rest.items() if name not in gone})
    return tuple(found)


def _peel(graph: Graph) -> tuple[tuple[str, ...], dict[str, frozenset[str]]]:
    """Kahn's algorithm: an order, and the guests that wait, directly or not, for themselves."""
    waiting = {name: firsts & graph.keys() for name, firsts in graph.items()}
    order: list[str] = []
    while ready := sorted(name for name, firsts in waiting.items() if not firsts):
        order += ready
        done = frozenset(ready)
        waiting = {name: firsts - done for name, firsts in waiting.items() if name not in done}
    return tuple(order), waiting


def _walk(rest: Graph) -> tuple[str, ...]:
    """Everybody in `rest` waits for somebody in `rest`: follow until a name comes twice."""
    path = [min(rest)]
    while (following := min(rest[path[-1]])) not in path:
        path.append(following)
    cycle = path[path.index(following) :]
    start = cycle.index(min(cycle))
    return _closed((*cycle[start:], *cycle[:start]))


def _closed(cycle: Iterable[str]) -> tuple[str, ...]:
    names = tuple(cycle)
    return (*names, names[0])
