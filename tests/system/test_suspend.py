"""Suspend and resume through a whole installation: client, daemon, keeper, and a bhyve that can save guests (contract 6)."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.labkit import Connection, LabHost, running, sim

QUIET = "autostart = false"


@contextmanager
def able(guests: dict[str, str], release: str = "main") -> Iterator[LabHost]:
    """A lab whose bhyve saves guests."""
    with running(guests) as lab:
        lab.settle(release=release, snapshots=True)
        yield lab


def states(lab: LabHost, name: str) -> list[str]:
    """Which directories with states the guest has."""
    path = lab.root / f"db/suspend/{name}"
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


def slow(script: str, how: str, more: str = "") -> str:
    """A guest whose suspend does `how`."""
    options = f'{{ "lab.script" = "{script}", "lab.suspend" = "{how}" }}'
    return f'memory = "16M"\n{more}\n[boot]\nloader = "uefi-csm"\n[bhyve]\noptions = {options}\n'


LOGIN = "boot 0.1s; acpi on; print login: ; wait"


@pytest.mark.parametrize("release", ["14", "main"])
def test_a_guest_goes_on_where_it_was(release: str) -> None:
    """Half a line that was typed before is a whole one after; in between the daemon is killed, and the guest stays suspended."""
    with able({"web1": sim()}, release) as lab:
        lab.phase("up", "web1")
        lab.call("console.wait-for", name="web1", text="login: ")
        lab.call("console.send", name="web1", text="power")
        lab.call("console.wait-for", name="web1", text="power")
        assert lab.vmctl("suspend", "web1") == "web1: suspended\n"
        row = lab.rows()["web1"]
        assert (row["phase"], row["desired"], row["suspended"]["doubtful"]) == ("down", "down", False)
        assert row["reason"] == f"suspended to disk at {lab.root}/db/suspend/web1/saved"
        assert (row["last_exit"]["kind"], row["last_exit"]["status"]) == ("suspended", 5 if release == "main" else 0)
        assert (lab.leftovers(), [run["kind"] for run in lab.runs("web1")]) == ([], ["suspended"])
        told = lab.call("vm.why", name="web1")
        assert "was suspended to disk" in told["sentences"][0]
        assert told["hint"].startswith("vmctl resume web1 goes on where it was, vmctl start --cold web1 throws that away")

        lab.kill_daemon()
        lab.start()
        assert (lab.rows()["web1"]["phase"], lab.rows()["web1"]["suspended"]) == ("down", row["suspended"])

        assert lab.vmctl("resume", "web1") == "web1: up\n"
        lab.until(lambda rows: rows["web1"]["suspended"] is None, "its state is used up")
        assert states(lab, "web1") == []
        lab.vmctl("resume", "web1", status=1)
        lab.call("console.send", name="web1", text="off\r")
        lab.phase("down", "web1")
        assert lab.runs("web1")[-1]["kind"] == "poweroff"


def test_what_cannot_be_suspended_goes_on() -> None:
    """bhyve fails, or was not built for it: the client says why, and the guest has not noticed."""
    with able({"web1": slow(LOGIN, "fails Could not pause devices")}) as lab:
        pid = lab.phase("up", "web1")["web1"]["pid"]
        assert "web1 is up, not suspended: not suspended: Could not pause devices" in lab.vmctl("suspend", "web1", status=1)
        lab.settle(snapshots=False)
        assert "WITH_BHYVE_SNAPSHOT" in lab.vmctl("suspend", "web1", status=1)

        row = lab.rows()["web1"]
        assert (row["phase"], row["pid"], row["desired"], states(lab, "web1")) == ("up", pid, "up", [])


def test_a_state_that_cannot_be_restored() -> None:
    """The guest is held with bhyve's reason, its state is kept, its node gone; a cold start boots it."""
    with able({"web1": sim()}) as lab:
        lab.phase("up", "web1")
        lab.vmctl("suspend", "web1")
        (lab.root / "db/suspend/web1/saved/state.meta").write_text("{}")
        assert "bhyve could not restore the saved state" in lab.vmctl("resume", "web1", status=1)
        row = lab.phase("held", "web1")["web1"]
        assert "vmctl start --cold" in row["reason"]
        assert (states(lab, "web1"), lab.leftovers()) == (["saved"], [])
        assert lab.runs("web1")[-1]["kind"] == "start-error"

        assert lab.vmctl("start", "--cold", "web1") == "web1: up\n"
        assert (states(lab, "web1"), lab.rows()["web1"]["suspended"]) == ([], None)


def test_a_guest_that_is_started_by_itself_goes_on_after_a_boot() -> None:
    """Autostart resumes it; a guest without stays suspended."""
    with able({"auto": sim(), "still": sim(more=QUIET)}) as lab:
        lab.ask("start", "still")
        lab.phase("up", "auto", "still")
        lab.vmctl("suspend", "auto", "still")
        lab.stop()

        lab.start()
        rows = lab.phase("up", "auto")
        assert rows["still"]["phase"] == "down"
        assert rows["still"]["suspended"] is not None
        lab.until(lambda rows: rows["auto"]["suspended"] is None, "its state is used up")
        events = [event["reason"] for event in told(lab, "resuming")]
        assert len(events) == 1
        assert events[0].startswith("it goes on from its state of")


