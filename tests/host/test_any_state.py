"""Any bytes in the place of what the daemon has written down: whatever they are, a daemon starts, and takes nothing for what it is not."""

from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import hostend
from bhyved.core.console import LogPolicy, Output
from bhyved.core.errors import HostError
from bhyved.core.saved import SavedState
from bhyved.core.status import VmRecord
from bhyved.host.consolelog import ConsoleLog, index_path
from bhyved.host.drainfile import HostDrainFile
from bhyved.host.journal import FileJournal
from bhyved.host.keeper import Trace
from bhyved.host.ledger import Ledgers
from bhyved.host.logreader import LogReader
from bhyved.host.mappedlines import _BOOT, _MAGIC
from bhyved.host.ringfile import RingFiles
from bhyved.host.statefiles import StateFiles
from bhyved.host.vault import FileVault

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
RECORD = msgspec.json.encode(VmRecord())
#: Noise, and what nearly is a file of ours: cut, with bytes changed, or with another value in one place.
NEARLY = st.builds(lambda place, byte: RECORD[:place] + byte + RECORD[place + 1 :], st.integers(0, len(RECORD)), st.binary(max_size=3))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["version", "boot", "drain", "desired", "seq", "run"]), inner)
    ),
    max_leaves=8,
).map(msgspec.json.encode)
#: What a parser that calls itself does not come back from.
DEEP = st.sampled_from([b"[" * 100_000, b'{"version": 1, "seq": ' + b'{"a":' * 50_000, b"a = " + b"[" * 100_000, b"[" * 100_000 + b"\n"])
ANY = st.binary(max_size=300) | NEARLY | JSON | DEEP


@given(ANY)
def test_records(data: bytes) -> None:
    """A record is read whole, or set aside, or left to a newer version; the other guest's is read all the same."""
    with TemporaryDirectory() as directory:
        Path(directory, "web.json").write_bytes(data)
        Path(directory, "db.json").write_bytes(RECORD)
        vault = FileVault(directory)
        records = vault.load()

        assert records["db"] == VmRecord()
        assert ("web" in records) is not bool(vault.problems)


@given(ANY)
def test_ledgers(data: bytes) -> None:
    """No ledger, or a problem with a sentence."""
    with TemporaryDirectory() as directory:
        Path(directory, "web").mkdir()
        Path(directory, "web/run.toml").write_bytes(data)
        ledgers = Ledgers(directory, "b1")

        assert ledgers.get("web") is None


@given(ANY)
def test_drains(data: bytes) -> None:
    """A drain of this boot, or none."""
    with TemporaryDirectory() as directory:
        Path(directory, "drain.json").write_bytes(data)

        assert HostDrainFile(directory, "no-boot-of-ours").load() is None


@given(ANY, ANY, ANY)
def test_events_and_their_number(events: bytes, number: bytes, unwritten: bytes) -> None:
    """A number that is larger than any that can be read, and never the same twice."""
    with TemporaryDirectory() as directory:
        for name in ("events", "history"):
            Path(directory, name).mkdir()
        Path(directory, "events/events.jsonl").write_bytes(events)
        Path(directory, "events/number").write_bytes(number)
        Path(directory, "events/unwritten").write_bytes(_BOOT.pack(_MAGIC, b"b1") + unwritten)
        Path(directory, "history/web.jsonl").write_bytes(events)
        journal = FileJournal(directory, "b1", lambda: NOON)
        known = [event.seq for event in journal.since(0)]
        first, second = journal.append("one"), journal.append("two")

        assert second.seq == first.seq + 1
        assert all(seq < first.seq for seq in known)
        assert all(record.vm is not None for record in journal.runs("web", 10))


NUMBERS = st.lists(
    st.sampled_from([b"0", b"7", b"137", b"-1", b"9" * 12, b"9" * 50, b" ", b"\n", b"-", b"\0", b"nan", b"inf", b"1e400", b"1.5"]),
    max_size=6,
).map(b"".join) | st.binary(max_size=80)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_traces_of_a_run(pid: bytes, end: bytes, begin: bytes) -> None:
    """A status is believed only if it is a whole line with a number; nothing else is an end."""
    with TemporaryDirectory() as directory:
        for name, data in (("pid", pid), ("exit", end), ("begin", begin)):
            Path(directory, name).write_bytes(data)
        trace = Trace(directory)
        found, known = trace.end(), trace.pid()

        line = end.partition(b"\n")
        whole = bool(line[1]) and line[0].strip().isdigit()
        assert found is None or whole
        assert known is None or 0 <= known < 1 << 31
        began = trace.begin()
        assert began is None or abs(began.monotonic) < float("inf")


