"""What each verb asks of the daemon, what it prints, and how it ends; those that ask guests for something are in `test_wishes`."""

import json
from typing import Any

import pytest

import bhyved
from bhyved.ctl import asking
from bhyved.ctl.connection import UNREACHABLE, Failure
from tests.ctl.conftest import Vmctl
from tests.ctl.played import Stream, playing, refuse, row, waited

# --- list ----------------------------------------------------------------------------------------------------------------------


def test_list_is_aligned_and_says_what_is_not_as_it_should_be(vmctl: Vmctl) -> None:
    """A guest that is up needs no words; another gets its reason, its next start and its attempts."""
    rows = [
        row("web1"),
        row("database", phase="backoff", reason="triple fault", uptime_s=None, next_start_in_s=38.2, attempts="crash 4 of 5"),
        row(
            "a",
            hold={"by": "alice", "reason": "disk check", "since-at": "", "until-at": "2026-11-25T18:00:00Z"},
            config_changed=True,
            orphaned=True,
            memory_bytes=1536 << 20,
        ),
        row("frozen", hold={"by": "bob", "reason": "", "since-at": "", "until-at": None}),
        row(
            "kept",
            phase="held",
            reason="held by alice: disk swap",
            uptime_s=None,
            hold={"by": "alice", "reason": "disk swap", "since-at": "", "until-at": "2026-11-25T18:00:00Z"},
        ),
        row("looped", phase="held", reason="crashed 6 times in 10m", uptime_s=None, attempts="crash 6 of 5"),
        row("sick", ill="no answer three times"),
        row("free", unlimited="`rctl` ended with status 1"),
        row("big", phase="waiting", reason="asked for by autostart", waiting_for="waiting for memory: needs 8G", uptime_s=None),
    ]
    with playing(vm_list={"version": 1, "vms": rows}) as daemon:
        ran = vmctl(daemon, "list")

    assert ran.status == 0
    assert ran.out.splitlines() == [
        "NAME      PHASE     UPTIME  RESTARTS  CPUS  MEMORY  REASON",
        "web1      up          2h1m         3     2      2G",
        "database  backoff        -         3     2      2G  triple fault; next start in 38s; crash 4 of 5",
        "a         up          2h1m         3     2    1.5G  on hold by alice until 2026-11-25 18:00:00 UTC: disk check; "
        "orphaned-config: its file has gone; configuration changed",
        "frozen    up          2h1m         3     2      2G  on hold by bob",
        "kept      held           -         3     2      2G  held by alice: disk swap; until 2026-11-25 18:00:00 UTC",
        "looped    held           -         3     2      2G  crashed 6 times in 10m",
        "sick      up (ill)    2h1m         3     2      2G  ill: no answer three times",
        "free      up          2h1m         3     2      2G  limits do not hold: `rctl` ended with status 1",
        "big       waiting        -         3     2      2G  waiting for memory: needs 8G",
    ]


