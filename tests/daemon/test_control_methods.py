"""What each method answers, over guests that a test plays."""

from datetime import timedelta

import pytest
import trio
import trio.testing

from bhyved.core.boot import Boot
from bhyved.core.config import Problem
from bhyved.core.exits import ExitKind
from bhyved.core.lifecycle import Poweroff, Release, Reset, Restart, SetHold, Start, Stop
from bhyved.core.reload import Change, Effect
from bhyved.core.room import HostMemory, Room
from bhyved.core.spec import BhyveOptions, Order
from bhyved.core.status import Desired, Hold, Phase, RunRecord, Suspension
from bhyved.core.units import Settings
from bhyved.daemon.story import explain_guest
from tests.daemon.controlkit import NOON, ROOT, guest, served, user


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_of(name: str, number: int = 1, **fields: object) -> RunRecord:
    known = {"kind": ExitKind.POWEROFF, "text": "the guest powered off", "decision": "stays down"} | fields
    ended = NOON + timedelta(minutes=number)
    return RunRecord(run=f"r{number}", vm=name, by="alice", began_at=NOON, ended_at=ended, uptime_s=60.0 * number, **known)


async def test_info_says_who_we_are_and_who_asks(tmp_path):
    """Version, life and state of the daemon, and the caller as the daemon sees it."""
    async with served(tmp_path, guest("web1", owner=("alice",)), guest("web2")) as daemon, daemon.client(user("alice")) as client:
        daemon.guests.troubles["http"] = "cannot listen"
        info = await client.call("daemon.info")

    assert info["problems"] == ["cannot listen"]
    assert (info["version"], info["protocol"], info["boot"], info["uptime-s"]) == ("1.2.3", 1, "b007", 60.0)
    assert info["started-at"] == "2026-01-01T12:00:00Z"
    assert (info["closing"], info["drain"], info["guests"]) == (False, None, 1)
    assert info["you"] == {"uid": 1001, "user": "alice", "role": "none", "owns": ["web1"]}
    assert info["memory"] is None  # others' guests are none of her business


G = 1 << 30


async def test_info_says_what_memory_is_left(tmp_path):
    """What automatic starts go by: the host's, less the reserve, less what guests have; without a limit nothing is left or lacking."""
    async with served(tmp_path, guest("web1"), guest("db1"), guest("idle")) as daemon, daemon.client() as client:
        daemon.guests.room = Room(host=HostMemory(total_bytes=16 * G, wired_bytes=4 * G), reserve_bytes=G)
        daemon.guests.show("web1", phase=Phase.UP, room_bytes=2 * G, room_wired=True)
        daemon.guests.show("db1", phase=Phase.BACKOFF, room_bytes=8 * G)
        limited = (await client.call("daemon.info"))["memory"]
        daemon.guests.show("idle", phase=Phase.UP, room_bytes=8 * G)
        over = (await client.call("daemon.info"))["memory"]
        daemon.guests.room = Room(host=HostMemory(total_bytes=16 * G), reserve_bytes=G, overcommit=True)
        free = (await client.call("daemon.info"))["memory"]

    assert limited == {
        "total-bytes": 16 * G,
        "reserve-bytes": G,
        "limit-bytes": 15 * G,
        "guests-bytes": 10 * G,
        "free-bytes": 5 * G,
        "wired-limit-bytes": 4 * G,
        "wired-bytes": 2 * G,
        "overcommit": False,
    }
    assert (over["guests-bytes"], over["free-bytes"]) == (18 * G, 0)
    assert (free["limit-bytes"], free["free-bytes"], free["wired-limit-bytes"], free["overcommit"]) == (None, None, None, True)


async def test_a_row_has_the_keys_of_vmctl_list(tmp_path):
    """Rows are snake_case, and a list may be narrowed by name."""
    async with served(tmp_path, guest("web1"), guest("web2")) as daemon, daemon.client() as client:
        daemon.guests.show("web1", phase=Phase.UP, started=40.0, pid=77, desired=Desired.UP)
        rows = (await client.call("vm.list", names=["web1"]))["vms"]
        missing = await client.fail("vm.list", names=["web1", "nope"])

    assert [row["name"] for row in rows] == ["web1"]
    assert rows[0] | {"phase": "up", "uptime_s": 60.0, "pid": 77, "desired": "up", "next_start_in_s": None, "last_exit": None} == rows[0]
    assert rows[0]["restarts"] == {"reboot": 0, "crash": 0, "start_failure": 0}
    assert (missing["number"], missing["code"]) == (-32002, "no-such-guest")
    assert missing["message"] == 'there is no guest "nope"'


