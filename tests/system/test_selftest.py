"""`bhyved selftest` on the lab's host: everything holds with either engine, and a host that breaks a promise is found out."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from bhyved.cli.daemon import USAGE, main
from bhyved.core.selfcheck import GUEST, TAP
from bhyved.lab.qemu_machine import QEMU
from tests.system.labkit import LabHost, running

LIMIT_S = 120.0  # a loaded machine
ENDED_S = 40.0  # likewise, for what takes 200 s where each guest that has ended is waited for
CHECKS = 37

pytestmark = pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")


@pytest.fixture
def lab() -> Iterator[LabHost]:
    with running({"a": 'memory = "16M"\nautostart = false\n'}) as found:
        yield found


def selftest(lab: LabHost, tmp_path: Path, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it, with its scratch in `tmp_path`."""
    argv = [sys.executable, "-m", "bhyved", "selftest", "-c", str(lab.root / "etc/bhyved.toml"), *options]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=env, cwd=cwd)


def replace(lab: LabHost, tool: str, first: str) -> None:
    """Have a command of the host do something else first."""
    path = lab.root / "bin" / tool
    path.rename(path.with_name(f"real-{tool}"))
    path.write_text(f'#!/bin/sh\n{first}\nexec "$0/../real-{tool}" "$@"\n'.replace("$0/..", str(path.parent)))
    path.chmod(0o755)


def assert_nothing_is_left(lab: LabHost, scratch: Path) -> None:
    assert list(scratch.iterdir()) == []
    assert lab.leftovers() == []
    assert not any(GUEST in " ".join(process.cmdline()) for process in lab.processes())


@pytest.mark.parametrize("engine", ["sim", pytest.param("qemu", marks=pytest.mark.guest)])
def test_it_passes(lab: LabHost, tmp_path: Path, engine: str) -> None:
    """Every check is tried and passes, each names the section it proves, and nothing of it stays: no node, tap, process or file."""
    if engine == "qemu" and shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (package qemu-system-x86)")
    lab.settle(engine=engine)
    ran = selftest(lab, tmp_path, "--json")

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    told = json.loads(ran.stdout)
    assert (told["passed"], told["counts"]) == (True, {"ok": CHECKS, "failed": 0, "skipped": 0})
    assert {check["section"] for check in told["checks"]} >= {"1.7.1", "1.8", "1.9", "1.10", "1.11", "4.4", "5.3", "8.1", "8.3", "8.8"}
    assert told["host"]["kernel"] == told["host"]["userland"] == "15.0-RELEASE"
    assert_nothing_is_left(lab, tmp_path)


JAIL = {"security.jail.jailed": 1, "security.jail.vnet": 1}
NO_GUESTS = [
    pytest.param(
        {"sysctl": {"hw.vmm.vmx.cap.unrestricted_guest": 0}}, (), "no unrestricted guest, which a guest with a boot ROM needs", id="no-ug"
    ),
    pytest.param({"arch": "arm64"}, (), "this is for amd64, and the host is aarch64", id="arm64"),
    pytest.param({}, ("bhyve", "bhyvectl", "bhyveload"), "it belongs to FreeBSD's base system", id="no-bhyve"),
    pytest.param({}, ("module", "kldload"), "the kernel module vmm cannot be loaded, kldload: vmm: Device not configured", id="no-vmm"),
    pytest.param({"sysctl": JAIL}, ("module",), "in a jail vmm is for the host to load", id="jail"),
    pytest.param({}, ("--create",), "vmm could not be initialised: bhyve needs VT-x with EPT", id="no-vt-x"),
]


@pytest.mark.parametrize(("settings", "broken", "reason"), NO_GUESTS)
def test_a_host_that_cannot_run_guests(
    lab: LabHost, tmp_path: Path, settings: dict[str, object], broken: tuple[str, ...], reason: str
) -> None:
    """Each check of a guest is skipped with the reason and the remedy, none fails, and the others are tried."""
    lab.settle(**settings)
    for what in broken:
        if what == "module":
            (lab.root / "lab/module/vmm").unlink()
        elif what == "kldload":
            replace(lab, "kldload", 'case "$*" in *vmm*) echo "kldload: vmm: Device not configured" >&2; exit 1;; esac')
        elif what == "--create":
            replace(lab, "bhyvectl", 'case "$*" in *--create*) echo "vm_create: Device not configured" >&2; exit 1;; esac')
        else:
            (lab.root / "bin" / what).unlink()
    ran = selftest(lab, tmp_path)

    assert ran.returncode == 0, ran.stdout
    last = ran.stdout.splitlines()[-1]
    assert " 0 failed, " in last
    assert "nothing failed, but " in last
    told = next(line for line in ran.stdout.splitlines() if "a guest's poweroff" in line)
    assert told.startswith("  skipped 1.7.1  ")
    assert reason in told
    assert "ok      5.3    a tap is made once" in ran.stdout
    assert "ok      4.4    a freshly opened side echoes" in ran.stdout
    assert_nothing_is_left(lab, tmp_path)


