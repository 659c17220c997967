"""What the guides show: every guest's file is accepted, with the shipped templates under it."""

import re
import tomllib
from pathlib import Path

import pytest

from bhyved.core.config import Source, load

TOP = Path(__file__).parents[2]
TEMPLATES = {path.stem: Source(path.name, path.read_text()) for path in (TOP / "etc/template.d").glob("*.toml")}
SNIPPETS = re.findall(r"```toml\n(.*?)```", (TOP / "docs/guide/guests.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_shown_guest_is_accepted(text: str) -> None:
    """A reader can copy any of them; the names it waits for exist."""
    others = {name: Source(name, "") for name in tomllib.loads(text).get("order", {}).get("after", [])}
    loaded = load(Source("", ""), {"shown": Source("shown", text), **others}, TEMPLATES)

    assert loaded.problems == ()


def test_every_template_is_in_the_table() -> None:
    """The guide lists what is shipped, and nothing else."""
    rows = [line for line in (TOP / "docs/guide/guests.md").read_text().splitlines() if line.startswith("| `") and "--disk" not in line]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1])}

    assert named == set(TEMPLATES)
