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


@pytest.mark.parametrize(
    ("need", "told"),
    [
        ("interface:bridge0", True),
        ("pool:tank", True),
        ("path:/dev/zvol/tank/db1", True),
        ("path:/devel", False),
        ("path:/mnt/iso/a.iso", False),
    ],
)
def test_what_devd_tells_of(need: str, told: bool) -> None:
    """Interfaces, pools and nodes of devices; files are nobody's news."""
    assert needs.is_told(need) is told


def test_what_a_guest_that_waits_for_its_host_says() -> None:
    """What is missing, why, and when that is looked at again."""
    assert needs.waits_for("pool:tank", None, 5.0, told=True) == "waiting to see whether the pool tank is there"
    assert needs.waits_for("path:/a b:c", "it does not exist", 5.0, told=False) == (
        "waiting for the path /a b:c: it does not exist (looked at every 5s)"
    )
    assert needs.waits_for("interface:em0", "it does not exist", 60.0, told=True) == (
        "waiting for the interface em0: it does not exist (looked at when the host tells of something new, and every 1m)"
    )


@pytest.mark.parametrize("need", BAD)
def test_what_is_no_need(need: str) -> None:
    """Nothing that a host command would take for an option, or that could never be there."""
    assert 'must be "interface:NAME", "path:/FILE" or "pool:NAME"' in needs.problem(need)
