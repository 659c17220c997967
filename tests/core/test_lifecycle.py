"""The lifecycle by example: each rule of how guests live, with exact times."""

import pytest
from msgspec.structs import replace

from bhyved.core.exits import ExitKind, Stage
from bhyved.core.ladder import FORCE_S, KILL_S
from bhyved.core.lifecycle import (
    ACCEPTED,
    ALREADY,
    IGNORED,
    KILL,
    NOT_HELD,
    NOT_RUNNING,
    NOT_UP_YET,
    PRESS,
    SHUTTING_DOWN,
    STOPPING,
    SUSPENDING,
    Cleaned,
    CleanFailed,
    Ended,
    Event,
    Found,
    ImpossibleEvent,
    Interrupted,
    LoaderEnded,
    Poweroff,
    Prepared,
    PrepareFailed,
    Release,
    Reset,
    Restart,
    SetHold,
    Shutdown,
    SpawnFailed,
    Start,
    Stop,
    Suspend,
    SuspendFailed,
    Tick,
    Turn,
    Up,
)
from bhyved.core.policy import HoldFor, StartAt, Stay
from bhyved.core.spec import Boot
from bhyved.core.spec import Restart as RestartSpec
from bhyved.core.spec import Stop as StopSpec
from bhyved.core.status import Book, Desired, Phase
from bhyved.core.units import Duration, Limit
from tests.core.lives import HOLD, Guest, end, seconds, spec

UP, DOWN = Desired.UP, Desired.DOWN


def in_phase(phase: Phase) -> Guest:
    """A guest that a person has started and that has got as far as `phase`."""
    guest = Guest()
    match phase:
        case Phase.DOWN:
            return guest
        case Phase.WAITING:
            guest.tell(Start(by="alice"))
        case Phase.PREPARING:
            guest.tell(Start(by="alice"), Turn())
        case Phase.LOADING:
            guest.tell(Start(by="alice"), Turn(), Prepared(loader=True))
        case Phase.STARTING:
            guest.tell(Start(by="alice"), Turn(), Prepared(loader=False))
        case Phase.UP:
            guest.run()
        case Phase.STOPPING:
            guest.run().tell(Restart(by="alice"))
        case Phase.KILLING:
            guest.tell(Start(by="alice"), Turn(), Prepared(loader=False), Restart(by="alice"))
        case Phase.CLEANING:
            guest.run().end(ExitKind.TRIPLE_FAULT)
        case Phase.BACKOFF:
            guest.run().end(ExitKind.TRIPLE_FAULT)
            guest.tell(Cleaned())
        case Phase.HELD:
            guest.tell(Start(by="alice"), Turn(), PrepareFailed("no such disk", fatal=True), Cleaned())
    assert guest.phase is phase
    guest.did()
    return guest


def bring_down(guest: Guest) -> None:
    """Let the host answer until the guest is where it stays."""
    for _ in range(20):
        match guest.phase:
            case Phase.PREPARING:
                guest.tell(Prepared(loader=False))
            case Phase.LOADING | Phase.STARTING | Phase.UP | Phase.STOPPING | Phase.KILLING:
                guest.end()
            case Phase.CLEANING:
                guest.tell(Cleaned())
            case _:
                return
    raise AssertionError(f"still {guest.phase}")


# --- up, and down again ---------------------------------------------------------------------------------------------------------


def test_a_start_and_a_stop() -> None:
    """Each step is asked for once, and everything is cleaned up behind the run."""
    guest = Guest()
    assert guest.tell(Start(by="alice")) == ACCEPTED
    assert guest.tell(Turn(), Prepared(loader=True), LoaderEnded(None), Up()) == ACCEPTED
    assert (guest.phase, guest.life.reason, guest.life.by, guest.life.deadline) == (Phase.UP, "asked for by alice", "alice", None)
    assert guest.tell(Stop(by="bob")) == ACCEPTED
    guest.end()
    guest.tell(Cleaned())

    assert (guest.phase, guest.life.desired, guest.life.reason) == (Phase.DOWN, DOWN, "stopped by bob")
    assert guest.did() == ["ask-turn", "prepare", "load", "spawn", "press", "clean-all"]


def test_a_guest_that_powers_itself_off_stays_down() -> None:
    """And is wished down from that moment: a later daemon does not start it, even when this one is stopped before the cleaning ends."""
    guest = Guest().run()
    guest.end()
    assert (guest.life.desired, guest.life.decision) == (DOWN, "stays down: the guest powered off")
    guest.tell(Shutdown(by="rc"), Cleaned())
    assert (guest.phase, guest.life.desired) == (Phase.DOWN, DOWN)


def test_a_restart_is_a_stop_and_a_start() -> None:
    """The next run follows the cleaning at once, for whoever asked, and counts nowhere."""
    guest = Guest(book=Book(crashes=(999.0,))).run()
    guest.tell(Restart(by="bob"))
    assert guest.phase is Phase.STOPPING
    guest.end()
    assert (guest.life.decision, guest.did()[-1]) == ("starting again: asked for by bob", "clean")
    guest.tell(Cleaned())

    assert (guest.phase, guest.life.by, guest.life.book, guest.life.first_run) == (Phase.WAITING, "bob", Book(), True)


def test_a_restart_of_a_guest_that_is_down_starts_it() -> None:
    """In every phase without a run."""
    for phase in (Phase.DOWN, Phase.BACKOFF, Phase.HELD):
        guest = in_phase(phase)
        assert guest.tell(Restart(by="bob")) == ACCEPTED
        assert (guest.phase, guest.life.by) == (Phase.WAITING, "bob")


def test_starting_a_started_guest_succeeds() -> None:
    """From `waiting` to `up`, and nothing is done."""
    for phase in (Phase.WAITING, Phase.PREPARING, Phase.LOADING, Phase.STARTING, Phase.UP):
        guest = in_phase(phase)
        assert guest.tell(Start(by="alice")) == ALREADY
        assert (guest.phase, [a for a in guest.did() if a not in ("drop-turn", "ask-turn")]) == (phase, [])


def test_a_person_does_not_queue_behind_the_boot_of_the_host() -> None:
    """The turn is asked for anew when a person starts what autostart has queued."""
    guest = Guest(desired=UP)
    guest.tell(Start(by="autostart", auto=True))
    guest.did()
    assert guest.tell(Start(by="autostart", auto=True)) == ALREADY
    assert guest.did() == []
    assert guest.tell(Start(by="alice")) == ALREADY
    assert (guest.did(), guest.life.by) == (["drop-turn", "ask-turn"], "alice")


# --- reboots, crashes, failed starts --------------------------------------------------------------------------------------------


