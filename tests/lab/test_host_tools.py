"""The stand-ins of FreeBSD's host tools, called as the daemon calls them: words, output, exit status (contract 5 and 8)."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bhyved.core.ifconfig import parse_ifconfig
from bhyved.host.processes import parse_ps
from bhyved.host.tap import TapExists, Taps
from bhyved.host.toolbox import Tools
from bhyved.lab import layout, state
from bhyved.lab.netif import Net, open_tap
from tests.lab.labhost import PATIENCE_S, Lab
from tests.waiting import until


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def hold_tap(lab: Lab, name: str) -> "subprocess.Popen[bytes]":
    """A process that has a tap open, as a bhyve would."""
    code = f"import os, sys; sys.path.append({os.getcwd()!r}); from bhyved.lab.netif import open_tap; open_tap({str(lab.root)!r}, {name!r})"
    process = subprocess.Popen([sys.executable, "-c", f"{code}; print('open', flush=True); sys.stdin.read()"], stdin=-1, stdout=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    return process


@pytest.fixture
def held(lab: Lab) -> "Iterator[subprocess.Popen[bytes]]":
    """The process that has tap3 open."""
    lab.said("ifconfig", "tap3", "create")
    lab.said("ifconfig", "tap3", "up")
    with hold_tap(lab, "tap3") as process:
        yield process
        process.kill()


# ---- ifconfig


def test_a_tap_from_making_to_destroying(lab: Lab) -> None:
    """What is set is shown, in a form that the daemon reads, and gone after destroy."""
    lab.said("ifconfig", "tap1000", "create")
    lab.said("ifconfig", "tap1000", "description", "bhyved web1 0", "group", "bhyved", "mtu", "9000", "up")
    lab.said("ifconfig", "bridge0", "addm", "tap1000")

    tap = parse_ifconfig(lab.said("ifconfig", "tap1000"))["tap1000"]
    bridge = parse_ifconfig(lab.said("ifconfig", "-a"))["bridge0"]

    assert (tap.description, tap.groups, tap.mtu, tap.is_up, tap.opened_by) == ("bhyved web1 0", ("tap", "bhyved"), 9000, True, None)
    assert bridge.members == ("tap1000",)
    assert lab.said("ifconfig", "-g", "bhyved") == "tap1000\n"
    assert lab.said("ifconfig", "-l") == "em0 lo0 tap1000 bridge0\n"
    lab.said("ifconfig", "tap1000", "destroy")
    assert lab.refused("ifconfig", "tap1000") == "ifconfig: interface tap1000 does not exist"
    assert parse_ifconfig(lab.said("ifconfig", "bridge0"))["bridge0"].members == ()


def test_a_number_is_found(lab: Lab) -> None:
    """`ifconfig tap create` prints the name of the first that is free."""
    lab.said("ifconfig", "tap0", "create")

    assert lab.said("ifconfig", "tap", "create") == "tap1\n"
    assert lab.said("ifconfig", "bridge", "create", "up") == "bridge1\n"


def test_create_with_more_words_takes_over(lab: Lab) -> None:
    """Alone it fails on an interface that exists; with more words it succeeds, and a foreign tap is changed."""
    lab.said("ifconfig", "tap7", "create")

    assert lab.refused("ifconfig", "tap7", "create") == "ifconfig: interface tap7 already exists"
    lab.said("ifconfig", "tap7", "create", "description", "taken")
    assert "description: taken" in lab.said("ifconfig", "tap7")


#: With tap1 on bridge0, tap2 of another MTU and bridge1: FreeBSD's words (contract 5.3, 5.4, 8.9).
REFUSALS = (
    ("bridge0 addm tap1", "ifconfig: BRDGADD tap1: File exists"),
    ("bridge0 addm tap9", "ifconfig: BRDGADD tap9: No such file or directory"),
    ("bridge1 addm tap1", "ifconfig: BRDGADD tap1: Device busy"),
    ("bridge0 addm tap2", "ifconfig: BRDGADD tap2: Invalid argument"),  # another MTU
    ("bridge0 addm em0", "ifconfig: BRDGADD em0: Invalid argument"),  # 15: a member may not carry addresses
    ("bridge0 deletem tap2", "ifconfig: BRDGDEL tap2: No such file or directory"),
    ("bridge9 addm tap1", "ifconfig: interface bridge9 does not exist"),
    ("tap1 group web1", "ifconfig: setifgroup: group names may not end in a digit"),
    ("tap1 group tap", "ifconfig:  SIOCAIFGROUP: File exists"),
    ("tap1 mtu 10", "ifconfig: ioctl SIOCSIFMTU (set mtu): Invalid argument"),
    ("tap1 name tap2", "ifconfig: ioctl SIOCSIFNAME (set name): File exists"),
    ("tap9 destroy", "ifconfig: interface tap9 does not exist"),
    ("vm-public create", "ifconfig: SIOCIFCREATE2 (vm-public): Invalid argument"),
    ("em0 destroy", "ifconfig: SIOCIFDESTROY: Invalid argument"),
    ("tap1 frobnicate", "ifconfig: frobnicate: bad value"),
)


@pytest.mark.parametrize(("words", "text"), REFUSALS)
def test_ifconfig_refuses(lab: Lab, words: str, text: str) -> None:
    """With exit status 1."""
    for made in ("tap1", "tap2", "bridge1"):
        lab.said("ifconfig", made, "create")
    lab.said("ifconfig", "tap2", "mtu", "9000")
    lab.said("ifconfig", "bridge0", "addm", "tap1")

    assert lab.refused("ifconfig", *words.split()) == text


def test_a_bridge_may_be_renamed(lab: Lab) -> None:
    """And keeps its members."""
    lab.said("ifconfig", "tap1", "create")
    lab.said("ifconfig", "bridge0", "addm", "tap1", "name", "vm-public")

    assert parse_ifconfig(lab.said("ifconfig", "vm-public"))["vm-public"].members == ("tap1",)


def test_before_15_members_may_have_addresses(tmp_path: Path) -> None:
    """A machine's own card with an address joins a bridge on 14."""
    lab = Lab(tmp_path, release="14")

    lab.said("ifconfig", "bridge0", "addm", "em0")


