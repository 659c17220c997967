"""What the hubs of consoles get of a host: `host.consoles`."""

from pathlib import Path

import pytest

from bhyved.core.console import ConsoleSpec
from bhyved.core.errors import HostError
from bhyved.host.consoles import HostConsoles


async def test_a_line_that_a_jail_does_not_see(tmp_path: Path) -> None:
    """nmdm is loaded, and still there is no such line: the rules that hide it are named."""
    loaded: list[str] = []

    async def load_nmdm() -> None:
        loaded.append("nmdm")

    consoles = HostConsoles(run=tmp_path, log=tmp_path, load_nmdm=load_nmdm)
    spec = ConsoleSpec(port="com1", kind="nmdm", path=str(tmp_path / "nmdm-web.1B"))
    with pytest.raises(HostError, match=r"nmdm-web\.1B is hidden: a jail's devfs\.rules\(5\) have to unhide nmdm-\*$"):
        await consoles.open_line(spec)

    assert loaded == ["nmdm"]
