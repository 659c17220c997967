"""Events across restarts of the daemon, and whether history and `why` tell what really happened."""

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.system.labkit import Connection, LabHost, running, sim

LOOPS = '[restart]\nreboot-limit = "1000 in 1h"\nbackoff = "50ms"\nbackoff-max = "50ms"\n'
Told = dict[str, Any]


def kept(lab: LabHost, since: int = 0, **params: Any) -> list[Told]:
    """Every message that a subscription from there on has, `lost` included, up to its end."""
    connection = Connection(lab.socket)
    try:
        connection.call("events.subscribe", since=since, follow=False, **params)
        messages = []
        while (message := connection.read())["method"] != "end":
            messages.append(message)
        return messages
    finally:
        connection.close()


def numbers(messages: list[Told]) -> Iterator[int]:
    """Of events; lost ones are counted as if they had been told."""
    for message in messages:
        if message["method"] == "lost":
            yield from range(message["params"]["next"] - message["params"]["count"], message["params"]["next"])
        else:
            yield message["params"]["seq"]


def listen(connection: Connection, until_gone: bool, count: int = 0) -> list[Told]:
    """What a follower hears: so many messages, or all until the daemon goes."""
    heard: list[Told] = []
    try:
        while until_gone or len(heard) < count:
            heard.append(connection.read())
    except ConnectionError:
        assert until_gone
    return heard


def until_serving(lab: LabHost, since: int = 0) -> list[Told]:
    """What has been told after `since`, up to the present daemon's word that it serves."""
    connection = Connection(lab.socket)
    try:
        connection.call("events.subscribe", since=since)
        messages = [connection.read()]
        while messages[-1]["params"].get("event") != "serving":
            messages.append(connection.read())
        return messages
    finally:
        connection.close()


def test_a_follower_misses_nothing() -> None:
    """Over three kills of the daemon, a client that comes back with its last number hears each event once, and that none is lost."""
    with running({"web1": sim("boot 0.05s; print login: ; sleep 0.2s; reboot", more=LOOPS), "db1": sim()}) as lab:
        heard: list[Told] = []
        for _ in range(3):
            connection = Connection(lab.socket)
            connection.call("events.subscribe", since=max(numbers(heard), default=0))
            heard += listen(connection, until_gone=False, count=25)
            lab.kill_daemon()
            heard += listen(connection, until_gone=True)
            connection.close()
            lab.start()
        heard += until_serving(lab, max(numbers(heard)))
        found = list(numbers(heard))

    assert found == list(range(1, found[-1] + 1))
    assert [message for message in heard if message["method"] == "lost"] == []
    events = [message["params"] for message in heard if message["method"] == "event"]
    assert len({event["seq"] for event in events}) == len(events)
    assert sum(event["event"] == "serving" for event in events) == 4
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_a_daemon_that_ends_in_order_loses_nothing() -> None:
    """What was told before USR1 is told again, word for word, by the next daemon."""
    with running({"web1": sim()}) as lab:
        lab.phase("up", "web1")
        before = kept(lab)
        lab.leave_guests()
        lab.start()
        after = kept(lab)
        of_db1 = kept(lab, names=["web1"])

    assert after[: len(before)] == before
    assert after[len(before)]["params"]["event"] == "leaving"
    assert list(numbers(after)) == list(range(1, len(after) + 1))
    assert of_db1 == [message for message in after if message["params"]["vm"] == "web1"]


def ended_runs(heard: list[Told]) -> list[str]:
    """The runs whose end has been told; one that a killed daemon had not cleaned up is ended by the next one again."""
    return list(dict.fromkeys(message["params"]["data"]["run"] for message in heard if message["params"].get("event") == "ended"))


def test_what_was_told_survives_a_kill_at_that_moment() -> None:
    """The daemon is killed as soon as a client has heard of the end of a run: the next one tells it word for word, and has the run."""
    with running({"web1": sim(more=LOOPS)}) as lab:
        lab.phase("up", "web1")
        connection = Connection(lab.socket)
        connection.call("events.subscribe", since=0)
        heard: list[Told] = []
        for number in range(1, 4):
            lab.phase("up", "web1")
            lab.call("console.send", name="web1", text="reboot\r")
            while len(ended_runs(heard)) < number:
                heard.append(connection.read())
            lab.kill_daemon()
            heard += listen(connection, until_gone=True)
            connection.close()
            lab.start()
            assert kept(lab)[: len(heard)] == heard
            assert [run["run"] for run in lab.runs("web1")][:number] == ended_runs(heard)
            connection = Connection(lab.socket)
            connection.call("events.subscribe", since=heard[-1]["params"]["seq"])
        connection.close()