async def test_show_has_everything_but_passwords(tmp_path):
    """The file with its defaults, the consoles, the changes that wait; a password among bhyve's own variables is hidden."""
    options = BhyveOptions(options=Settings({"pci.0.29.0.password": "s3cret", "x86.strictmsr": "false"}))
    async with served(tmp_path, guest("web1", bhyve=options)) as daemon, daemon.client() as client:
        old = {"pci.0.29.0.password": "older"}
        daemon.guests.pending["web1"] = (
            Change("cpus", 1, 2, Effect.NEXT_GUEST_REBOOT),
            Change("bhyve.options", old, dict(options.options), Effect.NEXT_GUEST_REBOOT),
        )
        shown = await client.call("vm.show", name="web1")

    assert "s3cret" not in str(shown)
    assert "older" not in str(shown)
    assert shown["vm"]["name"] == "web1"
    assert shown["spec"]["memory"] == "256M"
    assert shown["spec"]["bhyve"]["options"]["x86.strictmsr"] == "false"
    assert shown["changes"][0] == {"key": "cpus", "old": 1, "new": 2, "effect": "next-guest-reboot"}
    assert (shown["version"], shown["consoles"], shown["started-spec"]) == (1, [], False)


@pytest.mark.parametrize(
    ("method", "params", "wish"),
    [
        ("vm.start", {"install": True}, Start(by="root", install=True)),
        ("vm.stop", {"force": True, "timeout": 5}, Stop(by="root", force=True, timeout_s=5.0)),
        ("vm.stop", {}, Stop(by="root")),
        ("vm.restart", {}, Restart(by="root")),
        ("vm.reset", {}, Reset(by="root")),
        ("vm.poweroff", {}, Poweroff(by="root")),
        ("vm.release", {}, Release(by="root")),
        ("vm.hold", {"reason": "disk swap"}, SetHold(hold=Hold(by="root", reason="disk swap", since_at=NOON))),
        ("vm.hold", {"for": 60}, SetHold(hold=Hold(by="root", since_at=NOON, until_at=NOON + timedelta(minutes=1)))),
    ],
)
async def test_a_wish_reaches_the_guest(tmp_path, method, params, wish):
    """Each method becomes exactly one wish, by the caller's name."""
    async with served(tmp_path, guest("web1"), guest("web2")) as daemon, daemon.client() as client:
        await client.call(method, names=["web1"], **params)

    assert daemon.guests.wishes == [("web1", wish)]


async def test_each_guest_answers_for_itself(tmp_path):
    """Accepted, already so, unknown and broken stand side by side, in the order asked, each name once."""
    async with served(tmp_path, *(guest(name) for name in ("a", "b", "c"))) as daemon, daemon.client() as client:
        daemon.guests.show("b", phase=Phase.UP, run="r7")
        daemon.guests.broken = "c"
        answers = (await client.call("vm.start", names=["c", "b", "nope", "a", "a"]))["answers"]

    assert [(each["name"], each["ok"], each["code"]) for each in answers] == [
        ("c", False, "internal-error"),
        ("b", True, "already"),
        ("nope", False, "no-such-guest"),
        ("a", True, "accepted"),
    ]
    assert [(each["run"], each["phase"]) for each in answers] == [("", "down"), ("r7", "up"), ("", None), ("", "up")]


async def test_all_means_all_that_the_caller_may_operate(tmp_path):
    """An owner's --all leaves other people's guests alone."""
    guests = [guest("a", owner=("alice",)), guest("b"), guest("c", owner=("@webops",))]
    async with served(tmp_path, *guests) as daemon, daemon.client(user("alice", 1001, "webops")) as client:
        answers = (await client.call("vm.start", all=True))["answers"]

    assert [each["name"] for each in answers] == ["a", "c"]
    assert [name for name, _ in daemon.guests.wishes] == ["a", "c"]


async def test_an_interrupt_goes_to_running_guests_only(tmp_path):
    """vm.nmi answers like the others."""
    async with served(tmp_path, guest("a"), guest("b")) as daemon, daemon.client() as client:
        daemon.guests.show("a", phase=Phase.UP)
        answers = (await client.call("vm.nmi", all=True))["answers"]

    assert [(each["name"], each["code"]) for each in answers] == [("a", "accepted"), ("b", "not-running")]


