"""Events and runs on disk: numbered once, bounded, never in anybody's way."""

import errno
import mmap
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.exits import ExitKind
from bhyved.core.status import Event, Phase, RunRecord
from bhyved.host import journal as journals
from bhyved.host import mappedlines
from bhyved.host.eventnumber import GAP
from bhyved.host.journal import FILE_BYTES, KEPT, RUNS_KEPT, SYNCED, WRITE_S, FileJournal

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    for name in ("events", "history"):
        (tmp_path / name).mkdir()
    return tmp_path


def journal(db: Path, boot: str = "b1") -> FileJournal:
    return FileJournal(str(db), boot, lambda: NOON)


async def kept(db: Path, *events: str, boot: str = "b1") -> FileJournal:
    """A daemon that tells these events and ends in order."""
    made = journal(db, boot)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        for event in events:
            made.append(event)
        nursery.cancel_scope.cancel()
    return made


def run(number: int, vm: str = "web1") -> RunRecord:
    ended = NOON + timedelta(seconds=number)
    return RunRecord(
        run=f"r{number}",
        vm=vm,
        by="alice",
        began_at=NOON,
        ended_at=ended,
        uptime_s=1.0,
        kind=ExitKind.POWEROFF,
        text="the guest powered off",
        decision="stays down",
    )


def names(events: list[Event]) -> list[str]:
    return [event.event for event in events]


