"""Whether guests are ready, and whether they are well: a whole daemon asks them, and says what it was answered."""

import socket
import subprocess
from pathlib import Path

from tests.ports import free_port
from tests.system.labkit import running, sim
from tests.waiting import until

OFF = "autostart = false\n"
ONCE = 'period = "1s"\ngrace = "0s"\nfailures = 2\n'
COMMAND = '["/bin/sh", "-c", "test -e {flag} || { echo not yet; exit 3; }"]'


def test_readiness_of_each_kind(tmp_path: Path) -> None:
    """What is asked, what was answered so far, and who waits; ready when it is answered, or when the time is over."""
    flag = tmp_path / "flag"
    port = free_port()
    questions = {
        "uptime": 'uptime = "1s"',
        "console": 'console = "login:"',
        "tcp": f'tcp = "127.0.0.1:{port}"',
        "command": f"command = {COMMAND.replace('{flag}', str(flag))}",
        "late": 'console = "never", timeout = "1s"',
        "fails": 'console = "never", timeout = "1s", on-timeout = "fail"',
    }
    guests = {name: sim(more=f"[order]\nready = {{ {question} }}\n") for name, question in questions.items()}
    guests |= {f"after-{name}": sim(more=f'[order]\nafter = ["{name}"]\n') for name in questions}
    guests |= {f"needs-{name}": sim(more=f'[order]\nrequires = ["{name}"]\n') for name in questions}
    with running(guests) as lab:
        rows = lab.until(lambda rows: rows["uptime"]["ready"] and rows["needs-late"]["phase"] == "up", "those that become ready")
        assert {name for name in questions if rows[name]["ready"]} == {"uptime", "console", "late"}
        rows = lab.until(lambda rows: rows["after-fails"]["phase"] == "up", "who merely comes after it")
        assert rows["needs-fails"]["waiting_for"].startswith("waiting for fails, which it requires")
        assert rows["fails"]["unready"] == 'its console has not shown "never"'
        rows = lab.until(lambda rows: "status 3" in rows["command"]["unready"], "the command's answer")
        assert rows["command"]["unready"] == "/bin/sh says no (it ended with status 3: not yet)"
        assert rows["tcp"]["unready"] == f"nothing answers at 127.0.0.1:{port} (connection refused)"
        assert rows["needs-tcp"]["phase"] == rows["after-command"]["phase"] == "waiting"
        flag.touch()
        with socket.create_server(("127.0.0.1", port)):
            rows = lab.phase("up", "needs-tcp", "after-tcp", "needs-command", "after-command")

        assert rows["tcp"]["ready"]
        assert rows["tcp"]["unready"] == rows["command"]["unready"] == ""
        assert rows["needs-fails"]["phase"] == "waiting"


def test_what_a_guest_needs_of_the_host(tmp_path: Path) -> None:
    """It waits, says for what, and starts when that is there."""
    there = tmp_path / "there"
    with running({"web1": sim(more=f'[order]\nneeds = ["path:{there}"]\n')}) as lab:
        row = lab.until(lambda rows: "path" in rows["web1"]["waiting_for"], "it waits")["web1"]
        assert row["waiting_for"] == f"waiting for the path {there}: it does not exist (looked at every 5s)"
        there.touch()

        lab.phase("up", "web1")


def test_what_devd_tells_of_is_not_waited_for_any_longer() -> None:
    """An interface comes: its guest starts then, and not at the next of the looks, which are rare."""
    with (
        running({"web1": sim(more='[order]\nneeds = ["interface:bridge7"]\n', boot="uefi-csm")}) as lab,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as devd,
    ):
        devd.bind(str(lab.root / "devd.seqpacket.pipe"))
        devd.listen()
        devd.settimeout(30)
        client, _ = devd.accept()  # at one of the looks that are made without it
        with client:
            until(lambda: "when the host tells" in lab.rows()["web1"]["waiting_for"])
            subprocess.run([lab.root / "bin/ifconfig", "bridge7", "create"], check=True, capture_output=True)
            client.send(b"!system=IFNET subsystem=bridge7 type=ATTACH\n")

            lab.phase("up", "web1", patience_s=20)


def test_processors_that_run_no_more() -> None:
    """Told as ill while it is up, with why."""
    health = f"[health]\nvcpus = true\n{ONCE}"
    script = "boot 0.05s; print login: ; sleep 2s; freeze"
    with running({"frozen": sim(script, more=health), "fine": sim(more=health)}) as lab:
        rows = lab.until(lambda rows: rows["frozen"]["ill"], "it is ill")

        assert rows["frozen"]["ill"] == "vcpus (no processor of the guest has run since the last look) failed 2 times in a row, 1s apart"
        assert (rows["frozen"]["phase"], rows["fine"]["ill"]) == ("up", "")
        assert "its health probes take it as ill" in " ".join(lab.call("vm.why", name="frozen")["sentences"])


def test_a_reset_by_the_probes_is_a_crash() -> None:
    """All probes have failed: the guest is reset, that counts, and over the limit it is held."""
    health = f'[health]\nconsole = "tick"\ncommand = ["/bin/false"]\naction = "reset"\n{ONCE}'
    more = f'{health}[restart]\ncrash-limit = "2 in 1h"\nbackoff = "100ms"\n'
    well = 'period = "1s"\ngrace = "0s"\nfailures = 1\nconsole = "tick"\ncommand = ["/bin/false"]\naction = "reset"\n'
    ticks = "boot 0.05s; " + "print tick; sleep 0.2s; " * 100
    with running({"dead": sim(more=more), "alive": sim(ticks, more=f"[health]\n{well}")}) as lab:
        row = lab.phase("held", "dead")["dead"]

        assert (row["restarts"]["crash"], row["restarts"]["reboot"]) == (2, 0)
        assert 'reset by its health probes: command (it ended with status 1), console (nothing new like "tick") failed' in row["reason"]
        assert lab.runs("alive") == []  # one probe that succeeds is health