async def test_suspending_and_resuming(tmp_path):
    """Running guests are suspended, suspended ones resumed; of two guests each answers for itself."""
    state = Suspension(at=NOON, by="alice", path="/db/b/saved")
    async with served(tmp_path, guest("a"), guest("b")) as daemon, daemon.client() as client:
        daemon.guests.show("a", phase=Phase.UP)
        daemon.guests.show("b", suspended=state)
        suspended = (await client.call("vm.suspend", all=True))["answers"]
        resumed = (await client.call("vm.resume", all=True))["answers"]
        cold = (await client.call("vm.start", names=["b"], cold=True))["answers"]
        (row,) = (await client.call("vm.list", names=["b"]))["vms"]

    assert [(each["name"], each["code"]) for each in suspended] == [("a", "accepted"), ("b", "not-running")]
    assert [(each["name"], each["code"]) for each in resumed] == [("a", "not-suspended"), ("b", "accepted")]
    assert [wish for _, wish in daemon.guests.wishes] == [Start(by="root"), Start(by="root", cold=True)]
    assert cold[0]["ok"]
    assert row["suspended"] == {"at": "2026-01-01T12:00:00Z", "by": "alice", "path": "/db/b/saved", "doubtful": False}


async def test_a_change_is_told_with_who_asked(tmp_path):
    """An event `asked` for each guest that was asked, none for names that are nobody's."""
    async with served(tmp_path, guest("a"), guest("b")) as daemon, daemon.client(user("alice", 1001, "wheel")) as client:
        daemon.guests.trust(group="wheel")
        await client.call("vm.start", names=["a", "nope"])
        await client.call("daemon.drain", on=True)
        await client.call("config.reload", plan=True)
        await client.call("vm.list")
        told = daemon.guests.events.since(0)

    assert [(event.event, event.vm, event.by, event.data["method"]) for event in told] == [
        ("asked", "a", "alice", "vm.start"),
        ("asked", "", "alice", "daemon.drain"),
    ]
    assert told[0].data == {"method": "vm.start", "uid": 1001, "pid": 4242, "ok": True, "code": "accepted"}


async def test_words_of_a_caller_cannot_break_a_line(tmp_path):
    """A reason with control characters or without end is refused."""
    async with served(tmp_path, guest("a")) as daemon, daemon.client() as client:
        for reason in ("x\nroot did it", "\x1b[2J", "x" * 201):
            error = await client.fail("vm.hold", names=["a"], reason=reason)
            assert error["code"] == "invalid-params"
            assert error["message"].startswith("reason: ")

    assert daemon.guests.wishes == []


async def test_wait_meets_gives_up_or_runs_out_of_time(tmp_path):
    """Met, not to come and timed out are three different answers."""
    async with served(tmp_path, guest("a")) as daemon, daemon.client() as client:
        daemon.guests.show("a", phase=Phase.STARTING, run="r1", reason="asked for")
        late = await client.call("vm.wait", name="a", until="up", timeout=0.01)
        none = await client.call("vm.wait", name="a", until="up", timeout=0)
        daemon.guests.show("a", phase=Phase.WAITING, waiting_for="waiting for db, which it requires and which is down")
        blocked = await client.call("vm.wait", name="a", until="up", timeout=0)
        assert blocked["reason"] == "waiting for db, which it requires and which is down"
        daemon.guests.show("a", phase=Phase.STARTING, waiting_for="")
        await client.ask("vm.wait", "held", name="a", until="ready")
        await client.ask("vm.wait", "gone", name="a", until="down")
        await client.call("daemon.info")
        daemon.guests.show("a", phase=Phase.HELD, stuck=True, reason="over its limit")
        two = [await client.line() for _ in range(2)]
        daemon.guests.show("a", phase=Phase.UP, run="r2", reason="asked for", ready=True, stuck=False)
        ready = await client.call("vm.wait", name="a", until="ready", after_run="r1")
        await client.ask("vm.wait", "gone", name="a", until="down")
        await client.call("daemon.info")
        daemon.guests.board.remove("a")
        gone = (await client.line())["result"]

    assert (late["met"], late["timed-out"], late["phase"]) == (False, True, "starting")
    assert (none["met"], none["timed-out"]) == (False, True)
    assert {each["id"] for each in two} == {"held", "gone"}
    for each in two:
        result = each["result"]
        assert (result["met"], result["timed-out"], result["phase"], result["reason"]) == (False, False, "held", "over its limit")
    assert (ready["met"], ready["ready"], ready["run"]) == (True, True, "r2")
    assert (gone["met"], gone["phase"], gone["reason"]) == (True, None, "the guest is no longer there")


