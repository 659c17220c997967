"""A guest's processes: started, watched, found again, killed, cleaned up after; with real processes and the real ps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.onehost import OneHost, end_of, guest, start


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OneHost]:
    host = OneHost(tmp_path)
    yield host
    host.end_all()


async def test_one_run(host: OneHost) -> None:
    """A run is prepared, started, watched to its end and cleaned away: nothing of it is left."""
    machine = host.daemon().machine("web")
    await start(machine, guest(do="echo hello >&2; exit 3", network=[{"bridge": "lan0"}], disk=[{"path": str(host.disk)}]))
    outcome = await end_of(machine)

    assert (outcome.status, outcome.stderr) == (3, "hello\n")
    await machine.clean(final=True)
    assert not host.node().exists()
    assert sorted(path.name for path in host.interfaces.iterdir()) == ["lan0.if", "wan0.if"]
    assert list(host.directory().iterdir()) == []
