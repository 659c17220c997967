"""`vmctl why` by example: each phase, each thing that is worth saying."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from bhyved.core.devices import Graphics, VirtioConsole
from bhyved.core.drain import Drain
from bhyved.core.exits import ExitKind
from bhyved.core.explain import Case, explain, history_line, unready
from bhyved.core.limits import Limits
from bhyved.core.needs import waits_for
from bhyved.core.reload import Change, Effect
from bhyved.core.room import HostMemory, Room, Share, impossible
from bhyved.core.spec import AGENT_PORT, Order, Ready, VmSpec
from bhyved.core.status import Desired, Hold, LastExit, Phase, RunRecord, Suspension, VmStatus
from bhyved.core.units import span
from bhyved.core.values import Pattern, Text

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = 1000.0

AGENT = (VirtioConsole(name=Text(AGENT_PORT)),)


def status(phase: str, **fields: object) -> VmStatus:
    known = {"since": NOW - 12, "desired": Desired.UP, "run": "r1"} | fields
    return VmStatus(**{"name": "web1", "since_at": NOON, "phase": Phase(phase), **known})


def why(seen: VmStatus, spec: VmSpec | None = VmSpec(name="web1"), **fields: object) -> tuple[list[str], str]:  # noqa: B008 - frozen
    told = explain(Case(status=seen, now=NOW, spec=spec, **fields))
    return list(told.sentences), told.hint


def crash(text: str = "the guest crashed (triple fault)", hint: str = "") -> LastExit:
    return LastExit(kind=ExitKind.TRIPLE_FAULT, status=3, signal=None, at=NOON, text=text, hint=hint)


def ran(**fields: object) -> RunRecord:
    known = {
        "run": "r1",
        "by": "autostart",
        "ended_at": NOON,
        "uptime_s": 3.4,
        "kind": ExitKind.TRIPLE_FAULT,
        "text": "the guest crashed (triple fault)",
        "decision": "starting again in 4.2s (crash 2 of 5)",
    }
    return RunRecord(**{"vm": "web1", "began_at": NOON - timedelta(seconds=4), **known, **fields})


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_an_answer(phase):
    """The first sentence names the guest and gives the reason; nothing ends in a full stop or breaks a line."""
    for spec in (VmSpec(name="web1"), None):
        sentences, hint = why(status(phase, reason="because of this", last_exit=crash(), next_start=NOW + 38), spec, runs=[ran()])

        assert "web1" in sentences[0]
        assert "because of this" in sentences[0]
        for sentence in (*sentences, hint):
            assert not sentence.endswith(".")
            assert "\n" not in sentence
        assert len(sentences) <= 6


def test_a_suspended_guest_says_since_when_and_what_follows():
    """Both ways on are in the hint; a state in doubt has one."""
    state = Suspension(at=NOON, by="alice", path="/db/web1/saved")
    later = NOON + timedelta(hours=3)
    hint = "vmctl resume web1 goes on where it was, vmctl start --cold web1 throws that away and boots the guest"

    assert why(status("down", suspended=state, autostart=True), now_at=later) == (
        [
            "web1 was suspended to disk 3h ago, at 2026-01-01 12:00:00 UTC by alice: /db/web1/saved",
            "it goes on from there when the host boots again: autostart is on",
        ],
        hint,
    )
    still = why(status("down", suspended=state), now_at=later)
    assert (still[0][1], still[1]) == ("it stays so until somebody resumes it, also when the host boots: autostart is off", hint)
    doubt = why(status("down", suspended=msgspec.structs.replace(state, doubtful=True)))
    assert doubt[0][1].startswith("a resume of it was cut short")
    assert doubt[1] == "vmctl start --cold web1 throws it away and boots the guest"


def test_a_guest_that_is_being_suspended_is_not_said_to_shut_down():
    """No button is pressed, and it may yet go on."""
    said, hint = why(status("stopping", suspending=True, reason="being suspended to disk for alice"))

    assert said == [
        "web1 stands still while bhyve writes its state to disk, for 12s: being suspended to disk for alice",
        "it goes on if that fails",
    ]
    assert hint == ""


def test_down_says_who_stopped_it_and_what_would_start_it():
    """Autostart is the difference."""
    stopped = {"desired": Desired.DOWN, "reason": "stopped by alice"}

    assert why(status("down", autostart=True, **stopped)) == (
        [
            "web1 has been down for 12s: stopped by alice",
            "it stays down until somebody starts it, or until the host boots again: autostart is on",
        ],
        "vmctl start web1",
    )
    assert why(status("down", **stopped))[0][1] == "nothing starts it by itself: autostart is off"


def test_down_for_a_while_only():
    """A guest that bhyved itself has stopped comes up again with it, or after the drain."""
    assert why(status("down"), closing=True)[0][1] == "bhyved is stopping its guests: it comes up again when bhyved starts"
    drain = Drain(by="bob", reason="new kernel", since_at=NOON)
    assert why(status("down"), drain=drain)[0][1:] == [
        "it comes up again when the drain is over",
        "the host is drained by bob, no guest is started: new kernel",
    ]
    assert why(status("down"), drain=drain)[1].startswith("vmctl drain --off")


def test_a_drain_with_an_end_and_a_hold():
    """Until when, and that a guest that is held comes back later than the others."""
    drain = Drain(by="bob", since_at=NOON, until_at=NOON)
    hold = Hold(by="alice", since_at=NOON)
    said = why(status("down", hold=hold), drain=drain)[0]

    assert "it comes up again when the drain and the hold are over" in said
    assert said[-1] == f"the host is drained by bob until {NOON:%Y-%m-%d %H:%M:%S} UTC, no guest is started"


def test_waiting_for_memory():
    """What would help, and that a person does not have to wait."""
    waits = "waiting for memory: needs 8G; 3G of 15G are left beside db1 (12G)"
    said, hint = why(status("waiting", waiting_for=waits, roomless=True))

    assert said[1:] == [waits, "it starts by itself when there is room for it; guests that need less may pass it"]
    assert hint == "vmctl stop a guest that can do without, or vmctl start web1 to start it all the same"


def test_memory_that_the_host_never_has():
    """No waiting helps then, and none is promised."""
    waits = impossible(Room(host=HostMemory(total_bytes=16 << 30)), Share(32 << 30))
    said, hint = why(status("waiting", waiting_for=f"waiting for memory: {waits}", roomless=True))

    assert "it starts by itself when there is room for it; guests that need less may pass it" not in said
    assert hint == "give it less memory"


@pytest.mark.parametrize(
    ("need", "hint"),
    [
        ("interface:bridge0", "ifconfig bridge0 shows whether it is there; cloned_interfaces in rc.conf makes it at boot"),
        ("pool:tank", "zpool import shows whether tank can be imported"),
        ("path:/nfs/disks", "ls /nfs/disks shows whether it is there, mount whether its file system is"),
    ],
)
@pytest.mark.parametrize("found", ["it is not there", None])
def test_waiting_for_the_host(need: str, hint: str, found: str | None):
    """Where to look, since a start by hand would wait as well; of several needs the one that is missing counts."""
    spec = VmSpec(name="web1", order=Order(needs=("path:/nfs", need)))
    waits = waits_for(need, found, 5.0, told=False)
    said = why(status("waiting", waiting_for=waits), spec)

    assert said[0][1:] == [waits, "it starts by itself as soon as that is there"]
    assert said[1] == hint


def test_waiting_for_one_that_is_up_and_not_ready():
    """What its probe was answered, and not who asked for it."""
    sentence = "waiting for db1, which comes first and is up but not ready yet"
    db1 = status("up", name="db1", reason="asked for by autostart", unready="nothing answers at 192.0.2.1:5432 (no answer)")
    said, hint = why(status("waiting", waiting_for=sentence), others={"db1": db1})

    assert said[1:] == [sentence, "db1 is not ready: nothing answers at 192.0.2.1:5432 (no answer)"]
    assert hint == "vmctl why db1"


def test_waiting_says_for_whom_and_why_that_one_is_not_there():
    """The cause may be one guest further on."""
    sentence = "waiting for db1, which it requires and which is held"
    db1 = status("held", name="db1", reason="crashed 6 times in 10m")

    assert why(
        status("waiting", reason="asked for by alice", waiting_for=sentence),
        others={"db1": db1, "db": msgspec.structs.replace(db1, name="db")},
    ) == (
        ["web1 is about to start, for 12s now: asked for by alice", sentence, "db1 is held: crashed 6 times in 10m"],
        "vmctl start db1",
    )
    rising = status("starting", name="db1", reason="asked for")
    assert (
        why(status("waiting", waiting_for="waiting for db1, which comes first and is starting"), others={"db1": rising})[1]
        == "vmctl why db1"
    )


def test_preparing_that_takes_long_is_suspicious():
    """Host commands take milliseconds."""
    assert why(status("preparing"))[1] == ""
    sentences, hint = why(status("preparing", since=NOW - 20))
    assert "a host command such as ifconfig or bhyvectl may hang" in sentences[1]
    assert hint


def test_loading_says_how_long_it_is_given():
    """A loader at its prompt waits for ever."""
    assert why(status("loading", loader="bhyveload")) == (
        ["web1 is being loaded: bhyveload has been running for 12s", "it is given 1m"],
        "",
    )
    assert "console web1" in why(status("loading", since=NOW - 40))[1]


def test_starting_may_wait_for_a_viewer():
    """With graphics.wait it is the viewer's turn, but not after a restart by policy."""
    waits = VmSpec(name="web1", graphics=Graphics(wait=True))
    sentences, hint = why(status("starting", vnc="127.0.0.1:5901", by="alice"), waits)

    assert "waits for a VNC viewer" in sentences[0]
    assert hint == "connect a VNC viewer to 127.0.0.1:5901"
    assert why(status("starting", by="policy (crash)", pid=77), waits)[0] == [
        "web1 has been starting for 12s (pid 77)",
        "bhyve runs, and nothing shows yet that the guest does",
    ]


