"""A lab with real taps and bridges (root only): the same ifconfig, Linux's own links behind it, nothing of them outside or afterwards."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bhyved.core.ifconfig import parse_ifconfig
from bhyved.lab import layout, links, power
from bhyved.lab.host import HostLock
from tests.lab.labhost import Lab
from tests.lab.namespaces import links_of, processes_in
from tests.lab.test_host_tools import REFUSALS, hold_tap
from tests.system.labkit import BHYVED, LabHost, sim
from tests.waiting import until

pytestmark = pytest.mark.skipif(bool(links.unfit()), reason=f"a real network {links.unfit()}")

GONE = "ifconfig: the lab's network is gone with its host: start the lab again\n"
CARD = '[[network]]\nbridge = "bridge0"\n'


class RealLab(Lab):
    """A host without a daemon, in a namespace that the tests themselves are not in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        layout.make(root, network="real")
        code = "import sys, pathlib; from bhyved.lab import power; power.on(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(root)], check=True)

    def links(self) -> dict[str, dict[str, Any]]:
        """What Linux has there."""
        return links_of(HostLock(self.root).holder())


def what_is_set(found: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    """Links without what passes by itself: timers, carrier."""
    return {name: [link.get(key) for key in ("mtu", "master", "address", "ifalias")] for name, link in found.items()}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLab]:
    """One for all."""
    if shutil.which("nsenter") is None:
        pytest.skip("nsenter is not installed (package util-linux)")
    lab = RealLab(tmp_path_factory.mktemp("real"))
    yield lab
    namespace = (lab.root / "lab" / "netns").read_text()
    assert processes_in(namespace) == [HostLock(lab.root).holder()]
    power.off(lab.root)
    assert processes_in(namespace) == []


@pytest.fixture
def real(host: RealLab) -> Iterator[RealLab]:
    """With no interfaces afterwards but those that it came with, however a test ended."""
    came_with, before = host.said("ifconfig", "-l").split(), set(host.links())
    yield host
    for name in set(host.said("ifconfig", "-l").split()).difference(came_with):
        host.said("ifconfig", name, "destroy")
    assert set(host.links()) == before


def test_a_tap_is_a_link_of_linux(real: RealLab) -> None:
    """MTU, description, bridge and up are the link's own; what ifconfig shows is what it shows of a simulated one."""
    real.said("ifconfig", "tap1000", "create")
    real.said("ifconfig", "tap1000", "description", "bhyved web1 0", "group", "bhyved", "mtu", "9000", "up")
    real.said("ifconfig", "bridge0", "addm", "tap1000")

    tap, link = parse_ifconfig(real.said("ifconfig", "tap1000"))["tap1000"], real.links()["tap1000"]

    assert (tap.description, tap.groups, tap.mtu, tap.is_up, tap.opened_by) == ("bhyved web1 0", ("tap", "bhyved"), 9000, True, None)
    assert (link["ifalias"], link["mtu"], link["master"], link["linkinfo"]["info_kind"]) == ("bhyved web1 0", 9000, "bridge0", "tun")
    assert "UP" in link["flags"]
    assert parse_ifconfig(real.said("ifconfig", "bridge0"))["bridge0"].members == ("tap1000",)
    real.said("ifconfig", "bridge0", "deletem", "tap1000")
    assert "master" not in real.links()["tap1000"]
    real.said("ifconfig", "tap1000", "destroy")
    assert "tap1000" not in real.links()


def test_a_bridge_keeps_its_members_under_another_name(real: RealLab) -> None:
    """And loses them when it is destroyed; its address is the namespace's."""
    for words in ("tap1 create", "bridge7 create", "bridge7 addm tap1 inet 10.1.2.3/24", "bridge7 name vm-public"):
        real.said("ifconfig", *words.split())

    assert (real.links()["tap1"]["master"], parse_ifconfig(real.said("ifconfig", "vm-public"))["vm-public"].members) == (
        "vm-public",
        ("tap1",),
    )
    real.said("ifconfig", "vm-public", "destroy")
    assert "vm-public" not in real.links()
    assert "master" not in real.links()["tap1"]


