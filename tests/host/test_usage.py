"""What processes and interfaces of this machine use, and the file for node_exporter."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bhyved.core.errors import HostError
from bhyved.host.textfile import write_textfile
from bhyved.host.toolbox import Tools
from bhyved.host.usage import HostUsage


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


def test_traffic_is_seen_from_the_guest(tmp_path: Path) -> None:
    """What an interface sent its guest received; interfaces that are not asked for, or not there, are missing."""
    name = next(name for name in psutil.net_io_counters(pernic=True) if name.startswith("lo"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"x" * 1000, sock.getsockname())
    found = usage_of(tmp_path).measure({}, [name, "tap4711"]).taps
    assert set(found) == {name}
    assert found[name].received_packets > 0
    assert found[name].received_bytes >= 1000


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

    def pieces() -> list[str]:
        assert [found.name for found in tmp_path.glob("*.prom")] == ["bhyved.prom"]
        assert path.read_text() == "old\n"
        return ["a 1\n", "b 2\n"]

    write_textfile(str(path), (piece for piece in pieces()))
    assert path.read_text() == "a 1\nb 2\n"
    assert path.stat().st_mode & 0o444 == 0o444


def test_textfile_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """When the text cannot be had, the old file stays and nothing else is left."""
    path = tmp_path / "bhyved.prom"
    path.write_text("old\n")

    def pieces():  # type: ignore[no-untyped-def]
        yield "a 1\n"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_textfile(str(path), pieces())
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