@given(st.binary(max_size=200))
def test_the_word_of_the_rc_script(data: bytes) -> None:
    """Never a failure of the stop."""
    assert hostend.parse(data.decode(errors="replace")).used_s >= 0


SAVED = msgspec.json.encode(SavedState(run="r1", by="alice", at=NOON, spec="{}"))
NEARLY_SAVED = st.builds(lambda place, byte: SAVED[:place] + byte + SAVED[place + 1 :], st.integers(0, len(SAVED)), st.binary(max_size=3))


@given(ANY | NEARLY_SAVED, ANY)
def test_saved_states(about: bytes, meta: bytes) -> None:
    """A state of which nothing can be read is shown all the same, and never resumed by itself."""
    with TemporaryDirectory() as directory:
        states = StateFiles(directory)
        path = Path(states.saved)
        path.mkdir()
        for name, data in (("about.json", about), ("state", b"x"), ("state.kern", b"x"), ("state.meta", meta)):
            (path / name).write_bytes(data)
        shown = states.shown()

        assert shown is not None
        assert shown.path == states.saved
        states.lacks(states.saved, 1)
        try:
            assert states.about(states.saved).version <= 1
        except HostError as error:
            assert error.fatal  # noqa: PT017 - both ends are right


SIZES = (64, 128)


def a_ring(directory: str) -> bytes:
    """The file of a ring that has been written to."""
    kept = RingFiles(Path(directory)).open("web", "com1", *SIZES)
    kept.ring.begin(7, "stream")
    kept.ring.append(b"before")
    kept.ring.start_run("r1")
    kept.ring.append(bytes(range(200)))
    kept.close()
    return (Path(directory) / "web@com1.ring").read_bytes()


@given(st.data())
def test_rings(data: st.DataObject) -> None:
    """The ring that is made of any file keeps what is put into it; of one that is none of ours nothing is believed."""
    with TemporaryDirectory() as directory:
        whole = a_ring(directory)
        place, change = data.draw(st.integers(0, len(whole))), data.draw(st.binary(max_size=12))
        bad = data.draw(st.sampled_from([whole[:place] + change + whole[place + len(change) :], whole[:place], whole + change, change]))
        (Path(directory) / "web@com1.ring").write_bytes(bad)
        kept = RingFiles(Path(directory)).open("web", "com1", *SIZES)
        if not kept.found:
            kept.ring.begin(0, "other")
        assert kept.ring.run is not None
        offset = kept.ring.append(b"and then")
        pieces = kept.ring.read(0)

        assert (pieces[-1].offset + len(pieces[-1].data), pieces[-1].data[-8:]) == (offset + 8, b"and then")
        kept.ring.line_offset(3)
        kept.close()


ENTRIES = st.fixed_dictionaries(
    {"p": st.integers(-9, 99), "o": st.integers(-9, 1 << 70), "t": st.floats(allow_nan=False)},
    optional={
        "n": st.integers(-9, 99),
        "m": st.sampled_from(["boot", "exit", "odd"]),
        "x": st.text(max_size=3),
        "lost": st.integers(-9, 99),
    },
).map(msgspec.json.encode)


@given(log=st.binary(max_size=120), lines=st.lists(ENTRIES | ANY, max_size=5), is_ours=st.booleans())
def test_console_logs(log: bytes, lines: list[bytes], is_ours: bool) -> None:
    """Whatever log and index say, what is logged from now on is read back as it was."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "web.console.log")
        path.write_bytes(log)
        head = msgspec.json.encode({"v": 1, "ino": path.stat().st_ino}) if is_ours else b'{"v":1}'
        index_path(path).write_bytes(b"\n".join([head, *lines, b""]))
        LogReader(path).read(0, 1 << 20)
        kept = ConsoleLog(path, LogPolicy())
        at = kept.resume() or 0
        kept.write(deque([Output(at, b"and then", NOON.timestamp())]))
        page = LogReader(path).read(at, 1 << 20)

        assert b"".join(record.data for record in page.records if isinstance(record, Output)) == b"and then"
