"""What others on the host can do to a running bhyved, and what it gives to the commands it runs."""

import grp
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bhyved.core.methods import METHODS
from bhyved.core.rights import Right
from tests.system.labkit import BHYVED, QUICK, LabHost, running, sim
from tests.waiting import until

NOBODY = pwd.getpwnam("nobody")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

#: What methods need besides the guest.
EXTRA: dict[str, dict[str, Any]] = {
    "vm.wait": {"until": "up"},
    "daemon.drain": {"on": False},
    "console.wait-for": {"text": "login", "timeout": 1, "since": "boot"},
    "console.send": {"text": "x"},
    "events.subscribe": {"follow": False},
    "vm.rollback": {"snapshot": "then"},
    "vm.snapshot-delete": {"snapshot": "then"},
}
#: These would end or change what the other requests are about, or take the connection over.
LAST = ("vm.suspend", "vm.stop", "vm.poweroff", "vm.restart", "vm.reset", "vm.nmi", "console.attach")


def request(method: str, name: str) -> str:
    keys = METHODS[method].params.__struct_encode_fields__
    about = {"name": name} if "name" in keys else {"names": [name]} if "names" in keys else {}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": about | EXTRA.get(method, {})})


def answer_of(lab: LabHost, text: str) -> bytes:
    """On a connection of its own: some methods take theirs over."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(30)
        control.connect(str(lab.socket))
        control.sendall(text.encode() + b"\n")
        for line in control.makefile("rb"):
            if b'"id"' in line:
                return line
    raise AssertionError(f"no answer to {text}")


def as_nobody(lab: LabHost, *requests: str) -> list[dict[str, Any]]:
    """The answers that another user of the host gets. A fork, since that user may not be able to read this Python."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            with open(writing, "wb") as out:
                for text in requests:
                    out.write(answer_of(lab, text))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as answers:
        said = answers.read().splitlines()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return [json.loads(line) for line in said]


def code(answer: dict[str, Any]) -> str:
    """'' where it was done."""
    if "error" in answer:
        return str(answer["error"]["data"]["code"])
    return str(answer["result"].get("answers", [{"code": ""}])[0]["code"])


@pytest.fixture
def lab() -> Iterator[LabHost]:
    guests = {"mine": sim(more=f'owner = ["{NOBODY.pw_name}"]\n'), "other": sim(more='[[network]]\nbridge = "bridge0"\n')}
    with running(guests) as lab:
        lab.phase("up", *guests)
        lab.root.chmod(0o755)  # as /var/run is
        yield lab


METHODS_IN_TURN = [*sorted(METHODS.keys() - {*LAST}), *LAST]


def test_forbidden_and_unknown_guests_sound_alike(lab: LabHost) -> None:
    """Whatever another user asks about a guest that is not its own, the answer is the one about a guest that does not exist."""
    methods = [method for method in METHODS_IN_TURN if METHODS[method].of in ("guest", "guests")]
    forbidden = as_nobody(lab, *[request(method, "other") for method in methods])
    unknown = as_nobody(lab, *[request(method, "othre") for method in methods])

    assert [json.dumps(answer).replace("other", "othre") for answer in forbidden] == [json.dumps(answer) for answer in unknown]
    for method, answer in zip(methods, forbidden, strict=True):
        # What needs the host's rights says so of every name, and so nothing of this one.
        assert code(answer) == ("not-permitted" if METHODS[method].right is Right.ADMIN else "no-such-guest"), method
    assert {
        row["vm"]["name"] if "vm" in row else row["name"] for row in as_nobody(lab, request("vm.list", "mine"))[0]["result"]["vms"]
    } == {"mine"}
    assert lab.rows()["other"]["phase"] == "up"


def test_an_owner_may_do_what_owners_may(lab: LabHost) -> None:
    """Its own guest: everything but what concerns the host."""
    answers = dict(zip(METHODS_IN_TURN, as_nobody(lab, *[request(method, "mine") for method in METHODS_IN_TURN]), strict=True))

    for method, answer in answers.items():
        known = METHODS[method]
        refused = (known.of == "host" and known.right is not None) or known.right is Right.ADMIN
        assert (code(answer) == "not-permitted") is refused, (method, answer)
    assert answers["daemon.info"]["result"]["you"]["owns"] == ["mine"]
    assert {Right.ADMIN, Right.READ} >= {METHODS[method].right for method, answer in answers.items() if code(answer) == "not-permitted"}
    until(lambda: lab.rows()["mine"]["desired"] == "up")


GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name
ROLES = {  # the configuration; what may be done to a guest of nobody in particular: read, operate, and what concerns the host
    "operator": (f'[control]\ngroup = "{GROUP}"\n', "", (True, True, True)),
    "reader": (f'[control]\nread-group = "{GROUP}"\n', "", (True, False, False)),
    "owner": ("", f'owner = ["@{GROUP}"]\n', (True, True, False)),
    "another": (f'[control]\ngroup = "wheel-{GROUP}"\n', f'owner = ["@{GROUP}s", "{GROUP}"]\n', (False, False, False)),
}


@pytest.mark.parametrize("role", ROLES)
def test_groups_of_the_host_decide(role: str) -> None:
    """`group`, `read-group` and `@group` are groups of the kernel's and the user database's, for whoever connects."""
    daemon, owner, may = ROLES[role]
    with running({"web": sim(more=owner)}, daemon=QUICK + daemon) as lab:
        lab.phase("up", "web")
        lab.root.chmod(0o755)
        asked = [request(method, "web") for method in ("vm.why", "vm.hold", "config.reload")]
        info, *answers = as_nobody(lab, request("daemon.info", ""), *asked)

        assert tuple(code(answer) in ("", "accepted") for answer in answers) == may
        assert info["result"]["you"]["role"] == (role if role in ("operator", "reader") else "none")
        assert (lab.rows()["web"]["hold"] is not None) is may[1]
        assert {code(answer) for answer in answers} <= {"", "accepted", "not-permitted"}


def test_every_change_is_logged_with_who(lab: LabHost) -> None:
    """User, uid and pid of the client, for what was done and for what was refused."""
    as_nobody(lab, request("vm.hold", "mine"), request("vm.hold", "other"), request("vm.list", "mine"))

    lines = [line for line in lab.log().splitlines() if f"uid={NOBODY.pw_uid}" in line and "method=vm.hold" in line]
    assert [word for line in lines for word in line.split() if word.startswith("event=")] == ["event=asked", "event=refused"]
    assert all(f"user={NOBODY.pw_name}" in line and "pid=" in line for line in lines)


def test_nothing_of_ours_is_open_to_others(lab: LabHost) -> None:
    """The socket may be connected to, the metrics' address may be read; all else is closed to other users."""
    modes = {path.relative_to(lab.root): path.lstat() for top in ("run", "db", "log") for path in (lab.root / top).rglob("*")}
    open_to_others = {str(path) for path, found in modes.items() if found.st_mode & 0o007 and not stat.S_ISLNK(found.st_mode)}
    private = {f"{top}/{name}" for top, names in {"run": ("vm",), "db": ("vm", "good", "events", "history")}.items() for name in names}

    assert {name for name in open_to_others if not any(name.startswith(f"{top}/") for top in private)} <= {
        "run/control.sock",
        "run/metrics.url",
    }
    assert all(stat.S_IMODE(modes[Path(name)].st_mode) == 0o700 for name in private)
    assert stat.S_IMODE((lab.root / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((lab.root / "db").stat().st_mode) == 0o700
    assert stat.S_IMODE((lab.root / "log").stat().st_mode) == 0o750
    assert stat.S_IMODE(modes[Path("run/control.sock")].st_mode) == 0o666
    assert all(found.st_uid == os.geteuid() for found in modes.values())
    assert not [path for path, found in modes.items() if found.st_mode & 0o022 and not stat.S_ISSOCK(found.st_mode)]


@pytest.mark.skipif(sys.platform != "linux", reason="a lab sees the processes of Linux")
def test_a_process_that_calls_itself_a_guest_keeps_none_down(lab: LabHost) -> None:
    """Another user's `bhyve: other` is neither taken for a foreign guest by a start or a new daemon, nor signalled."""
    lab.ask("stop", "other")
    lab.phase("down", "other")
    ids = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}
    with subprocess.Popen(["bhyve: other"], executable="/bin/cat", stdin=subprocess.PIPE, **ids) as pretender:
        until(lambda: Path(f"/proc/{pretender.pid}/cmdline").read_bytes() == b"bhyve: other\0")
        lab.kill_daemon()
        lab.start()
        lab.ask("start", "other")
        lab.phase("up", "other")
        lab.ask("poweroff", "other")
        lab.phase("down", "other")

        assert pretender.poll() is None
        assert pretender.stdin is not None
        pretender.stdin.close()


def start_daemon(lab: LabHost) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BHYVED, "-c", f"{lab.root}/etc/bhyved.toml"], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["run", "db", "run/vm", "db/vm"])
def test_a_directory_that_somebody_else_has_is_refused(lab: LabHost, name: str) -> None:
    """Whoever owns it could plant links in it: the daemon ends with one sentence, and guests go on."""
    lab.kill_daemon()
    os.chown(lab.root / name, NOBODY.pw_uid, -1)

    done = start_daemon(lab)

    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == f"bhyved: {lab.root}/{name} belongs to uid {NOBODY.pw_uid}; it must belong to uid 0"
    assert lab.bhyves("mine")
    os.chown(lab.root / name, 0, -1)
    lab.start()
    assert lab.rows()["mine"]["phase"] == "up"


