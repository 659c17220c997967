"""Two real guests on one bridge: taps that bhyved has made, bridged and destroyed, which carry what the guests send. Root on Linux only."""

import re
from collections.abc import Iterator

import pytest

from bhyved.lab import links
from tests.guests import linux
from tests.guests.shell import boot, cut_off, guest, log_in, power_off, run
from tests.lab.namespaces import links_of, processes_in
from tests.system.labkit import LabHost, running

pytestmark = [pytest.mark.guest, pytest.mark.skipif(bool(links.unfit()), reason=f"a real network {links.unfit()}")]

PINGS, PING_BYTES = 5, 1400
ADDRESSES = {"web1": "10.11.12.1", "db1": "10.11.12.2"}
CARD = '[[network]]\nbridge = "bridge0"\n'


@pytest.fixture
def lab() -> Iterator[LabHost]:
    kernel = linux.direct()
    guests = {name: guest(kernel, f"t.ip={address}/24", CARD) for name, address in ADDRESSES.items()}
    with running(guests, engine="qemu", options=("--network", "real")) as lab:
        namespace = (lab.root / "lab/netns").read_text()
        yield lab
    assert processes_in(namespace) == []


def taps(lab: LabHost) -> dict[str, str]:
    """The taps there are in Linux, and the bridge each is on."""
    return {name: link.get("master", "") for name, link in links_of(lab.daemon_pid).items() if name.startswith("tap")}


def sample(lab: LabHost, metric: str, name: str) -> float:
    text = lab.call("daemon.metrics")["text"]
    found = re.search(rf'^bhyved_vm_network_{metric}_total{{vm="{name}",nic="0"}} (\S+)$', text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_two_guests_ping_each_other(lab: LabHost) -> None:
    """Each with a tap on the bridge while it runs; usage and metrics count what has passed; off the bridge, nothing passes."""
    boot(lab, *ADDRESSES)
    rows = lab.rows()
    (web, db) = (rows[name]["taps"][0] for name in ADDRESSES)
    assert taps(lab) == {web: "bridge0", db: "bridge0"}
    log_in(lab, "web1")

    run(lab, "web1", f"ping -c {PINGS} -i 0.1 -s {PING_BYTES} {ADDRESSES['db1']}", f"{PINGS} packets received, 0% packet loss")

    for name in ADDRESSES:
        assert sample(lab, "receive_bytes", name) >= PINGS * PING_BYTES
        assert sample(lab, "transmit_bytes", name) >= PINGS * PING_BYTES
        assert sample(lab, "receive_packets", name) >= PINGS
        assert sample(lab, "transmit_packets", name) >= PINGS
    used = {row["name"]: row for row in lab.call("vm.usage")["vms"]}
    assert all(used[name][key] >= PINGS * PING_BYTES for name in ADDRESSES for key in ("received_bytes", "sent_bytes"))

    power_off(lab, "db1")
    assert taps(lab) == {web: "bridge0"}
    run(lab, "web1", f"ping -c 1 -W 1 {ADDRESSES['db1']} || echo no-$((40+2))", "no-42")
    cut_off(lab, "web1")
    assert taps(lab) == {}