def test_an_hour_of_a_guest_that_crashes_after_each_start() -> None:
    """It starts at 0, then 2, 4, 8, 16, 32 s after each crash; the sixth within ten minutes holds it, until a person starts it."""
    guest = Guest().run()
    starts = [guest.now - 1000.0]
    for _ in range(5):
        guest.now += 0.5
        guest.end(ExitKind.TRIPLE_FAULT)
        guest.again()
        starts.append(guest.now - 1000.0)
    guest.now += 0.5
    guest.end(ExitKind.TRIPLE_FAULT)
    guest.tell(Cleaned())

    assert starts == [0.0, 2.5, 7.0, 15.5, 32.0, 64.5]
    assert (guest.phase, guest.life.desired) == (Phase.HELD, UP)
    assert guest.life.reason.startswith("crashed 6 times in 10m: over its crash-limit of 5 in 10m")
    guest.now += 3600
    assert guest.tell(Tick()).ok
    assert guest.phase is Phase.HELD
    guest.tell(Start(by="alice"))
    assert (guest.phase, guest.life.book) == (Phase.WAITING, Book())


def test_a_guest_that_crashes_every_three_minutes_never_reaches_its_limit() -> None:
    """Four crashes are within any ten minutes, so the hour goes on with waits of 2, 4, 8 and 16 s."""
    guest, waits = Guest().run(), []
    for _ in range(20):
        guest.now += 180
        guest.end(ExitKind.ERROR, uptime_s=180)
        guest.tell(Cleaned())
        assert guest.life.deadline is not None
        waits.append(guest.life.deadline - guest.now)
        guest.until_deadline()
        guest.tell(Turn(), Prepared(loader=False), Up())
    assert waits == [2.0, 4.0, 8.0] + [16.0] * 17


def test_the_first_reboot_is_immediate_the_next_ones_wait() -> None:
    """At 0 s `clean` and at once; then everything is cleaned and the guest waits 2, 4, 8, 16 s; the sixth is held."""
    guest, waits = Guest().run(), []
    guest.did()
    guest.end(ExitKind.REBOOT)
    assert (guest.life.decision, guest.did()) == ("starting again at once (reboot 1 of 5)", ["clean"])
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.by, guest.life.first_run) == (Phase.WAITING, "policy (reboot)", False)
    guest.tell(Turn(), Prepared(loader=False), Up())
    guest.did()
    for _ in range(4):
        guest.end(ExitKind.REBOOT)
        assert guest.did() == ["clean-all"]
        guest.tell(Cleaned())
        assert guest.life.deadline is not None
        waits.append(guest.life.deadline - guest.now)
        guest.until_deadline()
        guest.tell(Turn(), Prepared(loader=False), Up())
        guest.did()
    guest.end(ExitKind.REBOOT)
    guest.tell(Cleaned())

    assert waits == [2.0, 4.0, 8.0, 16.0]
    assert (guest.phase, guest.life.reason) == (Phase.HELD, "rebooted 6 times in 5m: over its reboot-limit of 5 in 5m")


def test_over_the_limit_slowly() -> None:
    """over-limit = "slow" tries every backoff-max instead of holding."""
    guest = Guest(spec(restart=RestartSpec(over_limit="slow"))).run()
    for _ in range(6):
        guest.end(ExitKind.ERROR)
        guest.tell(Cleaned())
        wait = guest.life.deadline - guest.now  # type: ignore[operator]
        guest.until_deadline()
        guest.tell(Turn(), Prepared(loader=False), Up())
    assert wait == 60.0


def test_a_stable_run_forgives_what_was_before() -> None:
    """Up for stable-after, the next crash counts as the first."""
    guest = Guest(spec(restart=RestartSpec(stable_after=Duration(60)))).run()
    for _ in range(4):
        guest.end(ExitKind.ERROR, uptime_s=59)
        guest.again()
    assert guest.life.decision == "starting again in 16s (crash 4 of 5)"
    guest.end(ExitKind.ERROR, uptime_s=60)
    assert guest.life.decision == "starting again in 2s (crash 1 of 5)"


def test_failed_starts_are_retried_for_ever_and_counted_apart() -> None:
    """Whether preparing, the loader, the spawn or bhyve's own set-up fails; one success forgets them."""
    failures: list[tuple[Event, ...]] = [
        (PrepareFailed("no bridge"),),
        (Prepared(loader=True), LoaderEnded(end("start-error", "bhyveload failed with status 1"))),
        (Prepared(loader=True), SpawnFailed("out of processes")),
        (Prepared(loader=False), SpawnFailed("out of processes")),
        (Prepared(loader=False), Ended(end("start-error", "bhyve could not set the guest up"), 0.1)),
    ]
    guest = Guest()
    guest.tell(Start(by="alice"))
    for number, failure in enumerate([*failures, *failures], 1):
        guest.tell(Turn(), *failure)
        assert guest.life.decision.endswith(f"(failed start {number})")
        guest.tell(Cleaned())
        assert guest.life.deadline == guest.now + min(60.0, 2.0**number)
        guest.until_deadline()
    assert (guest.life.first_run, guest.life.by) == (True, "policy (start failure)")
    guest.tell(Turn(), Prepared(loader=False), Up())
    assert guest.life.book == Book()


def test_what_only_a_person_can_mend_is_held_at_once() -> None:
    """A configuration that bhyve or the host refuses for good."""
    guest = Guest()
    guest.tell(Start(by="alice"), Turn(), PrepareFailed("no such disk", fatal=True))
    assert guest.life.verdict == HoldFor("no such disk")
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.reason) == (Phase.HELD, "no such disk")

    guest = in_phase(Phase.STARTING)
    guest.end(ExitKind.CONFIG_ERROR)
    guest.tell(Cleaned())
    assert guest.phase is Phase.HELD


def test_a_loader_at_a_prompt_is_a_failed_start() -> None:
    """After boot.timeout it is killed, and the next start comes with back-off."""
    guest = Guest(spec(boot=Boot(loader="grub", timeout=Duration(30))))
    guest.tell(Start(by="alice"), Turn(), Prepared(loader=True))
    assert guest.life.deadline == 1030.0
    assert guest.after(29.9, Tick()).code == "ignored"
    guest.until_deadline()
    assert (guest.phase, guest.did()[-1]) == (Phase.KILLING, "kill")
    guest.tell(LoaderEnded(end("start-error")), Cleaned())
    assert (guest.phase, guest.life.reason) == (Phase.BACKOFF, "the loader did not finish within 30s (failed start 1)")


def test_who_stops_a_guest_whose_loader_is_being_killed_is_the_reason() -> None:
    """Not the loader's time limit."""
    guest = in_phase(Phase.LOADING)
    guest.until_deadline()
    guest.tell(Stop(by="bob"), LoaderEnded(end("start-error")), Cleaned())
    assert (guest.phase, guest.life.reason, guest.life.book) == (Phase.DOWN, "stopped by bob", Book())


def test_who_restarts_a_guest_whose_loader_is_being_killed_does_not_wait() -> None:
    """A person's wish is worth more than the back-off."""
    guest = in_phase(Phase.LOADING)
    guest.until_deadline()
    guest.tell(Restart(by="bob"), LoaderEnded(end("start-error")))
    assert guest.life.verdict == StartAt(guest.now, "asked for by bob")


# --- stopping -------------------------------------------------------------------------------------------------------------------