def test_a_link_that_somebody_else_made_is_refused(lab: LabHost) -> None:
    """A symbolic link in the place of a directory, to where its maker likes."""
    lab.kill_daemon()
    (lab.root / "db/history").rename(lab.root / "db/elsewhere")
    (lab.root / "db/history").symlink_to(lab.root / "db/elsewhere")
    os.chown(lab.root / "db/history", NOBODY.pw_uid, -1, follow_symlinks=False)

    done = start_daemon(lab)

    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == f"bhyved: {lab.root}/db/history is a symbolic link of uid {NOBODY.pw_uid}; remove it"


@pytest.mark.parametrize("way", ["owner", "mode", "directory"])
def test_a_configuration_that_others_can_write_is_refused(lab: LabHost, way: str) -> None:
    """A command in it would run as root: a reload refuses it and changes nothing, a new daemon uses the last good copy."""
    path = lab.root / "etc/vm.d" / ("" if way == "directory" else "other.toml")
    if way != "directory":
        path.write_text(f'{sim()}\n[hooks]\npost-stop = ["/bin/touch", "{lab.root}/evil"]\n')
    if way == "owner":
        os.chown(path, NOBODY.pw_uid, -1)
    else:
        path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(RuntimeError, match="problem"):
        lab.call("config.reload")
    lab.kill_daemon()
    lab.start()

    assert lab.rows()["other"]["phase"] == "up"
    lab.ask("stop", "other")
    lab.phase("down", "other")
    assert not (lab.root / "evil").exists()


def test_commands_get_a_clean_environment_and_the_user_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the daemon's environment reaches a hook, a probe, `stop.command` or a guest, and no descriptor of the daemon's."""
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "xyzzy")
    tell = "{ id -un; env; ls -l /proc/self/fd /dev/fd/ 2>/dev/null; } >$0.new; mv $0.new $0"
    lab = LabHost({}, daemon=f'run-as = "{NOBODY.pw_name}"\n')
    drop = lab.root / "drop"
    drop.mkdir(mode=0o777)
    drop.chmod(0o777)
    lab.root.chmod(0o755)

    def told(name: str, then: str = "") -> str:
        return f'["/bin/sh", "-c", "{tell}{then}", "{drop}/{name}"]'

    more = f"[hooks]\npost-start = {told('told')}\n"
    more += f'[order]\nready = {{ command = {told("ready", "; false")}, timeout = "1s" }}\n'
    more += f'[health]\nperiod = "1s"\ngrace = "0s"\ncommand = {told("health")}\n[stop]\ncommand = {told("stop")}\ntimeout = "1s"\n'
    lab.write("web", sim(more=more))
    with lab:
        pid = lab.phase("up", "web")["web"]["pid"]
        until(lambda: all((drop / name).exists() for name in ("told", "ready", "health")))
        user, *lines = (drop / "told").read_text().splitlines()

        assert user == NOBODY.pw_name
        assert not any("SECRET" in line for line in lines)
        assert {"BHYVED_HOOK=post-start", "BHYVED_VM=web"} <= {*lines}
        assert not any(str(lab.root) in line.partition(" -> ")[2] for line in lines if "drop" not in line)
        if sys.platform == "linux":
            assert b"SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
        lab.stop()
        for name in ("ready", "health", "stop"):
            user, *lines = (drop / name).read_text().splitlines()
            assert (user, "BHYVED_VM=web" in lines) == (NOBODY.pw_name, True)
            assert not any("SECRET" in line for line in lines)
