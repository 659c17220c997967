"""rc.d/bhyved and its respawner, run as FreeBSD runs them (contract 8.4, 8.5); the main paths under every sh that is here."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.rchost import ROOT, RcHost, command, commands, is_alive, kill, shells
from tests.waiting import until

every_shell = pytest.mark.parametrize("host", shells(), ids=lambda shell: shell.rpartition("/")[2], indirect=True)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RcHost]:
    host = RcHost(tmp_path, getattr(request, "param", "/bin/sh"))
    yield host
    host.clean_up()


def start(host: RcHost) -> tuple[int, int]:
    """The pids of respawner and daemon."""
    done = host.service("start")
    assert (done.returncode, done.stderr) == (0, "")
    respawner, pid = host.pid("respawner"), host.pid("bhyved")
    assert respawner is not None
    assert pid is not None
    return respawner, pid


def calls(host: RcHost, word: str) -> list[str]:
    return [line for line in host.log() if line.startswith(word)]


def test_the_header_is_what_rcorder_reads() -> None:
    """Without `shutdown` nobody would stop the guests; with `nojail` the Handbook's jail (24.7.9) would neither start nor stop its own."""
    lines = (ROOT / "rc.d/bhyved").read_text().splitlines()

    assert "# PROVIDE: bhyved" in lines
    assert "# KEYWORD: shutdown nojailvnet" in lines
    (require,) = [line for line in lines if line.startswith("# REQUIRE: ")]
    assert {"DAEMON", "NETWORKING", "FILESYSTEMS", "iscsictl"} <= set(require.split())


@every_shell
def test_start_waits_for_the_daemon(host: RcHost) -> None:
    """Modules are loaded, bhyved runs under the respawner with configuration and flags, and answers when `start` is done."""
    host.configure(bhyved_flags="-x 1")

    respawner, _ = start(host)

    assert host.log() == ["kld vmm", "kld nmdm", "bhyved start -c bhyved.toml -x 1 PATH=…"]
    assert (host.run / "control.sock").is_socket()
    assert "bin/respawn" in command(respawner)
    assert (host.run / "bhyved.stderr").stat().st_mode & 0o077 == 0  # it quotes files that may be root's alone
    assert host.service("start").returncode == 1
    assert host.service("faststart").returncode == 1
    assert len(calls(host, "bhyved start")) == 1


@every_shell
def test_a_jail_cannot_load_what_is_missing(host: RcHost) -> None:
    """It is said whose job that is, and nothing is tried; on a host the modules are loaded as ever."""
    host.say("kldstat", '[ "$3" = vmm ]')
    host.say("sysctl", "echo 1")
    done = host.service("start")
    assert (done.returncode, host.log()) == (1, [])
    assert done.stderr.startswith("bhyved: a jail cannot load nmdm; on its host: kldload nmdm; sysrc kld_list+=nmdm; ")
    host.say("sysctl", "echo 0")

    assert host.service("start").returncode == 0
    assert host.log()[:2] == ["kld vmm", "kld nmdm"]


def test_a_service_that_is_not_enabled(host: RcHost) -> None:
    """`start` refuses with rc.subr's words, `onestart` starts."""
    host.configure(bhyved_enable="NO")

    done = host.service("start")
    assert "Set bhyved_enable to YES" in done.stdout
    assert host.log() == []

    assert host.service("onestart").returncode == 0
    assert host.pid("bhyved") is not None
    assert host.service("stop").returncode == 0
    assert host.pid("bhyved") is None


def test_a_useless_configuration_fails_the_start(host: RcHost) -> None:
    """Status 78 ends the respawner; `start` fails and shows what bhyved said, syslog gets it too."""
    (host.root / "mood").write_text("exit 78")

    done = host.service("start")

    assert done.returncode == 1
    assert done.stderr.splitlines() == ["bhyved could not be started:", "the words of an early end"]
    assert calls(host, "logger") == [
        "logger -t bhyved -p daemon.err bhyved cannot use its configuration and is not started again: the words of an early end"
    ]
    assert not (host.run / "respawner.pid").exists()