def test_a_guest_that_ignores_the_button_is_killed_when_its_time_is_up() -> None:
    """Presses at 0, 2, 10, 30 and 45 s, power cut at 60 s, SIGKILL each second from 70 s, given up at 80 s."""
    guest = Guest().run()
    guest.did()
    guest.tell(Stop(by="alice"))
    while guest.phase is not Phase.HELD:
        guest.until_deadline()

    assert guest.when(PRESS) == [0.0, 2.0, 10.0, 30.0, 45.0]
    assert [action.name for _, action in guest.log].index("force-poweroff") == 5
    assert guest.when(KILL) == [70.0 + n for n in range(10)]
    assert guest.now == 1000.0 + 60 + FORCE_S + KILL_S
    assert (guest.life.stuck, guest.life.forced) == (True, True)
    assert guest.life.reason == "its process is stuck in the kernel: SIGKILL did not end it"


def test_a_shorter_time_for_one_stop() -> None:
    """`--timeout 3` presses at 0 and 2 s and cuts the power at 3 s."""
    guest = Guest().run()
    guest.tell(Stop(by="alice", timeout_s=3.0))
    while guest.phase is Phase.STOPPING:
        guest.until_deadline()
    assert guest.when(PRESS) == [0.0, 2.0]
    assert guest.now == 1003.0
    assert guest.life.reason == "stopped by alice; it did not shut down in time"


def test_force_cuts_the_power_at_once() -> None:
    """`stop --force` and `poweroff` alike, up or stopping; so does a stop without grace."""
    for wish in (Stop(by="alice", force=True), Poweroff(by="alice"), Stop(by="alice", timeout_s=0.0)):
        for phase in (Phase.UP, Phase.STOPPING):
            guest = in_phase(phase)
            guest.tell(wish)
            assert (guest.phase, guest.did(), guest.life.forced, guest.life.desired) == (Phase.KILLING, ["force-poweroff"], True, DOWN)
            guest.end()
            assert isinstance(guest.life.verdict, Stay)


def test_a_second_stop_may_hurry_the_first_but_not_put_it_off() -> None:
    """The power is cut when the sooner of the two wants it."""
    guest = Guest().run()
    guest.tell(Stop(by="alice"))
    assert guest.tell(Stop(by="alice")) == ALREADY
    assert guest.tell(Stop(by="alice", timeout_s=500.0)) == ALREADY
    assert guest.life.ladder is not None
    assert guest.life.ladder.force_at == 1060.0
    guest.after(10, Stop(by="alice", timeout_s=5.0))
    assert guest.life.ladder.force_at == 1015.0


def test_the_end_of_the_host_hurries_every_step() -> None:
    """A guest in the middle of its own stop is gone before the host is, whatever step it is at."""
    guest = Guest().run()
    guest.after(0, Stop(by="alice"))
    guest.after(55, Shutdown(by="rc", end_at=1062.0))
    assert guest.life.ladder is not None
    assert guest.life.ladder.give_up_at == 1062.0

    guest = Guest().run()
    guest.tell(Poweroff(by="alice"), Shutdown(by="rc", end_at=1004.0))
    assert guest.life.deadline == 1002.0
    guest.until_deadline()
    while guest.phase is Phase.KILLING:
        guest.until_deadline()
    assert guest.now == 1004.0

    guest = in_phase(Phase.KILLING)  # SIGKILL has been sent
    guest.tell(Shutdown(by="rc", end_at=1002.5))
    while guest.phase is Phase.KILLING:
        guest.until_deadline()
    assert guest.now == 1002.5


def test_even_an_end_that_has_passed_sends_sigkill_before_giving_up() -> None:
    """At least a second is left for a process to die of it."""
    guest = Guest().run()
    guest.tell(Shutdown(by="rc", end_at=990.0))
    while guest.phase is not Phase.HELD:
        guest.until_deadline()
    assert guest.did()[-2:] == ["force-poweroff", "kill"]
    assert guest.now == 1001.0


def test_a_process_that_is_being_killed_has_its_second_too() -> None:
    """However little time the host has left."""
    guest = in_phase(Phase.KILLING)
    guest.after(0.5, Shutdown(by="rc", end_at=990.0))
    while guest.phase is Phase.KILLING:
        guest.until_deadline()
    assert guest.now == 1001.5


def test_a_guest_that_has_not_run_yet_ends_with_the_host() -> None:
    """It is killed, and given up when the host's time is over; without an end it has ten seconds."""
    guest = in_phase(Phase.STARTING)
    guest.tell(Shutdown(by="rc", end_at=1004.0))
    while guest.phase is Phase.KILLING:
        guest.until_deadline()
    assert (guest.phase, guest.now) == (Phase.HELD, 1004.0)

    guest = in_phase(Phase.STARTING)
    guest.tell(Stop(by="alice"))
    while guest.phase is Phase.KILLING:
        guest.until_deadline()
    assert guest.now == 1000.0 + KILL_S


def test_late_deadlines_do_not_fall_on_each_other() -> None:
    """A host that was asleep for an hour cuts the power, and leaves the guest the time for it, before it kills."""
    guest = Guest().run()
    guest.tell(Stop(by="alice"))
    guest.after(3600, Tick())
    assert (guest.phase, guest.life.deadline) == (Phase.KILLING, guest.now + FORCE_S)
    guest.after(3600, Tick())
    assert (guest.phase, guest.life.give_up_at) == (Phase.KILLING, guest.now + KILL_S)


def test_a_reboot_while_stopping_is_a_stop() -> None:
    """However it ends, it was asked to: never restarted, never counted."""
    for kind in ExitKind:
        guest = Guest().run()
        guest.tell(Stop(by="alice"))
        guest.end(kind)
        guest.tell(Cleaned())
        assert (guest.phase, guest.life.book, guest.life.decision) == (Phase.DOWN, Book(), "stays down: stopped by alice")


def test_a_guest_that_has_not_run_yet_is_killed_not_pressed() -> None:
    """There is nothing to save, and no button to hear (contract 1.9)."""
    for phase in (Phase.LOADING, Phase.STARTING):
        for wish in (Stop(by="alice"), Poweroff(by="alice"), Shutdown(by="rc")):
            guest = in_phase(phase)
            guest.tell(wish)
            assert (guest.phase, guest.did()) == (Phase.KILLING, ["kill"])


def test_sigkill_is_repeated() -> None:
    """The keeper may not have written down whom to kill when the first one was sent."""
    guest = in_phase(Phase.KILLING)
    for _ in range(3):
        guest.until_deadline()
    assert guest.when(KILL) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_stop_works_in_every_phase(phase: Phase) -> None:
    """Once the host has answered, the guest is down, and nothing of it is left."""
    guest = in_phase(phase)
    assert guest.tell(Stop(by="bob")).ok
    bring_down(guest)
    assert (guest.phase, guest.life.desired, guest.life.dirty, guest.life.deadline) == (Phase.DOWN, DOWN, False, None)
    assert "spawn" not in guest.did()


