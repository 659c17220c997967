"""A host with little memory, as its operator meets it: guests that wait for room, and what the commands say of that."""

import json
import subprocess
import sys

from tests.system.labkit import QUICK, LabHost

DAEMON = QUICK + 'memory-reserve = "1G"\n'


def vmctl(lab: LabHost, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bhyved.cli.ctl", "--socket", str(lab.socket), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_guest_waits_for_memory_and_starts_when_there_is_some() -> None:
    """list, why and plan boot say for what; a person's start warns and goes; the end of another lets it in by itself."""
    lab = LabHost({"db1": 'memory = "2G"\n', "web1": 'memory = "2G"\n', "x1": 'memory = "1G"\n'}, daemon=DAEMON)
    (lab.root / "lab").mkdir()
    (lab.root / "lab/settings.json").write_text(json.dumps({"physmem": 4 << 30}))
    with lab:
        lab.phase("up", "db1", "x1")
        rows = lab.until(lambda rows: rows["web1"]["waiting_for"] != "", "web1 says what it waits for")
        wanted = "waiting for memory: needs 2G; 0K of 3G are left beside db1 (2G), x1 (1G)"
        assert rows["web1"]["waiting_for"] == wanted
        assert f"waiting       -         0     1      2G  {wanted}" in vmctl(lab, "list").stdout
        assert wanted in vmctl(lab, "why", "web1").stdout
        assert "2 guests start, 100 at a time, 0s apart; 1 guest waits for memory" in vmctl(lab, "plan", "--boot").stdout

        vmctl(lab, "stop", "db1")
        lab.phase("up", "web1")
        started = vmctl(lab, "start", "db1")

        assert started.returncode == 0
        assert started.stderr == (
            "vmctl: db1: it starts because somebody asked for it, but memory is short: "
            "needs 2G; 0K of 3G are left beside web1 (2G), x1 (1G)\n"
        )
        lab.stop()
