"""A daemon over what another version of it has left: older files are read, newer ones left untouched, and guests run through it all."""

import json
import tomllib
from pathlib import Path

import tomli_w

from tests.system.labkit import LabHost, running, sim

AGAIN = '[restart]\nbackoff = "100ms"\nbackoff-max = "200ms"\n'
#: What the first version of each file had, beside what makes no sense to leave out.
FIRST_RECORD = ("version", "desired", "desired-boot")
FIRST_LEDGER = ("version", "run", "boot", "by", "began_at", "began-at", "taps", "spec")


def keep(table: dict[str, object], keys: tuple[str, ...]) -> dict[str, object]:
    return {key: value for key, value in table.items() if key in keys}


def files(lab: LabHost, name: str) -> tuple[Path, Path]:
    return lab.root / f"db/vm/{name}.json", lab.root / f"run/vm/{name}/run.toml"


def test_older_files_are_read() -> None:
    """Keys that have come since have their defaults: wishes hold, guests are taken up, and what they have is given back at their end."""
    with running({"up": sim(more='[[network]]\nbridge = "bridge0"\n'), "down": sim()}) as lab:
        pid = lab.phase("up", "up", "down")["up"]["pid"]
        lab.ask("stop", "down")
        lab.phase("down", "down")
        lab.leave_guests()
        for name in ("up", "down"):
            record = files(lab, name)[0]
            record.write_text(json.dumps(keep(json.loads(record.read_text()), FIRST_RECORD)))
        ledger = files(lab, "up")[1]
        ledger.write_text(tomli_w.dumps(keep(tomllib.loads(ledger.read_text()), FIRST_LEDGER)))
        lab.start()

        rows = lab.rows()
        assert (rows["up"]["pid"], rows["up"]["phase"], rows["up"]["adopted"]) == (pid, "up", True)
        assert rows["down"]["phase"] == "down"
        assert "cannot be read" not in lab.log()
        assert "no record" not in lab.log()
        lab.ask("stop", "up")
        lab.phase("down", "up")
        assert lab.leftovers() == []
        lab.stop()


def test_newer_files_are_refused_and_left_untouched() -> None:
    """The operator is told, the guest goes on and can be stopped, and the newer version finds its files as it left them."""
    with running({"web": sim(more=AGAIN), "db": sim()}) as lab:
        pid = lab.phase("up", "web", "db")["web"]["pid"]
        lab.leave_guests()
        record, ledger = files(lab, "web")
        record.write_text(json.dumps({**json.loads(record.read_text()), "version": 99, "mood": "good"}))
        ledger.write_text(tomli_w.dumps({**tomllib.loads(ledger.read_text()), "version": 99, "mood": "good"}))
        before = record.read_bytes(), ledger.read_bytes()
        lab.start()
        rows = lab.rows()
        assert (rows["web"]["pid"], rows["web"]["phase"]) == (pid, "up")
        assert f"{record} is of a newer bhyved (version 99, this one reads 1)" in lab.log()
        lab.ask("stop", "web")
        lab.until(lambda rows: rows["web"]["phase"] in ("down", "held"), "web has ended")
        assert lab.bhyves("web") == []
        lab.ask("start", "web")
        row = lab.phase("held", "web")["web"]
        assert f"{ledger} is of a newer bhyved (format 99, this one knows 1): upgrade bhyved again" in row["reason"]

        assert (record.read_bytes(), ledger.read_bytes()) == before
        assert lab.rows()["db"]["phase"] == "up"
        lab.stop()