@pytest.mark.parametrize("phase", list(Phase))
def test_the_last_wish_wins(phase: Phase) -> None:
    """Stop, start, stop: down. Stop, start: up, as wished last."""
    for last in (Start(by="carol", install=True), Stop(by="carol")):
        guest = in_phase(phase)
        guest.tell(Stop(by="bob"), Start(by="bob"), Stop(by="bob"), last)
        bring_down(guest)
        if isinstance(last, Start):
            assert (guest.phase, guest.life.by, guest.life.install) == (Phase.WAITING, "carol", True)
        else:
            assert (guest.phase, guest.life.desired) == (Phase.DOWN, DOWN)


def test_a_start_that_is_taken_back_is_not_used_by_the_next_wish() -> None:
    """What was prepared was prepared for another order: it is cleaned up, and prepared again."""
    guest = in_phase(Phase.PREPARING)
    guest.tell(Stop(by="bob"))
    assert guest.life.reason == "stopped by bob; a host command is still under way"
    guest.tell(Start(by="carol", install=True), Prepared(loader=False))
    assert (guest.phase, guest.did()) == (Phase.CLEANING, ["clean"])
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.install) == (Phase.WAITING, True)


def test_a_start_during_the_cleaning_waits_for_nothing_else() -> None:
    """A person does not wait for the back-off, and is named as the one who asked."""
    guest = in_phase(Phase.CLEANING)
    assert guest.life.decision == "starting again in 2s (crash 1 of 5)"
    guest.tell(Start(by="bob"))
    assert guest.life.decision == "starting again: asked for by bob"
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.by, guest.life.book) == (Phase.WAITING, "bob", Book())


def test_a_restart_while_preparing_prepares_anew() -> None:
    """The configuration may have changed since."""
    guest = in_phase(Phase.PREPARING)
    guest.tell(Restart(by="bob"), PrepareFailed("no such disk", fatal=True))
    assert guest.life.verdict == StartAt(guest.now, "asked for by bob")


def test_what_a_guest_that_does_not_run_is_asked_for_in_vain() -> None:
    """Reset needs a guest that is up; poweroff of a guest that is down has been done already."""
    answers = {
        Phase.DOWN: NOT_RUNNING,
        Phase.WAITING: NOT_UP_YET,
        Phase.PREPARING: NOT_UP_YET,
        Phase.LOADING: NOT_UP_YET,
        Phase.STARTING: NOT_UP_YET,
        Phase.UP: ACCEPTED,
        Phase.STOPPING: STOPPING,
        Phase.KILLING: STOPPING,
        Phase.CLEANING: NOT_RUNNING,
        Phase.BACKOFF: NOT_RUNNING,
        Phase.HELD: NOT_RUNNING,
    }
    assert {phase: in_phase(phase).tell(Reset(by="alice")) for phase in Phase} == answers
    assert in_phase(Phase.DOWN).tell(Poweroff(by="alice")) == ALREADY


# --- reset ----------------------------------------------------------------------------------------------------------------------


def test_a_reset_counts_nowhere() -> None:
    """The reboot that follows at once is the operator's: no limit, no back-off, whatever on-reboot says."""
    guest = Guest(spec(restart=RestartSpec(on_reboot="stop"))).run()
    for _ in range(20):
        guest.tell(Reset(by="bob"))
        guest.end(ExitKind.REBOOT)
        assert guest.life.decision == "starting again: reset by bob"
        guest.again()
    assert (guest.life.book, guest.life.by, guest.life.first_run) == (Book(), "bob", False)


def test_a_reset_that_does_not_come_is_forgotten() -> None:
    """A reboot ten seconds later is the guest's own, and so is a crash at once."""
    guest = Guest().run()
    guest.tell(Reset(by="bob"))
    guest.now += 10.1
    guest.end(ExitKind.REBOOT)
    assert guest.life.decision == "starting again at once (reboot 1 of 5)"
    guest.again()
    guest.tell(Reset(by="bob"))
    guest.end(ExitKind.TRIPLE_FAULT)
    assert guest.life.decision == "starting again in 2s (crash 1 of 5)"
    guest.again()
    guest.end(ExitKind.REBOOT)
    assert guest.life.decision.endswith("(reboot 2 of 5)")


# --- install media --------------------------------------------------------------------------------------------------------------


def test_install_media_go_away_after_the_first_end() -> None:
    """Reboot, crash, reset, restart or stop: the next run boots from the disk."""
    for ends in ((Ended(end("reboot"), 60.0),), (Ended(end("error"), 60.0),), (Restart(by="alice"), Ended(end("reboot"), 60.0))):
        guest = Guest().run(install=True)
        assert guest.life.install
        guest.tell(*ends)
        assert not guest.life.install


def test_install_media_go_away_with_a_power_cut() -> None:
    """Also when it is a restart that cuts it, and the wish stays up."""
    guest = Guest(spec(stop=StopSpec(timeout=Duration(0)))).run(install=True)
    guest.tell(Restart(by="alice"))
    assert (guest.phase, guest.life.install) == (Phase.KILLING, False)


def test_no_start_attaches_install_media_by_itself() -> None:
    """A failed start of a guest that was not being installed."""
    guest = in_phase(Phase.STARTING)
    guest.end(ExitKind.START_ERROR)
    assert not guest.life.install


def test_install_media_are_not_attached_to_a_guest_that_runs() -> None:
    """Whoever asks is told, instead of looking for an installer that is not there; while it is being prepared there is time."""
    guest = Guest().run()
    assert guest.tell(Start(by="alice", install=True)).code == "no-media"
    assert guest.tell(Start(by="alice")) == ALREADY

    installing = Guest().run(install=True)
    assert installing.tell(Start(by="alice", install=True)) == ALREADY

    guest = Guest()
    guest.tell(Start(by="autostart", auto=True), Turn())
    assert guest.tell(Start(by="alice", install=True)) == ACCEPTED
    guest.tell(Prepared(loader=False), Cleaned())
    assert (guest.phase, guest.life.install, guest.life.by) == (Phase.WAITING, True, "alice")


def test_install_media_stay_until_a_run_has_begun() -> None:
    """A failed start was no run; whoever starts a guest in back-off, or restarts it before it ran, means the same installation."""
    guest = Guest()
    guest.tell(Start(by="alice", install=True), Turn(), PrepareFailed("no bridge"), Cleaned())
    assert guest.life.install
    guest.tell(Start(by="alice"))
    assert guest.life.install
    guest.tell(Turn(), Prepared(loader=False), Restart(by="alice"), Ended(end("killed"), 0.1), Cleaned())
    assert guest.life.install
    guest.tell(Stop(by="alice"), Cleaned(), Start(by="alice"))
    assert not guest.life.install