def test_the_end_of_the_host_suspends_who_wants_that() -> None:
    """Where it was before is where it is after the boot: half a line that was typed becomes a whole one. Who cannot be saved is stopped."""
    wants = '[stop]\non-host-shutdown = "suspend"\n'
    fails = slow(LOGIN, "fails Could not pause devices", wants)
    with able({"web1": sim(more=wants), "fails": fails, "other": sim()}) as lab:
        lab.phase("up", "web1", "fails", "other")
        lab.call("console.wait-for", name="web1", text="login: ")
        lab.call("console.send", name="web1", text="power")
        lab.call("console.wait-for", name="web1", text="power")
        (lab.root / "run/shutdown").write_text("reason=reboot\ntimeout=60\nused=0\n")
        lab.stop()
        assert (states(lab, "web1"), states(lab, "fails"), states(lab, "other")) == (["saved"], [], [])

        lab.start()
        lab.phase("up", "web1", "fails", "other")
        lab.until(lambda rows: rows["web1"]["suspended"] is None, "its state is used up")
        kinds = {name: [run["kind"] for run in lab.runs(name)] for name in ("web1", "fails", "other")}
        assert kinds == {"web1": ["suspended"], "fails": ["poweroff"], "other": ["poweroff"]}
        (failure,) = told(lab, "suspend-failed")
        assert (failure["vm"], failure["reason"].partition(";")[0]) == ("fails", "Could not pause devices")
        lab.call("console.send", name="web1", text="off\r")
        lab.phase("down", "web1")
        assert lab.runs("web1")[-1]["kind"] == "poweroff"


def test_a_daemon_that_is_killed_while_the_host_goes_down() -> None:
    """Whoever stops the guests in its place waits for the state that is being written, and the boot goes on from it."""
    wants = '[stop]\non-host-shutdown = "suspend"\n'
    with able({"web1": slow(LOGIN, "takes 2s", wants)}) as lab:
        lab.phase("up", "web1")
        (lab.root / "run/shutdown").write_text("reason=reboot\ntimeout=60\nused=0\n")
        connection = Connection(lab.socket)
        connection.call("events.subscribe", follow=True)
        lab.terminate()
        while connection.read()["params"]["phase"] != "stopping":
            pass
        connection.close()
        os.kill(lab.daemon_pid, signal.SIGKILL)
        lab.ended()
        assert states(lab, "web1") == ["saved"]

        lab.start()
        lab.until(lambda rows: rows["web1"]["phase"] == "up" and rows["web1"]["suspended"] is None, "it goes on")
        assert [run["kind"] for run in lab.runs("web1")] == ["suspended"]


def told(lab: LabHost, event: str) -> list[dict[str, str]]:
    """Every event of that name that is kept."""
    connection = Connection(lab.socket)
    try:
        connection.call("events.subscribe", since=0, follow=False)
        found = []
        while (message := connection.read())["method"] != "end":
            if message["method"] == "event" and message["params"]["event"] == event:
                found.append(message["params"])
        return found
    finally:
        connection.close()


def kill_and_look(rounds: int, seed: int) -> None:
    """Kill the daemon at any moment of a suspend or a resume: the guest runs on, or is suspended, and never both or neither."""
    rng = random.Random(seed)
    names = ("quick", "slow", "takes")
    guests = {"quick": sim(), "slow": slow(LOGIN, "takes 0.3s"), "takes": slow(LOGIN, "takes 0.8s")}
    with able(guests) as lab:
        lab.phase("up", *names)
        for round_ in range(rounds):
            rows = lab.rows()
            connection = Connection(lab.socket)
            connection.call("events.subscribe", follow=True)
            for name in names:
                lab.ask("resume" if rows[name]["phase"] == "down" else "suspend", name)
            for _ in range(rng.randrange(15)):  # so many there are, and most of them while something is under way
                connection.read()
            connection.close()
            lab.kill_daemon()
            lab.start()
            rows = lab.until(lambda rows: all(rows[name]["phase"] in ("up", "down", "held") for name in names), f"round {round_}: at rest")

            for name in names:
                row = rows[name]
                assert row["phase"] != "held", f"round {round_}: {name}: {row['reason']}"
                assert len(lab.bhyves(name)) == (row["phase"] == "up"), f"round {round_}: {name} {row}"
                if row["phase"] == "down":
                    assert (row["suspended"] is not None, states(lab, name)) == (True, ["saved"]), f"round {round_}: {name} {row}"
        kinds = {run["kind"] for name in names for run in lab.runs(name)}
        assert kinds == {"suspended"}


def test_kills_in_a_suspend() -> None:
    """A few of them."""
    kill_and_look(4, seed=3)


@pytest.mark.long
def test_many_kills_in_a_suspend() -> None:
    """The same for minutes."""
    kill_and_look(150, seed=4)
