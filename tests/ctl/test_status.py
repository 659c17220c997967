"""`vmctl status` and `vmctl show`: a guest on a few lines, all of a guest, or the daemon."""

import json
from typing import Any

import pytest

from tests.ctl.conftest import Vmctl
from tests.ctl.played import playing, row

INFO = {
    "version": "1.2",
    "pid": 7,
    "started-at": "2026-01-01T12:00:00Z",
    "uptime-s": 90,
    "closing": False,
    "drain": None,
    "problems": [],
    "guests": 0,
    "memory": None,
    "you": {"uid": 0, "user": "root", "role": "root", "owns": []},
}
G = 1 << 30
LIMITED = {
    "total-bytes": 16 * G,
    "reserve-bytes": G,
    "limit-bytes": 15 * G,
    "guests-bytes": 10 * G,
    "free-bytes": 5 * G,
    "wired-limit-bytes": 4 * G,
    "wired-bytes": 2 * G,
    "overcommit": False,
}
UNLIMITED = LIMITED | {"limit-bytes": None, "free-bytes": None, "wired-limit-bytes": None}


def test_status_of_a_guest(vmctl: Vmctl) -> None:
    """A block with what there is to say, and no line for what there is not."""
    last = {"kind": "reboot", "status": 0, "signal": None, "at": "2026-01-01T11:00:00.5Z", "text": "the guest rebooted", "hint": ""}
    with playing(vm_list={"version": 1, "vms": [row("web1", last_exit=last)]}) as daemon:
        ran = vmctl(daemon, "status", "web1")

    assert ran.out.splitlines() == [
        "web1: up for 2h1m, ready",
        "  reason     asked for by autostart",
        "  wished     up, starts with the host",
        "  process    pid 4242, run run1",
        "  machine    2 CPUs, 2G",
        "  consoles   com1",
        "  taps       tap3",
        "  restarts   1 reboots, 2 crashes, 0 failed starts",
        "  last exit  2026-01-01 11:00:00 UTC: the guest rebooted",
    ]


def test_status_of_a_suspended_guest(vmctl: Vmctl) -> None:
    """Since when, by whom, where, and whether that is in doubt."""
    state = {"at": "2026-01-01T11:00:00Z", "by": "alice", "path": "/db/web1/resuming", "doubtful": True}
    with playing(vm_list={"version": 1, "vms": [row("web1", phase="down", uptime_s=None, suspended=state)]}) as daemon:
        ran = vmctl(daemon, "status", "web1")

    words = "since 2026-01-01 11:00:00 UTC by alice, in /db/web1/resuming, in doubt: a resume of it was cut short"
    assert f"  suspended  {words}" in ran.out.splitlines()


def test_status_of_the_daemon(vmctl: Vmctl) -> None:
    """Without names, it is the daemon that is meant, and who the caller is to it."""
    info = INFO | {
        "problems": ["metrics.listen: cannot listen on 127.0.0.1:9747: address already in use"],
        "guests": 3,
        "drain": {"by": "root", "reason": "memory", "since-at": "2026-01-01T12:01:00Z", "until-at": "2026-01-01T13:00:00Z"},
        "you": {"uid": 1001, "user": "alice", "role": "none", "owns": ["web1"]},
    }
    with playing(daemon_info=info, vm_list={"vms": [row("a"), row("b"), row("c", phase="held")]}) as daemon:
        ran = vmctl(daemon, "status")

    assert ran.out.splitlines() == [
        "bhyved 1.2 runs, pid 7",
        "  since    2026-01-01 12:00:00 UTC, for 1m30s",
        "  guests   3: 2 up, 1 held",
        "  drained  by root since 2026-01-01 12:01:00 UTC, until 2026-01-01 13:00:00 UTC: memory",
        "  problem  metrics.listen: cannot listen on 127.0.0.1:9747: address already in use",
        "  you      alice (uid 1001), owner of web1",
    ]


@pytest.mark.parametrize(
    ("memory", "lines"),
    [
        (LIMITED, ["  memory  16G; guests have 10G of 15G, 5G left for starts, 1G reserved", "  wired   guests have 2G of 4G"]),
        (UNLIMITED | {"overcommit": True}, ["  memory  16G; guests have 10G, overcommit = true", "  wired   guests have 2G"]),
        (UNLIMITED | {"total-bytes": None, "wired-bytes": 0}, ["  memory  not known how much; guests have 10G"]),
    ],
)
def test_status_of_the_hosts_memory(vmctl: Vmctl, memory: dict[str, Any], lines: list[str]) -> None:
    """What guests have, and what is left for those that start by themselves."""
    with playing(daemon_info=INFO | {"memory": memory}, vm_list={"vms": []}) as daemon:
        ran = vmctl(daemon, "status")

    assert [line for line in ran.out.splitlines() if line.startswith(("  memory", "  wired"))] == lines


def test_show(vmctl: Vmctl) -> None:
    """Keys are named as messages name them, and what waits for a restart comes first."""
    shown = {
        "version": 1,
        "vm": row("web1"),
        "spec": {"memory": "2G", "disk": [{"path": "/a"}, {"path": "/b"}], "owner": [], "boot": {"loader": "uefi"}},
        "consoles": [
            {"port": "com1", "open": True, "problem": "", "offset": 2048, "viewers": 1, "writer": "bob"},
            {"port": "com2", "open": False, "problem": "there is no such line", "offset": 0, "viewers": 0, "writer": ""},
        ],
        "changes": [{"key": "memory", "old": "1G", "new": "2G", "effect": "next-guest-reboot"}],
        "started-spec": True,
    }
    with playing(vm_show=shown) as daemon:
        ran = vmctl(daemon, "show", "web1")

    assert ran.out.splitlines() == [
        "web1: up for 2h1m, ready",
        '  memory: "2G" instead of "1G", from its next run on',
        "",
        'memory = "2G"',
        'disk[0].path = "/a"',
        'disk[1].path = "/b"',
        'boot.loader = "uefi"',
        "",
        "console com1: open, 2K recorded, 1 watching; bob has the keyboard",
        "console com2: not open, 0B recorded, 0 watching; there is no such line",
    ]