# --- hold -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
def test_a_hold_stops_what_would_happen_by_itself(phase: Phase) -> None:
    """`waiting` and `backoff` become `held`; everything else goes on, and a run that ends is not started again."""
    guest = in_phase(phase)
    guest.tell(SetHold(hold=HOLD))

    if phase in (Phase.WAITING, Phase.BACKOFF):
        assert guest.phase is Phase.HELD
        assert guest.life.reason.endswith("held by alice: disk swap")
    else:
        assert guest.phase is phase
    assert guest.life.hold == HOLD
    assert guest.tell(Release(by="bob")).ok
    assert guest.life.hold is None


def test_a_hold_takes_a_turn_back_that_was_asked_for() -> None:
    """Nobody's turn is another's; what waits for a time has asked for none."""
    guest = in_phase(Phase.WAITING)
    guest.tell(SetHold(hold=HOLD))
    assert guest.did() == ["drop-turn"]
    guest = in_phase(Phase.BACKOFF)
    guest.tell(SetHold(hold=HOLD))
    assert guest.did() == []


def test_a_hold_without_a_reason_says_by_whom() -> None:
    """Beside what would have happened."""
    guest = in_phase(Phase.BACKOFF)
    guest.tell(SetHold(hold=replace(HOLD, reason="")))
    assert guest.life.reason == "it ended by triple-fault; held by alice"


def test_a_crash_of_a_held_guest_waits_for_a_person() -> None:
    """So does a reboot; `release` goes on as wished, with a clean book."""
    for kind, said in ((ExitKind.TRIPLE_FAULT, "it ended by triple-fault"), (ExitKind.REBOOT, "the guest rebooted")):
        guest = Guest().run()
        guest.tell(SetHold(hold=HOLD))
        guest.end(kind)
        assert guest.did()[-1] == "clean-all"
        assert guest.life.decision == f"held: {said}; held by alice: disk swap"
        guest.tell(Cleaned())
        assert guest.phase is Phase.HELD
        guest.tell(Release(by="bob"))
        assert (guest.phase, guest.life.hold, guest.life.book) == (Phase.WAITING, None, Book())


def test_a_hold_during_the_cleaning_is_in_time() -> None:
    """What was to be an immediate restart becomes `held`, behind a thorough cleaning."""
    guest = Guest().run()
    guest.end(ExitKind.REBOOT)
    guest.tell(SetHold(hold=HOLD), Cleaned())
    assert (guest.phase, guest.did()[-2:]) == (Phase.CLEANING, ["clean", "clean-all"])
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.reason) == (Phase.HELD, "the guest rebooted; held by alice: disk swap")


def test_a_person_may_start_restart_and_reset_a_held_guest() -> None:
    """The hold stays, and freezes again what happens by itself."""
    guest = Guest(hold=HOLD).run()
    guest.tell(Restart(by="bob"))
    guest.end()
    guest.again()
    guest.tell(Reset(by="bob"))
    guest.end(ExitKind.REBOOT)
    guest.again()
    guest.end(ExitKind.REBOOT)
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.hold) == (Phase.HELD, HOLD)


def test_a_reset_of_a_held_guest_that_automation_started() -> None:
    """The next run is the person's who pressed reset."""
    guest = Guest(desired=UP)
    guest.tell(Start(by="autostart", auto=True), Turn(), Prepared(loader=False), Up(), SetHold(hold=HOLD), Reset(by="bob"))
    guest.end(ExitKind.REBOOT)
    guest.tell(Cleaned())
    assert guest.phase is Phase.WAITING


def test_a_hold_outlives_a_stop_of_all_that_is_taken_back() -> None:
    """What automation had started again is not started again by automation."""
    guest = Guest().run()
    guest.end(ExitKind.TRIPLE_FAULT)
    guest.again()
    guest.tell(SetHold(hold=HOLD), Shutdown(by="drain"))
    guest.life.closing = False
    guest.end()
    guest.tell(Cleaned())
    assert guest.phase is Phase.HELD


def test_autostart_keeps_the_history() -> None:
    """The limits survive a restart of the daemon."""
    guest = Guest(desired=UP, book=Book(crashes=(990.0,)))
    guest.tell(Start(by="autostart", auto=True))
    assert guest.life.book == Book(crashes=(990.0,))


def test_autostart_of_a_held_guest_leads_to_held() -> None:
    """And a stop there leads down, with the hold still set."""
    guest = Guest(desired=UP, hold=HOLD)
    guest.tell(Start(by="autostart", auto=True))
    assert (guest.phase, guest.life.reason, guest.did()) == (Phase.HELD, "held by alice: disk swap", [])
    assert guest.tell(Start(by="autostart", auto=True)) == ALREADY
    guest.tell(Stop(by="bob"))
    assert (guest.phase, guest.life.hold) == (Phase.DOWN, HOLD)
    guest.tell(Start(by="bob"))
    assert guest.phase is Phase.WAITING


def test_what_policy_has_held_is_held_for_the_next_daemon() -> None:
    """Its automatic start leads to `held` again; a person's does not, and neither does the next automatic one after that."""
    guest = Guest(desired=UP, held="crashed 6 times")
    guest.tell(Start(by="autostart", auto=True))
    assert (guest.phase, guest.life.reason) == (Phase.HELD, "crashed 6 times")
    guest.tell(Start(by="bob"))
    assert guest.phase is Phase.WAITING
    guest.tell(Stop(by="bob"), Start(by="autostart", auto=True))
    assert guest.phase is Phase.WAITING


def test_release_of_a_guest_that_is_not_held() -> None:
    """It succeeds: nothing holds it."""
    assert in_phase(Phase.UP).tell(Release(by="bob")) == NOT_HELD


# --- the daemon stops its guests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
def test_the_end_of_the_daemon_never_changes_the_wish(phase: Phase) -> None:
    """Everything ends, nothing starts any more, and the next daemon finds what was wished; what is held stays so."""
    guest = in_phase(phase)
    wished = guest.life.desired
    guest.tell(Shutdown(by="rc"))
    assert guest.tell(Start(by="bob")) == SHUTTING_DOWN
    assert guest.tell(Restart(by="bob")) == SHUTTING_DOWN
    bring_down(guest)
    assert guest.phase is (Phase.HELD if phase is Phase.HELD else Phase.DOWN)
    assert guest.life.desired is wished
    assert "spawn" not in guest.did()


def test_a_crash_while_the_daemon_is_stopping_is_not_restarted() -> None:
    """A guest that waits for its turn to be stopped and ends before it."""
    guest = Guest().run()
    guest.life.closing = True
    guest.end(ExitKind.TRIPLE_FAULT)
    assert guest.life.decision == "stays down: it ended by triple-fault; bhyved is stopping its guests"
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.desired, len(guest.life.book.crashes)) == (Phase.DOWN, UP, 1)


def test_a_start_that_is_being_prepared_while_the_daemon_begins_to_stop() -> None:
    """It is taken back, without another word from anybody."""
    guest = in_phase(Phase.PREPARING)
    guest.life.closing = True
    guest.tell(Prepared(loader=False), Cleaned())
    assert (guest.phase, guest.life.reason, guest.did()) == (Phase.DOWN, "bhyved is stopping its guests", ["clean-all"])


