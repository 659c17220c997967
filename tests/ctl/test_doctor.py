"""`vmctl doctor` on a lab's host: each thing that is wrong is found, named and comes with its remedy; nothing is changed."""

import json
import os
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from bhyved.host.hostlock import HostLock
from bhyved.lab import layout, settle, state
from tests.ctl.conftest import Ran, Vmctl

BOOT = '[boot]\nloader = "uefi-csm"\n'


class Patient:
    """A host in a directory, and what vmctl finds there."""

    def __init__(self, root: Path, vmctl: Vmctl) -> None:
        self.root, self._vmctl = root, vmctl
        layout.make(root)
        layout.boot(root)
        settle.write(root, settle.Wanted())

    def guest(self, name: str, text: str) -> None:
        (self.root / f"etc/vm.d/{name}.toml").write_text(f"{text}\n{BOOT}")

    def set(self, **settings: Any) -> None:
        path = f"{self.root}/lab/settings.json"
        state.write(path, {**state.settings(str(self.root)), **settings})

    def ask(self, *words: str) -> Ran:
        return self._vmctl(None, "doctor", "-c", f"{self.root}/etc/bhyved.toml", *words)

    def findings(self, level: str = "") -> dict[str, tuple[str, str]]:
        """About → text and remedy, of one level."""
        checks = json.loads(self.ask("--json").out)["checks"]
        return {each["about"]: (each["text"], each["remedy"]) for each in checks if level in ("", each["level"])}


@pytest.fixture
def patient(tmp_path: Path, vmctl: Vmctl) -> Patient:
    return Patient(tmp_path, vmctl)


def test_a_healthy_host(patient: Patient) -> None:
    """Everything that was looked at is named, and the exit status is 0."""
    patient.guest("web", '[[network]]\nbridge = "bridge0"\n[order]\nneeds = ["pool:zroot"]\n')
    ran = patient.ask()

    assert (ran.status, ran.err) == (0, "")
    assert "ok    configuration: 1 guest, no problem\n" in ran.out
    assert "ok    host: FreeBSD 15 on amd64\n" in ran.out
    assert "ok    bridge bridge0: is there, for web; no card of the host is on it, so that guests reach each other, and what" in ran.out
    assert "ok    needs: the pool zroot is there\n" in ran.out
    assert "ok    web: nothing against it\n" in ran.out
    assert "fail" not in ran.out


def test_seeds_without_makefs(patient: Patient) -> None:
    """Who makes them, and for whom; or that nobody can."""
    assert "cloud-init" not in patient.findings()
    patient.guest("web", "[cloud-init]\n")
    assert patient.findings("ok")["cloud-init"] == (f"{patient.root}/bin/makefs makes the seeds of web", "")

    main = patient.root / "etc/bhyved.toml"
    table = tomllib.loads(main.read_text())
    table["paths"]["bin"] = [str(patient.root / "bin")]  # not where this machine may have one
    main.write_text(tomli_w.dumps(table))
    (patient.root / "bin/makefs").unlink()
    text, _ = patient.findings("fail")["cloud-init"]

    assert text.startswith("makefs was not found in ")
    assert text.endswith(": it is part of FreeBSD's base system, and makes the seeds of web")


def test_limits_that_would_not_hold(patient: Patient) -> None:
    """Whose, and the line for loader.conf; nothing is asked where nobody has limits."""
    assert "limits" not in patient.findings()
    patient.guest("web", "[limits]\npcpu = 50\n")
    text, remedy = patient.findings("fail")["limits"]
    assert text.startswith("web cannot start: the host does not count what processes use")
    assert remedy == "echo kern.racct.enable=1 >>/boot/loader.conf\nshutdown -r now"
    patient.set(sysctl={"kern.racct.enable": 1})

    assert "limits" in patient.findings("ok")


def test_stop_timeouts_that_do_not_fit(patient: Patient) -> None:
    """The very lines for rc.conf and sysctl.conf, with which they fit."""
    patient.guest("web", '[stop]\ntimeout = "5m"\n')
    text, remedy = patient.findings("warn")["host shutdown"]
    assert text == "guests want 5m20s and get 1m25s: their stop timeouts are cut short"
    assert remedy.splitlines() == [
        "sysrc rcshutdown_timeout=355",
        "sysctl kern.init_shutdown_timeout=385",
        "echo kern.init_shutdown_timeout=385 >> /etc/sysctl.conf",
    ]
    patient.set(**{"rc.conf": {"rcshutdown_timeout": "355"}, "sysctl": {"kern.init_shutdown_timeout": 385}})

    assert "host shutdown" in patient.findings("ok")