def test_list_in_colour(vmctl: Vmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """An illness is no green."""
    monkeypatch.setattr("bhyved.ctl.columns.has_colour", lambda: True)
    with playing(vm_list={"version": 1, "vms": [row("sick", ill="no answer three times"), row("web1")]}) as daemon:
        _, sick, web1 = vmctl(daemon, "list").out.splitlines()

    assert sick.startswith("sick  \x1b[31mup (ill)\x1b[m ")
    assert web1.startswith("web1  \x1b[32mup\x1b[m ")


def test_a_list_of_nothing(vmctl: Vmctl) -> None:
    """Standard output has no head without a table, so that a script finds nothing there; a person is told."""
    with playing(vm_list={"version": 1, "vms": []}) as daemon:
        assert vmctl(daemon, "list") == (0, "", "no guests\n")
        assert vmctl(daemon, "list", "--quiet") == (0, "", "")


def test_list_takes_names_and_prints_json_as_it_came(vmctl: Vmctl) -> None:
    """--json prints the daemon's own object, unknown keys included."""
    answer = {"version": 1, "vms": [row("web1", new_key=[1.5, None, "é\n"])]}
    with playing(vm_list=answer) as daemon:
        ran = vmctl(daemon, "list", "web1", "--json")

        assert json.loads(ran.out) == answer
        assert daemon.asked == [("vm.list", {"names": ["web1"]})]


def test_list_quietly(vmctl: Vmctl) -> None:
    """-q prints names, for completion and for scripts."""
    with playing(vm_list={"version": 1, "vms": [row("a"), row("b")]}) as daemon:
        assert vmctl(daemon, "list", "-q").out == "a\nb\n"


def test_a_guests_words_cannot_move_the_cursor(vmctl: Vmctl) -> None:
    """Escape sequences and line ends in a reason never reach the terminal."""
    hostile = "x\x1b]0;title\x07y\nz\x1b[2J\u202e"
    with playing(vm_list={"version": 1, "vms": [row("a", phase="down", uptime_s=None, reason=hostile)]}) as daemon:
        ran = vmctl(daemon, "list")

    assert ran.out.splitlines()[1].endswith("  xy z")


# --- what happened -------------------------------------------------------------------------------------------------------------

RUN = {
    "version": 1,
    "run": "r1",
    "vm": "a",
    "by": "autostart",
    "began-at": "2026-01-01T12:00:00Z",
    "ended-at": "2026-01-01T12:01:00Z",
    "uptime-s": 60.0,
    "kind": "error",
    "text": "bhyve failed",
    "decision": "held: 5 crashes in 10m",
    "stderr": "vm exit\x1b[31m: red\nlast word",
    "console": "login:",
}


def test_why(vmctl: Vmctl) -> None:
    """Sentences, a hint, the last runs, and the last words of the one that failed."""
    answer = {"name": "a", "phase": "held", "sentences": ["a is held", "5 crashes in 10m"], "runs": [RUN], "hint": "vmctl start a"}
    with playing(vm_why=answer) as daemon:
        ran = vmctl(daemon, "why", "a", "-n", "1")

        assert daemon.params("vm.why") == [{"name": "a", "runs": 1}]
    assert ran.out.splitlines() == [
        "a is held",
        "  5 crashes in 10m",
        "  hint: vmctl start a",
        "",
        "BEGAN (UTC)          RAN  END           THEN",
        "2026-01-01 12:00:00   1m  bhyve failed  held: 5 crashes in 10m",
        "",
        "bhyve said last:",
        "  vm exit: red",
        "  last word",
        "",
        "its console said last:",
        "  login:",
    ]


@pytest.mark.parametrize("run", [RUN | {"kind": "poweroff"}, RUN | {"stderr": "", "console": "\n"}])
def test_last_words_are_those_of_a_failure(vmctl: Vmctl, run: dict[str, Any]) -> None:
    """An end in order needs none, and where nothing was said there is no head for it."""
    with playing(vm_why={"name": "a", "phase": "down", "sentences": ["a is down"], "runs": [run], "hint": ""}) as daemon:
        assert "said last" not in vmctl(daemon, "why", "a").out


def test_history(vmctl: Vmctl) -> None:
    """The daemon's lines, or its records, a line each."""
    with playing(vm_history={"runs": [RUN], "lines": ["one \x1b[1mline"]}) as daemon:
        assert vmctl(daemon, "history", "a") == (0, "one line\n", "")
        assert vmctl(daemon, "history", "a", "b").out == "a: one line\nb: one line\n"
        assert json.loads(vmctl(daemon, "history", "a", "--json", "-n3").out) == RUN
        assert daemon.params("vm.history")[-1] == {"name": "a", "last": 3}


def test_how_many_runs_are_asked_for(vmctl: Vmctl) -> None:
    """A few to see why, more to see what was. A guest that has not run yet has no history."""
    why = {"name": "a", "phase": "up", "sentences": ["a is up"], "runs": [], "hint": ""}
    with playing(vm_why=why, vm_history={"runs": [], "lines": []}) as daemon:
        assert vmctl(daemon, "why", "a", "a").out == "a is up\n\na is up\n"
        assert vmctl(daemon, "history", "a") == (0, "", "a has no history yet\n")

        assert daemon.params("vm.why") == [{"name": "a", "runs": 3}] * 2
        assert daemon.params("vm.history") == [{"name": "a", "last": 20}]


def event(seq: int, **changes: Any) -> tuple[str, dict[str, Any]]:
    body = {"seq": seq, "at": f"2026-01-01T12:00:0{seq}Z", "event": "phase", "vm": "a", "phase": "up", "reason": "asked for", "by": "root"}
    return "event", body | changes


END = ("end", {"next": 3})


def test_events_that_are_kept(vmctl: Vmctl) -> None:
    """The newest of them, oldest first."""
    told = event(3, event="asked", phase=None, reason="", data={"method": "vm.start", "nothing": None, "ok": False, "taps": ["tap3"]})
    with playing(events_subscribe=Stream({"next": 3}, event(1), event(2), told, END)) as daemon:
        ran = vmctl(daemon, "events", "-n", "2", "a")

        assert daemon.asked == [("events.subscribe", {"since": 0, "names": ["a"], "follow": False})]
    assert ran.out.splitlines() == [
        "2026-01-01 12:00:02  a  up  asked for, by root",
        '2026-01-01 12:00:03  a  asked, by root  method=vm.start ok=false taps=["tap3"]',
    ]


def test_events_from_somewhere_on(vmctl: Vmctl) -> None:
    """A number, or a time; what is no longer kept is said, and nothing is cut off."""
    lost = ("lost", {"count": 7, "next": 8})
    gap = ("lost", {"next": 20})
    with playing(events_subscribe=Stream({"next": 3}, lost, gap, *(event(2) for _ in range(60)), END)) as daemon:
        ran = vmctl(daemon, "events", "--since", "1", "--json")
        vmctl(daemon, "events", "--since", "2026-01-01T12:00")

        assert [json.loads(line)["seq"] for line in ran.out.splitlines()] == [2] * 60
        assert "7 events before number 8 are no longer kept" in ran.err
        assert "events before number 20 may be missing; nobody knows how many" in ran.err
        assert daemon.params("events.subscribe")[0]["since"] == 1
        assert daemon.params("events.subscribe")[1]["since-time"] == 1767268800.0


def test_events_of_one_guest(vmctl: Vmctl) -> None:
    """Named by an option or behind the options."""
    with playing(events_subscribe=Stream({"next": 3}, event(2), END)) as daemon:
        vmctl(daemon, "events", "--vm", "a")
        vmctl(daemon, "events", "a")
        vmctl(daemon, "events", "--vm", "a", "b")

        assert [params["names"] for params in daemon.params("events.subscribe")] == [["a"], ["a"], ["b", "a"]]


@pytest.mark.parametrize(("words", "count"), [((), 50), (("-n", "60"), 60), (("-f",), 10), (("-f", "-n", "3"), 3)])
def test_how_many_events_are_shown(vmctl: Vmctl, words: tuple[str, ...], count: int) -> None:
    """Without a word for it, what fits a person; of one who follows, less."""
    streams = [Stream({"next": 3}, *(event(2) for _ in range(100)), END)]

    def subscribe(params: Any) -> Any:
        return streams.pop() if streams else refuse(-32001, "not-permitted", "no more")(params)

    with playing(events_subscribe=subscribe) as daemon:
        assert vmctl(daemon, "events", *words).out.count("\n") == count


def test_events_wait_for_a_daemon_that_does_not_listen_yet(vmctl: Vmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was there has been restarted: its next attempt to be heard may be too early."""
    monkeypatch.setattr("bhyved.ctl.events.AGAIN_S", 0.01)
    attempts = iter((True, False, True))

    def connect(asked: Any) -> Any:
        if not next(attempts):
            raise Failure(UNREACHABLE, "bhyved does not run")
        return asking.connect(asked)

    monkeypatch.setattr("bhyved.ctl.events.connect", connect)
    streams = [Stream({"next": 3}, event(3), END), Stream({"next": 3}, close=True)]

    def subscribe(params: Any) -> Any:
        return streams.pop(0) if streams else refuse(-32001, "not-permitted", "no more")(params)

    with playing(events_subscribe=subscribe) as daemon:
        assert vmctl(daemon, "events", "-f").status == 77

    assert next(attempts, None) is None


def test_events_go_on_over_a_restart_of_the_daemon(vmctl: Vmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower comes back with the number of the last event that it has seen."""
    monkeypatch.setattr("bhyved.ctl.events.AGAIN_S", 0.01)
    streams = [
        Stream({"next": 3}, event(3), END),
        Stream({"next": 3}, event(4), close=True),
        Stream({"next": 5}, event(5), close=True),
    ]

    def subscribe(params: Any) -> Any:
        return streams.pop(0) if streams else refuse(-32001, "not-permitted", "no more")(params)

    with playing(events_subscribe=subscribe) as daemon:
        ran = vmctl(daemon, "events", "-f", "--json")

        assert [json.loads(line)["seq"] for line in ran.out.splitlines()] == [3, 4, 5]
        assert [params["since"] for params in daemon.params("events.subscribe")] == [0, 3, 4, 5]
        assert ran.status == 77


# --- the host ------------------------------------------------------------------------------------------------------------------


NOTHING: dict[str, Any] = {
    "applied": True,
    "added": [],
    "removed": [],
    "changed": {},
    "daemon": [],
    "starts": [],
    "stops": [],
    "orphans": [],
    "warnings": [],
}


def test_reload(vmctl: Vmctl) -> None:
    """Every change on a line, with the moment when it counts."""
    done = {
        "applied": False,
        "added": ["new", "spare"],
        "removed": ["gone", "idle", "old"],
        "changed": {
            "a": [
                {"key": "memory", "old": "1G", "new": "2G", "effect": "next-guest-reboot"},
                {"key": "cdrom[0]", "old": None, "new": {"path": "/a.iso", "slot": None, "on": [True]}, "effect": "next-cold-start"},
            ]
        },
        "daemon": [{"key": "start-parallel", "old": 2, "new": None, "effect": "live"}],
        "starts": ["new"],
        "stops": ["old"],
        "orphans": ["gone"],
        "warnings": ["a: odd"],
    }
    with playing(config_reload=done) as daemon:
        ran = vmctl(daemon, "reload", "--plan", "--prune")

        assert daemon.params("config.reload") == [{"plan": True, "prune": True}]
    assert ran.out.splitlines() == [
        "new: new, starts",
        "spare: new, starts when somebody starts it",
        "gone: its file has gone, goes on as it is until `vmctl reload --prune` stops it",
        "idle: its file has gone, is forgotten",
        "old: its file has gone, is stopped and forgotten",
        'a: memory = "2G", was "1G": from its next run on',
        'a: cdrom[0] = { path = "/a.iso", on = [true] }, was nothing: when it is stopped and started',
        "bhyved: start-parallel = nothing, was 2: in force at once",
        "nothing has been changed: this is the plan",
    ]
    assert ran.err == "warning: a: odd\n"


def test_a_reload_that_has_been_done(vmctl: Vmctl) -> None:
    """What counts at once does already, and nothing is said of a plan; of nothing, that it is nothing."""
    change = {"key": "stop.timeout", "old": "1m", "new": "2m", "effect": "live"}
    with playing(config_reload=NOTHING | {"changed": {"a": [change]}}) as daemon:
        assert vmctl(daemon, "reload").out == 'a: stop.timeout = "2m", was "1m": in force already\n'
        assert daemon.params("config.reload") == [{}]
        daemon.handlers["config.reload"] = NOTHING
        assert vmctl(daemon, "reload").out == "nothing changes\n"


def test_a_reload_that_is_refused(vmctl: Vmctl) -> None:
    """Exit 78, with every problem on a line."""
    refusal = refuse(-32004, "configuration", "the configuration has 2 problems; nothing has changed", problems=["one", "two"])
    with playing(config_reload=refusal) as daemon:
        ran = vmctl(daemon, "reload")

    assert (ran.status, ran.err) == (78, "one\ntwo\nvmctl: the configuration has 2 problems; nothing has changed\n")


def test_drain(vmctl: Vmctl) -> None:
    """On, with a wait for every guest; and off."""
    drain = {"by": "root", "reason": "", "since-at": "2026-01-01T12:00:00Z"}
    with playing(daemon_drain={"on": True, "drain": drain}, vm_list={"vms": [row("a")]}, vm_wait=waited(phase="down")) as daemon:
        ran = vmctl(daemon, "drain", "--for", "1h", "--wait")
        daemon.handlers["daemon.drain"] = {"on": False, "drain": None, "was": drain}
        off = vmctl(daemon, "drain", "--off")
        daemon.handlers["daemon.drain"] = {"on": False, "drain": None, "was": None}
        again = vmctl(daemon, "drain", "--off")

        assert daemon.params("daemon.drain") == [{"on": True, "for": 3600.0}, {"on": False}, {"on": False}]
    assert ran.out == "drained by root since 2026-01-01 12:00:00 UTC\na: down\n"
    assert off.out.startswith("the drain is over")
    assert again.out == "the host is not drained\n"


@pytest.mark.parametrize(("problems", "status"), [([], 0), (["web1.toml: memory: too much"], 78)])
def test_check_asks_the_daemon(vmctl: Vmctl, problems: list[str], status: int) -> None:
    """The daemon knows which files are its own."""
    with playing(config_check={"problems": problems, "warnings": ["odd"]}) as daemon:
        ran = vmctl(daemon, "check")
        printed = vmctl(daemon, "check", "--json")

    assert ran.status == printed.status == status
    assert ran.err.splitlines()[: len(problems)] == problems
    assert json.loads(printed.out) == {"version": 1, "problems": problems, "warnings": ["odd"]}


def test_plan_asks_the_daemon(vmctl: Vmctl) -> None:
    """For one guest, for the boot, for the shutdown."""
    planned = {"text": "# a\n", "warnings": [], "objections": ["too new"], "plan": {}}
    agenda = {"text": "agenda\n", "steps": [], "fits": True}
    with playing(vm_plan=planned, daemon_plan__boot=agenda, daemon_plan__shutdown=agenda) as daemon:
        ran = vmctl(daemon, "plan", "a", "--release", "14", "--arch=arm64", "--install")

        assert (ran.out, ran.err) == ("# a\n", "this host refuses it: too new\n")
        assert daemon.params("vm.plan") == [{"name": "a", "release": "14", "arch": "arm64", "install": True}]
        assert vmctl(daemon, "plan", "--boot").out == vmctl(daemon, "plan", "--shutdown").out == "agenda\n"
        assert vmctl(daemon, "plan", "boot").out == vmctl(daemon, "plan", "shutdown").out == "agenda\n"
        assert vmctl(daemon, "plan", "a", "--boot").status == vmctl(daemon, "plan").status == 64


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (("why", "a"), "vm_why"),
        (("reload",), "config_reload"),
        (("drain",), "daemon_drain"),
        (("plan", "a"), "vm_plan"),
        (("plan", "--boot"), "daemon_plan__boot"),
        (("plan", "--shutdown"), "daemon_plan__shutdown"),
        (("web",), "web_link"),
        (("metrics",), "daemon_metrics"),
    ],
)
def test_json_is_what_the_daemon_said(vmctl: Vmctl, words: tuple[str, ...], method: str) -> None:
    """Whatever it is; objections to a plan are told besides."""
    answer = {"anything": ["é", None, 1.5], "objections": []}
    with playing(**{method: answer}) as daemon:
        assert json.loads(vmctl(daemon, *words, "--json").out) == answer