def test_a_stop_while_a_host_command_is_under_way() -> None:
    """It is answered at once, once; what it leads to is said when the command is over."""
    guest = in_phase(Phase.PREPARING)
    assert guest.tell(Stop(by="bob")) == ACCEPTED
    assert guest.life.reason == "stopped by bob; a host command is still under way"
    assert guest.tell(Stop(by="bob")) == ALREADY
    guest.tell(Prepared(loader=False))
    assert (guest.phase, guest.life.reason, guest.life.decision) == (Phase.CLEANING, "stopped by bob", "stays down: stopped by bob")


def test_a_start_that_fails_while_the_daemon_begins_to_stop() -> None:
    """It is down for what failed, and not tried again."""
    guest = in_phase(Phase.PREPARING)
    guest.life.closing = True
    guest.tell(PrepareFailed("no tap"), Cleaned())
    assert (guest.phase, guest.life.reason, guest.life.book) == (Phase.DOWN, "no tap", Book())


def test_a_new_wish_asks_for_memory_anew() -> None:
    """A reboot and a crash keep what the guest had; a person's restart, stop and start do not."""
    guest = in_phase(Phase.BACKOFF)
    assert guest.life.again
    guest = in_phase(Phase.UP)
    assert guest.life.again
    guest.tell(Restart(by="bob"))
    assert not guest.life.again


def test_a_restart_that_the_stop_of_the_daemon_overtakes_is_cleaned_up_wholly() -> None:
    """What was left for the next run is no use any more."""
    guest = Guest().run()
    guest.end(ExitKind.REBOOT)
    guest.life.closing = True
    guest.did()
    guest.tell(Cleaned())
    assert (guest.phase, guest.did()) == (Phase.CLEANING, ["clean-all"])
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.dirty) == (Phase.DOWN, False)


def test_a_guest_over_its_limit_while_the_daemon_is_stopping_is_held() -> None:
    """The next daemon must not start it."""
    guest = Guest(spec(restart=RestartSpec(crash_limit=Limit(0, Duration(60))))).run()
    guest.end(ExitKind.TRIPLE_FAULT)
    guest.tell(Shutdown(by="rc"), Cleaned())
    assert (guest.phase, guest.life.desired) == (Phase.HELD, UP)


def test_a_stop_of_all_that_is_taken_back() -> None:
    """A guest that was being cleaned up behind it comes up again, as wished."""
    guest = Guest().run()
    guest.tell(Shutdown(by="drain"))
    guest.end()
    guest.life.closing = False
    guest.tell(Cleaned())
    assert guest.phase is Phase.WAITING


# --- what cannot be removed -----------------------------------------------------------------------------------------------------


def test_what_could_not_be_removed_is_tried_again() -> None:
    """By the next stop; the reason says what is left. The next start prepares over it."""
    guest = Guest().run()
    guest.tell(Stop(by="alice"))
    guest.end()
    guest.tell(CleanFailed("tap3 is busy"))
    assert (guest.phase, guest.life.reason) == (Phase.DOWN, "stopped by alice; left behind: tap3 is busy")
    guest.did()
    guest.tell(Shutdown(by="rc"))
    assert guest.did() == []
    guest.tell(Stop(by="alice"))
    assert (guest.phase, guest.did()) == (Phase.CLEANING, ["clean-all"])
    guest.tell(Cleaned(), Stop(by="alice"))
    assert (guest.phase, guest.did()) == (Phase.DOWN, [])


def test_a_restart_whose_cleaning_failed_goes_on() -> None:
    """Preparing the next run deals with what is left, or says why it cannot."""
    guest = Guest().run()
    guest.end(ExitKind.REBOOT)
    guest.tell(CleanFailed("tap3 is busy"))
    assert guest.phase is Phase.WAITING
    guest.tell(Stop(by="alice"))
    assert (guest.phase, guest.did()[-2:]) == (Phase.CLEANING, ["drop-turn", "clean-all"])


def test_a_stop_of_a_held_guest_that_left_something_cleans_up() -> None:
    """Then it is down."""
    guest = Guest()
    guest.tell(Start(by="alice"), Turn(), PrepareFailed("no such disk", fatal=True), CleanFailed("tap3 is busy"))
    assert (guest.phase, guest.life.reason) == (Phase.HELD, "no such disk; left behind: tap3 is busy")
    guest.tell(Stop(by="alice"))
    assert guest.phase is Phase.CLEANING
    guest.tell(Cleaned())
    assert guest.phase is Phase.DOWN


def test_the_blame_for_a_reset_that_came_to_nothing_is_forgotten() -> None:
    """A guest that was to be reset for its health, lives on and is shut down from inside an hour later has not crashed."""
    guest = Guest().run()
    guest.tell(Reset(by="its health probes", blame="tcp, ping failed 3 times in a row"))
    guest.after(3600, Ended(end("poweroff"), 3600.0), Cleaned())
    assert (guest.phase, guest.life.reason) == (Phase.DOWN, "the guest powered off")


def test_a_persons_reset_takes_the_place_of_a_remedy() -> None:
    """Nobody is to blame for it."""
    guest = Guest().run()
    guest.tell(Reset(by="its health probes", blame="tcp failed"), Reset(by="bob"))
    guest.after(1, Ended(end("reboot"), 1.0))
    assert guest.life.book.crashes == ()
    assert guest.life.decision == "starting again: reset by bob"


def test_over_what_the_kernel_holds_nothing_is_started() -> None:
    """A node or a tap: whoever stops the guest has the cleaning tried again, and may start it when that succeeds."""
    for stuck in (
        (PrepareFailed("tap3 is stuck", stuck=True),),
        (PrepareFailed("no disk", fatal=True), CleanFailed("tap3 is stuck", stuck=True)),
    ):
        guest = Guest()
        guest.tell(Start(by="alice"), Turn(), *stuck)
        assert (guest.phase, guest.life.stuck) == (Phase.HELD, True)
        for wish in (Start(by="bob"), Restart(by="bob"), Release(by="bob")):
            answer = guest.tell(wish)
            assert (answer.ok, answer.code, answer.text) == (False, "stuck", "tap3 is stuck")
        guest.tell(Stop(by="bob"), CleanFailed("tap3 is stuck", stuck=True))
        assert (guest.phase, guest.life.stuck) == (Phase.HELD, True)
        guest.tell(Stop(by="bob"), Cleaned(), Start(by="bob"))
        assert (guest.phase, guest.life.stuck) == (Phase.WAITING, False)


def test_the_end_of_a_hold_is_no_release_from_the_kernel() -> None:
    """A flag that ends by itself goes, once; the guest stays held for what is stuck."""
    guest = Guest()
    guest.tell(Start(by="alice"), Turn(), PrepareFailed("tap3 is stuck", stuck=True), SetHold(hold=HOLD))
    assert guest.tell(Release(by="the end of the hold")).ok
    assert (guest.phase, guest.life.hold, guest.life.stuck) == (Phase.HELD, None, True)
    assert guest.tell(Release(by="bob")).code == "stuck"


