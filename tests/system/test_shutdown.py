"""The end of a host with many guests: the rc script has written its deadline, and every guest has ended before it."""

import contextlib
import json
import shutil
import time
from typing import Any

import pytest

from bhyved.lab.qemu_machine import QEMU
from tests.system.labkit import Connection, LabHost, running, sim

DEAF = "boot 0.1s; acpi ignore; print login: ; wait"
SLOW = "boot 0.1s; acpi slow 2s; print login: ; wait"
REBOOTS = "boot 0.1s; acpi reboot; print login: ; wait"
TIMEOUT = '[stop]\ntimeout = "300s"\n'
ENDS_S = 24  # what rc.conf gives in these tests, of which [shutdown] margin keeps 5


def after(*names: str) -> str:
    return f"[order]\nafter = {json.dumps(names)}\n"


def shut_down(lab: LabHost, timeout_s: int, used_s: int = 0) -> tuple[float, list[dict[str, Any]]]:
    """What rc.d/bhyved does under rc.shutdown; how long it took, and what the daemon told meanwhile."""
    listener = Connection(lab.socket)
    listener.call("events.subscribe", follow=True)
    (lab.root / "run/shutdown").write_text(f"reason=reboot\ntimeout={timeout_s}\nused={used_s}\n")
    began = time.monotonic()
    lab.stop()
    took_s = time.monotonic() - began
    return took_s, rest(listener)


def rest(listener: Connection) -> list[dict[str, Any]]:
    """What is told until the daemon ends."""
    events = []
    with contextlib.suppress(ConnectionResetError), contextlib.closing(listener):
        while True:
            events.append(listener.read()["params"])
    return events


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def test_thirty_guests_end_in_time() -> None:
    """Deaf ones are switched off, slow ones are waited for, a button that reboots starts nothing, dependents go first."""
    scripts = {0: DEAF, 1: SLOW, 2: REBOOTS}
    guests = {f"vm{n:02}": sim(scripts.get(n % 6, ""), more=TIMEOUT) for n in range(27)}
    guests |= {"db": sim(SLOW, more=TIMEOUT), "app": sim(SLOW, more=TIMEOUT + after("db")), "web": sim(DEAF, more=TIMEOUT + after("app"))}
    with running(guests) as lab:
        lab.phase("up", *guests)
        took_s, events = shut_down(lab, ENDS_S + 6, used_s=6)

        assert took_s < ENDS_S
        ends = {event["vm"]: event for event in of_kind(events, "ended")}
        assert ends.keys() == guests.keys()
        assert [event["vm"] for event in of_kind(events, "ended") if event["vm"] in ("db", "app", "web")] == ["web", "app", "db"]
        assert not [event for event in events if event["phase"] in ("waiting", "preparing", "starting", "up", "held")]
        deaf = {name for name, text in guests.items() if DEAF in text}
        assert {event["vm"] for event in events if event["phase"] == "killing"} == deaf
        kinds = {name: event["data"]["kind"] for name, event in ends.items() if name not in deaf}
        assert {name for name, kind in kinds.items() if kind == "reboot"} == {f"vm{n:02}" for n in range(27) if n % 6 == 2}
        assert set(kinds.values()) == {"reboot", "poweroff"}
        assert of_kind(events, "stopped")[0]["by"] == "SIGTERM (reboot of the host)"


def test_nothing_starts_while_the_host_goes_down() -> None:
    """Starts are refused, and a crash in a guest whose turn has not come stays one."""
    loops = '[restart]\nbackoff = "100ms"\nbackoff-max = "100ms"\n'
    guests = {
        "db": sim("boot 0.1s; acpi on; print login: ; wait", more=loops),
        "web": sim("boot 0.1s; acpi slow 4s; print login: ; wait", more=after("db")),
        "spare": sim(more="autostart = false\n"),
    }
    with running(guests) as lab:
        lab.phase("up", "db", "web")
        listener = Connection(lab.socket)
        (lab.root / "run/shutdown").write_text("reason=poweroff\ntimeout=60\nused=0\n")
        listener.call("events.subscribe", follow=True)
        lab.terminate()
        while listener.read()["params"]["phase"] != "stopping":
            pass
        assert lab.ask("start", "spare")["code"] == "shutting-down"
        assert lab.ask("restart", "web")["code"] == "shutting-down"
        lab.call("console.send", name="db", text="panic\r")
        events = rest(listener)
        lab.ended()

        assert [event["data"]["kind"] for event in of_kind(events, "ended")] == ["triple-fault", "poweroff"]
        assert not [event for event in events if event["phase"] in ("waiting", "preparing", "backoff")]


@pytest.mark.guest
def test_thirty_real_guests_end_in_time() -> None:
    """Thirty guests under QEMU, six of which have been told to ignore the button: all are off in time, the others cleanly."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (package qemu-system-x86)")
    text = f'memory = "16M"\n[boot]\nloader = "uefi-csm"\n{TIMEOUT}'
    names = [f"vm{n:02}" for n in range(30)]
    deaf = set(names[::5])
    with running(dict.fromkeys(names, text), engine="qemu") as lab:
        lab.phase("up", *names)
        for name in names:
            assert lab.call("console.wait-for", name=name, text="> ", since="boot", timeout=60)["found"]
        for name in deaf:
            assert lab.call("console.send", name=name, text="i")["taken"] == 1
            assert lab.call("console.wait-for", name=name, text="> i", since="boot", timeout=60)["found"]
        took_s, events = shut_down(lab, ENDS_S)

        assert took_s < ENDS_S
        assert {event["vm"] for event in events if event["phase"] == "killing"} == deaf
        assert {event["vm"] for event in of_kind(events, "ended")} == set(names)
