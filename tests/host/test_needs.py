"""What guests need of the host, looked at on a host of scripts."""

import threading
from pathlib import Path

import pytest
import trio

from bhyved.host import needs
from bhyved.host.tap import Taps
from tests.host.scripts import Scripts, write_ifconfig

ZPOOL = """
case "$*" in
"list -H -o health zroot") echo ONLINE;;
"list -H -o health worn") echo DEGRADED;;
"list -H -o health ill") echo SUSPENDED;;
*) echo "cannot open '$5': no such pool" >&2; exit 1;;
esac
"""


@pytest.fixture
def scripts(scripts: Scripts) -> Scripts:
    """A host with one bridge, and pools."""
    write_ifconfig(scripts, "bridge0")
    scripts.write("zpool", ZPOOL)
    return scripts


async def look(scripts: Scripts, *wanted: str) -> dict[str, str]:
    return await needs.missing(wanted, Taps(scripts.tools), scripts.tools)


async def test_what_is_there_is_not_missing(scripts: Scripts, tmp_path: Path) -> None:
    """A pool without redundancy is there too."""
    assert await look(scripts, "interface:bridge0", f"path:{tmp_path}", "pool:zroot", "pool:worn") == {}


async def test_what_is_missing_has_a_reason(scripts: Scripts) -> None:
    """Each in its own words; one that is missing hides no other."""
    assert await look(scripts, "interface:bridge1", "path:/nonexistent/x", "pool:tank", "pool:ill") == {
        "interface:bridge1": "it does not exist",
        "path:/nonexistent/x": "it does not exist",
        "pool:tank": "it is not imported",
        "pool:ill": "it is suspended",
    }


async def test_a_tool_that_is_not_there_is_said(scripts: Scripts) -> None:
    """A host without ZFS has no pool."""
    (scripts.bin / "zpool").unlink()
    missing = await look(scripts, "pool:zroot", "interface:bridge0")

    assert missing.keys() == {"pool:zroot"}
    assert "zpool" in missing["pool:zroot"]


async def test_a_dead_mount_does_not_hold_up_the_others(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is missing until it answers."""
    block = threading.Event()
    monkeypatch.setattr(needs, "_PATH_S", 0.05)
    monkeypatch.setattr(needs.os.path, "exists", lambda path: block.wait(30))
    with trio.fail_after(10):
        missing = await look(scripts, "path:/mnt/dead", "interface:bridge0")
    block.set()

    assert missing == {"path:/mnt/dead": "it did not answer within 0.05 s: is a mount dead?"}