def test_a_process_that_outlives_sigkill_is_left_alone() -> None:
    """No stop helps, nothing is started over it; when it ends after all it is cleaned up, and a person decides."""
    guest = in_phase(Phase.KILLING)
    while guest.phase is Phase.KILLING:
        guest.until_deadline()
    guest.did()
    assert guest.tell(Start(by="bob")).code == "stuck"
    assert guest.tell(Shutdown(by="rc")) == ALREADY
    guest.life.closing = False
    guest.end(ExitKind.KILLED)
    assert (guest.phase, guest.did()) == (Phase.CLEANING, ["clean-all"])
    guest.tell(Cleaned())
    assert (guest.phase, guest.life.stuck) == (Phase.HELD, False)
    assert guest.life.reason == "its process is stuck in the kernel: SIGKILL did not end it; it has ended since"
    assert guest.tell(Start(by="bob")) == ACCEPTED


def test_a_stopped_process_that_outlives_sigkill_is_down_when_it_ends() -> None:
    """The wish was down, and stays so."""
    guest = in_phase(Phase.KILLING)
    while guest.phase is Phase.KILLING:
        guest.until_deadline()
    assert guest.tell(Stop(by="bob")) == ACCEPTED
    assert guest.phase is Phase.HELD
    guest.end(ExitKind.KILLED)
    guest.tell(Cleaned())
    assert guest.phase is Phase.DOWN
    assert guest.life.reason.endswith("; it has ended since")


def test_an_end_in_held_that_nothing_can_have() -> None:
    """Without a process that outlived SIGKILL it is our bug."""
    guest = in_phase(Phase.HELD)
    with pytest.raises(ImpossibleEvent, match="Ended in phase held"):
        guest.end()


# --- runs of an earlier daemon --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "up", "desired", "phase", "actions"),
    [
        (Stage.PREPARING, False, UP, Phase.PREPARING, []),
        (Stage.LOADING, False, UP, Phase.LOADING, []),
        (Stage.RUNNING, False, UP, Phase.STARTING, []),
        (Stage.RUNNING, True, UP, Phase.UP, []),
        (Stage.PREPARING, False, DOWN, Phase.PREPARING, []),
        (Stage.LOADING, False, DOWN, Phase.KILLING, ["kill"]),
        (Stage.RUNNING, False, DOWN, Phase.KILLING, ["kill"]),
        (Stage.RUNNING, True, DOWN, Phase.STOPPING, ["press"]),
    ],
)
def test_a_run_of_an_earlier_daemon_goes_on(stage: Stage, up: bool, desired: Desired, phase: Phase, actions: list[str]) -> None:
    """At the stage where it is; a stop that was under way begins anew."""
    guest = Guest(desired=desired, held="something old")
    guest.tell(Found(stage, up))
    assert (guest.phase, guest.did(), guest.life.dirty, guest.life.first_run) == (phase, actions, True, False)
    assert guest.tell(Start(by="autostart", auto=True)).ok
    assert guest.life.held == ""


def test_what_an_earlier_daemon_was_preparing_has_a_minute() -> None:
    """A command that hangs since before this daemon is nobody's to end: the guest is held over it."""
    guest = Guest(desired=UP)
    guest.tell(Found(Stage.PREPARING, False))
    assert guest.life.deadline == 1060.0
    guest.until_deadline()
    assert (guest.phase, guest.life.reason) == (
        Phase.HELD,
        "a host command of an earlier daemon still works for it: it is stuck in the kernel",
    )
    guest.tell(Interrupted())
    assert guest.phase is Phase.CLEANING


def test_a_hold_or_a_closing_daemon_leaves_a_found_guest_alone() -> None:
    """It runs on; only a wish that is down ends it."""
    guest = Guest(desired=UP, hold=HOLD)
    guest.life.closing = True
    guest.tell(Found(Stage.RUNNING, True))
    assert (guest.phase, guest.did()) == (Phase.UP, [])


def test_a_start_that_never_got_as_far_as_a_process_begins_anew() -> None:
    """Without being counted; a hold keeps it from it, a wish that is down too."""
    guest = Guest(desired=UP)
    guest.tell(Found(Stage.PREPARING, False), Interrupted(), Cleaned())
    assert (guest.phase, guest.life.book) == (Phase.WAITING, Book())

    guest = Guest(desired=UP, hold=HOLD)
    guest.tell(Found(Stage.PREPARING, False), Interrupted(), Cleaned())
    assert guest.phase is Phase.HELD

    guest = Guest(desired=DOWN)
    guest.tell(Found(Stage.PREPARING, False), Interrupted(), Cleaned())
    assert (guest.phase, guest.life.reason) == (Phase.DOWN, "was being stopped when the daemon was restarted")

    guest = Guest(desired=UP)
    guest.life.closing = True
    guest.tell(Found(Stage.LOADING, False), Interrupted(), Cleaned())
    assert (guest.phase, guest.life.reason) == (Phase.DOWN, "bhyved is stopping its guests")


def test_an_end_that_no_daemon_saw_is_judged_as_ever() -> None:
    """A guest that crashed in between starts again with back-off, one that powered off stays down."""
    guest = Guest(desired=UP)
    guest.tell(Found(Stage.RUNNING, True), Ended(end("triple-fault"), 50.0), Cleaned())
    assert guest.phase is Phase.BACKOFF
    guest = Guest(desired=UP)
    guest.tell(Found(Stage.RUNNING, True), Ended(end("poweroff"), 50.0), Cleaned())
    assert (guest.phase, guest.life.desired) == (Phase.DOWN, DOWN)


def test_a_start_that_had_come_farther_than_its_ledger_says() -> None:
    """Found while preparing, but a loader or a bhyve was on its way: its end is taken as any other."""
    guest = Guest(desired=UP)
    guest.tell(Found(Stage.PREPARING, False), LoaderEnded(None))
    assert (guest.phase, guest.did()) == (Phase.STARTING, ["spawn"])
    guest = Guest(desired=UP)
    guest.tell(Found(Stage.PREPARING, False), Ended(end("reboot"), 5.0))
    assert guest.life.decision == "starting again at once (reboot 1 of 5)"
    guest = Guest(desired=DOWN)
    guest.tell(Found(Stage.PREPARING, False), LoaderEnded(None))
    assert (guest.phase, guest.did()) == (Phase.CLEANING, ["clean-all"])


def test_presses_of_its_own() -> None:
    """A guest with other presses is pressed when it says."""
    guest = Guest(spec(stop=StopSpec(presses=seconds(1, 3), timeout=Duration(10)))).run()
    guest.tell(Stop(by="alice"))
    while guest.phase is Phase.STOPPING:
        guest.until_deadline()
    assert guest.when(PRESS) == [1.0, 3.0]
    assert guest.now == 1010.0


# --- suspended to disk ----------------------------------------------------------------------------------------------------------