@pytest.mark.parametrize(
    ("ready", "words"),
    [
        (Ready(console=Pattern.parse("login:")), 'its console has not shown "login:"'),
        (Ready(tcp="10.0.0.5:22"), "nothing answers at 10.0.0.5:22"),
        (Ready(ping=Text("10.0.0.5")), "10.0.0.5 does not answer a ping"),
        (Ready(command=(Text("/usr/local/bin/probe"),)), "/usr/local/bin/probe says no"),
        (Ready(uptime="20s"), "it has to be up for 20s"),
        (Ready(agent=True), "its agent does not answer"),
    ],
)
def test_up_says_what_readiness_waits_for(ready, words):
    """Each question has its words, and what happens at its end."""
    spec = VmSpec(name="web1", order=Order(ready=ready), virtio_console=AGENT)
    sentences, _ = why(status("up", started=NOW - 7265, pid=77, reason="asked for by alice"), spec)

    assert sentences == [
        "web1 has been up for 2h1m (pid 77): asked for by alice",
        f"it is not ready yet: {words}{'' if ready.uptime is not None else '; it counts as ready after 2m all the same'}",
    ]
    assert len(why(status("up", ready=True), spec)[0]) == 1


def test_up_says_who_waits_for_a_guest_that_fails_to_become_ready():
    """With on-timeout = "fail": before its time is over, and afterwards. Nothing happens to the guest itself."""
    spec = VmSpec(name="web1", order=Order(ready=Ready(agent=True, on_timeout="fail")), virtio_console=AGENT)
    before, late = (why(status("up", late=late), spec)[0][1] for late in (False, True))

    assert before == "it is not ready yet: its agent does not answer; after 2m only guests that require it still wait for it"
    assert "its 2m are over: guests that require it keep waiting, those that only come after it do not" in late