def test_a_start_without_an_answer_is_no_failure(host: RcHost) -> None:
    """A daemon that takes its time does not hold the boot up for ever, and is left to its respawner."""
    host.configure(bhyved_start_timeout="1")
    (host.root / "mood").write_text("exit 1")
    host.patch("bin/respawn", "delay=1", "delay=30")

    done = host.service("start")

    assert done.returncode == 0
    assert "does not answer yet after 1 s" in done.stderr
    assert host.pid("respawner") is not None


def test_a_respawner_that_cannot_be_run_fails_the_start(host: RcHost) -> None:
    """Nothing is left that would look like a running service."""
    host.configure(bhyved_start_timeout="1")
    (host.root / "bin/daemon").write_text("#!/bin/sh\n")

    done = host.service("start")

    assert done.returncode == 1
    assert "respawn could not be started" in done.stderr
    assert not (host.run / "respawner.pid").exists()


@every_shell
def test_stop_waits_until_all_is_over(host: RcHost) -> None:
    """The daemon stops its guests, then daemon and respawner are gone; a plain stop tells of no deadline."""
    respawner, pid = start(host)

    with host.guest("web") as web:
        done = host.service("stop")

        assert done.returncode == 0
        assert not any(map(is_alive, (respawner, pid, web)))
    assert host.log()[-2:] == ["bhyved SIGTERM", "bhyved shutdown ['reason=service', 'stop']"]
    assert not (host.run / "shutdown").exists()
    assert not (host.run / "respawner.pid").exists()


def test_stop_of_what_does_not_run(host: RcHost) -> None:
    """It says so and fails, as rc.subr's own; `faststop` is quiet and succeeds."""
    done = host.service("stop")
    assert (done.returncode, done.stderr) == (1, f"bhyved not running? (check {host.run}/respawner.pid).\n")

    done = host.service("faststop")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@every_shell
def test_restart_leaves_guests_alone(host: RcHost) -> None:
    """A new daemon answers under the same respawner, and no guest has noticed."""
    respawner, pid = start(host)

    with host.guest("web") as web:
        done = host.service("restart")

        assert (done.returncode, done.stderr) == (0, "")
        assert is_alive(web)
    assert host.pid("respawner") == respawner
    assert host.pid("bhyved") not in (None, pid)
    assert (host.run / "control.sock").is_socket()
    assert calls(host, "bhyved")[1:] == ["bhyved SIGUSR1", calls(host, "bhyved start")[0]]


def test_restart_starts_what_does_not_run(host: RcHost) -> None:
    """As rc.subr's restart does."""
    assert host.service("restart").returncode == 0
    assert host.pid("bhyved") is not None


def test_restart_replaces_a_daemon_that_hangs(host: RcHost) -> None:
    """It is killed when its time is over, which no guest notices."""
    host.patch("rc.d/bhyved", "BHYVED_LEAVE_S=30", "BHYVED_LEAVE_S=1")
    (host.root / "mood").write_text("hang")
    _, pid = start(host)
    (host.root / "mood").unlink()

    with host.guest("web") as web:
        done = host.service("restart")

        assert done.returncode == 0
        assert f"bhyved (pid {pid}) hangs and is killed; guests stay." in done.stderr
        assert is_alive(web)
    assert host.pid("bhyved") not in (None, pid)


@pytest.mark.parametrize("mood", ["", "hang"])
def test_detach_ends_everything_but_guests(host: RcHost, mood: str) -> None:
    """Daemon and respawner end, also when the daemon hangs; the next start takes over."""
    host.patch("rc.d/bhyved", "BHYVED_LEAVE_S=30", f"BHYVED_LEAVE_S={1 if mood else 30}")
    (host.root / "mood").write_text(mood)
    respawner, pid = start(host)
    (host.root / "mood").unlink()

    with host.guest("web") as web:
        done = host.service("detach")

        assert done.returncode == 0
        assert done.stdout == "Ending bhyved, guests stay: web\n"
        assert not any(map(is_alive, (respawner, pid)))
        assert is_alive(web)
        assert host.service("detach").returncode == 1
        start(host)
    assert len(calls(host, "bhyved start")) == 2


