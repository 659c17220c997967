"""Holds and drains of a whole daemon: shown with by whom, until when and why wherever somebody looks, and kept over kill -9."""

import json
import urllib.request
from typing import Any

from tests.system.labkit import LabHost, running, sim
from tests.waiting import until

AT_ONCE = '[restart]\nbackoff = "100ms"\n'


def metrics(lab: LabHost) -> str:
    with urllib.request.urlopen(lab.metrics, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def told(lab: LabHost, event: str) -> list[dict[str, Any]]:
    """The kept events of a kind."""
    kept: list[dict[str, Any]] = [json.loads(line) for line in (lab.root / "db/events/events.jsonl").read_text().splitlines()]
    return [each for each in kept if each["event"] == event]


def test_a_hold_is_shown_everywhere_and_outlives_the_daemon() -> None:
    """A guest that crashes stays down, also under the next daemon, and starts when it is released."""
    with running({"web": sim(more=AT_ONCE), "db": sim()}) as lab:
        lab.phase("up", "web", "db")
        assert lab.ask("hold", "web", reason="disk check", for_=3600)["ok"]
        hold = lab.rows()["web"]["hold"]
        assert (hold["by"], hold["reason"]) == ("root", "disk check")
        end = hold["until-at"].replace("T", " ")[:19]
        lab.call("console.send", name="web", text="panic\r")
        lab.phase("held", "web")
        lab.kill_daemon()
        lab.start()

        row = lab.phase("up", "db")["web"]
        assert (row["phase"], row["hold"]) == ("held", hold)
        assert lab.bhyves("web") == []
        said = " ".join(lab.call("vm.why", name="web")["sentences"])
        assert "held by root: disk check" in said
        assert f"the hold ends at {end} UTC" in said
        assert 'bhyved_vm_hold{vm="web"} 1' in metrics(lab)
        until(lambda: [(event["reason"], event["data"]["until"]) for event in told(lab, "hold")] == [("disk check", f"{end} UTC")])
        assert lab.ask("release", "web")["ok"]
        lab.phase("up", "web")
        until(lambda: len(told(lab, "hold-over")) == 1)


def test_a_drain_is_shown_everywhere_and_ends_by_itself() -> None:
    """Every guest stops and says why, none is started, also by the next daemon; when its time is over all are back but those on hold."""
    with running({"web": sim(), "db": sim(), "kept": sim()}) as lab:
        lab.phase("up", "web", "db", "kept")
        assert lab.call("daemon.drain", on=True, reason="new memory", for_=8)["drain"]["by"] == "root"
        rows = lab.phase("down", "web", "db", "kept")
        assert {row["reason"] for row in rows.values()} == {"stopped by root's drain of the host: new memory"}
        lab.kill_daemon()
        lab.start()

        assert lab.call("daemon.info")["drain"]["reason"] == "new memory"
        assert "bhyved_drained 1" in metrics(lab)
        assert lab.ask("start", "web")["code"] == "draining"
        assert "the host is drained by root until" in " ".join(lab.call("vm.why", name="web")["sentences"])
        assert lab.ask("hold", "kept", reason="keep it off")["ok"]
        rows = lab.phase("up", "web", "db")
        assert (rows["kept"]["phase"], rows["kept"]["reason"]) == ("held", "held by root: keep it off")
        assert "bhyved_drained 0" in metrics(lab)
        assert lab.call("daemon.info")["drain"] is None
        until(lambda: [event["by"] for event in told(lab, "drain-over")] == ["the end of its time"])