async def test_a_guest_that_is_just_starting_can_be_waited_down(tmp_path):
    """The run that begins meanwhile is the one whose end is waited for; only one after it is another."""
    async with served(tmp_path, guest("a")) as daemon, daemon.client() as client:
        daemon.guests.show("a", phase=Phase.WAITING, desired=Desired.UP)
        await client.ask("vm.wait", "down", name="a", until="down")
        for changes in ({"phase": Phase.PREPARING, "run": "r1"}, {"phase": Phase.UP}):
            daemon.guests.show("a", **changes)
            await client.call("daemon.info")
        daemon.guests.show("a", phase=Phase.STARTING, run="r2", reason="the guest rebooted")
        over = (await client.line())["result"]

    assert (over["met"], over["timed-out"], over["reason"]) == (False, False, "the guest rebooted")


async def test_why_explains_with_the_guests_it_waits_for(tmp_path):
    """Sentences, the newest runs and a hint."""
    async with served(tmp_path, guest("db1"), guest("web1", order=Order(requires=("db1",)))) as daemon, daemon.client() as client:
        waiting = "waiting for db1, which it requires and which is held"
        daemon.guests.show("db1", phase=Phase.HELD, reason="crashed 6 times")
        daemon.guests.show("web1", phase=Phase.WAITING, desired=Desired.UP, since=90.0, waiting_for=waiting)
        daemon.guests.records = [run_of("web1", number) for number in range(1, 6)]
        why = await client.call("vm.why", name="web1", runs=2)
        bare = await client.call("vm.why", name="web1", runs=0)

    assert (why["name"], why["phase"], why["hint"]) == ("web1", "waiting", "vmctl start db1")
    assert waiting in why["sentences"]
    assert "db1 is held: crashed 6 times" in why["sentences"]
    assert [run["run"] for run in why["runs"]] == ["r4", "r5"]
    assert bare["runs"] == []


async def test_a_guest_that_this_host_cannot_run_is_told_of(tmp_path):
    """When its files are checked, and whenever somebody asks why it is as it is: bhyve itself says nothing, and runs nothing."""
    foreign = guest("arm1", boot=Boot(loader="u-boot"))
    async with served(tmp_path, guest("web1"), foreign) as daemon, daemon.client() as client:
        checked = await client.call("config.check")
        why = {name: (await client.call("vm.why", name=name))["sentences"] for name in ("web1", "arm1")}

    refusal = "boot.loader: u-boot is the firmware of arm64 hosts"
    assert checked["warnings"] == [f"arm1: bhyve of this host cannot run it: {refusal}"]
    assert why["arm1"][-1] == f"bhyve of this host cannot run it as its file is: {refusal}"
    assert not any("bhyve of this host" in sentence for sentence in why["web1"])


async def test_a_suspended_guest_says_for_how_long(tmp_path):
    """On the page as well: both ask in the same way."""
    state = Suspension(at=NOON - timedelta(hours=3), by="alice", path="/db/suspend/web1/saved")
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        daemon.guests.show("web1", phase=Phase.DOWN, suspended=state)
        why = await client.call("vm.why", name="web1")
        shown = explain_guest(daemon.guests, "web1").sentences

    assert " 3h ago, at 2026-01-01 09:00:00 UTC by alice" in why["sentences"][0]
    assert list(shown) == why["sentences"]


async def test_history_is_records_and_lines(tmp_path):
    """Newest last, no more than asked for."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        daemon.guests.records = [run_of("web1", number) for number in range(1, 30)]
        history = await client.call("vm.history", name="web1", last=2)

    assert [run["run"] for run in history["runs"]] == ["r28", "r29"]
    assert history["runs"][0]["began-at"] == "2026-01-01T12:00:00Z"
    assert history["lines"][1] == "2026-01-01 12:00:00 UTC, ran 29m, by alice: the guest powered off → stays down"


async def test_a_plan_is_for_this_host_or_another(tmp_path):
    """Release and arch may be named; what that release refuses is an objection."""
    from bhyved.core.devices import Tpm

    async with served(tmp_path, guest("web1", tpm=Tpm())) as daemon, daemon.client() as client:
        here = await client.call("vm.plan", name="web1")
        older = await client.call("vm.plan", name="web1", release="14")
        bad = await client.fail("vm.plan", name="web1", release="13")

    assert here["text"].startswith("# web1 on FreeBSD 15 amd64")
    assert here["objections"] == []
    assert "bhyve.conf is" in here["text"]
    assert here["plan"]["vm"] == "web1"
    assert older["objections"] == ["tpm.type: needs 15 or newer"]
    assert bad["code"] == "invalid-params"


async def test_a_reload_with_problems_is_an_error(tmp_path):
    """Its lines come with the error, for planning as well; without problems the result says what changed."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        done = await client.call("config.reload", prune=True)
        checked = await client.call("config.check")
        daemon.guests.problems = (Problem(file="web1.toml", key="cpus", found="0", sentence="must be 1 or more"),)
        error = await client.fail("config.reload", plan=True)
        found = await client.call("config.check")

    assert (done["applied"], done["added"]) == (True, ["new1"])
    assert checked == {"problems": [], "warnings": []}
    assert (error["number"], error["code"]) == (-32004, "configuration")
    assert error["problems"] == found["problems"] == ["web1.toml: cpus: found 0; must be 1 or more"]
    assert daemon.guests.reloads == [
        {"plan_only": False, "prune": True, "by": "root"},
        {"plan_only": True, "prune": False, "by": "root"},
    ]