def test_a_torn_journal_costs_what_is_torn() -> None:
    """A journal whose last line is cut off in the middle is read up to there; the daemon starts, and the lost number is not given again."""
    with running({"web1": sim()}) as lab:
        lab.phase("up", "web1")
        lab.ask("stop", "web1")
        lab.phase("down", "web1")
        lab.leave_guests()  # so that all is written
        path = lab.root / "db/events/events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines)[:-7])
        lab.start()
        after = until_serving(lab, len(lines) - 3)

    assert list(numbers(after)) == list(range(len(lines) - 2, list(numbers(after))[-1] + 1))
    lost = [message["params"] for message in after if message["method"] == "lost"]
    assert lost == [{"count": 1, "next": len(lines) + 1}]


def test_what_people_do_is_told_with_their_names() -> None:
    """Each wish is an event with its method, who asked, and what came of it; each change of phase says what caused it."""
    with running({"web1": sim(more="autostart = false")}) as lab:
        lab.ask("start", "web1")
        run = lab.phase("up", "web1")["web1"]["run"]
        lab.ask("hold", "web1", reason="disk check")
        lab.ask("reset", "web1")
        lab.until(lambda rows: rows["web1"]["phase"] == "up" and rows["web1"]["run"] != run, "reset")
        lab.call("config.reload")
        lab.ask("stop", "web1")
        lab.phase("down", "web1")
        told = [message["params"] for message in kept(lab)]

    me = psutil.Process().username()
    asked = [(event["data"]["method"], event["vm"], event["by"]) for event in told if event["event"] == "asked"]
    assert asked == [(f"vm.{verb}", "web1", me) for verb in ("start", "hold", "reset")] + [
        ("config.reload", "", me),
        ("vm.stop", "web1", me),
    ]
    assert all(event["data"]["pid"] == os.getpid() for event in told if event["event"] == "asked")
    phases = [event["phase"] for event in told if event["event"] == "phase"]
    assert phases[:4] == ["waiting", "preparing", "starting", "up"]
    assert phases[-3:] == ["stopping", "cleaning", "down"]
    assert any(event["event"] == "reloaded" and event["by"] == me for event in told)


# --- history and why --------------------------------------------------------------------------------------------------------------

ONCE = '[restart]\non-reboot = "stop"\nbackoff = "1h"\nbackoff-max = "1h"\n'
HELLO = "boot 0.1s; acpi on; print last words; sleep 0.2s;"
NO_MEMORY = "stderr bhyve: Unable to setup memory (12)"

#: Guest → its file, and what its history says: kind, status, signal, a part of the words, a part of the decision.
ENDS: dict[str, tuple[str, tuple[str, int | None, int | None, str, str]]] = {
    "reboots": (sim(f"{HELLO} reboot", more=ONCE), ("reboot", 0, None, "the guest rebooted", "on-reboot says stop")),
    "leaves": (sim(f"{HELLO} poweroff", more=ONCE), ("poweroff", 1, None, "the guest powered off", "stays down")),
    "halts": (sim(f"{HELLO} halt", more=ONCE), ("halt", 2, None, "the guest halted its CPUs", "stays down")),
    "faults": (
        sim(f"{HELLO} triple-fault", more=ONCE),
        ("triple-fault", 3, None, "triple fault", "starting again in 1h (crash 1 of 5)"),
    ),
    "errs": (
        sim(f"{HELLO} stderr oh dear; exit 4", more=ONCE),
        ("error", 4, None, "met an error while", "starting again in 1h (crash 1"),
    ),
    "aborts": (sim(f"{HELLO} signal 6", more=ONCE), ("killed", None, 6, "SIGABRT", "starting again in 1h (crash 1 of 5)")),
    "starved": (sim(f"{NO_MEMORY}; exit 4", more=ONCE), ("start-error", 4, None, "could not set the guest up", "(failed start 1)")),
    "wrong": (sim("exit 64", more=ONCE), ("config-error", 64, None, "refused its configuration", "held: ")),
    "early": (
        sim("boot 0.1s; acpi off; print last words; wait", more=f"{ONCE}[stop]\nignore-early-term = false\n"),
        ("stopped-early", None, 15, "before the guest had ACPI on", "stays down: stopped by"),
    ),
    "stubborn": (
        sim("boot 0.1s; acpi ignore; print last words; wait", more=f'{ONCE}[stop]\ntimeout = "1s"\n'),
        ("poweroff", 1, None, "its power was cut", "it did not shut down in time"),
    ),
    "taken": (sim(more=ONCE), ("destroyed", 4, None, "destroyed from outside", "starting again in 1h (crash 1 of 5)")),
    "asleep": (sim(more=f"autostart = false\n{ONCE}"), ("suspended", 5, None, "suspended to a file", "stays down")),
    "unseen": (sim(more=ONCE), ("unknown", None, None, "nobody wrote down how", "starting again in 1h (crash 1 of 5)")),
}