def test_refusals_are_the_same(real: RealLab) -> None:
    """Each of FreeBSD's texts, with nothing changed by it."""
    for made in ("tap1", "tap2", "bridge1"):
        real.said("ifconfig", made, "create")
    real.said("ifconfig", "tap2", "mtu", "9000")
    real.said("ifconfig", "bridge0", "addm", "tap1")
    before = what_is_set(real.links())

    for words, text in REFUSALS:
        assert real.refused("ifconfig", *words.split()) == text

    assert what_is_set(real.links()) == before


def test_a_card_of_the_machine_joins_no_real_bridge(real: RealLab) -> None:
    """em0 is only shown: a bridge that said it was a member would lie."""
    layout.make(real.root, release="14")  # which would let it
    try:
        assert real.refused("ifconfig", "bridge0", "addm", "em0") == "ifconfig: BRDGADD em0: Operation not supported"
    finally:
        layout.make(real.root, release="15")


def test_what_linux_will_not_do_is_said(real: RealLab) -> None:
    """Its own words, exit status 1, and the file says what was before."""
    real.said("ifconfig", "tap1", "create")

    said = real.refused("ifconfig", "tap1", "ether", "no-address")

    assert said.startswith("ifconfig: ip link set dev tap1 ")
    assert "no-address" not in real.said("ifconfig", "tap1")


def test_an_opener_that_dies_lets_go(real: RealLab) -> None:
    """Opening a tap makes it and sets it up in Linux too, from wherever that is done; a destroy waits for its end."""
    with hold_tap(real, "tap9") as held:
        assert "tap9" in real.links()
        assert "tap9" not in {name for _, name in socket.if_nameindex()}
        held.kill()
    real.said("ifconfig", "tap9", "destroy")
    assert "tap9" not in real.links()


def test_a_process_of_another_network_is_no_door(tmp_path: Path) -> None:
    """The lab host's pid may be somebody else's by now: a tool stays away from that one's network, here the machine's own."""
    layout.make(tmp_path, network="real")
    (tmp_path / "lab/netns").write_text("net:[1]")
    (tmp_path / "lab/host.pid").write_text(f"{os.getpid()}\n")

    made = subprocess.run([tmp_path / "bin/ifconfig", "tap9", "create"], capture_output=True, text=True, check=False)

    assert (made.returncode, made.stderr) == (1, GONE)
    assert "tap9" not in {name for _, name in socket.if_nameindex()}


@pytest.fixture
def whole() -> Iterator[LabHost]:
    with LabHost({"web1": sim(more=CARD), "db1": sim(more=CARD)}, options=("--network", "real")) as lab:
        lab.phase("up", "web1", "db1")
        yield lab


def test_nothing_is_left_after_a_kill(whole: LabHost) -> None:
    """kill -9 of command and daemon, then --destroy: nobody is in the namespace, which so is gone with its taps; none was ever outside."""
    own = {name for _, name in socket.if_nameindex()}
    namespace = (whole.root / "lab/netns").read_text()
    taps = [name for name in links_of(whole.daemon_pid) if name.startswith("tap")]
    assert len(taps) == 2
    assert own.isdisjoint(taps)
    assert os.readlink("/proc/self/ns/net") != namespace
    for pid in (whole.foreground_pid, whole.daemon_pid):
        os.kill(pid, signal.SIGKILL)

    subprocess.run([*BHYVED, "lab", "--root", str(whole.root), "--destroy"], check=True)

    assert processes_in(namespace) == []
    assert {name for _, name in socket.if_nameindex()} == own
    assert whole.leftovers() == []
    refused = subprocess.run([whole.root / "bin/ifconfig", "tap9", "create"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, GONE)


def test_a_second_daemon_finds_the_network_of_the_first(whole: LabHost) -> None:
    """After kill -9 of the daemon the next one is in the same namespace and its stops take the taps away; the kind stays what it was."""
    namespace = (whole.root / "lab/netns").read_text()
    whole.kill_daemon()
    other = subprocess.run(
        [*BHYVED, "lab", "--root", str(whole.root), "--network", "simulated"], capture_output=True, text=True, check=False
    )
    assert (other.returncode, other.stdout) == (1, "")
    assert "is real since its power-on" in other.stderr

    whole.start()

    assert os.readlink(f"/proc/{whole.daemon_pid}/ns/net") == namespace
    assert whole.ask("stop", "web1")["ok"]
    whole.phase("down", "web1")
    assert [name for name in links_of(whole.daemon_pid) if name.startswith("tap")] == list(whole.rows()["db1"]["taps"])
    whole.stop()
    until(lambda: not processes_in(namespace))
