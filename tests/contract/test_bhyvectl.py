"""bhyvectl's actions, texts and statuses (contract 1.11)."""

import signal

import pytest

from tests.contract.stand_ins import Lab
from tests.waiting import until

ABSENT = "vm_open: web1 could not be opened: No such file or directory\n"


@pytest.mark.parametrize(
    ("release", "stdout", "stderr"), [("14", "VM:web1 is not created.\n", ""), ("15", "", ABSENT), ("main", "", ABSENT)]
)
@pytest.mark.parametrize("action", ["--destroy", "--force-poweroff", "--get-active-cpus"])
def test_a_vm_that_is_not_there(lab: Lab, release: str, action: str, stdout: str, stderr: str) -> None:
    """Status 1; on 14 it says so on stdout."""
    lab.settle(release=release)

    done = lab.control(action)

    assert (done.returncode, done.stdout, done.stderr) == (1, stdout, stderr)


@pytest.mark.parametrize(
    ("release", "status", "stdout", "stderr"),
    [("14", 255, "errno = 17\n", ""), ("15", 1, "", "vm_open: web1 could not be opened: File exists\n")],
)
def test_creating_what_exists(lab: Lab, release: str, status: int, stdout: str, stderr: str) -> None:
    """The errno on stdout and 255, or the line of vm_openf and 1."""
    lab.settle(release=release)
    assert lab.control("--create").returncode == 0

    done = lab.control("--create")

    assert (done.returncode, done.stdout, done.stderr) == (status, stdout, stderr)


@pytest.mark.parametrize("argv", [[], ["--vm=web1", "--dance"], ["--destroy"], ["--vm=web1", "-x"], ["--vm"], ["--vm=web1", "--usage"]])
def test_usage(lab: Lab, argv: list[str]) -> None:
    """Anything unknown, or no VM: status 1."""
    done = lab.call("bhyvectl", *argv)

    assert done.returncode == 1
    assert done.stderr.startswith("Usage: bhyvectl --vm=<vmname>\n")


def test_snapshots_are_for_those_who_built_them(lab: Lab) -> None:
    """The usage text tells (contract 6.1)."""
    assert "--suspend" not in lab.call("bhyvectl", "--usage").stderr

    lab.settle(snapshots=True)

    assert "--suspend" in lab.call("bhyvectl", "--usage").stderr


def test_what_is_known_of_a_running_vm(lab: Lab) -> None:
    """CPU sets, topology, statistics."""
    bhyve = lab.start(cpus="4", sockets="2", cores="2").wait_titled()

    assert lab.control("--get-active-cpus").stdout == "active cpus:\t 0, 1, 2, 3\n"
    assert lab.control("--get-suspended-cpus").stdout == "suspended cpus:\t (none)\n"
    assert lab.control("--get-debug-cpus").stdout == "debug cpus:\t (none)\n"
    assert lab.control("--get-cpu-topology").stdout == "cpu_topology:\tsockets=2, cores=2, threads=1, maxcpus=16\n"
    stats = lab.control("--get-stats").stdout.splitlines()
    assert stats[0] == "vcpu0 stats:"
    assert all(line[40] == "\t" for line in stats if not line.endswith("stats:"))
    bhyve.console.wait_for("login: ")  # by then it heeds its button
    bhyve.send(signal.SIGTERM)
    bhyve.ended()
    assert lab.control("--get-suspended-cpus").stdout == "suspended cpus:\t 0, 1, 2, 3\n"


def test_only_main_tells_the_pid(lab: Lab) -> None:
    """--get-vm-pid (contract 1.12)."""
    assert lab.control("--get-vm-pid").returncode == 1
    lab.settle(release="main")
    bhyve = lab.start().wait_titled()

    assert lab.control("--get-vm-pid").stdout == f"{bhyve.pid}\n"


def test_a_force_that_fails_skips_the_destroy(lab: Lab) -> None:
    """After a failed action nothing else of the same call is done."""
    lab.start(lab__script="poweroff").ended()

    done = lab.control("--force-poweroff", "--destroy")

    assert (done.returncode, done.stdout) == (255, "errno = 37\n")
    assert lab.has_node()


def test_a_force_before_there_are_cpus_waits_for_them(lab: Lab) -> None:
    """It is recorded, and counts once they run (contract 1.9)."""
    bhyve = lab.start(**{"lab__boot-delay-before-title": "0.5s", "lab__script": "acpi ignore"})
    until(lambda: lab.control("--get-active-cpus").returncode == 0, "the node")

    assert lab.control("--force-poweroff").returncode == 0

    assert bhyve.ended() == 1


@pytest.mark.parametrize("live", [False, True])
def test_a_refused_destroy_says_nothing(lab: Lab, live: bool) -> None:
    """Exit 0, and the node is still there: only its absence proves anything."""
    bhyve = lab.start(lab__destroy="refuse", lab__script="wait" if live else "poweroff")
    bhyve.wait_titled() if live else bhyve.ended()

    assert lab.control("--destroy").returncode == 0

    assert lab.has_node()
    assert (bhyve.process.poll() is None) is live


def test_a_destroyed_name_may_linger(lab: Lab) -> None:
    """Until it is gone a create finds it, and an open is refused with EINVAL (contract 8.10)."""
    lab.start(lab__destroy="linger 2s", lab__script="poweroff").ended()

    assert lab.control("--destroy").returncode == 0

    assert lab.has_node()
    again = lab.start()
    assert (again.ended(), again.said()) == (4, "bhyve: vm_openf: Invalid argument\n")
    until(lambda: not lab.has_node(), "the name is gone")
    lab.start().wait_titled()


def test_a_destroy_may_hang(lab: Lab) -> None:
    """Until it is killed."""
    lab.start(lab__destroy="hang", lab__script="poweroff").ended()

    hung = lab.spawn("bhyvectl", "--vm=web1", "--destroy")

    assert lab.control("--get-suspended-cpus").returncode == 0  # takes as long as a destroy would
    assert hung.process.poll() is None
    assert lab.has_node()


def test_a_guest_may_run_on_without_its_node(lab: Lab) -> None:
    """Seen on FreeBSD with an idle guest (contract 8.10)."""
    bhyve = lab.start(lab__destroy="run-on")
    bhyve.console.wait_for("login: ")

    lab.control("--destroy")

    assert not lab.has_node()
    bhyve.console.type("still here\r")
    bhyve.console.wait_for("still here")
    bhyve.send(signal.SIGTERM)
    assert bhyve.ended() == 1