def test_up_says_what_the_readiness_probe_was_answered():
    """The last answer, where there has been one."""
    spec = VmSpec(name="web1", order=Order(ready=Ready(tcp="192.0.2.1:80")))
    text = unready(Ready(tcp="192.0.2.1:80"), "connection refused")

    assert text == "nothing answers at 192.0.2.1:80 (connection refused)"
    assert why(status("up", unready=text), spec)[0][1].startswith(f"it is not ready yet: {text}; it counts as ready")


def test_up_after_crashes_says_so():
    """History that is not forgiven yet is part of the answer."""
    assert why(status("up", attempts="crash 2 of 5"))[0][1] == "it has not been up long enough to forget: crash 2 of 5"


def test_stopping_says_when_the_power_is_cut():
    """And how not to wait for that."""
    sentences, hint = why(status("stopping", reason="stopped by alice"))

    assert sentences[0] == "web1 has been shutting down for 12s: stopped by alice"
    assert "1m after the stop began" in sentences[1]
    assert hint == "vmctl poweroff web1 cuts the power now"


def test_backoff_says_what_its_reason_says_once():
    """A failed start has its number in the reason."""
    seen = status("backoff", reason='bridge "b" does not exist (failed start 2)', attempts="failed start 2", next_start=NOW + 4)

    assert why(seen)[0] == ['web1 waits before it is started again: bridge "b" does not exist (failed start 2)', "next start in 4s"]


