"""What is kept of guests: whole or as before, never lost to another version, cheap for many at once."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.errors import HostError
from bhyved.core.status import RECORD_VERSION, Desired, VmRecord
from bhyved.host import durable
from bhyved.host.vault import FileVault

UP = VmRecord(desired=Desired.UP, desired_boot="b1", slots={"disk:/a": "0:4:0"})


def record(number: int) -> VmRecord:
    return VmRecord(forced_stops=number)


async def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """And its file is nobody else's to read."""
    await FileVault(str(tmp_path)).save("web1", UP)

    vault = FileVault(str(tmp_path))
    assert vault.load() == {"web1": UP}
    assert vault.problems == []
    assert os.stat(tmp_path / "web1.json").st_mode & 0o777 == 0o600


async def test_a_forgotten_guest_has_no_record(tmp_path: Path) -> None:
    """Forgetting twice, or one that never was, is no error."""
    vault = FileVault(str(tmp_path))
    await vault.save("web1", UP)
    await vault.forget("web1")
    await vault.forget("web1")
    assert os.listdir(tmp_path) == []


async def test_many_at_once_are_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 guests whose states change together cost one thread and one sync of the directory; all are durable when they return."""
    calls: list[int] = []
    real = durable.replace_all

    def counted(files: Mapping[str, bytes]) -> dict[str, OSError]:
        calls.append(len(files))
        return real(files)

    monkeypatch.setattr(durable, "replace_all", counted)
    vault = FileVault(str(tmp_path))
    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(vault.save, f"g{number}", record(number))
    assert calls == [500]
    assert FileVault(str(tmp_path)).load() == {f"g{number}": record(number) for number in range(500)}


async def test_one_writer_at_a_time_and_the_newest_record_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while a write is under way is written together after it, the last of each guest."""
    calls: list[dict[str, int]] = []
    began, go_on = threading.Event(), threading.Event()
    real = durable.replace_all

    def slow(files: Mapping[str, bytes]) -> dict[str, OSError]:
        calls.append({Path(path).stem: msgspec.json.decode(data, type=VmRecord).forced_stops for path, data in files.items()})
        began.set()
        assert go_on.wait(10)
        return real(files)

    monkeypatch.setattr(durable, "replace_all", slow)
    vault = FileVault(str(tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vault.save, "a", record(1))
        await trio.to_thread.run_sync(began.wait)
        for number in (2, 3, 4):
            nursery.start_soon(vault.save, "a", record(number))
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(vault.save, "b", record(9))
        await trio.testing.wait_all_tasks_blocked()
        assert len(calls) == 1
        go_on.set()

    assert calls == [{"a": 1}, {"a": 4, "b": 9}]


async def test_a_save_after_a_forget_counts_and_the_other_way_round(tmp_path: Path) -> None:
    """The last of the two, also when both are in one batch."""
    vault = FileVault(str(tmp_path))
    for last in ("save", "forget"):
        async with trio.open_nursery() as nursery:
            if last == "save":
                nursery.start_soon(vault.forget, "a")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(vault.save, "a", record(1))
            else:
                nursery.start_soon(vault.save, "a", record(1))
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(vault.forget, "a")
        assert (tmp_path / "a.json").exists() == (last == "save")


async def test_a_saver_that_is_cancelled_holds_nobody_up(tmp_path: Path) -> None:
    """Whoever saves next writes; a driver that ended took nothing with it."""
    vault = FileVault(str(tmp_path))
    with trio.CancelScope() as scope:
        scope.cancel()
        await vault.save("a", record(1))
    with trio.fail_after(10):
        await vault.save("b", record(2))
    assert FileVault(str(tmp_path)).load()["b"] == record(2)


async def test_a_failure_is_told_to_those_whose_record_it_was(tmp_path: Path) -> None:
    """And the record that was there stays."""
    vault = FileVault(str(tmp_path))
    (tmp_path / "bad.json").mkdir()
    (tmp_path / "bad.json" / "full").touch()
    results: dict[str, str] = {}

    async def save(name: str) -> None:
        try:
            await vault.save(name, UP)
            results[name] = "saved"
        except HostError as error:
            results[name] = str(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(save, "good")
        nursery.start_soon(save, "bad")
    assert results == {"good": "saved", "bad": f"{tmp_path}/bad.json could not be written: is a directory"}
    with pytest.raises(HostError, match=r"bad\.json could not be removed: "):
        await vault.forget("bad")


async def test_without_its_directory_everything_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    """A pool that is not imported: guests begin without records."""
    vault = FileVault(str(tmp_path / "gone"))
    assert vault.load() == {}
    assert vault.problems == [f"{tmp_path}/gone cannot be read: no such file or directory; every guest begins without a record"]
    with pytest.raises(HostError, match=r"web1\.json could not be written: no such file or directory"):
        await vault.save("web1", UP)


async def test_a_record_of_a_newer_bhyved_is_left_alone(tmp_path: Path) -> None:
    """Its guest begins without one, what would be kept is refused with the reason, and the file stays as it is, to the byte."""
    path = tmp_path / "web1.json"
    newer = b'{"version": %d, "desired": {"anything": 1}}' % (RECORD_VERSION + 1)
    path.write_bytes(newer)
    vault = FileVault(str(tmp_path))

    assert vault.load() == {}
    assert vault.problems == [
        f"{path} is of a newer bhyved (version {RECORD_VERSION + 1}, this one reads {RECORD_VERSION}): "
        "it is left alone, and web1 begins without a record"
    ]
    for change in (vault.save("web1", UP), vault.forget("web1")):
        with pytest.raises(HostError, match="is of a newer bhyved and is left alone"):
            await change
    await vault.save("web2", UP)
    assert path.read_bytes() == newer


@pytest.mark.parametrize("what", ["empty", "truncated", "garbage", "list", "version", "wrong", "deep", "link", "fifo", "huge"])
def test_whatever_is_no_record_is_set_aside(tmp_path: Path, what: str) -> None:
    """Reported, kept for whoever wants to look, and nobody else's record suffers."""
    path = tmp_path / "web1.json"
    whole = msgspec.json.encode(UP)
    match what:
        case "link":
            (tmp_path / "elsewhere").write_bytes(whole)
            path.symlink_to(tmp_path / "elsewhere")
        case "fifo":
            os.mkfifo(path)
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 32)
        case _:
            contents = {
                "empty": b"",
                "truncated": whole[:-5],
                "garbage": b"\xff\x00\xfe",
                "list": b"[1, 2]",
                "version": b'{"version": "x"}',
                "wrong": b'{"version": 1, "book": {"reboots": "often"}}',
                "deep": b'{"slots": ' + b"[" * 100_000,
            }
            path.write_bytes(contents[what])
    (tmp_path / "web2.json").write_bytes(whole)
    (tmp_path / "web1.bad-1").touch()  # of an earlier time
    vault = FileVault(str(tmp_path))

    assert vault.load() == {"web2": UP}
    assert len(vault.problems) == 1
    assert vault.problems[0].startswith(f"{path} ")
    assert vault.problems[0].endswith(f"it is kept as {tmp_path}/web1.bad-2, and web1 begins without a record")
    assert not os.path.lexists(path)
    assert os.path.lexists(tmp_path / "web1.bad-2")


def test_what_killed_writers_left_is_removed_and_strangers_are_left(tmp_path: Path) -> None:
    """A temporary file is none of a guest; other files are none of ours."""
    (tmp_path / ".new-web1.json").write_bytes(b"{")
    (tmp_path / "README").touch()
    (tmp_path / "no name.json").touch()
    vault = FileVault(str(tmp_path))

    assert vault.load() == {}
    assert vault.problems == []
    assert sorted(os.listdir(tmp_path)) == ["README", "no name.json"]


def test_unknown_keys_of_the_same_version_are_no_fault(tmp_path: Path) -> None:
    """A record may have grown keys that this bhyved does not know."""
    (tmp_path / "web1.json").write_bytes(b'{"version": 1, "desired": "up", "something-new": 1}')
    assert FileVault(str(tmp_path)).load() == {"web1": VmRecord(desired=Desired.UP)}
