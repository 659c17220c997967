"""The tables that name tests: every test that they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PAGES = ["docs/design.md", "docs/reliability.md"]


@pytest.mark.parametrize("page", PAGES)
def test_each_named_test_exists(page: str) -> None:
    """A promise whose test was renamed or removed is no promise."""
    named = _NAMED.findall((ROOT / page).read_text())

    assert len(named) > 10
    for path, name in named:
        text = (ROOT / path).read_text()
        assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{path} has no {name}"
