"""vmctl against a real daemon with guests of the lab: what the played one cannot prove."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ctl.terminals import person
from tests.ports import free_port
from tests.system.labkit import PATIENCE_S, LabHost
from tests.waiting import until

PLAIN = 'memory = "64M"\n'
BROKEN = """
memory = "64M"
autostart = false
[bhyve]
options = { "lab.script" = "boot 0.1s; exit 4" }
[restart]
backoff = "1h"
backoff-max = "1h"
"""
OFFERED = """
memory = "64M"
[[serial]]
socket = true
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[LabHost]:
    with LabHost({"plain": PLAIN, "other": PLAIN, "broken": BROKEN, "offered": OFFERED}) as host:
        yield host


def test_a_guests_day(lab: LabHost) -> None:
    """Up, again, down, up, and all of it told."""
    assert lab.vmctl("start", "plain", "--ready") == "plain: ready\n"
    first = json.loads(lab.vmctl("list", "plain", "--json"))["vms"][0]
    assert lab.vmctl("restart", "plain") == "plain: up\n"
    second = json.loads(lab.vmctl("list", "plain", "--json"))["vms"][0]
    assert sorted(lab.vmctl("stop", "plain", "other").splitlines()) == ["other: down", "plain: down"]
    assert lab.vmctl("start", "--all", "--no-wait").count("\n") == 4
    lab.vmctl("stop", "broken")
    lab.vmctl("start", "plain", "other", "offered")
    assert lab.vmctl("reset", "plain", "--wait", "-t", "30s") == "plain: up\n"

    assert first["run"] != second["run"]
    assert len(lab.vmctl("history", "plain").splitlines()) >= 3
    assert "plain has been up" in lab.vmctl("why", "plain")
    assert "guests  4: 3 up" in lab.vmctl("status")
    assert 'memory = "64M"' in lab.vmctl("show", "plain")


def test_a_guest_that_does_not_come_up(lab: LabHost) -> None:
    """The wait ends when that is clear, and the reason is told."""
    said = lab.vmctl("start", "broken", "-t", "30s", status=1)
    why = lab.vmctl("why", "broken")
    lab.vmctl("stop", "broken")

    assert "broken is in backoff, not up: bhyve could not set the guest up" in said
    assert "failed start 1" in why


def test_a_wait_that_is_too_short(lab: LabHost) -> None:
    """Exit 75; what was asked for goes on."""
    assert "plain is" in lab.vmctl("restart", "plain", "-t", "1ms", status=75)
    lab.vmctl("start", "plain", "--ready")
    assert '"phase": "up"' in lab.vmctl("list", "plain", "--json")


def test_a_new_guest_is_that_daemons(lab: LabHost) -> None:
    """A daemon with another main file says so, and the file is made where it looks."""
    said = lab.vmctl("create", "fresh", "--memory", "16M")
    file = lab.root / "etc/vm.d/fresh.toml"
    assert f"{file}: made" in said
    file.unlink()


def test_the_host(lab: LabHost) -> None:
    """Files, plans, holds, events."""
    assert "the configuration is good" in lab.vmctl("check")
    assert "# plain on FreeBSD" in lab.vmctl("plan", "plain")
    assert "guests stop within" in lab.vmctl("plan", "--shutdown")
    assert "nothing changes" in lab.vmctl("reload", "--plan")
    lab.vmctl("hold", "other", "--reason", "disk check", "--for", "1h")
    assert re.search(r"on hold by root until \S+ \S+ UTC: disk check", lab.vmctl("list", "other"))
    lab.vmctl("release", "other")
    events = [json.loads(line) for line in lab.vmctl("events", "other", "-n", "1000", "--json").splitlines()]

    assert {"vm.hold", "vm.release"} <= {event["data"]["method"] for event in events if event["event"] == "asked"}


def test_unknown_guests(lab: LabHost) -> None:
    """Exit 1 from every verb that names one."""
    for words in (("list",), ("status",), ("show",), ("why",), ("history",), ("log",), ("start",), ("plan",), ("console",), ("events",)):
        assert 'there is no guest "nobody"' in lab.vmctl(*words, "nobody", status=1), words


