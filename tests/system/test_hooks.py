"""Hooks in a whole lab: each moment is told, what a failure means, and that no hook stalls anything."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system.labkit import QUICK, Connection, LabHost, running, sim

MOMENTS = ("pre-start", "post-start", "ready", "pre-stop", "post-stop", "crash", "held")
LOGIN = "boot 0.1s; acpi on; print login: ;"

HOOK = """\
#!/bin/sh
printf '{"env": "%s", "story": %s}\\n' "$BHYVED_HOOK $BHYVED_VM $BHYVED_PHASE" "$(cat)" >>"$1"
echo "told of $BHYVED_HOOK"
exit "${2:-0}"
"""

Told = dict[str, Any]


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    """A hook that writes down what it was told: the first argument is the file, the second its exit status."""
    return written(tmp_path / "hook", HOOK)


def written(script: Path, text: str) -> Path:
    script.write_text(text)
    script.chmod(0o755)
    return script


def hooks(command: list[str], *moments: str, timeout: str = "30s") -> str:
    """The table, the same command at each moment."""
    lines = "".join(f"{moment} = {json.dumps(command)}\n" for moment in moments)
    return f'[hooks]\n{lines}timeout = "{timeout}"\n'


def heard(file: Path) -> list[Told]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def until_event(lab: LabHost, event: str, vm: str, count: int = 1, **data: Any) -> list[Told]:
    """The first events of this kind, as soon as there are so many."""
    connection = Connection(lab.socket)
    try:
        connection.call("events.subscribe", since=0)
        found: list[Told] = []
        while len(found) < count:
            told = connection.read()["params"]
            if told.get("event") == event and told["vm"] == vm and data.items() <= told.get("data", {}).items():
                found.append(told)
        return found
    finally:
        connection.close()


def test_every_moment_is_told(tmp_path: Path, hook: Path) -> None:
    """A guest that starts, crashes once, is stopped, and is held at last: each hook hears what is true at its moment, in order."""
    told = tmp_path / "told"
    more = f'{hooks([str(hook), str(told)], *MOMENTS)}[restart]\ncrash-limit = "1 in 1h"\nbackoff = "100ms"\n'
    with running({"web1": sim(more=more)}) as lab:
        rows = lab.phase("up", "web1")
        until_event(lab, "hook", "web1", hook="ready")
        lab.call("console.send", name="web1", text="panic\r")
        until_event(lab, "hook", "web1", hook="crash")
        until_event(lab, "hook", "web1", 2, hook="ready")
        lab.ask("stop", "web1")
        until_event(lab, "hook", "web1", hook="post-stop")
        lab.ask("start", "web1")
        until_event(lab, "hook", "web1", 3, hook="ready")
        for number in (2, 3):
            lab.phase("up", "web1")
            lab.call("console.send", name="web1", text="panic\r")
            until_event(lab, "hook", "web1", number, hook="crash")
        until_event(lab, "hook", "web1", hook="held")

    by_moment: dict[str, list[Told]] = {}
    for each in heard(told):
        by_moment.setdefault(each["story"]["hook"], []).append(each)
    assert {moment: len(each) for moment, each in by_moment.items()} == {
        "pre-start": 4,
        "post-start": 4,
        "ready": 4,
        "crash": 3,
        "pre-stop": 1,
        "post-stop": 1,
        "held": 1,
    }
    phases = {moment: [each["story"]["phase"] for each in told] for moment, told in by_moment.items()}
    assert set(phases["pre-start"]) == {"preparing"}
    assert set(phases["post-start"]) == set(phases["ready"]) == {"up"}
    assert phases["pre-stop"] == ["stopping"]
    assert phases["post-stop"] == ["down"]
    assert phases["held"] == ["held"]
    first = by_moment["post-start"][0]
    assert first["env"] == "post-start web1 up"
    assert (first["story"]["vm"], first["story"]["pid"], first["story"]["run"]) == ("web1", rows["web1"]["pid"], rows["web1"]["run"])
    assert by_moment["crash"][0]["story"]["last_exit"]["kind"] == "triple-fault"
    assert by_moment["held"][0]["story"]["restarts"]["crash"] == 2
    assert "triple fault" in by_moment["held"][0]["story"]["reason"]


def test_the_daemons_hooks_hear_of_every_guest(tmp_path: Path, hook: Path) -> None:
    """After the guest's own; what they print stands in the event and in the log."""
    mine, ours = tmp_path / "mine", tmp_path / "ours"
    guests = {"web1": sim(more=hooks([str(hook), str(mine)], "post-start")), "db1": sim()}
    with running(guests, daemon=QUICK + hooks([str(hook), str(ours)], "post-start")) as lab:
        lab.phase("up", "web1", "db1")
        found = until_event(lab, "hook", "web1", 2, hook="post-start")
        until_event(lab, "hook", "db1", hook="post-start")
        log = lab.log()

    assert [each["story"]["vm"] for each in heard(mine)] == ["web1"]
    assert sorted(each["story"]["vm"] for each in heard(ours)) == ["db1", "web1"]
    assert [each["reason"] for each in found] == ["told of post-start"] * 2
    assert "told of post-start" in log