def test_start_takes_over_from_a_daemon_without_respawner(host: RcHost) -> None:
    """Two daemons cannot be: the lonely one leaves, guests stay."""
    respawner, pid = start(host)
    kill(respawner)
    until(lambda: not is_alive(respawner))

    with host.guest("web") as web:
        new_respawner, new_pid = start(host)

        assert is_alive(web)
    assert new_respawner != respawner
    assert new_pid != pid
    assert not is_alive(pid)


def test_reload_is_vmctls(host: RcHost) -> None:
    """What vmctl says and how it ends is what `service` shows; words are handed on."""
    done = host.service("reload", "--plan")

    assert done.returncode == 0
    assert host.log() == ["vmctl --socket run/control.sock reload --plan"]
    (host.root / "bin/vmctl").write_text("#!/bin/sh\nexit 78\n")
    assert host.service("reload").returncode != 0


def test_status_tells_daemon_and_guests_apart(host: RcHost) -> None:
    """Four situations, four answers; only a running daemon is success."""
    done = host.service("status")
    assert (done.returncode, done.stdout) == (1, "bhyved is not running.\n")

    respawner, pid = start(host)
    with host.guest("web"), host.guest("db"):
        done = host.service("status")
        assert (done.returncode, done.stdout) == (0, f"bhyved is running as pid {pid}, with 2 guests.\n")

        kill(respawner)
        done = host.service("status")
        assert done.stdout.splitlines()[1:] == ["Its respawner is not: `service bhyved start' brings it back."]

        kill(pid)
        done = host.service("status")
        assert (done.returncode, done.stdout) == (1, "bhyved is not running, but guests are: db web\n")


@every_shell
def test_a_killed_daemon_comes_back(host: RcHost) -> None:
    """The respawner starts the next one; the guest has not noticed."""
    _, pid = start(host)

    with host.guest("web") as web:
        kill(pid)
        until(lambda: host.pid("bhyved") not in (None, pid))

        assert is_alive(web)
    (line,) = calls(host, "logger")
    assert "bhyved ended with status 137, its guests run on; starting it again in 1 s" in line


# --- guests without a daemon ------------------------------------------------------------------------------------------------------


def test_guests_of_a_dead_daemon_are_stopped_by_another(host: RcHost) -> None:
    """With daemon and respawner gone, `stop` runs bhyved once to stop what is left."""
    for pid in start(host):
        kill(pid)

    with host.guest("web") as web:
        done = host.service("stop")

        assert done.returncode == 0
        assert not is_alive(web)
    assert "bhyved is gone, guests are not: web" in done.stdout
    assert calls(host, "bhyved")[1:] == [
        "bhyved start -c bhyved.toml --stop-all PATH=…",
        "bhyved shutdown ['reason=service', 'stop']",
    ]


@every_shell
def test_without_any_bhyved_the_script_presses_the_button(host: RcHost) -> None:
    """When Python is broken, guests still get a clean end; loaders too."""
    (host.root / "mood").write_text("exit 1")

    with host.guest("web") as web, host.guest("db") as db:
        (host.run / "vm/db/pid").rename(host.run / "vm/db/loader.pid")
        done = host.service("stop")

        assert done.returncode == 0
        assert not is_alive(web)
        assert not is_alive(db)
    assert "pressing the power button of" in done.stdout


def test_a_guest_that_does_not_obey_is_named(host: RcHost) -> None:
    """The script does not kill guests: it fails, and says whom it left."""
    host.patch("rc.d/bhyved", "BHYVED_PRESS_S=90", "BHYVED_PRESS_S=1")
    (host.root / "mood").write_text("exit 1")

    with host.guest("web", deaf=True) as web, host.guest("db") as db:
        done = host.service("stop")

        assert done.returncode == 1
        assert "bhyved: still running: web\n" in done.stderr
        assert is_alive(web)
        assert not is_alive(db)


def test_pids_that_have_changed_hands_are_left_alone(host: RcHost) -> None:
    """A pid file of somebody long gone names an innocent process: it is neither waited for nor signalled."""
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        for name in ("respawner.pid", "bhyved.pid", "vm/web/pid"):
            (host.run / name).parent.mkdir(parents=True, exist_ok=True)
            (host.run / name).write_text(f"{innocent.pid}\n")

        assert host.service("stop").returncode == 1
        assert host.service("detach").returncode == 1
        assert host.service("status").stdout == "bhyved is not running.\n"

        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_guest_whose_name_begins_with_anothers_is_another(host: RcHost) -> None:
    """A pid that now belongs to the bhyve of a different guest is not this guest's."""
    with host.guest("web1") as web1:
        (host.run / "vm/web").mkdir()
        (host.run / "vm/web/pid").write_text(f"{web1}\n")

        assert host.service("status").stdout == "bhyved is not running, but guests are: web1\n"


