"""kill -9 of the daemon at any moment: no guest is lost, doubled or unknown, and nothing leaks."""

import random

import pytest

from tests.system.labkit import Connection, LabHost, running, sim

LOOPS = '[restart]\nreboot-limit = "1000 in 1h"\ncrash-limit = "1000 in 1h"\nbackoff = "100ms"\nbackoff-max = "200ms"\n'
LOGIN = "boot 0.1s; acpi on; print login: ;"
GUESTS = {
    "still1": sim(),
    "still2": sim(),
    "still3": sim(more='[[network]]\nbridge = "bridge0"'),
    "reboots1": sim(f"{LOGIN} sleep 0.4s; reboot", more=LOOPS),
    "reboots2": sim(f"{LOGIN} sleep 1.1s; reboot", more=LOOPS),
    "crashes1": sim(f"{LOGIN} sleep 0.6s; triple-fault", more=LOOPS),
    "crashes2": sim("boot 0.05s; exit 4", more=LOOPS),
    "slow": sim("boot 0.1s; acpi slow 0.7s; print login: ; wait"),
    "toggled1": sim(more="autostart = false"),
    "toggled2": sim("boot 0.3s; acpi on; print login: ; wait", more="autostart = false"),
}
STILL = ("still1", "still2", "still3")


def let_happen(lab: LabHost, events: int) -> None:
    """Wait for so many events, so that the kill falls between any two steps of any guest."""
    connection = Connection(lab.socket)
    try:
        connection.call("events.subscribe", follow=True)
        for _ in range(events):
            connection.read()
    finally:
        connection.close()


def toggle(lab: LabHost, rng: random.Random) -> None:
    for name in ("toggled1", "toggled2", "slow"):
        verb = rng.choice(["start", "stop", "restart", "reset", ""])
        if verb:
            lab.ask(verb, name)


def kill_and_look(rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    with running(GUESTS) as lab:
        rows = lab.phase("up", *STILL)
        pids = {name: rows[name]["pid"] for name in STILL}
        for round_ in range(rounds):
            toggle(lab, rng)
            let_happen(lab, rng.randrange(1, 25))
            lab.kill_daemon()
            lab.start()
            rows = lab.rows()

            assert rows.keys() == GUESTS.keys()
            assert {name: (rows[name]["pid"], rows[name]["phase"]) for name in STILL} == {name: (pids[name], "up") for name in STILL}
            assert all(rows[name]["adopted"] for name in STILL)
            for name in GUESTS:
                assert len(lab.bhyves(name)) <= 1, f"round {round_}: {name} runs twice"
                assert rows[name]["phase"] != "held", f"round {round_}: {name} is held: {rows[name]['reason']}"
        for name in GUESTS:
            kinds = [run["kind"] for run in lab.runs(name)]
            assert "unknown" not in kinds, f"{name}: {lab.runs(name)}"
        assert {run["kind"] for run in lab.runs("reboots1")} == {"reboot"}
        assert {run["kind"] for run in lab.runs("crashes1")} == {"triple-fault"}
        assert rows["still1"]["uptime_s"] > 1
        lab.call("vm.stop", names=[], all=True)
        lab.until(lambda rows: all(row["phase"] == "down" for row in rows.values()), "all down")

        assert lab.leftovers() == []
        lab.stop()
        assert lab.processes() == []


def test_twenty_kills() -> None:
    """Twenty kills of the daemon while ten guests boot, reboot, crash and stop."""
    kill_and_look(20, seed=1)


@pytest.mark.long
def test_five_hundred_kills() -> None:
    """The same five hundred times."""
    kill_and_look(500, seed=2)