async def test_a_disk_that_takes_no_page_keeps_nobody_from_starting_or_ending(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """msync(2) is EIO on a full ZFS pool: numbers go on, in the page, which the kernel writes when it can."""
    await kept(db, "a")

    class Full(mmap.mmap):
        def flush(self, *_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(mmap, "mmap", Full)
    await kept(db, "b")
    made = journal(db)

    assert made.append("c").seq == 3
    assert names(made.since(0)) == ["a", "b", "c"]


# --- events ---------------------------------------------------------------------------------------------------------------------


def test_an_event_has_the_next_number_the_time_and_what_was_said(db: Path) -> None:
    """And it can be read at once, without the disk."""
    made = journal(db)
    first = made.append("phase", vm="web1", phase=Phase.UP, reason="asked for by alice", by="alice", data={"was": "starting"})
    second = made.append("ready", vm="web1")

    assert first == Event(
        seq=1, at=NOON, event="phase", vm="web1", phase=Phase.UP, reason="asked for by alice", by="alice", data={"was": "starting"}
    )
    assert (second.seq, made.since(0), made.since(1), made.since(2)) == (2, [first, second], [second], [])


async def test_the_next_daemon_knows_them_and_goes_on_counting(db: Path) -> None:
    """By one, also after a host that was shut down in order."""
    await kept(db, "a", "b")
    await kept(db, "c", boot="b2")
    made = journal(db, "b3")
    assert names(made.since(0)) == ["a", "b", "c"]
    assert made.append("d").seq == 4


def killed(db: Path, doing: str) -> None:
    """A daemon that does this with its journal `j`, and is killed before anything is written."""
    script = (
        "import os; from datetime import *; from bhyved.host.journal import FileJournal; from tests.host.test_journal import run;"
        f" j = FileJournal({str(db)!r}, 'b1', lambda: datetime.now(UTC)); {doing}; os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == -9


def test_a_killed_daemon_loses_nothing(db: Path) -> None:
    """Events and runs that it had told and not written yet are written by the next one, once, and numbers go on behind them."""
    killed(db, "[j.append('x') for _ in range(500)]; [j.add_run(run(n)) for n in range(3)]")
    assert not (db / "events" / "events.jsonl").exists()
    for _ in range(2):
        made = journal(db)
        assert [event.seq for event in made.since(0)] == list(range(1, 501))
        assert made.runs("web1", 9) == [run(0), run(1), run(2)]
    assert made.append("next").seq == 501
    assert (db / "events" / "events.jsonl").read_bytes().count(b"\n") == 500
    assert (db / "history" / "web1.jsonl").read_bytes().count(b"\n") == 3


def test_daemons_that_are_killed_one_after_the_other_lose_nothing(db: Path) -> None:
    """Each begins with what it found written."""
    for number in range(3):
        killed(db, f"j.append('e{number}'); j.add_run(run({number}))")
    made = journal(db)
    assert names(made.since(0)) == ["e0", "e1", "e2"]
    assert made.runs("web1", 9) == [run(0), run(1), run(2)]


async def test_a_kill_in_the_middle_of_writing_loses_nothing_and_doubles_nothing(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had reached the files is there once, what was put meanwhile too, in order; a line that was torn is written again."""
    made = journal(db)
    made.append("a")
    made.add_run(run(1))
    await made.flushed()
    made.append("b")
    made.append("c")
    made.add_run(run(2))
    snapshots: list[bytes] = []
    real = journals._append

    def between(path: str, data: bytes, *, sync: bool) -> int:
        if path.endswith("web1.jsonl"):
            made.append("d")  # while the others are being written
            snapshots.append((db / "events" / "unwritten").read_bytes())
        return real(path, data, sync=sync)

    monkeypatch.setattr(journals, "_append", between)
    await made.flushed()
    monkeypatch.undo()
    (db / "events" / "unwritten").write_bytes(snapshots[0])
    lines = (db / "events" / "events.jsonl").read_bytes()
    (db / "events" / "events.jsonl").write_bytes(lines[:-5])
    after = journal(db)
    assert names(after.since(0)) == ["a", "b", "c", "d"]
    assert after.runs("web1", 9) == [run(1), run(2)]
    assert (db / "history" / "web1.jsonl").read_bytes().count(b"\n") == 2


def test_what_a_dead_host_left_unwritten_is_not_believed(db: Path) -> None:
    """Its pages may be of different moments."""
    killed(db, "j.append('x'); j.add_run(run(1))")
    made = journal(db, "b2")
    assert names(made.since(0)) == ["gap"]
    assert made.runs("web1", 9) == []


async def test_more_than_the_mapping_holds_is_written_all_the_same(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood costs the protection of what is beyond the room, and is written at once, not when its time has come."""
    monkeypatch.setattr(mappedlines, "HALF_BYTES", 2000)
    monkeypatch.setattr(journals, "HURRY_BYTES", 500)
    monkeypatch.setattr(journals, "WRITE_S", 3600.0)
    made = journal(db)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            for _ in range(50):
                made.append("flood", reason="x" * 60)
            while not (db / "events" / "events.jsonl").exists():  # noqa: ASYNC110 - written by a thread
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert len(journal(db).since(0)) == 50


async def test_a_run_that_was_ended_by_two_daemons_is_told_once(db: Path) -> None:
    """As the later one has judged it: the first was killed before it had cleaned up."""
    made = journal(db)
    made.add_run(run(1))
    await made.flushed()
    made.add_run(run(2))
    again = msgspec.structs.replace(run(1), decision="starting again in 2s")
    made.add_run(again)
    assert made.runs("web1", 9) == [again, run(2)]
    await made.flushed()
    assert journal(db).runs("web1", 9) == [again, run(2)]


async def test_what_is_written_is_synced(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events at once; of histories so many at a time that a crash of every guest does not keep the disk busy, and all of them in time."""
    synced: list[int] = []
    real = os.fsync

    def counted(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)

    made = journal(db)
    monkeypatch.setattr(os, "fsync", counted)
    made.append("a")
    for number in range(SYNCED + 5):
        made.add_run(run(1, f"vm{number}"))
    await made.flushed()
    histories = {path.stat().st_ino for path in (db / "history").iterdir()}
    assert (db / "events" / "events.jsonl").stat().st_ino in synced
    assert len(histories) == SYNCED + 5
    assert len(histories & set(synced)) == SYNCED
    await made.flushed()
    assert histories <= set(synced)
    synced.clear()
    await made.flushed()
    assert synced == []


async def test_a_host_that_died_leaves_a_gap(db: Path) -> None:
    """Nobody knows how many numbers its last seconds had, so as many are skipped as they can have been."""
    made = journal(db)
    made.append("a")
    await made.flushed()
    del made
    after = journal(db, "b2")
    assert [(event.seq, event.event) for event in after.since(0)] == [(1, "a"), (1 + GAP + 1, "gap")]
    assert after.since(1)[0].reason.startswith("the host went down before bhyved had ended")
    assert after.append("b").seq == 1 + GAP + 2


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "fifo", "link", "huge"])
async def test_a_damaged_number_leaves_a_gap(db: Path, damage: str) -> None:
    """Behind the highest number in the lines."""
    await kept(db, "a", "b")
    path = db / "events" / "number"
    size = path.stat().st_size
    path.unlink()
    match damage:
        case "empty":
            path.touch()
        case "garbage":
            path.write_bytes(b"x" * size)
        case "huge":
            path.write_bytes(bytes(10 * size))
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(db / "elsewhere")

    assert journal(db).append("c").seq == 2 + GAP + 2
    assert path.stat().st_size == size
    assert not (db / "elsewhere").exists()


async def test_a_number_that_went_backwards_is_not_believed(db: Path) -> None:
    """A restored file of last week, with the lines of today."""
    await kept(db, "a")
    old = (db / "events" / "number").read_bytes()
    await kept(db, *"bcd")
    (db / "events" / "number").write_bytes(old)
    assert journal(db, "b2").append("e").seq == 4 + GAP + 2


async def test_a_torn_line_costs_itself(db: Path) -> None:
    """The line before it and those after it can be read, and so can those around one that is broken in the middle."""
    await kept(db, "a", "b")
    path = db / "events" / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    await kept(db, "c")
    assert names(journal(db).since(0)) == ["a", "c"]
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b'{"seq": "x"}', b"\0" * 50, b"\xff", *lines[1:]]))
    assert names(journal(db).since(0)) == ["a", "c"]


async def test_the_files_are_bounded(db: Path) -> None:
    """Two files of about a mebibyte; the newest events are in them, the oldest are not."""
    made = journal(db)
    for _ in range(12):
        for _ in range(3000):
            made.append("noise", reason="x" * 60)
        await made.flushed()
    sizes = [path.stat().st_size for path in sorted((db / "events").glob("events*"))]
    assert len(sizes) in (1, 2)
    assert all(size < 2 * FILE_BYTES for size in sizes)
    seqs = [event.seq for event in journal(db).since(0)]
    assert seqs[-1] == 36000
    assert seqs == list(range(seqs[0], 36001))
    assert len(seqs) > KEPT


async def test_what_memory_has_no_more_is_read_from_disk(db: Path) -> None:
    """A client that was away comes back for all that is kept; one that follows costs no reading."""
    made = journal(db)
    for _ in range(3):
        for _ in range(2000):
            made.append("noise")
        await made.flushed()
    assert [event.seq for event in made.since(10)] == list(range(11, 6001))
    os.unlink(db / "events" / "events.jsonl")
    assert [event.seq for event in made.since(6000 - KEPT)] == list(range(6001 - KEPT, 6001))


async def test_lines_are_written_a_second_after_the_first(db: Path, autojump_clock: trio.testing.MockClock) -> None:
    """All of that second in one go; and with nothing to write, nothing wakes up."""
    autojump_clock.autojump_threshold = 0.05  # the thread that writes is real
    made, path = journal(db), db / "events" / "events.jsonl"
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        began = trio.current_time()
        made.append("a")
        await trio.sleep(WRITE_S * 0.9)
        made.append("b")
        assert not path.exists()
        await trio.sleep(WRITE_S * 0.2)
        await made.flushed()
        assert path.read_bytes().count(b"\n") == 2
        assert trio.current_time() - began < 1.5
        autojump_clock.autojump_threshold = float("inf")
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        nursery.cancel_scope.cancel()


async def test_a_daemon_that_ends_writes_what_it_had_to_say(db: Path) -> None:
    """Up to the last event, without waiting for the second to be over."""
    await kept(db, "a", "stopped")
    assert b"stopped" in (db / "events" / "events.jsonl").read_bytes()


async def test_one_writer_at_a_time(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants everything flushed waits for the writer under way, even when it is cancelled meanwhile."""
    began, second, go_on = threading.Event(), threading.Event(), threading.Event()
    real = journals._append

    def slow(path: str, data: bytes, *, sync: bool) -> int:
        if began.is_set():
            second.set()
        began.set()
        assert go_on.wait(10)
        return real(path, data, sync=sync)

    monkeypatch.setattr(journals, "_append", slow)
    made = journal(db)
    made.append("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.flushed)
        await trio.to_thread.run_sync(began.wait)
        made.append("b")
        nursery.start_soon(made.flushed)
        assert not await trio.to_thread.run_sync(second.wait, 0.2)
        nursery.cancel_scope.cancel()
        go_on.set()
    await made.flushed()
    assert names(journal(db).since(0)) == ["a", "b"]


async def test_a_run_that_is_just_being_written_is_told_once(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the file and in memory at that moment."""
    written, go_on = threading.Event(), threading.Event()
    real = journals._append

    def slow(path: str, data: bytes, *, sync: bool) -> int:
        size = real(path, data, sync=sync)
        written.set()
        assert go_on.wait(10)
        return size

    made = journal(db)
    made.add_run(run(1))
    await made.flushed()
    monkeypatch.setattr(journals, "_append", slow)
    made.add_run(run(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.flushed)
        await trio.to_thread.run_sync(written.wait)
        made.add_run(run(3))
        told = made.runs("web1", 9)
        go_on.set()
    assert told == [run(1), run(2), run(3)]
    await made.flushed()
    assert journal(db).runs("web1", 9) == told


async def test_a_full_disk_costs_what_would_be_on_it(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`problem` says so until the disk takes lines again; half a line never stays; memory has it all, and runs are written later."""
    made = journal(db)
    made.append("before")
    made.add_run(run(1))
    await made.flushed()
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(os, "write", full)
        made.append("lost")
        made.add_run(run(2))
        await made.flushed()
    path = db / "events" / "events.jsonl"
    assert made.problem == f"events are not written to {path}: no space left on device"
    assert names(made.since(0)) == ["before", "lost"]
    assert made.runs("web1", 9) == [run(1), run(2)]
    assert path.read_bytes().endswith(b"}\n")

    made.append("after")
    await made.flushed()
    assert made.problem == ""
    assert names(journal(db).since(0)) == ["before", "after"]
    assert journal(db).runs("web1", 9) == [run(1), run(2)]


def test_without_its_directory_everything_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    """Numbers go on behind a gap, since nobody knows what was given before."""
    made = journal(tmp_path / "gone")
    assert made.problem.startswith(f"{tmp_path}/gone/events/number no such file or directory")
    assert made.append("a").seq == GAP + 2
    assert made.runs("web1", 5) == []


async def test_what_is_no_file_of_ours_steps_aside(db: Path) -> None:
    """A FIFO, a link or a directory in the place of a log is neither followed nor waited for."""
    os.mkfifo(db / "events" / "events.jsonl")
    (db / "events" / "events.jsonl.0").mkdir()
    (db / "history" / "web1.jsonl").symlink_to(db / "elsewhere")
    made = journal(db)
    made.append("a")
    made.add_run(run(1))
    await made.flushed()
    assert made.problem == ""
    assert not (db / "elsewhere").exists()
    assert names(journal(db).since(0)) == ["a"]
    assert journal(db).runs("web1", 5) == [run(1)]


# --- runs -----------------------------------------------------------------------------------------------------------------------


async def test_runs_are_told_newest_last(db: Path) -> None:
    """Those that are written and those that are not yet, each once, each guest's own."""
    made = journal(db)
    for number in range(5):
        made.add_run(run(number))
    made.add_run(run(77, "db1"))
    assert made.runs("web1", 3) == [run(2), run(3), run(4)]
    await made.flushed()
    made.add_run(run(5))
    assert made.runs("web1", 3) == [run(3), run(4), run(5)]
    assert made.runs("web1", 100) == [run(number) for number in range(6)]
    assert made.runs("web1", 0) == []
    assert made.runs("db1", 9) == [run(77, "db1")]
    assert made.runs("nobody", 9) == []


async def test_a_history_is_bounded(db: Path) -> None:
    """The file is cut to the newest 200 when it has twice as many."""
    made = journal(db)
    path = db / "history" / "web1.jsonl"
    most = 0
    for number in range(2 * RUNS_KEPT + 5):
        made.add_run(run(number))
        await made.flushed()
        most = max(most, path.read_bytes().count(b"\n"))
    assert most < 2 * RUNS_KEPT
    assert path.read_bytes().count(b"\n") == RUNS_KEPT + 5
    assert made.runs("web1", 1) == [run(2 * RUNS_KEPT + 4)]


async def test_a_history_of_a_newer_bhyved_costs_what_cannot_be_read(db: Path) -> None:
    """Lines with more keys can; lines of another shape cannot."""
    more = {**msgspec.to_builtins(run(1)), "something-new": [1, 2]}
    (db / "history" / "web1.jsonl").write_bytes(
        msgspec.json.encode(more) + b"\n" + b'{"version": 9}\n' + msgspec.json.encode(run(2)) + b"\n"
    )
    assert journal(db).runs("web1", 9) == [run(1), run(2)]


def test_a_disk_that_is_too_small_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be had whole is given back, and the journal goes on without it."""
    real = os.pwrite
    written: list[int] = []

    def pwrite(fd: int, data: bytes, place: int) -> int:
        if written:
            raise OSError(errno.ENOSPC, "no space")
        written.append(real(fd, data[:1000], place))
        return written[0]

    monkeypatch.setattr(os, "pwrite", pwrite)
    lines = mappedlines.MappedLines(str(tmp_path / "unwritten"), "boot")

    assert written == [1000]
    assert "no space:" in lines.problem
    assert (tmp_path / "unwritten").stat().st_size == 0
    assert lines.put(b"told\n") == 0
