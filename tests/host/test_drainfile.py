"""The file of a drain: whole or as it was, of this boot only, and a newer one left alone."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from bhyved.core.drain import Drain
from bhyved.core.errors import HostError
from bhyved.host.drainfile import HostDrainFile

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DRAIN = Drain(by="alice", reason="new disks", since_at=NOON, until_at=NOON)


async def test_a_drain_is_kept_until_it_is_taken_back(tmp_path: Path) -> None:
    """For every daemon of this boot; its end leaves no file."""
    await HostDrainFile(str(tmp_path), "b1").save(DRAIN)
    assert HostDrainFile(str(tmp_path), "b1").load() == DRAIN
    assert (tmp_path / "drain.json").stat().st_mode & 0o777 == 0o600

    await HostDrainFile(str(tmp_path), "b1").save(None)
    await HostDrainFile(str(tmp_path), "b1").save(None)

    assert HostDrainFile(str(tmp_path), "b1").load() is None
    assert os.listdir(tmp_path) == []


async def test_a_boot_ends_it(tmp_path: Path) -> None:
    """Another boot's drain is history."""
    await HostDrainFile(str(tmp_path), "b1").save(DRAIN)
    file = HostDrainFile(str(tmp_path), "b2")

    assert file.load() is None
    assert file.problem == ""


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    """No guest is stopped for it, it is said, and nothing is written over what this version cannot read."""
    path = tmp_path / "drain.json"
    path.write_bytes(b'{"version": 2, "who": "alice"}')
    file = HostDrainFile(str(tmp_path), "b1")

    assert file.load() is None
    assert "is of a newer bhyved (version 2, this one reads 1)" in file.problem
    with pytest.raises(HostError, match="left alone"):
        await file.save(None)
    assert path.read_bytes() == b'{"version": 2, "who": "alice"}'


@pytest.mark.parametrize("text", [b"", b"{", b"null", b'{"version": "x"}', b'{"boot": "b1"}', b"[" * 100_000, bytes(range(256))])
async def test_a_broken_file_is_no_drain(tmp_path: Path, text: bytes) -> None:
    """It is said, and the next drain replaces it."""
    (tmp_path / "drain.json").write_bytes(text)
    file = HostDrainFile(str(tmp_path), "b1")

    assert file.load() is None
    assert "the host is taken as not drained" in file.problem
    await file.save(DRAIN)
    assert msgspec.json.decode((tmp_path / "drain.json").read_bytes())["boot"] == "b1"


async def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """An error with a sentence."""
    with pytest.raises(HostError, match=r"drain\.json could not be written: no such file or directory"):
        await HostDrainFile(str(tmp_path / "gone"), "b1").save(DRAIN)