def test_a_failed_pre_start_hook_is_a_failed_start(tmp_path: Path, hook: Path) -> None:
    """Nothing is started, it is tried again with back-off, and history and `why` say what the hook said."""
    more = hooks([str(hook), str(tmp_path / "told"), "7"], "pre-start") + '[restart]\nbackoff = "100ms"\nbackoff-max = "200ms"\n'
    with running({"web1": sim(more=more)}) as lab:
        failed = until_event(lab, "hook-failed", "web1", 3, hook="pre-start")
        why = lab.call("vm.why", name="web1")
        row = lab.rows()["web1"]
        assert lab.bhyves("web1") == []
        assert lab.leftovers() == []

    assert failed[0]["reason"] == "pre-start hook ended with status 7: told of pre-start"
    assert row["restarts"]["start_failure"] >= 2
    assert row["last_exit"] is None or row["last_exit"]["kind"] == "start-error"
    assert any("pre-start hook ended with status 7: told of pre-start" in sentence for sentence in why["sentences"])


def test_a_guest_whose_hook_is_missing_says_so(tmp_path: Path) -> None:
    """The sentence names the command, not an errno."""
    with running({"web1": sim(more=hooks([str(tmp_path / "nothing")], "pre-start", "ready"))}) as lab:
        failed = until_event(lab, "hook-failed", "web1", hook="pre-start")

    assert failed[0]["reason"] == "pre-start hook: `nothing` could not be run: no such file or directory"


def test_other_failed_hooks_change_nothing(tmp_path: Path, hook: Path) -> None:
    """But that each is told."""
    moments = ("post-start", "ready", "crash", "pre-stop", "post-stop")
    more = f'{hooks([str(hook), str(tmp_path / "told"), "3"], *moments)}[restart]\nbackoff = "100ms"\n'
    with running({"web1": sim(more=more)}) as lab:
        lab.phase("up", "web1")
        lab.call("console.send", name="web1", text="panic\r")
        lab.until(lambda rows: rows["web1"]["restarts"]["crash"] == 1 and rows["web1"]["phase"] == "up", "up again")
        lab.ask("stop", "web1")
        lab.phase("down", "web1")
        failed = {moment: until_event(lab, "hook-failed", "web1", hook=moment)[0]["reason"] for moment in moments}
        kinds = [run["kind"] for run in lab.runs("web1")]

    assert failed == {moment: f"{moment} hook ended with status 3: told of {moment}" for moment in moments}
    assert kinds == ["triple-fault", "poweroff"]


def test_a_hanging_hook_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """Within its time limit; meanwhile its guest lives on as if nothing were."""
    script = written(tmp_path / "hook", f"#!/bin/sh\nsleep 1000 &\necho $! >{tmp_path}/pid\nwait\n")
    with running({"web1": sim(more=hooks([str(script)], "post-start", timeout="1s"))}) as lab:
        lab.phase("up", "web1")
        lab.call("console.send", name="web1", text="reboot\r")
        lab.until(lambda rows: rows["web1"]["restarts"]["reboot"] == 1 and rows["web1"]["phase"] == "up", "up again")
        failed = until_event(lab, "hook-failed", "web1", hook="post-start")
        pid = int((tmp_path / "pid").read_text())
        until_event(lab, "hook-failed", "web1", 2, hook="post-start")
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    assert failed[0]["reason"] == "post-start hook did not end within 1s and was killed"