@pytest.mark.parametrize("text", ["", " " * 16, "12", "no pid\n", "0x1\n", "-1\n"])
def test_a_pid_file_that_is_not_written_yet_is_no_pid(host: RcHost, text: str) -> None:
    """Blank, half-written and nonsensical files name nobody."""
    (host.run / "vm/web").mkdir(parents=True)
    for name in ("respawner.pid", "bhyved.pid", "vm/web/pid"):
        (host.run / name).write_text(text)

    assert host.service("status").stdout == "bhyved is not running.\n"


# --- the end of the host ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boottrace", ["", "YES"])
def test_the_end_of_the_host_is_told_with_its_time(host: RcHost, boottrace: str) -> None:
    """Under rc.shutdown the daemon learns why, how much time there is, and how much is gone; also with boot tracing."""
    host.configure(rcshutdown_timeout="70", rc_boottrace=boottrace)
    start(host)

    with host.guest("web") as web:
        done = host.shut_down("reboot")

        assert done.returncode == 0
        assert not is_alive(web)
    (told,) = calls(host, "bhyved shutdown")
    assert re.fullmatch(r"bhyved shutdown \['reason=reboot', 'timeout=70', 'used=[0-5]'\]", told)
    assert host.log()[-1] == "faststop 0"


def test_a_host_without_a_watchdog(host: RcHost) -> None:
    """With rcshutdown_timeout empty the daemon is told 0: only init's own limit is left."""
    host.configure(rcshutdown_timeout="")
    start(host)

    host.shut_down("single")

    assert "'reason=single', 'timeout=0'" in calls(host, "bhyved shutdown")[0]


@every_shell
def test_a_daemon_that_hangs_at_the_end_of_the_host(host: RcHost) -> None:
    """Before rc.shutdown's time is over the script gives up waiting and presses the buttons itself."""
    host.configure(rcshutdown_timeout="5")
    (host.root / "mood").write_text("hang")
    _, pid = start(host)

    with host.guest("web") as web:
        done = host.shut_down()

        assert done.returncode == 0
        until(lambda: not is_alive(web))
    assert f"bhyved (pid {pid}) has not ended in time" in done.stderr
    assert "pressing the power button of web" in done.stdout
    assert "watchdog" not in host.log()


@every_shell
def test_guests_of_a_dead_daemon_that_was_never_enabled(host: RcHost) -> None:
    """rc.subr would skip the stop of a service that is not enabled and not found; its guests get their clean end all the same."""
    host.configure(bhyved_enable="NO")
    host.service("onestart")
    for name in ("respawner", "bhyved"):
        kill(host.pid(name) or 0)

    with host.guest("web") as web:
        host.shut_down()

        assert not is_alive(web)
    assert "bhyved start -c bhyved.toml --stop-all PATH=…" in host.log()


def test_a_host_without_guests_shuts_down_quietly(host: RcHost) -> None:
    """A service that is not used says and does nothing."""
    host.configure(bhyved_enable="NO")

    done = host.shut_down()

    assert (done.stdout, done.stderr) == (".\n", "")
    assert host.log() == ["faststop 0"]


# --- the respawner ----------------------------------------------------------------------------------------------------------------


def bhyved_ends(host: RcHost, *statuses: int) -> None:
    """A bhyved that ends at once, with these statuses one after another."""
    (host.root / "ends").write_text(" ".join(map(str, statuses)))
    (host.root / "bin/bhyved").write_text(
        f"#!/bin/sh\ncd {host.root}\nread -r status rest <ends\necho $rest >ends\necho bhyved $status >>log\nexit $status\n"
    )


def respawn(host: RcHost) -> subprocess.Popen[bytes]:
    words = [f"{host.root}/bin/respawn", str(host.run), f"{host.root}/bin/bhyved"]
    return subprocess.Popen(words, env={"PATH": host.path})


