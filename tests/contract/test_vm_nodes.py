"""The node of a VM: who may use it again after which end, and that it keeps its memory size (contract 1.10, 8.10)."""

import signal
from collections.abc import Callable

import pytest

from tests.contract.stand_ins import Bhyve, Lab


def by_script(lab: Lab, script: str) -> Bhyve:
    """A guest that ends by itself."""
    bhyve = lab.start(lab__script=script)
    bhyve.ended()
    return bhyve


def killed(lab: Lab) -> Bhyve:
    """A guest that did not end by itself."""
    bhyve = lab.start().wait_titled()
    bhyve.send(signal.SIGKILL)
    bhyve.ended()
    return bhyve


@pytest.mark.parametrize("script", ["reboot", "poweroff", "halt", "triple-fault"])
def test_after_a_regular_end_firmware_starts_again(lab: Lab, script: str) -> None:
    """The node is re-initialised."""
    by_script(lab, script)

    lab.start().wait_titled()


@pytest.mark.parametrize(("release", "text"), [("14", "vm_reinit: Device busy\n"), ("15", "bhyve: vm_openf: Device busy\n")])
@pytest.mark.parametrize(
    "end", [killed, lambda lab: by_script(lab, "exit 4"), lambda lab: by_script(lab, "signal 6")], ids=["SIGKILL", "exit 4", "SIGABRT"]
)
def test_after_any_other_end_the_node_is_busy_until_it_is_destroyed(lab: Lab, end: Callable[[Lab], Bhyve], release: str, text: str) -> None:
    """A start fails with 4 and each release's own words; after a destroy it works."""
    lab.settle(release=release)
    end(lab)

    again = lab.start()
    assert (again.ended(), again.said()) == (4, text)
    assert lab.control("--destroy").returncode == 0
    lab.start().wait_titled()


def test_a_second_bhyve_on_a_live_vm_is_refused(lab: Lab) -> None:
    """And the first one runs on."""
    first = lab.start()
    first.console.wait_for("login: ")

    second = lab.start()

    assert (second.ended(), second.said()) == (4, "bhyve: vm_openf: Device busy\n")
    assert first.process.poll() is None
    first.send(signal.SIGTERM)
    assert first.ended() == 1


def test_the_memory_size_is_fixed_when_the_node_is_made(lab: Lab) -> None:
    """Another size is refused, errno 22, until the node is destroyed."""
    by_script(lab, "poweroff")

    other = lab.start(memory__size="32M")
    assert (other.ended(), other.said()) == (4, "Unable to setup memory (22)\n")
    lab.control("--destroy")
    lab.start(memory__size="32M").wait_titled()


def test_a_second_bhyve_without_firmware_cannot_activate_the_cpu(lab: Lab) -> None:
    """And the power button of bhyvectl is still the first one's."""
    lab.call("bhyveload", "-m", "16M", "web1")
    first = lab.start(has_rom=False).wait_titled()

    assert lab.start(has_rom=False).ended() == 71

    lab.control("--force-poweroff")
    assert first.ended() == 1


def test_without_firmware_a_loader_comes_before_each_run(lab: Lab) -> None:
    """A second run without it cannot activate the CPU: status 71 (contract 8.10)."""
    assert lab.call("bhyveload", "-m", "16M", "web1").returncode == 0
    lab.start(has_rom=False, lab__script="reboot").ended()

    again = lab.start(has_rom=False)
    assert (again.ended(), again.said()) == (71, "bhyve: could not activate CPU 0: Device busy\n")
    assert lab.call("bhyveload", "-m", "16M", "web1").returncode == 0
    lab.start(has_rom=False).console.wait_for("login: ")


@pytest.mark.parametrize(
    ("release", "text", "node"), [("14", "virtual machine cannot be booted\n", True), ("15", "bhyve: no bootrom was configured\n", False)]
)
def test_without_firmware_and_loader_there_is_nothing_to_boot(lab: Lab, release: str, text: str, node: bool) -> None:
    """Status 4; 14 leaves a node behind."""
    lab.settle(release=release)
    bhyve = lab.start(has_rom=False)

    assert (bhyve.ended(), bhyve.said()) == (4, text)
    assert lab.has_node() is node


def test_a_vm_with_nothing_in_its_memory_dies_of_a_triple_fault(lab: Lab) -> None:
    """A loader that ended with 0 may have loaded nothing (contract 2.3)."""
    assert lab.call("grub-bhyve", "-M", "16M", "web1", stdin=b"exit\n").returncode == 0

    assert lab.start(has_rom=False).ended() == 3


def test_the_directory_exists_only_while_there_are_vms(lab: Lab) -> None:
    """A missing /dev/vmm means that there are none (contract 1.13)."""
    lab.control("--create")
    lab.control("--create", vm="web2")
    lab.control("--destroy")
    assert [path.name for path in (lab.root / "dev" / "vmm").iterdir()] == ["web2"]

    lab.control("--destroy", vm="web2")

    assert not (lab.root / "dev" / "vmm").exists()


def test_a_new_vm_of_an_old_name_is_another_vm(lab: Lab) -> None:
    """The old bhyve that was robbed of its node does not take the new one for it."""
    old = lab.start().wait_titled()
    old.send(signal.SIGSTOP)
    lab.control("--destroy")
    new = lab.start().wait_titled()

    old.send(signal.SIGCONT)

    assert old.ended() == 4
    assert new.process.poll() is None
    assert lab.has_node()


def test_a_name_that_is_too_long_is_refused(lab: Lab) -> None:
    """VM_MAX_NAMELEN is 229."""
    bhyve = lab.start("x" * 230)

    assert (bhyve.ended(), bhyve.said()) == (4, "bhyve: vm_openf: Invalid argument\n")


@pytest.mark.parametrize("left", ["no state", "going"])
def test_what_a_killed_tool_has_left_of_a_vm_is_taken_away(lab: Lab, left: str) -> None:
    """A real kernel ends what it has begun; here the next look does, and the name is free again."""
    lab.control("--create")
    known = lab.root / "lab" / "node" / "web1"
    if left == "no state":
        known.unlink()
    else:
        known.write_text('{"gone_at": 0.0}')

    lab.control("--destroy")

    assert not lab.has_node()
    assert lab.control("--create").returncode == 0