def test_an_open_tap_says_by_whom(lab: Lab, held: "subprocess.Popen[bytes]") -> None:
    """RUNNING, active and `Opened by PID` while open; DOWN when its opener is gone, however that ended."""
    shown = lab.said("ifconfig", "tap3")
    assert "RUNNING" in shown
    assert "status: active" in shown
    assert parse_ifconfig(shown)["tap3"].opened_by == held.pid

    held.kill()
    held.wait()

    tap = parse_ifconfig(lab.said("ifconfig", "tap3"))["tap3"]
    assert (tap.opened_by, tap.is_up) == (None, False)


def test_one_opener_at_a_time(lab: Lab, held: "subprocess.Popen[bytes]") -> None:
    """A second open is EBUSY; setting something meanwhile does not let go of the tap."""
    del held
    lab.said("ifconfig", "tap3", "description", "open")

    with pytest.raises(OSError, match="open"):
        open_tap(str(lab.root), "tap3")
    assert "Opened by PID" in lab.said("ifconfig", "tap3")


def test_opening_makes_a_tap_that_is_missing(lab: Lab) -> None:
    """A guest with a wrong tap name starts happily and is isolated (contract 5.3)."""
    fd = open_tap(str(lab.root), "tap42")

    tap = Net(str(lab.root)).find("tap42")
    os.close(fd)
    assert tap is not None
    assert (tap.bridge, tap.opened_by) == ("", os.getpid())


def test_destroy_waits_for_the_opener(lab: Lab, held: "subprocess.Popen[bytes]") -> None:
    """Destroying an open tap blocks until it is closed; other calls go on meanwhile."""
    with subprocess.Popen(lab.command("ifconfig", "tap3", "destroy")) as destroy:
        until(lambda: is_waiting(destroy.pid))
        assert "tap3" in lab.said("ifconfig", "-l")
        assert destroy.poll() is None

        held.kill()

        assert destroy.wait(PATIENCE_S) == 0
    assert "tap3" not in lab.said("ifconfig", "-l")


def test_destroy_may_never_come_back(lab: Lab, held: "subprocess.Popen[bytes]") -> None:
    """With `tap_destroy_hangs` it does not return even after the opener has ended, as seen on FreeBSD (8.9)."""
    lab.settle(tap_destroy_hangs=True)
    with subprocess.Popen(lab.command("ifconfig", "tap3", "destroy")) as destroy:
        until(lambda: is_waiting(destroy.pid))
        held.kill()
        held.wait()
        with pytest.raises(subprocess.TimeoutExpired):
            destroy.wait(0.2)

        destroy.kill()
    assert "tap3" in lab.said("ifconfig", "-l")


