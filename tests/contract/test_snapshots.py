"""Suspend, checkpoint and resume, in a lab whose bhyve was built with them (contract 6)."""

import json
import signal

import pytest

from tests.contract.stand_ins import Lab


@pytest.mark.parametrize(("release", "status"), [("15", 0), ("main", 5)])
def test_a_suspended_guest_comes_back(lab: Lab, release: str, status: int) -> None:
    """bhyve ends with 0, since December 2025 with 5, the node is gone, and -r brings the guest back with CPUs and memory it had."""
    lab.settle(release=release, snapshots=True)
    file = lab.root / "state"
    bhyve = lab.start(cpus="2").wait_titled()

    assert lab.control(f"--suspend={file}").returncode == 0

    assert bhyve.ended() == status
    assert not lab.has_node()
    assert json.loads(file.with_suffix(".meta").read_text())["name"] == "web1"
    console = lab.console()
    again = lab.config(memory__size="512M", lpc__com1__path=console.path)
    back = lab.spawn("bhyve", "-r", str(file), "-k", str(again), console=console).wait_titled()
    assert lab.control("--get-active-cpus").stdout == "active cpus:\t 0, 1\n"
    back.console.type("here\r")
    back.console.wait_for("here")  # who answers heeds the button
    back.send(signal.SIGTERM)
    assert back.ended() == 1


def test_a_checkpoint_leaves_the_guest_running(lab: Lab) -> None:
    """With three files beside it."""
    lab.settle(snapshots=True)
    bhyve = lab.start().wait_titled()

    assert lab.control(f"--checkpoint={lab.root / 'state'}").returncode == 0

    assert bhyve.process.poll() is None
    assert {path.name for path in lab.root.glob("state*")} == {"state", "state.kern", "state.meta"}


def test_nobody_answers_for_a_guest_that_does_not_run(lab: Lab) -> None:
    """The control socket is bhyve's."""
    lab.settle(snapshots=True)
    lab.start(lab__script="poweroff").ended()

    done = lab.control(f"--suspend={lab.root / 'state'}")

    assert (done.returncode, done.stderr) == (2, "connect() failed: No such file or directory\n")


def test_a_snapshot_that_is_not_whole_is_refused(lab: Lab) -> None:
    """With status 1, like a power-off: only the text tells."""
    lab.settle(snapshots=True)

    done = lab.call("bhyve", "-r", "/nowhere", "web1")

    assert (done.returncode, done.stderr) == (1, "Failed to read checkpoint info from file: '/nowhere'.\n")
