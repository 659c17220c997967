"""`bhyved selftest` on the lab's host: everything holds with either engine, and a host that breaks a promise is found out."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bhyved.core.selfcheck import GUEST, TAP
from bhyved.lab.qemu_machine import QEMU
from tests.system.labkit import LabHost, running

LIMIT_S = 300.0  # a loaded machine


@pytest.fixture
def lab() -> Iterator[LabHost]:
    with running({"a": 'memory = "16M"\nautostart = false\n'}) as found:
        yield found


def selftest(lab: LabHost, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run it, with its scratch in `tmp_path`."""
    argv = [sys.executable, "-m", "bhyved", "selftest", "-c", str(lab.root / "etc/bhyved.toml")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False, env={**os.environ, "TMPDIR": str(tmp_path)})


def settle(lab: LabHost, **news: object) -> None:
    """Make the lab another kind of host."""
    path = lab.root / "lab/settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **news}))


def assert_nothing_is_left(lab: LabHost, scratch: Path) -> None:
    assert list(scratch.iterdir()) == []
    assert lab.leftovers() == []
    assert not any(GUEST in " ".join(process.cmdline()) for process in lab.processes())


@pytest.mark.parametrize("engine", ["sim", pytest.param("qemu", marks=pytest.mark.guest)])
def test_it_passes(lab: LabHost, tmp_path: Path, engine: str) -> None:
    """Every check is tried and passes, and nothing of it stays: no node, tap, process or file."""
    if engine == "qemu" and shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (package qemu-system-x86)")
    settle(lab, engine=engine)
    ran = selftest(lab, tmp_path)

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("33 ok, 0 failed, 0 skipped, in ")
    assert "  release    15.0-RELEASE\n" in ran.stdout
    assert_nothing_is_left(lab, tmp_path)


def test_a_host_that_cannot_run_guests_is_found_out(lab: LabHost, tmp_path: Path) -> None:
    """Without "unrestricted guest" each check of a guest fails with bhyve's own words; the others are not stopped by it."""
    settle(lab, unrestricted_guest=False)
    shutil.rmtree(lab.root / "share/uefi-firmware")
    ran = selftest(lab, tmp_path)

    assert ran.returncode == 1
    assert "failed  a guest's poweroff is exit status 1: " in ran.stdout
    assert "unrestricted guest capability not available" in ran.stdout
    assert "ok      a tap is made once" in ran.stdout
    assert "skipped UEFI firmware boots with variables of its own: edk2-bhyve is not installed" in ran.stdout
    assert_nothing_is_left(lab, tmp_path)


def test_a_foreign_tap_is_left_alone(lab: LabHost, tmp_path: Path) -> None:
    """An interface that has the selftest's name by chance is not touched, and the checks of taps are skipped."""
    subprocess.run([lab.root / "bin/ifconfig", TAP, "create", "description", "mine"], check=True)
    ran = selftest(lab, tmp_path)

    assert ran.returncode == 0, ran.stdout
    assert f"skipped a tap is made once: there is an interface {TAP}" in ran.stdout
    shown = subprocess.run([lab.root / "bin/ifconfig", TAP], capture_output=True, text=True, check=True).stdout
    assert "description: mine" in shown