def test_what_keeps_a_guest_from_starting(patient: Patient, tmp_path: Path) -> None:
    """A missing bridge, firmware, disk; each named once with what to do, and the exit status is 1."""
    patient.guest("web", f'[[network]]\nbridge = "bridge7"\n[[disk]]\npath = "{tmp_path}/gone.img"\n')
    (patient.root / "etc/vm.d/efi.toml").write_text(f'[boot]\nloader = "uefi"\nfirmware = "{tmp_path}/gone.fd"\n')
    fails = patient.findings("fail")

    assert patient.ask().status == 1
    assert fails["bridge bridge7"] == ("does not exist; wanted by web", 'sysrc cloned_interfaces+="bridge7"\nservice netif cloneup')
    assert "gone.img: no such file or directory" in fails["web"][0]
    assert fails["efi"][0] == f"firmware {tmp_path}/gone.fd does not exist"


def test_a_bridge_that_passes_nothing(patient: Patient) -> None:
    """It is down, or the host's card on it is; a tap that is down is a guest's own affair."""

    def ifconfig(*words: str) -> None:
        subprocess.run([f"{patient.root}/bin/ifconfig", *words], check=True, capture_output=True)

    patient.guest("web", '[[network]]\nbridge = "bridge0"\n')
    ifconfig("tap7", "create")
    patient.set(sysctl={"net.link.bridge.member_ifaddrs": 1})  # em0 has the host's address
    ifconfig("bridge0", "addm", "em0", "addm", "tap7", "up")
    assert patient.findings("ok")["bridge bridge0"] == ("is there, for web", "")
    ifconfig("em0", "down")
    assert patient.findings("warn")["bridge bridge0"] == ("em0, which is on it, is down, and passes nothing for web", "ifconfig em0 up")
    ifconfig("em0", "up")
    ifconfig("bridge0", "down")

    assert patient.findings("warn")["bridge bridge0"] == ("it is down, and passes nothing for web", "ifconfig bridge0 up")


def test_a_disk_of_two_guests(patient: Patient, tmp_path: Path) -> None:
    """By what the kernel says, not by name; shared disks are meant."""
    disk, link = tmp_path / "a.img", tmp_path / "b.img"
    disk.write_bytes(bytes(512))
    os.link(disk, link)
    for name, path in (("one", disk), ("two", link)):
        patient.guest(name, f'[[disk]]\npath = "{path}"\n')
    assert "is a disk of one, two: they cannot run together" in patient.findings("warn")["disks"][0]
    for name, path in (("one", disk), ("two", link)):
        patient.guest(name, f'[[disk]]\npath = "{path}"\nshared = true\n')

    assert "disks" not in patient.findings()


def test_memory(patient: Patient) -> None:
    """More than there is is a warning, more wired than allowed a failure with its sysctl."""
    patient.set(physmem=1 << 30)
    patient.guest("web", 'memory = "2G"\nwired = true\n')

    text, remedy = patient.findings("warn")["memory"]
    assert text == "guests with autostart want 2G, the host has 0K for guests: some of them will wait"
    assert remedy == "vmctl plan --boot shows which"
    assert patient.findings("fail")["wired memory"][1] == f"sysctl vm.max_user_wired={(2 << 30) // 4096}\nvmctl reload"


def test_overcommitted_memory(patient: Patient) -> None:
    """Nobody waits then: the host pays."""
    patient.set(physmem=1 << 30)
    patient.guest("web", 'memory = "2G"\n')
    main = patient.root / "etc/bhyved.toml"
    main.write_text("overcommit = true\n" + main.read_text())

    assert patient.findings("warn")["memory"] == ("guests with autostart want 2G, the host has 1G: it may swap, or kill a guest", "")


def test_taps(patient: Patient) -> None:
    """What the kernel does with taps matters where guests have some; one of the operator's own must be there."""
    patient.guest("web", '[[network]]\ntap = "tap7"\n')
    text, remedy = patient.findings("warn")["taps"]
    assert text.startswith("net.link.tap.up_on_open is 0")
    assert remedy.splitlines()[0] == "sysctl net.link.tap.up_on_open=1"
    assert patient.findings("fail")["tap tap7"] == ("does not exist; wanted by web", "ifconfig tap7 create")
    patient.set(sysctl={"net.link.tap.up_on_open": 1, "net.link.tap.user_open": 1})
    assert patient.findings("warn")["taps"][0].startswith("net.link.tap.user_open is 1")
    patient.guest("web", "")
    assert "taps" not in patient.findings()