def is_waiting(pid: int) -> bool:
    """Whether it has come to where it waits, for a lock or for ever: reading its modules is no such sleep."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_killed_ifconfig_leaves_every_interface_readable(lab: Lab) -> None:
    """The daemon kills its tools when it leaves; a kernel would not lose an interface by that."""
    lab.said("ifconfig", "tap1000", "create")
    code = f"import sys; sys.path.append({os.getcwd()!r}); from bhyved.lab.netif import Net; net = Net({str(lab.root)!r})\n"
    code += "tap = net.find('tap1000'); print(flush=True)\nwhile True: tap.description = '' if tap.description else 'x' * 99; net.save(tap)"
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", code], stdout=-1) as writer:
            assert writer.stdout is not None
            writer.stdout.read(1)
            time.sleep(0.005 * os.urandom(1)[0] / 256)
            writer.kill()
        assert Net(str(lab.root)).find("tap1000") is not None


def test_many_at_once_do_not_clash(lab: Lab) -> None:
    """Twenty creates at the same time make twenty taps."""
    calls = [subprocess.Popen(lab.command("ifconfig", "tap", "create"), stdout=subprocess.PIPE) for _ in range(20)]
    made = sorted(call.communicate(timeout=PATIENCE_S)[0].decode().strip() for call in calls)

    assert made == sorted(f"tap{number}" for number in range(20))


async def test_the_daemons_taps_work_here(lab: Lab) -> None:
    """`host.tap` makes, finds and destroys taps of the lab; one that somebody made meanwhile is told by TapExists."""
    taps = Taps(Tools((str(lab.root / "bin"),)))
    (name,) = taps.choose(1, ())
    lab.said("ifconfig", name, "create", "description", "foreign")

    with pytest.raises(TapExists):
        await taps.create(name, description="web1 0", bridge="bridge0")
    (other,) = taps.choose(1, ())
    await taps.create(other, description="web1 0", bridge="bridge0", mtu=1500)

    assert other != name
    assert set(await taps.ours()) == {other}
    assert await taps.destroy(other, "web1 0")
    assert await taps.ours() == {}


# ---- modules


def test_modules(lab: Lab) -> None:
    """Without -n loading what is loaded fails; kldstat -q only has a status."""
    lab.said("kldload", "-n", "vmm")
    assert lab.refused("kldload", "vmm") == "kldload: can't load vmm: module already loaded or in kernel"
    assert lab.refused("kldload", "nothing") == "kldload: can't load nothing: No such file or directory"
    assert lab.run("kldstat", "-q", "-m", "ctl").returncode == 1
    lab.said("kldload", "ctl")
    assert lab.run("kldstat", "-q", "-n", "ctl.ko").returncode == 0
    assert "vmm.ko" in lab.said("kldstat")
    assert lab.refused("kldstat", "-n", "none.ko") == "kldstat: can't find file none: No such file or directory"


def test_without_a_lab_host_there_is_no_nmdm(lab: Lab) -> None:
    """kldload says why it cannot."""
    assert lab.refused("kldload", "-n", "nmdm") == "kldload: can't load nmdm: No such file or directory"


def test_a_client_that_says_nothing_holds_nobody_up(lab: Lab) -> None:
    """The lab host answers others while one is connected and silent, and one that left."""
    with lab.host(), socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as gone:
        silent.connect(str(lab.root / "lab" / "host.sock"))
        gone.connect(str(lab.root / "lab" / "host.sock"))
        gone.close()

        lab.said("kldload", "-n", "nmdm")


# ---- what the host says of itself


def test_the_boot_id_is_bytes(lab: Lab) -> None:
    """`sysctl -n kern.boot_id` prints nothing, `-b` sixteen raw bytes, the same ones until the next boot (contract 8.2)."""
    raw = subprocess.run(lab.command("sysctl", "-b", "kern.boot_id"), capture_output=True, check=True).stdout

    assert lab.said("sysctl", "-n", "kern.boot_id") == ""
    assert len(raw) == 16
    assert raw == subprocess.run(lab.command("sysctl", "-b", "kern.boot_id"), capture_output=True, check=True).stdout
    layout.boot(lab.root)
    assert raw != subprocess.run(lab.command("sysctl", "-b", "kern.boot_id"), capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("release", "arch", "number", "machine"), [("14", "amd64", "1402000", "amd64"), ("main", "arm64", "1600010", "aarch64")]
)
def test_the_host_is_of_a_release(tmp_path: Path, release: str, arch: str, number: str, machine: str) -> None:
    """What was asked for shows in every variable that tells."""
    lab = Lab(tmp_path, release=release, arch=arch)

    assert lab.said("sysctl", "-n", "kern.osreldate", "hw.machine_arch") == f"{number}\n{machine}\n"
    assert lab.run("sysctl", "-n", "hw.vmm.maxvmms").returncode == (0 if release == "main" else 1)
    assert lab.run("sysctl", "-n", "hw.vmm.vmx.initialized").returncode == (0 if arch == "amd64" else 1)
    assert lab.said("freebsd-version", "-u").startswith("14.2" if release == "14" else "16.0")


def test_variables(lab: Lab) -> None:
    """Names with and without -n, raw integers, changes that stay, and what is unknown."""
    assert lab.said("sysctl", "kern.init_shutdown_timeout") == "kern.init_shutdown_timeout: 120\n"
    assert lab.refused("sysctl", "-n", "no.such") == "sysctl: unknown oid 'no.such'"
    assert lab.said("sysctl", "-in", "no.such") == ""
    assert lab.said("sysctl", "net.link.tap.up_on_open=1") == "net.link.tap.up_on_open: 0 -> 1\n"
    assert lab.said("sysctl", "-n", "net.link.tap.up_on_open") == "1\n"
    raw = subprocess.run(lab.command("sysctl", "-b", "vm.max_user_wired"), capture_output=True, check=True).stdout
    assert int.from_bytes(raw, sys.byteorder) == int(lab.said("sysctl", "-n", "vm.max_user_wired"))


def test_rc_conf(lab: Lab) -> None:
    """sysrc shows defaults and what was set, and complains of the rest."""
    assert lab.said("sysrc", "-n", "rcshutdown_timeout") == "90\n"
    assert lab.said("sysrc", "rcshutdown_timeout=300") == "rcshutdown_timeout: 90 -> 300\n"
    assert lab.said("sysrc", "rcshutdown_timeout") == "rcshutdown_timeout: 300\n"
    assert lab.refused("sysrc", "-n", "no_such") == "sysrc: unknown variable 'no_such'"


# ---- processes

_SLEEP = 'import time\ndef main(root, argv):\n    print("up", flush=True)\n    time.sleep(600)\n    return 0\n'


@pytest.fixture
def sleeper(lab: Lab) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that looks like this lab's bhyve of web1."""
    with sleeping(lab) as process:
        yield process
        process.kill()


