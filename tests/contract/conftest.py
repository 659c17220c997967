"""A lab for each test, and both engines where a test asks for `engine`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bhyved.lab.qemu_machine import QEMU
from tests.contract.stand_ins import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A host with FreeBSD 15 on amd64, unless the test settles otherwise."""
    found = Lab(tmp_path / "lab")
    yield found
    found.close()


@pytest.fixture(params=["sim", pytest.param("qemu", marks=pytest.mark.guest)])
def engine(request: pytest.FixtureRequest) -> str:
    """Either engine: what bhyve promises holds for both."""
    name: str = request.param
    if name == "qemu" and shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (package qemu-system-x86)")
    return name
