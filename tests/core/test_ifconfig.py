"""The text of FreeBSD's ifconfig(8), read."""

from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.ifconfig import Interface, parse_ifconfig

TEXT = """\
igb0: flags=1008943<UP,BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST,LOWER_UP> metric 0 mtu 1500
\toptions=4a520b9<RXCSUM,VLAN_MTU>
\tether 00:25:90:00:00:01
\tinet 192.0.2.4 netmask 0xffffff00 broadcast 192.0.2.255
\tinet6 fe80::225:90ff:fe00:1%igb0 prefixlen 64 scopeid 0x1
\tmedia: Ethernet autoselect (1000baseT <full-duplex>)
\tstatus: active
bridge0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500
\tdescription: lan
\tid 00:00:00:00:00:00 priority 32768 hellotime 2 fwddelay 15
\tmember: tap7 flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>
\t        ifmaxaddr 0 port 5 priority 128 path cost 2000000
\tmember: igb0 flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>
\tgroups: bridge
tap7: flags=8903<UP,BROADCAST,PROMISC,SIMPLEX,MULTICAST> metric 0 mtu 9000
\tdescription: bhyved web/0
\tgroups: tap bhyved
\tstatus: active
\tOpened by PID 1234
pflog0: flags=0<> metric 0 mtu 33152
"""


def test_everything_that_is_asked_for_is_found() -> None:
    """Flags, MTU, description, groups, members, addresses and the opener are read; the rest is passed over."""
    found = parse_ifconfig(TEXT)

    assert list(found) == ["igb0", "bridge0", "tap7", "pflog0"]
    assert found["igb0"].addresses == ("192.0.2.4", "fe80::225:90ff:fe00:1%igb0")
    assert found["bridge0"].members == ("tap7", "igb0")
    assert found["bridge0"].description == "lan"
    assert found["tap7"] == Interface(
        name="tap7",
        flags=frozenset({"UP", "BROADCAST", "PROMISC", "SIMPLEX", "MULTICAST"}),
        mtu=9000,
        description="bhyved web/0",
        groups=("tap", "bhyved"),
        opened_by=1234,
    )
    assert not found["pflog0"].is_up


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    """No text makes the reader fail."""
    assert all(name == interface.name for name, interface in parse_ifconfig(text).items())