def test_backoff_counts_attempts_and_seconds():
    """The reason, which attempt, when; and the remedy of the last end."""
    seen = status("backoff", reason="the guest crashed (triple fault)", attempts="crash 4 of 5", next_start=NOW + 38, last_exit=crash())

    assert why(seen, runs=[ran(stderr="a\nvm exit: \x1b[31mbad\x1b[0m\n")]) == (
        [
            "web1 waits before it is started again: the guest crashed (triple fault)",
            "crash 4 of 5, next start in 38s",
            "its last run ended at 2026-01-01 12:00:00 UTC, after 3.4s",
            'bhyve\'s last words: "vm exit: bad"',
        ],
        "vmctl start web1 starts it now and forgets the count",
    )
    assert why(status("backoff", last_exit=crash(hint="set wired = true")))[1] == "set wired = true"


def test_held_by_policy_waits_for_a_person():
    """The remedy is that of the last end, or a start by hand."""
    seen = status("held", reason="crashed 6 times in 10m: over its crash-limit of 5 in 10m")

    assert why(seen) == (
        [
            "web1 has been held for 12s: crashed 6 times in 10m: over its crash-limit of 5 in 10m",
            "it waits for a person: nothing starts it by itself",
        ],
        "when the cause is mended, vmctl start web1",
    )


def test_held_by_a_person_is_released():
    """Who holds it is the reason already."""
    hold = Hold(by="alice", reason="disk swap", since_at=NOON)

    assert why(status("held", hold=hold, reason="held by alice: disk swap")) == (
        ["web1 has been held for 12s: held by alice: disk swap"],
        "vmctl release web1",
    )


def test_stuck_is_never_started_over():
    """What hangs in the kernel is named by its pid."""
    sentences, hint = why(status("held", stuck=True, pid=77, reason="its process is stuck in the kernel"))

    assert "never starts a guest over that" in sentences[1]
    assert hint.startswith("procstat -k 77")