JAILED = {"security.jail.jailed": 1, "security.jail.vnet": 1}
HOST = "on the host, since a jail may not:"


class Jailed(Patient):
    """A jail: nmdm is there where the kernel is asked, and shows what `dev` has."""

    def __init__(self, root: Path, vmctl: Vmctl) -> None:
        super().__init__(root, vmctl)
        (root / "bin/kldstat").write_text("#!/bin/sh\nexit 0\n")
        self.be()

    def be(self, **sysctl: Any) -> None:
        self.set(sysctl={**JAILED, **sysctl})

    def found(self) -> dict[str, str]:
        """What is wrong with the jail: text and remedy."""
        checks = json.loads(self.ask("--json").out)["checks"]
        return {each["text"]: each["remedy"] for each in checks if each["about"] == "jail" and each["level"] == "fail"}


@pytest.fixture
def jailed(tmp_path: Path, vmctl: Vmctl) -> Jailed:
    return Jailed(tmp_path, vmctl)


def test_a_jail_that_has_what_guests_need(jailed: Jailed) -> None:
    """It is told that this is one; on a host nothing is said of jails."""
    (jailed.root / "dev/vmmctl").touch()
    assert jailed.findings("ok")["jail"] == ("has a network stack of its own, and may use vmm", "")
    assert jailed.found() == {}
    jailed.be(**{"security.jail.jailed": 0})
    assert "jail" not in jailed.findings()


def test_what_a_jail_lacks(jailed: Jailed) -> None:
    """Each with the lines of jail.conf(5) and devfs.rules(5) that give it."""
    jailed.guest("web", "")
    jailed.be(**{"security.jail.vnet": 0, "hw.vmm.create": None})
    assert [*jailed.found().items()][:2] == [
        (
            "has no network stack of its own: guests get no taps, and rc(8) does not start bhyved",
            'in its jail.conf(5):\nvnet;\nvnet.interface = "INTERFACE";',
        ),
        (
            "may not use vmm: no guest can be made. What a jail may is settled when it is made, after vmm has been loaded",
            "in its jail.conf(5):\nallow.vmm;",
        ),
    ]

    jailed.be()
    assert jailed.found() == {
        "does not see vmmctl, nmdm-* in /dev": "on the host, in the jail's section of /etc/devfs.rules:\nadd path 'vmmctl' unhide\n"
        "add path 'nmdm-*' unhide\nservice devfs restart\nservice jail restart NAME"
    }
    (jailed.root / "dev/vmmctl").touch()
    (jailed.root / "dev/nmdm-web.1B").touch()
    assert jailed.found() == {}


def test_a_jail_on_a_host_without_vmm(jailed: Jailed) -> None:
    """Whether it may use vmm is not to be known then."""
    (jailed.root / "dev/vmmctl").touch()
    lab = (jailed.root / "bin/sysctl").rename(jailed.root / "bin/sysctl.lab")
    (jailed.root / "bin/sysctl").write_text(
        f'#!/bin/sh\ncase $* in *hw.vmm.create) echo "sysctl: unknown oid \'hw.vmm.create\'" >&2; exit 1;; esac\nexec {lab} "$@"\n'
    )
    (jailed.root / "bin/sysctl").chmod(0o755)

    assert jailed.findings("ok")["jail"] == ("has a network stack of its own", "")


def test_a_jail_on_14_needs_no_vmmctl(jailed: Jailed) -> None:
    """There is none before 15."""
    jailed.set(release="14")

    assert jailed.found() == {}