def test_status_of_a_guest_that_needs_somebody(vmctl: Vmctl) -> None:
    """Each thing that is not as it should be has its line."""
    odd = row(
        "web1",
        phase_s=3.0,  # it is the run that counts
        ready=False,
        adopted=True,
        ill="no answer three times",
        unready="no login: yet",
        unlimited="`rctl` ended with status 1",
        orphaned=True,
        config_changed=True,
        autostart=False,
        attempts="crash 4 of 5",
        next_start_in_s=38.2,
        hold={"by": "bob", "reason": "disk", "since-at": "2026-01-01T11:00:00Z", "until-at": None},
        vnc="127.0.0.1:5900",
        forced_stops=2,
        waiting_for="waiting for db1",
        cpus=1,
    )
    with playing(vm_list={"version": 1, "vms": [odd]}) as daemon:
        ran = vmctl(daemon, "status", "web1")

    assert ran.out.splitlines() == [
        "web1: up for 2h1m, not ready yet, ill, taken up from an earlier bhyved",
        "  reason        asked for by autostart",
        "  waits         waiting for db1",
        "  ill           no answer three times",
        "  not ready     no login: yet",
        "  unlimited     `rctl` ended with status 1",
        "  file          has gone: the guest goes on as it is",
        "  changes       wait for another run: vmctl show web1 lists them",
        "  wished        up",
        "  next start    in 38s",
        "  attempts      crash 4 of 5",
        "  on hold       by bob since 2026-01-01 11:00:00 UTC: disk",
        "  process       pid 4242, run run1",
        "  machine       1 CPU, 2G",
        "  consoles      com1",
        "  vnc           127.0.0.1:5900",
        "  taps          tap3",
        "  restarts      1 reboots, 2 crashes, 0 failed starts",
        "  forced stops  2",
    ]


def test_status_of_a_guest_that_is_down(vmctl: Vmctl) -> None:
    """Whether it is ready and which process it is are no questions then."""
    state = {"at": "2026-01-01T11:00:00Z", "by": "", "path": "/db/web1/saved", "doubtful": False}
    down = row("web1", phase="down", desired="down", uptime_s=None, phase_s=600.0, pid=None, autostart=False, suspended=state)
    with playing(vm_list={"version": 1, "vms": [down]}) as daemon:
        ran = vmctl(daemon, "status", "web1")

    assert ran.out.splitlines() == [
        "web1: down for 10m",
        "  reason     asked for by autostart",
        "  wished     down",
        "  suspended  since 2026-01-01 11:00:00 UTC, in /db/web1/saved",
        "  machine    2 CPUs, 2G",
        "  consoles   com1",
        "  taps       tap3",
        "  restarts   1 reboots, 2 crashes, 0 failed starts",
    ]


def test_several_guests_are_apart(vmctl: Vmctl) -> None:
    """By an empty line between them, and none before the first."""
    show = {"spec": {}, "consoles": [], "changes": []}
    with playing(
        vm_list=lambda params: {"vms": [row(params["names"][0])]}, vm_show=lambda params: show | {"vm": row(params["name"])}
    ) as daemon:
        status, shown = (vmctl(daemon, verb, "a", "b").out for verb in ("status", "show"))

    for out in (status, shown):
        assert out.startswith("a: up for")
        assert "\n\nb: up for" in out


@pytest.mark.parametrize("words", [("status",), ("status", "a"), ("show", "a")])
def test_json(vmctl: Vmctl, words: tuple[str, ...]) -> None:
    """For programs, what the daemon has said."""
    shown = {"vm": row("a"), "spec": {"memory": "2G"}, "consoles": [], "changes": []}
    with playing(daemon_info=INFO, vm_list={"vms": [row("a")]}, vm_show=shown) as daemon:
        printed = json.loads(vmctl(daemon, *words, "--json").out)

    assert printed == {("status",): INFO, ("status", "a"): row("a"), ("show", "a"): shown}[words]


def test_status_of_a_daemon_that_stops_its_guests(vmctl: Vmctl) -> None:
    """Of which this caller may see none."""
    with playing(daemon_info=INFO | {"closing": True}, vm_list={"vms": []}) as daemon:
        lines = vmctl(daemon, "status").out.splitlines()

    assert lines[2:4] == ["  guests   none that you may see", "  closing  yes: guests are being stopped"]


@pytest.mark.parametrize(
    ("role", "owns", "words"),
    [
        ("root", [], "may do everything"),
        ("operator", ["web1"], "operator and owner of web1"),
        ("reader", [], "may look"),
        ("none", ["web1", "db1"], "owner of web1, db1"),
        ("none", [], "may do nothing here"),
    ],
)
def test_who_one_is_to_the_daemon(vmctl: Vmctl, role: str, owns: list[str], words: str) -> None:
    """What the caller may do, in words."""
    you = {"uid": 1001, "user": "alice", "role": role, "owns": owns}
    with playing(daemon_info=INFO | {"you": you}, vm_list={"vms": []}) as daemon:
        assert vmctl(daemon, "status").out.splitlines()[-1] == f"  you     alice (uid 1001), {words}"