def test_a_hold_on_a_running_guest_is_said():
    """It runs on; what follows its end is frozen."""
    hold = Hold(by="alice", reason="disk swap", since_at=NOON, until_at=NOON + timedelta(hours=1))

    assert why(status("held", hold=hold))[0][1] == "the hold ends at 2026-01-01 13:00:00 UTC, and the guest starts"

    down = why(status("down", desired=Desired.DOWN, autostart=True, hold=hold))[0]
    assert down[1] == "it stays down until somebody starts it"  # not at a boot of the host either

    assert why(status("up", hold=hold))[0][1] == (
        "it is on hold by alice until 2026-01-01 13:00:00 UTC: disk swap; when the guest ends, nothing starts it again"
    )


def test_a_run_of_an_earlier_daemon_is_said():
    """Adoption changes nothing, and is no secret."""
    assert why(status("up", adopted=True))[0][1] == "an earlier bhyved started this run; this one has taken it up"


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        ([Effect.NEXT_GUEST_REBOOT], "with its next run"),
        ([Effect.NEXT_GUEST_REBOOT, Effect.NEXT_COLD_START], "when it is stopped and started"),
        ([Effect.NEXT_COLD_START, Effect.LIVE], "when it is stopped and started"),
        ([Effect.REFUSED], "not possible while bhyved runs"),
    ],
)
def test_configuration_that_is_not_in_force_is_said(effects, words):
    """The latest effect decides; keys in force already are not named."""
    changes = tuple(Change(f"key{number}", 1, 2, effect) for number, effect in enumerate(effects))
    sentence = why(status("up"), changes=changes)[0][1]

    assert words in sentence
    assert "key0" in sentence
    assert ("key1" in sentence) == (len(effects) > 1 and effects[1] is not Effect.LIVE)
    assert len(why(status("up"), changes=(Change("stop.timeout", 1, 2, Effect.LIVE),))[0]) == 1


def test_a_guest_without_its_file_is_said():
    """And what can be done about it, whatever else there would be to do."""
    sentences, hint = why(status("up"), None)

    assert sentences[-1] == "its file has gone: it goes on as it is"
    assert hint == "put its file back, or `vmctl reload --prune` to stop and forget web1"


def test_words_of_others_cannot_do_harm():
    """Reasons and stderr are cut, on one line, without escape sequences."""
    sentences, _ = why(status("down", reason="a\nb\x1b]0;owned\x07" + "x" * 500))

    assert "\n" not in sentences[0]
    assert "\x1b" not in sentences[0]
    assert len(sentences[0]) < 260


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0s"),
        (0.04, "0s"),
        (3.44, "3.4s"),
        (9.96, "10s"),
        (38.4, "38s"),
        (100, "1m40s"),
        (3599, "59m59s"),
        (5000, "1h23m"),
        (7265, "2h1m"),
        (86_400, "1d"),
        (90_061, "1d1h"),
        (2_000_000, "23d3h"),
    ],
)
def test_spans_are_for_people(seconds, words):
    """Two units are enough."""
    assert span(seconds) == words


def test_history_is_a_line_a_run():
    """When, how long, who, how it ended, what followed."""
    assert history_line(ran()) == (
        "2026-01-01 11:59:56 UTC, ran 3.4s, by autostart: the guest crashed (triple fault) → starting again in 4.2s (crash 2 of 5)"
    )
    assert "by autostart, taken up by a later bhyved:" in history_line(ran(adopted=True))


def test_limits_and_whether_they_hold() -> None:
    """Of a guest that runs, what it is limited to, or why it is not."""
    spec = VmSpec(name="web1", limits=Limits(pcpu=150))

    assert "its bhyve is limited by rctl(8): pcpu 150" in why(status("up", pid=7), spec)[0]
    assert not any("rctl" in sentence for sentence in why(status("down"), spec)[0])
    assert not any("rctl" in sentence for sentence in why(status("up", pid=7))[0])
    failed = why(status("up", pid=7, unlimited="`rctl` ended with 1"), spec)[0]
    assert "its limits do not hold: `rctl` ended with 1" in failed
    assert not any("is limited" in sentence for sentence in failed)
