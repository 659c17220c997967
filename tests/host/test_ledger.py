"""The ledger: what is written is read again; what cannot be read costs no more than itself."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.errors import HostError
from bhyved.host.ledger import VERSION, DiskUse, Ledger, Ledgers, Tap, spec_text
from tests.host.onehost import guest

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TAPS = st.builds(Tap, name=TEXT, description=TEXT, bridge=TEXT, mtu=st.integers(0, 65535))
LEDGERS = st.builds(
    Ledger,
    version=st.just(VERSION),
    run=TEXT,
    boot=st.just("b"),
    by=TEXT,
    began_at=st.datetimes(timezones=st.just(UTC)),
    install=st.booleans(),
    taps=st.dictionaries(TEXT, TAPS, max_size=3),
    leftover=st.lists(TAPS, max_size=2).map(tuple),
    macs=st.lists(TEXT, max_size=2).map(tuple),
    disks=st.lists(st.builds(DiskUse, path=TEXT, key=TEXT, writes=st.booleans(), shared=st.booleans()), max_size=2).map(tuple),
    vnc=TEXT,
    sockets=st.lists(TEXT, max_size=2).map(tuple),
    tpm=TEXT,
    spec=TEXT.map(lambda typed: spec_text(guest(serial=[{"on-detach": "hangup-line", "hangup-line": typed}]))),
)


def a_ledger(**more: object) -> Ledger:
    return Ledger(**{"version": VERSION, "run": "r1", "boot": "b", "by": "test", "began_at": NOON, **more})  # type: ignore[arg-type]


def a_tap(name: str) -> Tap:
    return Tap(name=name, description="bhyved web/0")


DISK = DiskUse(path="/dev/zvol/zroot/web", key="dev:7")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "web").mkdir()
    return tmp_path


@given(LEDGERS)
def test_the_next_daemon_reads_what_was_written(tmp_path_factory: pytest.TempPathFactory, ledger: Ledger) -> None:
    """Whatever a ledger says, however odd the texts, comes back as it was."""
    directory = tmp_path_factory.mktemp("vm")
    (directory / "web").mkdir()
    Ledgers(str(directory), "b").put("web", ledger)

    assert Ledgers(str(directory), "b").get("web") == ledger


def test_the_spec_comes_back(directory: Path) -> None:
    """The guest's configuration is kept as it was started; one that this version cannot read costs the spec, not the rest."""
    spec = guest(network=[{"bridge": "lan0"}], memory="2G", restart={"crash-limit": "3 in 1m"})
    assert a_ledger(spec=spec_text(spec)).started_spec() == spec
    assert a_ledger(spec='{"name": "web", "warp-drive": true}').started_spec() is None
    assert a_ledger(spec="").started_spec() is None


def test_what_would_end_a_string(directory: Path) -> None:
    """Apostrophes and control characters in a configuration do not end the string that it is kept in."""
    spec = guest(owner=["o'brien"], serial=[{"on-detach": "hangup-line", "hangup-line": "\x04\x7f\n'''"}])
    Ledgers(str(directory), "b").put("web", a_ledger(spec=spec_text(spec)))
    ledger = Ledgers(str(directory), "b").get("web")

    assert ledger is not None
    assert ledger.started_spec() == spec


def test_only_root_reads_it(directory: Path) -> None:
    """It names disks, sockets and people."""
    Ledgers(str(directory), "b").put("web", a_ledger())

    assert (directory / "web" / "run.toml").stat().st_mode & 0o777 == 0o600


def test_another_boot(directory: Path) -> None:
    """A ledger of another boot is as good as none, and no problem."""
    Ledgers(str(directory), "b").put("web", a_ledger())
    ledgers = Ledgers(str(directory), "c")

    assert (ledgers.get("web"), ledgers.problem("web"), ledgers.names()) == (None, None, [])


