"""Any bytes in the place of what the daemon has written down: whatever they are, a daemon starts, and takes nothing for what it is not."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import hostend
from bhyved.core.status import VmRecord
from bhyved.host.drainfile import HostDrainFile
from bhyved.host.journal import FileJournal
from bhyved.host.keeper import Trace
from bhyved.host.ledger import Ledgers
from bhyved.host.mappedlines import _BOOT, _MAGIC
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
ANY = st.binary(max_size=300) | NEARLY | JSON


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


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
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
        assert known is None or known >= 0
        trace.begin()


@given(st.binary(max_size=200))
def test_the_word_of_the_rc_script(data: bytes) -> None:
    """Never a failure of the stop."""
    assert hostend.parse(data.decode(errors="replace")).used_s >= 0