def test_a_bhyve_that_breaks_its_promise_fails(lab: LabHost, tmp_path: Path) -> None:
    """The host says that it can run guests, and bhyve refuses: each check of a guest fails at once with bhyve's words, the others hold."""
    lab.settle(unrestricted_guest=False, sysctl={"hw.vmm.vmx.cap.unrestricted_guest": 1})
    shutil.rmtree(lab.root / "share/uefi-firmware")
    ran = selftest(lab, tmp_path)

    assert ran.returncode == 1
    assert "failed  1.7.1  a guest's poweroff is exit status 1: it printed nothing, and bhyve has ended with 4: " in ran.stdout
    assert "unrestricted guest capability not available" in ran.stdout
    assert "ok      5.3    a tap is made once" in ran.stdout
    assert "skipped 2.4    UEFI firmware boots with variables of its own: edk2-bhyve is not installed" in ran.stdout
    assert float(ran.stdout.splitlines()[-1].split(" s: ")[0].rsplit(" ", 1)[1]) < ENDED_S
    assert_nothing_is_left(lab, tmp_path)


def test_what_a_bhyve_drops_goes_with_it(lab: LabHost, tmp_path: Path) -> None:
    """A core of a guest that aborts is not left where somebody has typed `bhyved selftest`."""
    shutil.rmtree(lab.root / "share/uefi-firmware")
    replace(lab, "bhyve", "touch bhyve.core; pwd >>" + str(lab.root / "where"))
    home = lab.root / "home"
    home.mkdir()
    selftest(lab, tmp_path, cwd=home)

    assert {Path(where).parent for where in (lab.root / "where").read_text().split()} == {tmp_path}
    assert list(home.iterdir()) == []
    assert_nothing_is_left(lab, tmp_path)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("unlink", "skipped 5      makefs makes an image with the label, and names in small letters: makefs was not found in "),
        ('echo "makefs: no" >&2; exit 1', "names in small letters: makefs ended with 1: makefs: no"),
        ('for image; do :; done; echo x >"$5"; exit 0', "names in small letters: the label of what it made is ''"),
    ],
)
def test_a_makefs_that_makes_no_seeds(lab: LabHost, tmp_path: Path, broken: str, said: str) -> None:
    """None is skipped, one that does something else fails."""
    main = lab.root / "etc/bhyved.toml"
    table = tomllib.loads(main.read_text())
    table["paths"]["bin"] = [f"{lab.root}/bin"]  # not where this machine may have a makefs
    main.write_text(tomli_w.dumps(table))
    if broken == "unlink":
        (lab.root / "bin/makefs").unlink()
    else:
        replace(lab, "makefs", broken)
    ran = selftest(lab, tmp_path)

    assert said in ran.stdout
    assert ran.returncode == (0 if broken == "unlink" else 1)


def test_a_kernel_that_keeps_a_node_fails(lab: LabHost, tmp_path: Path) -> None:
    """bhyvectl exits with 0 and the node stays: that is seen by the node, told in the report, and not tried again and again."""
    replace(lab, "bhyvectl", 'case "$*" in *--destroy*) exit 0;; esac')
    ran = selftest(lab, tmp_path)

    assert ran.returncode == 1
    assert f"failed  1.11   bhyvectl --destroy takes a node away: {lab.root}/dev/vmm/{GUEST} is still there after two" in ran.stdout
    assert "skipped 1.7.1  a guest's reboot is exit status 0: not tried, since" in ran.stdout
    assert "failed  1.10   nothing of the selftest is left: " in ran.stdout


def test_a_foreign_tap_is_left_alone(lab: LabHost, tmp_path: Path) -> None:
    """An interface that has the selftest's name by chance is not touched, and the checks of taps are skipped."""
    subprocess.run([lab.root / "bin/ifconfig", TAP, "create", "description", "mine"], check=True)
    ran = selftest(lab, tmp_path)

    assert ran.returncode == 0, ran.stdout
    assert f"skipped 5.3    a tap is made once: there is an interface {TAP}" in ran.stdout
    shown = subprocess.run([lab.root / "bin/ifconfig", TAP], capture_output=True, text=True, check=True).stdout
    assert "description: mine" in shown


def test_json_is_for_the_selftest(capsys: pytest.CaptureFixture[str]) -> None:
    """No other command prints an object, and none pretends to."""
    with pytest.raises(SystemExit) as ended:
        main(["check", "--json"])

    assert ended.value.code == USAGE
    assert "--json is for selftest" in capsys.readouterr().err