@pytest.mark.parametrize(
    ("text", "says", "fatal"),
    [
        (b"version = 2\nrun = 3\n", "is of a newer bhyved (format 2, this one knows 1): upgrade bhyved again", True),
        (b"", "cannot be read", False),
        (b"version = 1\n", "cannot be read", False),
        (b"version = 1 [\n", "cannot be read", False),
        (b"\xff\xfe", "cannot be read", False),
        (b"a = " + b"[" * 5000, "cannot be read", False),
        (b"a = " + b"1" * 5000, "cannot be read", False),
    ],
)
def test_what_cannot_be_read(directory: Path, text: bytes, says: str, fatal: bool) -> None:
    """A broken ledger, or one from the future, is a problem of its guest alone."""
    (directory / "db").mkdir()
    Ledgers(str(directory), "b").put("db", a_ledger())
    (directory / "web" / "run.toml").write_bytes(text)
    ledgers = Ledgers(str(directory), "b")
    problem = ledgers.problem("web")

    assert problem is not None
    assert says in str(problem)
    assert problem.fatal is fatal
    assert ledgers.get("web") is None
    assert ledgers.get("db") is not None
    assert ledgers.names() == ["db", "web"]


def test_what_is_no_file(directory: Path) -> None:
    """A FIFO or a link in its place is not opened, nor waited on."""
    (directory / "web" / "run.toml").symlink_to("/etc/passwd")
    (directory / "db").mkdir()
    (directory / "db" / "run.toml").mkdir()
    (directory / "stray").touch()
    ledgers = Ledgers(str(directory), "b")

    assert ledgers.problem("web") is not None
    assert ledgers.problem("db") is not None


def test_a_write_that_fails_changes_nothing(directory: Path) -> None:
    """The old ledger stands, in memory and on disk, when the new one cannot be written."""
    ledgers = Ledgers(str(directory), "b")
    ledgers.put("web", a_ledger())
    (directory / "web" / "run.toml.new").mkdir()
    with pytest.raises(HostError, match=r"/web/run\.toml: is a directory$"):
        ledgers.put("web", a_ledger(run="r2"))

    assert ledgers.get("web") == a_ledger() == Ledgers(str(directory), "b").get("web")


def test_dropping(directory: Path) -> None:
    """A ledger that is dropped is gone, and dropping it again is no error."""
    ledgers = Ledgers(str(directory), "b")
    ledgers.put("web", a_ledger())
    ledgers.drop("web")
    ledgers.drop("web")

    assert ledgers.names() == [] == Ledgers(str(directory), "b").names()


def test_what_other_guests_have(directory: Path) -> None:
    """Taps (those still to be destroyed too), addresses, endpoints and disks are found by what they are, as ledgers come, change and go."""
    (directory / "db").mkdir()
    ours = a_ledger(taps={"network:0": a_tap("tap1000")}, macs=("58:9c:fc:00:00:01",), vnc="127.0.0.1:5900", disks=(DISK,))
    theirs = a_ledger(leftover=(a_tap("tap1001"),), disks=(msgspec.structs.replace(DISK, path="/other", writes=False),))
    written = Ledgers(str(directory), "b")
    written.put("web", a_ledger(taps={"network:0": a_tap("tap1007")}))
    written.put("web", ours)
    written.put("db", theirs)

    for ledgers in (written, Ledgers(str(directory), "b")):
        assert ledgers.taps.things("web") == {"tap1001"}
        assert ledgers.taps.things("db") == {"tap1000"}
        assert ledgers.taps.things("new") == {"tap1000", "tap1001"}
        assert [mac in ledgers.macs.taken(guest) for guest in ("db", "web") for mac in ours.macs] == [True, False]
        assert [ours.vnc in ledgers.vncs.taken(guest) for guest in ("db", "web")] == [True, False]
        assert list(ledgers.disk_users(DISK.key, "web")) == [("db", theirs.disks[0])]
        assert sorted(name for name, _ in ledgers.disk_users(DISK.key, "new")) == ["db", "web"]
        ledgers.drop("db")
        assert ledgers.taps.things("web") == set()
        assert list(ledgers.disk_users(DISK.key, "web")) == []


def test_no_directory(tmp_path: Path) -> None:
    """Before the first guest there is nothing to read."""
    assert Ledgers(str(tmp_path / "nowhere"), "b").names() == []