def test_files_without_a_daemon(lab: LabHost, tmp_path: Path) -> None:
    """`check` and `plan` read them with -c; a broken one is 78."""
    main = lab.root / "etc/bhyved.toml"
    broken = tmp_path / "bhyved.toml"
    broken.write_text("start-paralel = 2\n")
    broken.chmod(0o644)

    assert "the configuration is good" in lab.vmctl("check", "-c", str(main), "--socket", "/nowhere")
    assert "accepted by" in lab.vmctl("plan", "plain", "-c", str(main), "--socket", "/nowhere")
    assert "start" in lab.vmctl("plan", "--boot", "-c", str(main), "--socket", "/nowhere")
    assert "start-parallel" in lab.vmctl("check", "-c", str(broken), status=78)
    assert "nobody" in lab.vmctl("plan", "nobody", "-c", str(main), status=1)


def test_a_console_over_a_killed_daemon(lab: LabHost) -> None:
    """A person types, the daemon is killed, another takes over, the person goes on typing; the log has all of it, in order."""
    lab.vmctl("start", "plain", "--ready")
    with person(lab.socket, "console", "plain") as somebody:
        somebody.sees(b"leaves")
        somebody.types(b"first\r")
        somebody.sees(b"first\r\n")
        lab.kill_daemon()
        somebody.sees(b"waiting for bhyved")
        lab.start()
        somebody.sees(b"bhyved is back")
        somebody.types(b"second\r")
        somebody.sees(b"second\r\n")
        assert lab.vmctl("console", "plain", "--send", "x", status=1).endswith("--steal types all the same\n")
        assert lab.vmctl("restart", "plain") == "plain: up\n"
        somebody.sees(rb"\[plain is down: .*\[plain starts: ")
        somebody.types(b"third\r")
        somebody.sees(b"third\r\n")
        somebody.types(b"~.")

        assert somebody.status() == 0
        assert somebody.settings == somebody.before
    lines = [line for line in lab.vmctl("log", "plain").splitlines() if line.endswith(("first", "second", "third"))]
    assert len(lines) == 3


def test_scripts_on_a_console(lab: LabHost) -> None:
    """Typed, waited for, found."""
    lab.vmctl("start", "other", "--ready")
    printed = json.loads(lab.vmctl("console", "other", "--send", r"needle\r", "--wait-for", "ne+dle", "-t", "20s", "--json"))

    assert (printed["done"], printed["found"]) == (True, "needle")
    assert "has not printed" in lab.vmctl("console", "other", "--wait-for", "nonesuch", "-t", "100ms", status=75)
    assert lab.vmctl("log", "other", "-b", "0", "--grep", "needle", "-n", "1").strip().endswith("needle")


@pytest.mark.skipif(shutil.which("conserver") is None, reason="conserver is not installed")
def test_a_real_conserver(lab: LabHost, tmp_path: Path) -> None:
    """It accepts the configuration that is printed for it, and connects to the guest."""
    lab.vmctl("start", "offered", "--ready")
    written = tmp_path / "conserver.cf"
    written.write_text(lab.vmctl("console", "--conserver-cf") + "access * { trusted 127.0.0.1; allowed 127.0.0.1; }\n")
    words = ["conserver", "-C", str(written), "-P", str(tmp_path / "passwd"), "-p", str(free_port()), "-M", "127.0.0.1", "-u", "-v"]
    (tmp_path / "passwd").write_text("*any*:\n")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:

        def is_watched() -> bool:
            assert process.poll() is None
            return watched(lab, "offered") > 0

        until(is_watched, "conserver has opened the console", limit_s=PATIENCE_S)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it has a process for each group of consoles
        process.wait()


def watched(lab: LabHost, name: str) -> int:
    """How many viewers the guest's consoles have."""
    return sum(console["viewers"] for console in lab.call("vm.show", name=name)["consoles"])
