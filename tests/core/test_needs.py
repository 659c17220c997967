"""How a need is written."""

import pytest

from bhyved.core import needs

GOOD = ["interface:bridge0", "interface:vlan.10", "path:/dev/zvol/zroot/vm/db1", "path:/a b:c", "pool:zroot", "pool:tank-2"]
BAD = [
    "",
    "bridge0",
    "interface:",
    "interface:-a",
    "interface:a b",
    "interface:name-much-too-long",
    "path:",
    "path:x",
    "pool:",
    "pool:-x",
    "disk:/x",
]


@pytest.mark.parametrize("need", GOOD)
def test_a_need(need: str) -> None:
    """Kind and name, split at the first colon."""
    assert needs.problem(need) == ""
    assert ":".join(needs.split(need)) == need


@pytest.mark.parametrize("need", BAD)
def test_what_is_no_need(need: str) -> None:
    """Nothing that a host command would take for an option, or that could never be there."""
    assert 'must be "interface:NAME", "path:/FILE" or "pool:NAME"' in needs.problem(need)
