"""vmctl in this process, at the socket of a played daemon."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from bhyved.cli.ctl import main
from tests.ctl.played import PlayedDaemon


class Ran(NamedTuple):
    """How one vmctl ended, and what it said."""

    status: int
    out: str
    err: str


Vmctl = Callable[..., Ran]


@pytest.fixture
def vmctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vmctl:
    """`vmctl(daemon, "list", "--json")`; without a daemon, BHYVED_SOCKET is not set."""
    monkeypatch.delenv("BHYVED_SOCKET", raising=False)

    def run(daemon: PlayedDaemon | None, *words: str) -> Ran:
        if daemon is not None:
            monkeypatch.setenv("BHYVED_SOCKET", str(daemon.path))
        status = main(words)
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run
