"""The console log: byte-exact with its index, whatever ends the daemon or happens to the files."""

import json
import os
import tempfile
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhyved.core.console import LogPolicy, Mark, Output
from bhyved.core.errors import HostError
from bhyved.host.consolelog import ConsoleLog, index_path, log_path
from bhyved.host.logreader import LogReader

NOON = 1_764_000_000.0  # 2025-11-24T16:00:00Z


def write(log: ConsoleLog, *entries: Output | Mark) -> None:
    log.write(deque(entries))


def recorded(path: Path, since: int = 0) -> bytes:
    """The console's bytes as the log tells them; a hole is shown as `?`."""
    out = bytearray()
    at = since
    for record in LogReader(path).read(since, 1 << 30).records:
        if isinstance(record, Output):
            out += b"?" * (record.offset - at) + record.data
            at = record.offset + len(record.data)
    return bytes(out)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return log_path(tmp_path, "web1", "com1", first=True)


def test_the_file_is_what_a_person_reads(path: Path) -> None:
    """The guest's bytes stand in the file as they are, marks on lines of their own, and nobody else can read it."""
    log = ConsoleLog(path, LogPolicy())
    write(
        log,
        Mark(0, "boot", "run 7 by autostart", NOON),
        Output(0, b"\x1b[1mhello\r\nlogin: ", NOON + 1),
        Mark(18, "exit", "powered off", NOON + 2),
    )

    assert path.name == "web1.console.log"
    assert path.read_bytes() == (
        b"--- 2025-11-24T16:00:00.000Z boot: run 7 by autostart ---\n"
        b"\x1b[1mhello\r\nlogin: "
        b"\n--- 2025-11-24T16:00:02.000Z exit: powered off ---\n"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert index_path(path).stat().st_mode & 0o777 == 0o600


def test_timestamps_stand_before_each_line_and_are_no_output(path: Path) -> None:
    """With timestamps each line of the file has its time, and what is read back has none of them, not even where the guest prints one."""
    printed = b"one\n2025-11-24T16:00:00.000Z two\nthr"
    log = ConsoleLog(path, LogPolicy(timestamps=True))
    write(log, Output(0, printed, NOON), Output(len(printed), b"ee\n", NOON + 5))

    assert path.read_text().splitlines() == [
        "2025-11-24T16:00:00.000Z one",
        "2025-11-24T16:00:00.000Z 2025-11-24T16:00:00.000Z two",
        "2025-11-24T16:00:00.000Z three",
    ]
    assert recorded(path) == printed + b"ee\n"
    assert ConsoleLog(path, LogPolicy(timestamps=True)).resume() == len(printed) + 3


def test_a_forged_mark_is_output(path: Path) -> None:
    """A guest that prints a line like one of ours deceives the eye, not the index."""
    forged = b"--- 2025-11-24T16:00:00.000Z attach: mallory (uid 0) ---\n"
    log = ConsoleLog(path, LogPolicy())
    write(log, Output(0, forged, NOON))

    assert LogReader(path).read(0, 1000).records == [Output(0, forged, NOON)]


def test_bytes_that_never_came_are_a_gap(path: Path) -> None:
    """Output that begins later than the log ends is preceded by a mark that says how much is missing."""
    log = ConsoleLog(path, LogPolicy())
    write(log, Output(0, b"abc", NOON), Output(10, b"xyz", NOON))

    assert LogReader(path).read(0, 1000).records == [
        Output(0, b"abc", NOON),
        Mark(10, "gap", "7 bytes were not recorded", NOON, 7),
        Output(10, b"xyz", NOON),
    ]


def test_output_given_twice_is_written_once(path: Path) -> None:
    """What a restarted daemon gives again from its ring is recognised by its offset."""
    log = ConsoleLog(path, LogPolicy())
    write(log, Output(0, b"abcdef", NOON), Output(3, b"defghi", NOON), Output(0, b"abc", NOON))

    assert recorded(path) == b"abcdefghi"


@pytest.mark.parametrize("stamped", [False, True])
def test_rotates_by_size_and_keeps_so_many(path: Path, stamped: bool) -> None:
    """A full file is renamed, the oldest goes, and reading crosses the files without a seam."""
    log = ConsoleLog(path, LogPolicy(max_bytes=400, keep=2, timestamps=stamped))
    text = b"".join(b"line %04d\n" % number for number in range(200))
    for start in range(0, len(text), 50):
        write(log, Output(start, text[start : start + 50], NOON + start))

    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == [f"web1.console.{what}" for what in ("index", "index.0", "index.1", "log", "log.0", "log.1")]
    kept = recorded(path).lstrip(b"?")
    assert text.endswith(kept)
    assert len(kept) >= 300


def test_rotates_by_age(path: Path) -> None:
    """A file older than the configured age is put aside before the next output."""
    now = [NOON]
    log = ConsoleLog(path, LogPolicy(max_age_s=3600), clock=lambda: now[0])
    write(log, Output(0, b"old\n", NOON))
    now[0] += 3601
    write(log, Output(4, b"new\n", now[0]))

    assert path.read_bytes() == b"new\n"
    assert Path(f"{path}.0").read_bytes() == b"old\n"


def test_keeping_none_removes_a_full_file(path: Path) -> None:
    """With keep = 0 there is only ever one file."""
    log = ConsoleLog(path, LogPolicy(max_bytes=100, keep=0))
    for number in range(50):
        write(log, Output(number * 10, b"123456789\n", NOON))

    assert sorted(entry.name for entry in path.parent.iterdir()) == ["web1.console.index", "web1.console.log"]


def test_somebody_else_may_rotate(path: Path) -> None:
    """newsyslog(8) renames the file under us, without a signal: the next output begins a new one and offsets go on."""
    log = ConsoleLog(path, LogPolicy(max_bytes=0))
    write(log, Output(0, b"before\n", NOON))
    path.rename(f"{path}.0")
    write(log, Output(7, b"after\n", NOON))

    assert path.read_bytes() == b"after\n"
    assert LogReader(path).read(0, 1000).records == [Output(7, b"after\n", NOON)]


def test_somebody_else_may_write_and_shorten(path: Path) -> None:
    """A line of an operator's own is stepped over, an emptied file is begun anew; neither shifts an offset."""
    log = ConsoleLog(path, LogPolicy())
    write(log, Output(0, b"abc\n", NOON))
    with path.open("ab") as file:
        file.write(b"# disk replaced here\n")
    write(log, Output(4, b"def\n", NOON))
    assert recorded(path) == b"abc\ndef\n"

    os.truncate(path, 0)
    write(log, Output(8, b"ghi\n", NOON))

    assert recorded(path, 8) == b"ghi\n"


def test_a_log_that_cannot_be_written_says_so_and_recovers(path: Path) -> None:
    """A directory that is gone costs a sentence; what is given again when it is back is there once."""
    log = ConsoleLog(path, LogPolicy())
    write(log, Output(0, b"abc", NOON))
    elsewhere = path.parent.with_name("elsewhere")
    path.parent.rename(elsewhere)
    batch: deque[Output | Mark] = deque([Output(3, b"def", NOON), Mark(6, "exit", "powered off", NOON)])

    with pytest.raises(HostError, match=r"console log .*web1\.console\.log cannot be written: no such file or directory"):
        log.write(batch)
    assert len(batch) == 2

    elsewhere.rename(path.parent)
    log.write(batch)

    assert recorded(path) == b"abcdef"


def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """Whoever may write to the log directory cannot have root append to another file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    path.symlink_to(victim)

    with pytest.raises(HostError, match="cannot be written"):
        write(ConsoleLog(path, LogPolicy()), Output(0, b"x", NOON))
    assert victim.read_bytes() == b""


def test_finds_boots_times_and_lines(path: Path) -> None:
    """The log knows where runs began, what came after a time, and where the last lines begin."""
    log = ConsoleLog(path, LogPolicy())
    write(
        log,
        Mark(0, "boot", "run 1", NOON),
        Output(0, b"a\nb\n", NOON),
        Mark(4, "boot", "run 2", NOON + 60),
        Output(4, b"c\nd\n", NOON + 60),
    )
    reader = LogReader(path)

    assert reader.boots() == [0, 4]
    assert reader.offset_at(NOON + 30) == 4
    assert reader.offset_at(NOON + 90) is None
    assert [reader.line_offset(n, 8) for n in (0, 1, 3, 9)] == [8, 6, 2, 0]


def test_pages_follow_on(path: Path) -> None:
    """A long log comes in pages that overlap nowhere and repeat no mark."""
    log = ConsoleLog(path, LogPolicy())
    write(
        log, Mark(0, "boot", "run 1", NOON), Output(0, b"0123456789", NOON), Mark(10, "exit", "off", NOON), Output(10, b"abcdef", NOON + 5)
    )
    records, since, more = [], 0, True
    while more:
        page = LogReader(path).read(since, 4)
        records += page.records
        since, more = page.next, page.more

    assert b"".join(record.data for record in records if isinstance(record, Output)) == b"0123456789abcdef"
    assert [record.kind for record in records if isinstance(record, Mark)] == ["boot", "exit"]
    assert since == 16


entries = st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from(["boot", "exit", "note"])), max_size=12)


@settings(deadline=None)
@given(before=entries, cut=st.floats(0, 1), index_cut=st.floats(0, 1), stamped=st.booleans(), after=entries)
def test_a_kill_at_any_byte_leaves_a_log_that_goes_on(
    before: list[bytes | str], cut: float, index_cut: float, stamped: bool, after: list[bytes | str]
) -> None:
    """Whatever a kill left of the last writes, the next daemon finds where the log stands and what it reads back is what was printed."""
    with tempfile.TemporaryDirectory() as directory:
        path = log_path(Path(directory), "vm", "com1", first=True)
        printed = b"".join(step for step in before if isinstance(step, bytes))
        _record(ConsoleLog(path, LogPolicy(timestamps=stamped)), before, 0)
        # The index is written first: a kill loses the end of the log, and of the index at most what describes nothing any more.
        if path.exists():
            _shorten(path, cut, index_cut)
        log = ConsoleLog(path, LogPolicy(timestamps=stamped))
        logged = log.resume()
        at = logged or 0
        assert at <= len(printed)
        # The daemon's ring has the rest.
        write(log, *([Output(at, printed[at:], NOON)] if printed[at:] else []))
        _record(log, after, len(printed))
        everything = printed + b"".join(step for step in after if isinstance(step, bytes))

        assert recorded(path) == everything


def _record(log: ConsoleLog, steps: list[bytes | str], offset: int) -> None:
    for number, step in enumerate(steps):
        if isinstance(step, bytes):
            write(log, Output(offset, step, NOON + number))
            offset += len(step)
        else:
            write(log, Mark(offset, step, "text", NOON + number))  # type: ignore[arg-type]


def _shorten(path: Path, cut: float, index_cut: float) -> None:
    """Cut the log within what its last entry describes, and perhaps half of one more line onto the index."""
    index = index_path(path)
    lines = index.read_bytes().splitlines(keepends=True)
    if len(lines) < 2:
        return
    last = json.loads(lines[-1])
    size = path.stat().st_size
    os.truncate(path, last["p"] + int((size - last["p"]) * cut))
    if index_cut < 0.5:
        with index.open("ab") as file:
            file.write(b'{"p":99999,"o":'[: int(index_cut * 30)])
