"""A busy host in little time: guests that reboot, crash, power off and are stopped; reloads, clients, daemons replaced and killed.

`make soak` runs it for ten minutes with a hundred guests; BHYVED_SOAK_S, BHYVED_SOAK_GUESTS and BHYVED_SOAK_SEED say otherwise. Each
guest writes into its bhyve's own log when it starts and how it is about to end, which no daemon has a hand in: the account at the end
compares that with what the daemons have recorded.
"""

import contextlib
import os
import random
import re
import socket
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.system.labkit import Connection, LabHost, running, sim

SECONDS = float(os.environ.get("BHYVED_SOAK_S", "60"))
GUESTS = int(os.environ.get("BHYVED_SOAK_GUESTS", "40"))
SEED = int(os.environ.get("BHYVED_SOAK_SEED", "1"))

RETRIES = '[restart]\nreboot-limit = "100000 in 1h"\ncrash-limit = "100000 in 1h"\nbackoff = "500ms"\nbackoff-max = "2s"\n'
ENDS = ("reboot", "triple-fault", "poweroff", "halt")
_GROWTH_BYTES = 64 << 20


def file_of(number: int, rng: random.Random) -> str:
    """A guest that ends by itself now and then, or one that only ends when it is told to."""
    button = rng.choice(["on", "on", "slow 1s", "reboot"])
    script = f"stderr soak started; boot 0.2s; acpi {button}; print login: ; "
    if number % 4:
        end = rng.choice(ENDS[:2] if number % 3 else ENDS)
        script += f"sleep {rng.uniform(5, 30):.1f}s; stderr soak ends {end}; {end}"
    else:
        script += "wait"
    more = RETRIES + ('[[network]]\nbridge = "bridge0"\n' if number % 3 == 0 else "")
    return sim(script, more=more)


class Soak:
    """One run of it."""

    def __init__(self, lab: LabHost, names: list[str], rng: random.Random) -> None:
        self._lab, self._names, self._rng = lab, names, rng
        self.kills = 0
        self.did: Counter[str] = Counter()

    def go(self, seconds: float) -> None:
        acts = [self.wish, self.wish, self.wish, self.wish, self.reload, self.clients, self.replace, self.kill]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            act = self._rng.choice(acts)
            self.did[act.__name__] += 1
            act()
            self.some_events(self._rng.randrange(1, 20))

    def wish(self) -> None:
        names = self._rng.sample(self._names, 5)
        verb = self._rng.choice(["start", "start", "start", "stop", "restart", "reset", "hold", "release", "release"])
        self._lab.call(f"vm.{verb}", names=names)

    def reload(self) -> None:
        name = self._rng.choice(self._names)
        path = self._lab.root / f"etc/vm.d/{name}.toml"
        text = re.sub(r'\[stop\]\ntimeout = "\d+s"\n', "", path.read_text())
        path.write_text(f'{text}[stop]\ntimeout = "{self._rng.randrange(2, 9)}s"\n')
        assert self._lab.call("config.reload")["applied"]

    def clients(self) -> None:
        """Forty at once: half leave without a word, half ask and do not listen."""
        socks = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for number, sock in enumerate(socks):
            sock.connect(str(self._lab.socket))
            if number % 2:
                with contextlib.suppress(OSError):
                    sock.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "vm.list"}\n' * 20)
        for sock in socks:
            sock.close()

    def replace(self) -> None:
        """`service bhyved restart`."""
        self._lab.leave_guests()
        self._lab.start()

    def kill(self) -> None:
        self.kills += 1
        self._lab.kill_daemon()
        self._lab.start()

    def some_events(self, count: int) -> None:
        """Let so many things happen, but no longer than a moment."""
        connection = Connection(self._lab.socket, patience_s=2.0)
        with contextlib.closing(connection), contextlib.suppress(TimeoutError):
            connection.call("events.subscribe", follow=True)
            for _ in range(count):
                connection.read()


def told_by_guests(lab: LabHost, name: str) -> Counter[str]:
    """What the guest's own runs wrote, whoever was watching."""
    text = "".join(path.read_text(errors="replace") for path in Path(lab.root / "log").glob(f"{name}.bhyve.log*"))
    return Counter(re.findall(r"soak (started|ends [\w-]+)", text))


@pytest.mark.long
def test_soak() -> None:
    """Every run of every guest is recorded once and as what it was, and at the end nothing is left of any of them."""
    rng = random.Random(SEED)
    names = [f"vm{number:03}" for number in range(GUESTS)]
    guests = {name: file_of(number, rng) for number, name in enumerate(names)}
    with running(guests, daemon='start-parallel = 20\nstart-gap = "0s"\n') as lab:
        lab.until(lambda rows: sum(row["run"] != "" for row in rows.values()) > GUESTS // 2, "most have begun", 300)
        soak = Soak(lab, names, rng)
        soak.go(SECONDS)
        lab.call("vm.release", names=[], all=True)
        daemon = psutil.Process(lab.daemon_pid)
        memory = daemon.memory_info().rss
        lab.call("vm.stop", names=[], all=True)
        lab.until(lambda rows: all(row["phase"] in ("down", "held") for row in rows.values()), "all down", 300)

        rows = lab.rows()
        assert not [name for name in names if lab.bhyves(name)]
        assert not [row for row in rows.values() if row["phase"] == "held"], rows
        started = recorded = missing = 0
        for name in names:
            runs = [run for run in lab.runs(name) if run["kind"] not in ("start-error", "config-error")]
            told, kinds = told_by_guests(lab, name), Counter(run["kind"] for run in runs)
            ids = Counter(run["run"] for run in runs)
            assert max(ids.values(), default=1) == 1, f"{name}: a run is recorded twice: {ids.most_common(1)}"
            assert kinds["unknown"] == 0, f"{name}: {[run for run in runs if run['kind'] == 'unknown']}"
            lost = told["started"] - len(runs)
            # A run that ends before its script began (stopped while it started) has nothing to tell.
            assert lost <= 0, f"{name}: {told} but {kinds}"
            for kind in ("triple-fault", "halt"):
                assert kinds[kind] <= told[f"ends {kind}"], f"{name}: {told} but {kinds}"
            started, recorded, missing = started + told["started"], recorded + len(runs), missing + max(0, lost)
        assert lab.leftovers() == []
        assert [str(path) for path in (lab.root / "run/vm").glob("*/alive")] == []
        assert daemon.num_fds() < 64 + 4 * GUESTS
        assert daemon.memory_info().rss < memory + _GROWTH_BYTES
        assert [line for line in lab.log().splitlines() if "internal error" in line or "Traceback" in line] == []
        did = ", ".join(f"{count} x {act}" for act, count in sorted(soak.did.items()))
        print(f"soak: {SECONDS:g} s, {GUESTS} guests, {started} runs, {recorded} recorded, {missing} lost, {soak.kills} kills; {did}")
        lab.stop()
        assert lab.processes() == []