async def test_drain_is_set_and_lifted(tmp_path):
    """By whom, why and until when; daemon.info shows it."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client(ROOT) as client:
        on = await client.call("daemon.drain", on=True, reason="new kernel", for_=3600)
        info = await client.call("daemon.info")
        off = await client.call("daemon.drain", on=False)

    assert on["drain"] == info["drain"]
    assert info["drain"] == {
        "by": "root",
        "reason": "new kernel",
        "since-at": "2026-01-01T12:00:00Z",
        "until-at": "2026-01-01T13:00:00Z",
    }
    assert off == {"on": False, "drain": None, "was": on["drain"]}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("vm.hold", {"names": ["web1"]}),
        ("vm.release", {"names": ["web1"]}),
        ("daemon.drain", {"on": True}),
        ("daemon.drain", {"on": False}),
    ],
)
async def test_what_is_only_a_word_is_answered_when_it_is_on_disk(tmp_path, method, params):
    """Whoever reads that a guest is held may kill the daemon: the next one knows it."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client, daemon.client() as other:
        daemon.guests.on_disk = trio.Event()
        await client.ask(method, **params)
        async with trio.open_nursery() as nursery:
            answered = trio.Event()

            @nursery.start_soon
            async def wait() -> None:
                assert "result" in (await client.line())
                answered.set()

            await other.call("vm.list")  # nobody else waits for that disk
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not answered.is_set()
            daemon.guests.on_disk.set()


async def test_boot_and_shutdown_are_laid_out(tmp_path):
    """Both list guests in order; a shutdown says whether the host's time is enough."""
    guests = [guest("db1", autostart=True), guest("web1", autostart=True, order=Order(after=("db1",))), guest("spare")]
    async with served(tmp_path, *guests) as daemon, daemon.client() as client:
        boot = await client.call("daemon.plan-boot")
        nothing = await client.call("daemon.plan-shutdown")
        daemon.guests.show("db1", phase=Phase.UP)
        daemon.guests.show("web1", desired=Desired.UP)
        shutdown = await client.call("daemon.plan-shutdown")

    assert [step["name"] for step in boot["steps"]] == ["db1", "web1"]
    assert boot["steps"][1]["after"] == ["db1"]
    assert nothing["steps"] == []
    assert [step["name"] for step in shutdown["steps"]] == ["web1", "db1"]
    assert (shutdown["fits"], shutdown["budget-s"]) == (False, 85.0)


async def test_a_list_is_never_older_than_the_last_change(tmp_path):
    """Asked again and again within a moment, a list has every change, every new guest, and none that has gone."""
    async with served(tmp_path, guest("web1"), guest("web2")) as daemon, daemon.client() as client:

        async def seen() -> list[tuple[str, str]]:
            return [(row["name"], row["phase"]) for row in (await client.call("vm.list"))["vms"]]

        first = [await seen(), await seen()]
        daemon.guests.show("web1", phase=Phase.UP)
        changed = await seen()
        daemon.guests.specs["new1"] = guest("new1")
        daemon.guests.show("new1")
        more = await seen()
        daemon.guests.board.remove("web1")

        assert first == [[("web1", "down"), ("web2", "down")]] * 2
        assert changed == [("web1", "up"), ("web2", "down")]
        assert more == [("new1", "down"), ("web1", "up"), ("web2", "down")]
        assert await seen() == [("new1", "down"), ("web2", "down")]


async def test_the_durations_of_a_list_go_on(tmp_path, monkeypatch):
    """A guest that does not change grows older in every list, by the clock."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        daemon.guests.show("web1", phase=Phase.UP, started=40.0)
        uptimes = []
        for now in (100.0, 100.5, 160.0):
            monkeypatch.setattr(daemon.guests, "now", lambda now=now: now)
            uptimes.append((await client.call("vm.list"))["vms"][0]["uptime_s"])

    assert uptimes == [60.0, 60.5, 120.0]
