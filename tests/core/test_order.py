"""The order of guests."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import order
from bhyved.core.spec import Order, VmSpec
from bhyved.core.values import GuestName

NAMES = "abcdef"


def guests(**firsts: str) -> dict[str, VmSpec]:
    return {name: VmSpec(name=name, order=Order(after=tuple(GuestName(x) for x in text))) for name, text in firsts.items()}


def test_after_and_requires_come_first() -> None:
    """Both words order, and names of guests that are not there order nothing."""
    vms = guests(a="c", b="", c="b")
    vms["b"] = VmSpec(name="b", order=Order(requires=(GuestName("d"), GuestName("nobody"))))
    vms["d"] = VmSpec(name="d")
    assert order.start_order(vms) == ("d", "b", "c", "a")
    assert order.stop_order(vms) == ("a", "c", "b", "d")
    assert order.behind(vms)["b"] == {"c"}
    assert order.before(vms)["b"] == {"d"}


def test_a_guest_that_waits_for_itself() -> None:
    """The smallest circle has one guest."""
    assert order.cycles(order.before(guests(a="a"))) == (("a", "a"),)


def test_two_knots_are_both_named() -> None:
    """Each knot has its own witness; guests that only wait for one are not named."""
    vms = guests(a="b", b="a", c="d", d="c", e="a")
    assert order.cycles(order.before(vms)) == (("a", "b", "a"), ("c", "d", "c"))


@given(st.dictionaries(st.sampled_from(NAMES), st.text(NAMES, max_size=4), max_size=6))
def test_any_graph(firsts: dict[str, str]) -> None:
    """Every guest is ordered once; without circles nobody comes before its firsts; every circle named is one."""
    vms = guests(**firsts)
    graph = order.before(vms)
    ordered = order.start_order(vms)
    assert sorted(ordered) == sorted(vms)
    found = order.cycles(graph)
    for cycle in found:
        assert cycle[0] == cycle[-1]
        assert all(second in graph[first] for first, second in itertools.pairwise(cycle))
    if not found:
        assert all(ordered.index(first) < ordered.index(name) for name, names in graph.items() for first in names)
