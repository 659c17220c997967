"""A host of sh scripts for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bhyved.host.machine import GuestMachine
from tests.host.onehost import OneHost
from tests.host.scripts import Scripts


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    """Commands, of which there are none yet."""
    return Scripts(tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OneHost]:
    """A whole host, without a process left in the end."""
    made = OneHost(tmp_path)
    yield made
    made.end_all()


@pytest.fixture
def machine(host: OneHost) -> GuestMachine:
    """Of the guest `web`, in the hands of a daemon that has just started."""
    return host.daemon().machine("web")