def test_a_suspend_ends_the_run_when_the_state_is_on_disk() -> None:
    """Until then the guest is wished up; then it is down, wished down, and says where its state is."""
    guest = Guest().run()
    assert guest.tell(Suspend(by="alice")) == ACCEPTED
    assert (guest.phase, guest.life.deadline, guest.life.desired) == (Phase.STOPPING, None, Desired.UP)
    assert guest.did()[-1] == "suspend"
    assert guest.tell(Suspend(by="bob")) == ALREADY
    guest.tell(Ended(end(ExitKind.SUSPENDED, "suspended to disk at /db/web1"), 60.0), Cleaned())

    assert (guest.phase, guest.life.reason, guest.life.desired) == (Phase.DOWN, "suspended to disk at /db/web1", Desired.DOWN)


def test_a_suspend_that_fails_leaves_the_guest_running() -> None:
    """And says why; the next one may succeed."""
    guest = Guest().run()
    guest.tell(Suspend(by="alice"), SuspendFailed("the disk is full"))
    assert (guest.phase, guest.life.reason, guest.life.desired) == (Phase.UP, "not suspended: the disk is full", Desired.UP)

    assert guest.tell(Suspend(by="alice")) == ACCEPTED


def test_an_end_before_the_state_was_on_disk_is_judged_as_any_other() -> None:
    """Nobody asked for a crash: the guest comes back."""
    guest = Guest().run()
    guest.tell(Suspend(by="alice"))
    guest.end(ExitKind.ERROR)
    guest.tell(Cleaned())

    assert (guest.phase, guest.life.desired, len(guest.life.book.crashes)) == (Phase.BACKOFF, Desired.UP, 1)


def test_what_is_wished_while_a_guest_is_suspended() -> None:
    """A stop presses the button, and gives up on it in its time; what would begin another run is refused."""
    for event in (Start(by="bob"), Restart(by="bob")):
        guest = Guest().run()
        guest.tell(Suspend(by="alice"))
        assert guest.tell(event) == SUSPENDING
    assert guest.tell(Stop(by="bob")) == ACCEPTED
    assert (guest.did()[-1], guest.life.suspending) == ("press", False)
    assert guest.tell(SuspendFailed("the disk is full")) == IGNORED
    assert guest.phase is Phase.STOPPING
    guest.end(ExitKind.SUSPENDED)
    guest.tell(Cleaned())

    assert (guest.phase, guest.life.desired) == (Phase.DOWN, Desired.DOWN)


def going_down(guest: Guest, seconds: float = 100.0) -> Shutdown:
    return Shutdown(by="SIGTERM (reboot of the host)", end_at=guest.now + seconds, suspend=True)


def test_a_suspend_for_the_end_of_the_host() -> None:
    """Half of the time is for writing; the wish stays, so that the guest goes on when the host is back."""
    guest = Guest().run()
    assert guest.tell(going_down(guest)) == ACCEPTED
    assert (guest.did()[-1], guest.phase, guest.life.suspending) == ("suspend", Phase.STOPPING, True)
    assert guest.life.deadline == guest.now + 50
    assert guest.tell(Start(by="alice")) == SHUTTING_DOWN
    guest.tell(Ended(end(ExitKind.SUSPENDED, "suspended to disk at /db/web1"), 60.0), Cleaned())

    assert (guest.phase, guest.life.reason, guest.life.desired) == (Phase.DOWN, "suspended to disk at /db/web1", Desired.UP)


@pytest.mark.parametrize("late", [False, True], ids=["bhyve says no", "it takes too long"])
def test_a_suspend_that_the_host_cannot_wait_for(late: bool) -> None:
    """The button gets what is left of the time, and the reason says why; the guest never goes back to being up."""
    guest = Guest().run()
    guest.tell(going_down(guest))
    guest.did()
    if late:
        guest.until_deadline()
    else:
        guest.after(10.0, SuspendFailed("the disk is full"))
    assert (guest.phase, guest.life.suspending, guest.did()) == (Phase.STOPPING, False, ["press"])
    assert guest.life.ladder is not None
    assert guest.life.ladder.give_up_at <= 1100
    why = "its state was not on disk in time" if late else "the disk is full"
    assert guest.life.reason == f"stopped with the daemon; not suspended: {why}"
    assert guest.tell(SuspendFailed("late")) == IGNORED
    guest.end(ExitKind.POWEROFF)
    guest.tell(Cleaned())

    assert (guest.phase, guest.life.desired) == (Phase.DOWN, Desired.UP)


def test_a_state_that_is_written_after_all_counts() -> None:
    """The button came too late: the guest is suspended."""
    guest = Guest().run()
    guest.tell(going_down(guest))
    guest.until_deadline()
    guest.end(ExitKind.SUSPENDED)
    guest.tell(Cleaned())

    assert (guest.phase, guest.life.desired) == (Phase.DOWN, Desired.UP)


def test_the_end_of_the_host_hurries_a_suspend_that_a_person_has_begun() -> None:
    """It goes on, and has a deadline from now on; without grace, or without such a wish, the button or the axe comes at once."""
    guest = Guest().run()
    guest.tell(Suspend(by="alice"))
    guest.did()
    guest.tell(going_down(guest, 40.0))
    assert (guest.life.suspending, guest.life.deadline, guest.did()) == (True, guest.now + 20, [])
    guest.tell(Shutdown(by="SIGINT", force=True))
    assert (guest.phase, guest.did()) == (Phase.KILLING, ["force-poweroff"])

    other = Guest().run()
    other.tell(Suspend(by="alice"), Shutdown(by="SIGTERM", end_at=other.now + 40))
    assert (other.life.suspending, other.did()[-1]) == (False, "press")


def test_no_time_for_a_suspend() -> None:
    """The deadline is over when it begins: what follows is what would have without."""
    guest = Guest().run()
    guest.tell(going_down(guest, -1.0))
    guest.until_deadline()

    assert guest.phase is Phase.KILLING


def test_only_a_guest_that_is_up_is_suspended() -> None:
    """In every other phase the asker is told why not."""
    codes = {Phase.STOPPING: "stopping", Phase.KILLING: "stopping"}
    for phase in set(Phase) - {Phase.UP}:
        answer = in_phase(phase).tell(Suspend(by="alice"))
        assert (answer.ok, answer.code) == (False, codes.get(phase, answer.code))
    closing = Guest().run()
    closing.life.closing = True

    assert closing.tell(Suspend(by="alice")) == SHUTTING_DOWN


def test_a_suspend_outlives_the_daemon() -> None:
    """The next one waits for what comes of it."""
    guest = Guest(desired=Desired.UP)
    guest.tell(Found(Stage.RUNNING, up=True, suspending=True))

    assert (guest.phase, guest.life.suspending, guest.did()) == (Phase.STOPPING, True, ["suspend"])


def test_a_cold_start_stays_one_until_the_guest_is_stopped() -> None:
    """A start that fails and is tried again does not fall back to the saved state that was to be thrown away."""
    guest = Guest()
    guest.tell(Start(by="alice", cold=True), Start(by="bob"))
    assert guest.life.cold
    guest.tell(Stop(by="alice"), Start(by="alice"))

    assert not guest.life.cold