# --- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (-32700, "parse-error", 1),
        (-32601, "unknown-method", 1),
        (-32602, "invalid-params", 64),
        (-32603, "internal-error", 1),
        (-32001, "not-permitted", 77),
        (-32002, "no-such-guest", 1),
        (-32003, "being-removed", 1),
        (-32004, "configuration", 78),
    ],
)
def test_exit_statuses_are_those_of_the_protocol(vmctl: Vmctl, number: int, code: str, status: int) -> None:
    """docs/protocol.md says which error is which status."""
    with playing(vm_why=refuse(number, code, "the sentence"), daemon_info={"version": bhyved.__version__}) as daemon:
        ran = vmctl(daemon, "why", "a")

    assert (ran.status, ran.out, ran.err) == (status, "", "vmctl: the sentence\n")


def without(told: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != key}


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("list",), "its answer has no 'ill'"),
        (("status", "web1"), "its answer has no 'ill'"),
        (("snapshot", "web1"), 'there is no method "vm.snapshot"'),
    ],
)
def test_a_daemon_of_another_version(vmctl: Vmctl, words: tuple[str, ...], missing: str) -> None:
    """After an upgrade, until it is restarted: one sentence with both versions and what to do."""
    old_row = without(row("web1"), "ill")
    no_method = refuse(-32601, "unknown-method", 'there is no method "vm.snapshot"')
    with playing(vm_list={"version": 1, "vms": [old_row]}, vm_snapshot=no_method, daemon_info={"version": "0.0.1"}) as daemon:
        ran = vmctl(daemon, *words)

    said = f"bhyved 0.0.1 runs, and this is vmctl {bhyved.__version__}: {missing}; `service bhyved restart` ends that, guests run on"
    assert (ran.status, ran.out, ran.err) == (1, "", f"vmctl: {said}\n")


@pytest.mark.parametrize("info", [{"version": bhyved.__version__}, refuse(-32603, "internal-error", "no")])
def test_a_bug_is_not_blamed_on_a_version(vmctl: Vmctl, info: Any) -> None:
    """A daemon of this version, or one that does not say, has every key: what is missing then is seen in full."""
    with playing(vm_list={"version": 1, "vms": [without(row("web1"), "ill")]}, daemon_info=info) as daemon, pytest.raises(KeyError):
        vmctl(daemon, "list")
