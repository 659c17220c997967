"""VM nodes against a stand-in bhyvectl that behaves as contract 1.10, 1.11 and 8.10 say."""

import os
from pathlib import Path

import pytest
import trio

from bhyved.core.errors import HostError
from bhyved.host import vmm as module
from bhyved.host.vmm import Vmm, parse_cpus
from tests.host.scripts import Scripts


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    (tmp_path / "dev" / "vmm").mkdir(parents=True)
    return tmp_path / "dev"


@pytest.fixture
def vmm(dev: Path, scripts: Scripts) -> Vmm:
    return Vmm(str(dev), scripts.tools)


def test_no_directory_means_no_nodes(tmp_path: Path, scripts: Scripts) -> None:
    """A host without /dev/vmm has no VMs; that is no error."""
    vmm = Vmm(str(tmp_path / "nowhere"), scripts.tools)

    assert (vmm.exists("web"), vmm.owner("web")) == (False, None)


async def test_an_absent_node_needs_no_process(vmm: Vmm, scripts: Scripts) -> None:
    """Destroying what is not there asks nobody."""
    assert await vmm.destroy("web") is False
    assert scripts.calls == []


async def test_destroy(vmm: Vmm, dev: Path, scripts: Scripts) -> None:
    """The node is gone when destroy returns, and only that one."""
    (dev / "vmm" / "web").touch()
    (dev / "vmm" / "db").touch()
    scripts.write("bhyvectl", f"rm {dev}/vmm/${{1#--vm=}}")

    with trio.fail_after(10):
        assert await vmm.destroy("web") is True

    assert [vmm.owner(name) for name in ("web", "db")] == [None, os.geteuid()]
    assert scripts.calls == ["bhyvectl --vm=web --destroy"]


async def test_a_name_that_lingers_is_waited_for(vmm: Vmm, dev: Path, scripts: Scripts) -> None:
    """A node that goes a moment after bhyvectl has ended is waited for, without a second destroy."""
    (dev / "vmm" / "web").touch()
    scripts.write("bhyvectl", f"(sleep 0.3; rm {dev}/vmm/web) >/dev/null 2>&1 &")

    with trio.fail_after(10):
        assert await vmm.destroy("web") is True

    assert len(scripts.calls) == 1


async def test_exit_status_zero_proves_nothing(vmm: Vmm, dev: Path, scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that stays is an error although bhyvectl said 0 twice."""
    monkeypatch.setattr(module, "LINGER_LOOKS_S", (0.0, 0.01))
    (dev / "vmm" / "web").touch()
    scripts.write("bhyvectl", "exit 0")

    with trio.fail_after(10), pytest.raises(HostError, match=r"/dev/vmm/web is still there after two `bhyvectl --vm=web --destroy`$"):
        await vmm.destroy("web")

    assert len(scripts.calls) == 2


async def test_a_second_destroy_can_succeed(vmm: Vmm, dev: Path, scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destroy that the kernel refused once is retried."""
    monkeypatch.setattr(module, "LINGER_LOOKS_S", (0.0, 0.01))
    (dev / "vmm" / "web").touch()
    scripts.write("bhyvectl", f"[ -e {dev}/once ] && rm {dev}/vmm/web; touch {dev}/once")

    with trio.fail_after(10):
        assert await vmm.destroy("web") is True


@pytest.mark.parametrize("status", [37, 255])
async def test_forcing_twice_is_no_error(vmm: Vmm, scripts: Scripts, status: int) -> None:
    """EALREADY from an earlier request is success, with either exit status that bhyvectl gives it."""
    scripts.write("bhyvectl", f"echo 'errno = 37'; exit {status}")

    with trio.fail_after(10):
        await vmm.force("web", "poweroff")

    assert scripts.calls == ["bhyvectl --vm=web --force-poweroff"]


async def test_another_errno_is_an_error(vmm: Vmm, scripts: Scripts) -> None:
    """Any other failure is told, with what bhyvectl printed on stdout."""
    scripts.write("bhyvectl", "echo 'errno = 3'; exit 255")

    with trio.fail_after(10), pytest.raises(HostError, match=r"^`bhyvectl --vm=web --force-reset` failed with exit status 255: errno = 3$"):
        await vmm.force("web", "reset")


@pytest.mark.parametrize(("active", "suspended", "clean"), [("0, 1", "0, 1", True), ("0, 1", "0", False), ("(none)", "(none)", False)])
async def test_how_an_unseen_run_ended(vmm: Vmm, scripts: Scripts, active: str, suspended: str, clean: bool) -> None:
    """A node whose active vCPUs are all suspended ended by itself; one that never ran did not."""
    scripts.write(
        "bhyvectl",
        f"case $2 in *active*) printf 'active cpus:\\t {active}\\n';; *) printf 'suspended cpus:\\t {suspended}\\n';; esac",
    )

    with trio.fail_after(10):
        assert await vmm.ended_cleanly("web") is clean


def test_an_answer_that_is_no_cpu_set_is_an_error() -> None:
    """Text that is no cpu set is not taken for an empty one."""
    with pytest.raises(HostError, match=r"where active cpus were asked for"):
        parse_cpus("VM:web is not created.", "active")
