"""A lab that is a jail: what its kernel refuses then, as FreeBSD was seen to (contract 7)."""

from pathlib import Path

import pytest

from tests.lab.labhost import Lab

JAILED = {"security.jail.jailed": 1, "security.jail.vnet": 1, "kern.racct.enable": 1}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_what_is_the_hosts_to_change(lab: Lab) -> None:
    """Modules, variables, limits. What the kernel says may be read."""
    lab.settle(sysctl=JAILED)

    assert lab.refused("kldload", "vmm") == "kldload: can't load vmm: Operation not permitted"
    assert lab.refused("sysctl", "net.link.tap.up_on_open=1") == "sysctl: net.link.tap.up_on_open=1: Operation not permitted"
    assert lab.said("sysctl", "-n", "net.link.tap.up_on_open") == "0\n"
    assert lab.refused("rctl", "-a", "process:1:pcpu:deny=20") == "rctl: rctl_add_rule: Operation not permitted"
    assert lab.refused("rctl", "process:1") == "rctl: rctl_get_rules: Operation not permitted"


def test_interfaces_of_a_jail(lab: Lab) -> None:
    """Only one with a network stack of its own makes some."""
    lab.settle(sysctl=JAILED)
    lab.said("ifconfig", "tap7", "create")
    lab.settle(sysctl={**JAILED, "security.jail.vnet": 0})

    assert lab.refused("ifconfig", "tap8", "create") == "ifconfig: SIOCIFCREATE2 (tap8): Operation not permitted"
    assert lab.run("ifconfig", "tap", "create").returncode == 1


def test_a_jail_that_may_not_use_vmm(lab: Lab) -> None:
    """The variable that makes guests is shown to those who may make some, and to others not even as an empty line."""
    lab.settle(sysctl=JAILED)
    assert lab.said("sysctl", "-n", "hw.vmm.create") == "\n"
    lab.settle(sysctl={**JAILED, "hw.vmm.create": None})

    assert lab.said("sysctl", "-n", "hw.vmm.create") == ""
