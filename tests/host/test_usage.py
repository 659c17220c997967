"""What processes and interfaces of this machine use, and the file for node_exporter."""

import os
import stat
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bhyved.core.errors import HostError
from bhyved.core.usage import Traffic
from bhyved.host.textfile import write_textfile
from bhyved.host.toolbox import Tools
from bhyved.host.usage import HostUsage

snetio = namedtuple("snetio", "bytes_sent bytes_recv packets_sent packets_recv errin errout dropin dropout")  # psutil's


def usage_of(tmp_path: Path) -> HostUsage:
    return HostUsage(Tools(bin=(str(tmp_path),)))


def test_processes_are_measured(tmp_path: Path) -> None:
    """A live process has its figures, under its guest's name; one that has ended is missing."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    usage = usage_of(tmp_path)
    for _ in range(2):  # the second time from what is known
        found = usage.measure({"me": os.getpid(), "gone": gone.pid}, ())
        assert set(found.processes) == {"me"}
        assert found.processes["me"].cpu_s > 0
        assert found.processes["me"].resident_bytes > 1 << 20
        assert found.processes["me"].threads >= 1
        assert found.taps == {}
    assert usage.own().descriptors >= 3


def test_interfaces_are_found(tmp_path: Path) -> None:
    """Interfaces that are not asked for, or not there, are missing."""
    name = next(name for name in psutil.net_io_counters(pernic=True) if name.startswith("lo"))
    assert set(usage_of(tmp_path).measure({}, [name, "tap4711"]).taps) == {name}


def test_traffic_is_seen_from_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host sent into a tap its guest received; and a tap made anew counts anew."""
    counters = snetio(bytes_sent=1, bytes_recv=2, packets_sent=3, packets_recv=4, errin=0, errout=0, dropin=5, dropout=6)
    asked = []
    monkeypatch.setattr(psutil, "net_io_counters", lambda **how: asked.append(how) or {"tap7": counters, "em0": counters})
    assert usage_of(tmp_path).measure({}, ["tap7"]).taps == {"tap7": Traffic(1, 2, 3, 4, 11)}
    assert asked == [{"pernic": True, "nowrap": False}]


async def test_vcpus_are_asked_of_bhyvectl(tmp_path: Path) -> None:
    """The counters come from bhyvectl, and its failure is the host's word."""
    tool = tmp_path / "bhyvectl"
    tool.write_text(
        '#!/bin/sh\nif [ "$1" != --vm=web1 ]; then echo "vm_open: no" >&2; exit 1; fi\nprintf "vcpu0 stats:\\nvm exits\\t5\\n"\n'
    )
    tool.chmod(0o755)
    assert (await usage_of(tmp_path).vcpus("web1")).counts == {("0", "vm exits"): 5}
    with pytest.raises(HostError, match="vm_open: no"):
        await usage_of(tmp_path).vcpus("web2")


def test_textfile_is_whole_or_old(tmp_path: Path) -> None:
    """The file is replaced at once, readable by node_exporter, and no other *.prom is ever there."""
    path = tmp_path / "bhyved.prom"
    path.write_text("old\n")

    def pieces() -> Iterator[str]:
        yield "a 1\n"
        assert [found.name for found in tmp_path.glob("*.prom")] == ["bhyved.prom"]
        assert path.read_text() == "old\n"
        yield "b 2\n"

    write_textfile(str(path), pieces())
    assert path.read_text() == "a 1\nb 2\n"
    assert path.stat().st_mode & 0o444 == 0o444


def test_textfile_is_for_node_exporter(tmp_path: Path) -> None:
    """Which is another user, whatever umask cron(8) or root has."""
    before = os.umask(0o077)
    try:
        write_textfile(str(tmp_path / "bhyved.prom"), ["a 1\n"])
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "bhyved.prom").stat().st_mode) == 0o644


def test_textfile_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """When the text cannot be had, the old file stays and nothing else is left."""
    path = tmp_path / "bhyved.prom"
    path.write_text("old\n")

    def pieces() -> Iterator[str]:
        yield "a 1\n"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_textfile(str(path), pieces())
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