def fast_sleep(host: RcHost) -> None:
    (host.root / "bin/sleep").write_text(f"#!/bin/sh\necho sleep $1 >>{host.root}/log\n")
    (host.root / "bin/sleep").chmod(0o755)


@every_shell
def test_attempts_get_rarer(host: RcHost) -> None:
    """The pause doubles up to a minute, and a restart that was asked for has none and begins anew."""
    fast_sleep(host)
    bhyved_ends(host, 1, 2, 137, 1, 1, 1, 1, 1, 99, 1, 0)

    assert respawn(host).wait(20) == 0

    assert calls(host, "sleep") == [f"sleep {pause}" for pause in (1, 2, 4, 8, 16, 32, 60, 60, 1)]
    assert calls(host, "bhyved")[-3:] == ["bhyved 99", "bhyved 1", "bhyved 0"]


def test_a_daemon_that_has_lasted_is_started_again_soon(host: RcHost) -> None:
    """A minute of life makes the earlier failures history."""
    fast_sleep(host)
    (host.root / "now").write_text("0")
    (host.root / "bin/date").write_text(f"#!/bin/sh\nread -r now <{host.root}/now\necho $((now + 30)) >{host.root}/now\necho $now\n")
    (host.root / "bin/date").chmod(0o755)
    bhyved_ends(host, 1, 1, 1, 0)
    assert respawn(host).wait(20) == 0
    assert calls(host, "sleep") == ["sleep 1", "sleep 2", "sleep 4"]

    (host.root / "bin/date").write_text((host.root / "bin/date").read_text().replace("+ 30", "+ 60"))
    bhyved_ends(host, 1, 1, 1, 0)
    assert respawn(host).wait(20) == 0

    assert calls(host, "sleep")[3:] == ["sleep 1", "sleep 1", "sleep 1"]


@every_shell
@pytest.mark.parametrize("status", [0, 78])
def test_some_ends_are_final(host: RcHost, status: int) -> None:
    """A daemon that has done its work, or cannot begin, is not started again."""
    bhyved_ends(host, status, 0)

    assert respawn(host).wait(20) == 0

    assert calls(host, "bhyved") == [f"bhyved {status}"]
    assert not (host.run / "respawner.pid").exists()


@every_shell
def test_a_stop_during_a_pause(host: RcHost) -> None:
    """A respawner that waits for its next attempt ends at once, and starts nothing more."""
    host.patch("bin/respawn", "delay=1", "delay=50")
    bhyved_ends(host, 1, 0)
    respawner = respawn(host)
    until(lambda: calls(host, "logger"))

    respawner.terminate()

    assert respawner.wait(10) == 0
    assert calls(host, "bhyved") == ["bhyved 1"]


@every_shell
@pytest.mark.parametrize(
    ("before", "child"),
    [('say err "bhyved ended', "sleep"), ('see_through "$@"', "bhyved"), ("child=$!", "bhyved")],
    ids=["before a pause", "before a daemon", "when a daemon is just being made"],
)
def test_a_stop_at_any_moment_is_not_lost(host: RcHost, before: str, child: str) -> None:
    """A process between fork(2) and execve(2) loses a signal that its sh had trapped: what is passed on reaches what was started."""
    host.patch("bin/respawn", "delay=1", "delay=50")
    host.patch("bin/respawn", before, f"{'' if child == 'sleep' else '[ -e $run/told ] || '}kill -TERM $$; : >$run/told; {before}")
    if child == "sleep":
        bhyved_ends(host, 1, 0)

    respawner = respawn(host)

    assert respawner.wait(20) == 0
    assert not [line for line in commands().values() if f"{host.root}/bin/bhyved" in line]


@every_shell
def test_a_full_run_directory_does_not_keep_the_daemon_down(host: RcHost) -> None:
    """Without its pid file and a place for last words the respawner still does its work, and says what is missing."""
    bhyved_ends(host, 0)
    for name in ("respawner.pid", "bhyved.stderr"):
        (host.run / name).mkdir()

    assert respawn(host).wait(20) == 0

    assert calls(host, "bhyved") == ["bhyved 0"]
    assert "cannot be written" in calls(host, "logger")[0]