def test_a_jail_that_does_not_see_its_taps(jailed: Jailed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interfaces without their nodes; one that is called so and is none counts not."""
    (jailed.root / "dev/vmmctl").touch()
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo0"), (2, "tapestry"), (3, "tap1000")])
    assert list(jailed.found()) == ["does not see tap* in /dev"]
    (jailed.root / "dev/tap1000").touch()
    assert jailed.found() == {}


def test_volumes_that_a_jail_does_not_see(jailed: Jailed) -> None:
    """Rules for each, and for every directory above them once."""
    dev = jailed.root / "dev"
    jailed.guest("web", "".join(f'[[disk]]\npath = "{dev}/zvol/zroot/{name}"\n' for name in ("web0", "web1")))
    remedy = jailed.findings("fail")["web"][1].splitlines()

    assert remedy[1:-2] == [f"add path '{path}' unhide" for path in ("zvol", "zvol/zroot", "zvol/zroot/web0", "zvol/zroot/web1")]


def test_what_a_jail_leaves_to_its_host(jailed: Jailed) -> None:
    """Modules, variables of the kernel, and the time of the host's own end."""
    (jailed.root / "bin/kldstat").write_text("#!/bin/sh\nexit 1\n")
    jailed.guest("web", 'memory = "2G"\nwired = true\n[stop]\ntimeout = "5m"\n[[network]]\nbridge = "bridge0"\n[limits]\npcpu = 50\n')
    jailed.set(physmem=1 << 30)
    fails, warns = jailed.findings("fail"), jailed.findings("warn")

    assert fails["module vmm"][1].splitlines() == [HOST, "kldload vmm", "sysrc kld_list+=vmm", "service jail restart NAME"]
    assert fails["wired memory"][1].splitlines()[0] == HOST
    assert "a jail may set no rules of rctl(8)" in fails["limits"][0]
    assert warns["taps"][1].splitlines()[:2] == [HOST, "sysctl net.link.tap.up_on_open=1"]
    assert warns["host shutdown"][1].splitlines()[:4] == [
        "sysrc rcshutdown_timeout=355",
        HOST,
        "sysrc rcshutdown_timeout=385",
        "sysctl kern.init_shutdown_timeout=415",
    ]


def test_a_vnc_port_that_another_program_has(patient: Patient) -> None:
    """It would keep the guest from starting; while the guest runs, the port is its own."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        patient.guest("web", f'[graphics]\nlisten = "127.0.0.1:{port}"\n')
        text, remedy = patient.findings("fail")["vnc of web"]
        assert text == f"VNC cannot listen on 127.0.0.1:{port}: address already in use; web would not start"
        assert remedy.startswith("another port in graphics.listen")
        (patient.root / "run/vm/web").mkdir(parents=True)
        (patient.root / "run/vm/web/run.toml").touch()
        assert "vnc of web" not in patient.findings()


def test_a_port_that_is_taken(patient: Patient) -> None:
    """While no daemon runs: else it is the daemon's own."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settle.write(patient.root, settle.Wanted(metrics=f"127.0.0.1:{other.getsockname()[1]}"))
        assert "cannot be listened on: address already in use" in patient.findings("fail")["metrics"][0]
        lock = HostLock.take(str(patient.root / "run"))
        findings = patient.findings()
        lock.release()

    assert "metrics" not in findings
    assert findings["daemon"][0] == f"bhyved runs (pid {os.getpid()})"


def test_a_configuration_with_problems(patient: Patient) -> None:
    """Each is a line; what can be looked at is looked at."""
    patient.guest("good", "")
    patient.guest("bad", "colour = 1\n")

    assert "colour: unknown key" in patient.findings("fail")["configuration"][0]
    assert "good" in patient.findings("ok")


def test_a_host_without_its_tools(patient: Patient) -> None:
    """Every check that cannot be made says so, and none ends the visit."""
    for tool in ("sysctl", "kldstat", "ifconfig", "sysrc"):
        (patient.root / f"bin/{tool}").write_text("#!/bin/sh\nexit 99\n")
    patient.guest("web", '[[network]]\nbridge = "bridge0"\n')
    findings = patient.findings()

    assert {"host", "bridge bridge0"} <= patient.findings("fail").keys()
    assert {"memory", "module vmm", "daemon", "host shutdown"} <= findings.keys()


def test_nothing_is_changed(patient: Patient) -> None:
    """Not even a copy of the firmware's variables is made."""
    patient.guest("web", '[[network]]\nbridge = "bridge0"\n')
    before = {path: path.stat().st_mtime_ns for path in patient.root.rglob("*")}
    patient.ask()

    assert {path: path.stat().st_mtime_ns for path in patient.root.rglob("*")} == before


def test_what_only_root_can_see(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are told before anything else that something may be wrong, and nothing of a daemon whose lock they cannot look at."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    checks = json.loads(patient.ask("--json").out)["checks"]
    told = [check for check in checks if check["about"] != "configuration"]

    assert told[0]["text"] == "only root can look everywhere: what follows may miss something, or be wrong"
    assert "daemon" not in {check["about"] for check in told}