def test_a_hanging_pre_stop_hook_does_not_keep_a_guest_up(tmp_path: Path) -> None:
    """The first press waits for it, the second does not."""
    script = written(tmp_path / "hook", f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 1000\n")
    more = hooks([str(script)], "pre-stop", timeout="300s") + '[stop]\npresses = ["0s", "1s"]\ntimeout = "100s"\n'
    with running({"web1": sim(more=more)}) as lab:
        lab.phase("up", "web1")
        began = time.monotonic()
        lab.ask("stop", "web1")
        lab.phase("down", "web1")
        took_s = time.monotonic() - began
        kinds = [run["kind"] for run in lab.runs("web1")]
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        until_event(lab, "hook-failed", "web1", hook="pre-stop")

    assert 0.9 < took_s < 60
    assert kinds == ["poweroff"]


SLOW = """\
#!/bin/sh
echo begun >>"$1"
sleep "$2"
echo done >>"$1"
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A hook that says in a file when it begins and when it is done: its arguments are the file, and seconds between the two."""
    return written(tmp_path / "slow", SLOW)


def begun(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("end", ["stop", "leave"])
def test_the_end_of_the_daemon_waits_for_hooks(tmp_path: Path, slow: Path, end: str) -> None:
    """Whether guests are stopped with it or run on: what a hook has begun, it ends."""
    told, moment = tmp_path / "told", "post-stop" if end == "stop" else "ready"
    with running({"web1": sim(more=hooks([str(slow), str(told), "1"], moment))}) as lab:
        lab.phase("up", "web1")
        if end == "stop":
            lab.stop()
        else:
            begun(told)
            lab.leave_guests()
        said = told.read_text()

        assert said == "begun\ndone\n"
        assert "hook-failed" not in lab.log()


def test_a_hook_does_not_outlast_the_end_of_the_host(tmp_path: Path, slow: Path) -> None:
    """At the deadline it is killed, and that is told."""
    told = tmp_path / "told"
    daemon = f'{QUICK}[shutdown]\nmargin = "0s"\n'
    with running({"web1": sim(more=hooks([str(slow), str(told), "1000"], "post-stop", timeout="300s"))}, daemon=daemon) as lab:
        lab.phase("up", "web1")
        (lab.root / "run/shutdown").write_text("reason=poweroff\ntimeout=3\nused=0\n")
        began = time.monotonic()
        lab.stop()
        took_s = time.monotonic() - began
        said = told.read_text()

        assert 2 < took_s < 60
        assert said == "begun\n"
        assert "post-stop hook was killed: bhyved ended" in lab.log()


def test_whoever_insists_waits_for_no_hook(tmp_path: Path, slow: Path) -> None:
    """An INT when all guests are down kills the hooks that still run."""
    told = tmp_path / "told"
    with running({"web1": sim(more=hooks([str(slow), str(told), "1000"], "post-stop", timeout="300s"))}) as lab:
        lab.phase("up", "web1")
        pid = lab.daemon_pid
        lab.terminate()
        begun(told)
        while psutil.pid_exists(pid):  # the first may be too soon to be another
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            time.sleep(0.2)
        lab.ended()

        assert "hooks are killed" in lab.log()
        assert "post-stop hook was killed: bhyved ended" in lab.log()


def test_a_guest_that_is_taken_up_has_no_second_start(tmp_path: Path, hook: Path) -> None:
    """The next daemon runs no hook for what was there before it; a crash that happened meanwhile is told."""
    told = tmp_path / "told"
    more = hooks([str(hook), str(told)], *MOMENTS) + '[restart]\nbackoff = "1h"\nbackoff-max = "1h"\n'
    with running({"web1": sim(f"{LOGIN} wait", more=more), "falls": sim(f"{LOGIN} sleep 3s; triple-fault", more=more)}) as lab:
        for name in ("web1", "falls"):
            until_event(lab, "hook", name, hook="ready")
            while not json.loads((lab.root / f"db/vm/{name}.json").read_text())["ready-run"]:
                time.sleep(0.02)  # until it is on disk: a daemon killed before that tells it again
        lab.kill_daemon()
        before = heard(told)
        while lab.bhyves("falls"):
            time.sleep(0.1)  # no daemon is there to tell
        lab.start()
        until_event(lab, "hook", "falls", hook="crash")
        lab.until(lambda rows: rows["web1"]["ready"], "ready")

    assert [(each["story"]["vm"], each["story"]["hook"]) for each in heard(told)[len(before) :]] == [("falls", "crash")]