@pytest.fixture(scope="module")
def ended() -> Iterator[LabHost]:
    """A lab in which every guest has ended, each in its own way."""
    with running({name: text for name, (text, _) in ENDS.items()}) as lab:
        lab.settle(release="main", snapshots=True, maxvmms=50)
        lab.ask("start", "asleep")
        lab.phase("up", "early", "stubborn", "taken", "asleep", "unseen")
        bhyvectl = str(lab.root / "bin/bhyvectl")
        subprocess.run([bhyvectl, "--vm=taken", "--destroy"], check=True)
        subprocess.run([bhyvectl, "--vm=asleep", f"--suspend={lab.root}/asleep.snapshot"], check=True)
        pid = lab.rows()["unseen"]["pid"]
        keeper = psutil.Process(pid).parent()
        assert keeper is not None
        keeper.kill()
        os.kill(pid, signal.SIGKILL)
        lab.ask("stop", "early")
        lab.ask("stop", "stubborn")
        lab.until(lambda rows: all(row["phase"] in ("down", "held", "backoff") for row in rows.values()), "all have ended")
        yield lab


@pytest.mark.parametrize("name", ENDS)
def test_history_tells_how_it_ended(ended: LabHost, name: str) -> None:
    """Kind, status or signal, words and decision are those of what was done to the guest."""
    kind, status, number, words, decision = ENDS[name][1]
    (run,) = ended.runs(name)

    assert (run["kind"], run.get("status"), run.get("signal")) == (kind, status, number)
    assert words in run["text"]
    assert decision in run["decision"]
    assert (run["vm"], run["by"]) == (name, "autostart" if name != "asleep" else psutil.Process().username())
    assert run["uptime-s"] == pytest.approx(0, abs=60)


@pytest.mark.parametrize("name", ENDS)
def test_why_says_the_same(ended: LabHost, name: str) -> None:
    """Its sentences name the phase and the end; the end of a run is also an event, with the same run and kind."""
    told = ended.call("vm.why", name=name)
    events = [message["params"] for message in kept(ended, names=[name]) if message["params"]["event"] == "ended"]
    text = " ".join(told["sentences"])

    assert told["phase"] == ended.rows()[name]["phase"]
    assert ENDS[name][1][3] in text or ENDS[name][1][4] in text
    assert [(event["data"]["run"], event["data"]["kind"]) for event in events] == [(run["run"], run["kind"]) for run in told["runs"]]


def test_last_words_are_kept(ended: LabHost) -> None:
    """What the guest printed last, and what bhyve itself said, stand in the record; a known message has its remedy."""
    (faulted,), (erred,), (starved,) = (ended.runs(name) for name in ("faults", "errs", "starved"))

    assert faulted["console"] == "last words"
    assert erred["stderr"].strip() == "oh dear"
    assert "Unable to setup memory (12)" in starved["stderr"]
    assert "vm.max_user_wired" in starved["hint"]
    assert any("vm.max_user_wired" in sentence for sentence in ended.call("vm.why", name="starved")["sentences"])


def test_every_kind_of_end_is_here() -> None:
    """A new kind is noticed."""
    from bhyved.core.exits import ExitKind

    assert {kind for _, (kind, *_) in ENDS.values()} == set(ExitKind)
