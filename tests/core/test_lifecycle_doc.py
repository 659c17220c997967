"""docs/lifecycle.md is what the table says."""

from bhyved.core.status import Phase
from docs.draw_lifecycle import PAGE, drawn


def test_the_page_is_current() -> None:
    """`python docs/draw_lifecycle.py` would change nothing."""
    page = PAGE.read_text()
    assert page == drawn(page)


def test_every_phase_is_explained() -> None:
    """Each has a row that says what it means and what ends it."""
    page = PAGE.read_text()
    assert [phase for phase in Phase if f"\n| {phase} | " not in page] == []
