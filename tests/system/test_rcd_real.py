"""rc.d/bhyved with the real daemon, over guests of a lab that are there before and after it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.labkit import LabHost, sim
from tests.system.rchost import RcHost, is_alive

GUESTS = {"web": sim(), "db": sim(), "deaf": sim("boot 0.1s; acpi ignore; print login: ; wait")}


@pytest.fixture
def lab() -> Iterator[LabHost]:
    with LabHost(GUESTS) as lab:
        lab.phase("up", *GUESTS)
        yield lab


@pytest.fixture
def host(lab: LabHost, tmp_path: Path) -> Iterator[RcHost]:
    """The lab's guests, whose daemon is dead, on a host with the rc script."""
    lab.kill_daemon()
    host = RcHost(tmp_path, "/bin/sh")
    host.run = lab.root / "run"
    host.configure(**settings(lab))
    yield host
    host.clean_up()


def settings(lab: LabHost) -> dict[str, str]:
    return {
        "bhyved_program": str(Path(sys.executable).with_name("bhyved")),
        "bhyved_config": f"{lab.root}/etc/bhyved.toml",
        "bhyved_run": f"{lab.root}/run",
        "bhyved_start_timeout": "60",
    }


def pids(lab: LabHost) -> dict[str, int]:
    return {name: int((lab.root / f"run/vm/{name}/pid").read_text()) for name in GUESTS}


def test_start_restart_detach_leave_guests_alone(lab: LabHost, host: RcHost) -> None:
    """The daemon under rc takes up what another left, is replaced, and goes; the guests' processes stay the same."""
    before = pids(lab)

    assert host.service("start").returncode == 0
    first = host.pid("bhyved")
    assert host.service("status").stdout == f"bhyved is running as pid {first}, with 3 guests.\n"
    lab.phase("up", *GUESTS)
    assert host.service("restart").returncode == 0
    assert host.pid("bhyved") not in (None, first)
    lab.phase("up", *GUESTS)
    assert host.service("detach").returncode == 0

    assert host.pid("bhyved") is None
    assert pids(lab) == before
    assert all(map(is_alive, before.values()))


def test_the_end_of_the_host_comes_in_time(lab: LabHost, host: RcHost) -> None:
    """A guest that does not hear its button is switched off by bhyved before rc.shutdown's time is over."""
    host.configure(rcshutdown_timeout="14", **settings(lab))
    assert host.service("start").returncode == 0

    done = host.shut_down()

    assert "watchdog" not in host.log()
    assert "pressing the power button" not in done.stdout
    assert not any(map(is_alive, pids_left(lab)))


def test_the_end_of_a_host_whose_daemon_is_dead(lab: LabHost, host: RcHost) -> None:
    """`bhyved --stop-all` keeps to the same time."""
    host.configure(rcshutdown_timeout="14", **settings(lab))
    before = pids(lab)

    done = host.shut_down()

    assert "bhyved is gone, guests are not:" in done.stdout
    assert "watchdog" not in host.log()
    assert "pressing the power button" not in done.stdout
    assert not any(map(is_alive, before.values()))


def pids_left(lab: LabHost) -> list[int]:
    return [int(path.read_text()) for path in (lab.root / "run/vm").glob("*/pid") if path.read_text().strip()]