def sleeping(lab: Lab) -> "subprocess.Popen[bytes]":
    program = lab.root / "bin" / "bhyve"
    first = program.read_text().splitlines()[0]
    program.write_text(f"{first}\n{_SLEEP}main('', [])\n")
    process = subprocess.Popen([str(program), "-k", f"{lab.root}/run/vm/web1/bhyve.conf", "web1"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_ps_shows_stand_ins_under_their_names(lab: Lab, sleeper: "subprocess.Popen[bytes]") -> None:
    """argv until the title is set, then the title, with the program's name behind it (contract 8.2)."""
    words = ("ps", "-axww", "-o", "pid,uid,jid,command")
    assert parse_ps(lab.said(*words))[sleeper.pid] == (os.geteuid(), 0, f"bhyve -k {lab.root}/run/vm/web1/bhyve.conf web1")

    (lab.root / "lab" / "title").mkdir()
    (lab.root / "lab" / "title" / str(sleeper.pid)).write_text("bhyve: web1")

    assert parse_ps(lab.said(*words))[sleeper.pid].command == "bhyve: web1 (bhyve)"
    assert lab.said("ps", "-o", "comm=", "-p", str(sleeper.pid)) == "bhyve\n"


def test_a_title_belongs_to_a_stand_in(lab: Lab) -> None:
    """A title file that a killed bhyve left does not name whoever has its pid now."""
    (lab.root / "lab" / "title").mkdir()
    (lab.root / "lab" / "title" / str(os.getpid())).write_text("bhyve: web1")

    assert "bhyve: web1" not in lab.said("ps", "-axww", "-o", "pid=,command=")


def test_other_labs_are_other_hosts(lab: Lab, sleeper: "subprocess.Popen[bytes]", tmp_path_factory: pytest.TempPathFactory) -> None:
    """A guest of the same name in another lab, and its keeper, are not seen here; processes of this lab's are."""
    other = Lab(tmp_path_factory.mktemp("other"))
    keeper = ["/bin/sh", "-c", 'echo up; read line; exit "$#"', "keeper", f"{other.root}/bin/bhyve", "-k", "x", "web1"]
    with sleeping(other) as theirs, subprocess.Popen(keeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kept:
        seen = parse_ps(lab.said("ps", "-axww", "-o", "pid,uid,jid,command"))
        theirs.kill()

        assert sleeper.pid in seen
        assert os.getpid() in seen
        assert {theirs.pid, kept.pid}.isdisjoint(seen)


def test_ps_shows_a_process_in_one_line(lab: Lab) -> None:
    """Line ends in its words are written as strvis(3) does."""
    with subprocess.Popen(["cat\n4711 0 0 bhyve: web1", "-", "\f\x1b\t-"], executable="/bin/cat", stdin=subprocess.PIPE) as process:
        shown = lab.said("ps", "-o", "command", "-p", str(process.pid))
        process.kill()

    assert shown == "COMMAND\ncat\\n4711 0 0 bhyve: web1 - \\f\\^[\t-\n"


def test_ps_tells_processes_apart(lab: Lab) -> None:
    """The start time is the same at every look; a pid that is nobody's gives 1 and nothing."""
    with subprocess.Popen(["sleep", "600"]) as process:
        looks = {lab.said("ps", "-o", "lstart=", "-p", str(process.pid)) for _ in range(3)}
        elapsed = int(lab.said("ps", "-o", "etimes=", "-p", str(process.pid)))
        titled = lab.said("ps", "-o", "pid,command", "-p", str(process.pid))
        process.kill()

    assert len(looks) == 1
    assert time.strptime(looks.pop().strip(), "%a %b %d %H:%M:%S %Y")
    assert 0 <= elapsed < PATIENCE_S
    assert titled.split() == ["PID", "COMMAND", str(process.pid), "sleep", "600"]
    assert lab.refused("ps", "-o", "pid=", "-p", str(process.pid)) == ""


# ---- state and launchers


def test_state_is_whole_at_any_time(lab: Lab) -> None:
    """A file that is replaced while others read it is never seen half written."""
    path = str(lab.root / "lab" / "thing.json")
    state.write(path, {"filler": "x" * 100_000})
    code = f"import sys; sys.path.append({os.getcwd()!r}); from bhyved.lab import state; text = 'y' * 100_000\n"
    code += f"for _ in range(300): state.write({path!r}, {{'filler': text}})"
    with subprocess.Popen([sys.executable, "-c", code]) as writer:
        while writer.poll() is None:
            assert len((state.read(path) or {})["filler"]) == 100_000

    assert state.read(str(lab.root / "lab" / "none.json")) is None


def test_locked_is_one_at_a_time(lab: Lab) -> None:
    """Whoever comes second waits."""
    with state.Locked(str(lab.root), "net"):
        fd = os.open(lab.root / "lab" / "net.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_stand_ins_import_little(lab: Lab) -> None:
    """What costs a stand-in more than it may: none of it is there after a call of ifconfig, ps or sysctl."""
    heavy = {"asyncio", "dataclasses", "typing", "pathlib", "subprocess", "socket", "inspect", "msgspec", "contextlib"}
    for program, words in (("ifconfig", ["-a"]), ("ps", ["-ax"]), ("sysctl", ["hw.physmem"])):
        launcher = lab.root / "bin" / program
        text = launcher.read_text().replace("os._exit(status)", "sys.stderr.write(' '.join(sys.modules))")
        launcher.write_text(text)

        assert heavy.isdisjoint(lab.run(program, *words).stderr.split())


def test_a_stand_in_ends_of_signals_as_others_do(lab: Lab) -> None:
    """A tool that is killed because its time is up shows the signal."""
    lab.said("ifconfig", "tap3", "create")
    fd = open_tap(str(lab.root), "tap3")
    with subprocess.Popen(lab.command("ifconfig", "tap3", "destroy")) as destroy:
        until(lambda: is_waiting(destroy.pid))
        destroy.terminate()

        assert destroy.wait(PATIENCE_S) == -signal.SIGTERM
    os.close(fd)
