"""What a wish does, phase by phase: the handlers of the lifecycle's table for what people and the daemon want.

A wish that is refused changes nothing. The last one wins: whatever is under way is brought to its end, and what follows that end is
what was wished last.
"""

from bhyved.core import ladder, policy
from bhyved.core.exits import Exit, ExitKind
from bhyved.core.happenings import (
    ACCEPTED,
    ALREADY,
    DROP_TURN,
    FORCE_RESET,
    NO_MEDIA,
    NOT_HELD,
    NOT_RUNNING,
    NOT_UP_YET,
    SHUTTING_DOWN,
    STOPPING,
    SUSPENDING,
    Answer,
    Event,
    Poweroff,
    Release,
    Reset,
    Restart,
    SetHold,
    Shutdown,
    Start,
    Stop,
    Suspend,
)
from bhyved.core.ladder import Ladder
from bhyved.core.life import Life, held_text
from bhyved.core.status import Desired, Phase

BLAME_S = 30.0  # for a remedy: when --force-reset does nothing, SIGKILL follows; an end later than this is the guest's own
RESET_S = 10.0  # --force-reset ends the run at once; a reboot later than this is the guest's own

# --- start and restart ----------------------------------------------------------------------------------------------------------


def start_idle(life: Life, event: Start | Restart, now: float) -> Answer:
    """DOWN: begin."""
    if life.closing:
        return SHUTTING_DOWN
    held = life.held
    life.wish_up(event)
    if life.auto and life.hold is not None:
        return life.enter(Phase.HELD, held_text(life.hold))
    if life.auto and held:
        return life.enter(Phase.HELD, held)
    return life.enter_waiting(f"asked for by {event.by}")


def start_pending(life: Life, event: Start | Restart, now: float) -> Answer:
    """BACKOFF, HELD: a person does not wait; automation waits on."""
    if life.closing:
        return SHUTTING_DOWN
    if life.stuck:
        return Answer(False, "stuck", life.reason)
    if isinstance(event, Start) and event.auto:
        return ALREADY
    life.wish_up(event)
    return life.enter_waiting(f"asked for by {event.by}")


def start_waiting(life: Life, event: Start | Restart, now: float) -> Answer:
    """WAITING: it is about to start anyhow; a person queues anew, since the pace of a booting host is for automation only."""
    if life.closing:
        return SHUTTING_DOWN
    if isinstance(event, Start) and event.auto:
        return ALREADY
    life.wish_up(event)
    life.actions.append(DROP_TURN)
    life.enter_waiting(f"asked for by {event.by}")
    return ALREADY


def start_preparing(life: Life, event: Start, now: float) -> Answer:
    """PREPARING: under way, unless it has been wished down since, or is prepared without the media asked for: that is taken back first."""
    if life.closing:
        return SHUTTING_DOWN
    is_other = event.install and not life.install
    return restart_preparing(life, event, now) if is_other or life.verdict is not None else ALREADY


def restart_preparing(life: Life, event: Start | Restart, now: float) -> Answer:
    """PREPARING: the configuration may have changed since: what is being prepared is taken back, and another start follows."""
    if life.closing:
        return SHUTTING_DOWN
    life.wish_up(event)
    life.verdict = policy.StartAt(now, f"asked for by {event.by}")
    life.reason = f"asked for by {event.by}; a host command for the start before is still under way"
    return ACCEPTED


def start_running(life: Life, event: Start, now: float) -> Answer:
    """LOADING, STARTING, UP: there, but for media that can only be attached at a start."""
    if life.closing:
        return SHUTTING_DOWN
    return NO_MEDIA if event.install and not life.install else ALREADY


def start_ending(life: Life, event: Start | Restart, now: float) -> Answer:
    """STOPPING, KILLING, CLEANING: it comes up again behind its end."""
    if life.closing:
        return SHUTTING_DOWN
    if life.suspending:
        return SUSPENDING
    if isinstance(event, Start) and event.auto and life.want_up:
        return ALREADY
    life.wish_up(event)
    if life.phase is Phase.CLEANING:
        life.decide(life.after_wish(now), now)
    life.reason = f"restart asked for by {event.by}"
    return ACCEPTED


def restart_early(life: Life, event: Restart, now: float) -> Answer:
    """LOADING, STARTING: no vCPU has run, so there is nothing to save, and a button would not be heard (contract 1.9)."""
    if life.closing:
        return SHUTTING_DOWN
    life.wish_up(event)
    return life.enter_killing(f"restart asked for by {event.by}", now)


def restart_up(life: Life, event: Restart, now: float) -> Answer:
    """UP: a stop, and the wish stays up."""
    if life.closing:
        return SHUTTING_DOWN
    life.wish_up(event)
    return life.enter_stopping(ladder.climb(life.spec.stop, now), f"restart asked for by {event.by}", now)


# --- stop, power off, shut down -------------------------------------------------------------------------------------------------


def stop_idle(life: Life, event: Stop | Poweroff | Shutdown, now: float) -> Answer:
    """DOWN: nothing to stop; what could not be removed behind the last run is tried again."""
    already = life.desired is Desired.DOWN or isinstance(event, Shutdown)
    life.wish_down(event)
    if life.dirty and not isinstance(event, Shutdown):
        return life.enter_cleaning(policy.Stay(down_text(event)), now)
    return ALREADY if already else ACCEPTED


def stop_pending(life: Life, event: Stop | Poweroff | Shutdown, now: float) -> Answer:
    """WAITING, BACKOFF: nothing runs, but the host may still hold something of the run before."""
    if life.phase is Phase.WAITING:
        life.actions.append(DROP_TURN)
    life.wish_down(event)
    if life.dirty:
        return life.enter_cleaning(policy.Stay(down_text(event)), now)
    return life.enter(Phase.DOWN, down_text(event))


def stop_held(life: Life, event: Stop | Poweroff, now: float) -> Answer:
    """HELD: down, or once more at what the kernel did not let go; a process that outlives SIGKILL is past helping."""
    life.wish_down(event)
    if life.undead:
        return ACCEPTED
    if life.dirty:
        return life.enter_cleaning(policy.Stay(down_text(event)), now)
    return life.enter(Phase.DOWN, down_text(event))


def shutdown_held(life: Life, event: Shutdown, now: float) -> Answer:
    """HELD: nothing to wait for, and the next daemon must find it held."""
    life.wish_down(event)
    return ALREADY


def stop_preparing(life: Life, event: Stop | Poweroff | Shutdown, now: float) -> Answer:
    """PREPARING: the host command under way ends first; then everything is taken back."""
    already = not life.want_up
    life.wish_down(event)
    life.verdict = policy.Stay(down_text(event))
    life.reason = f"{down_text(event)}; a host command is still under way"
    return ALREADY if already else ACCEPTED


def stop_early(life: Life, event: Stop | Poweroff | Shutdown, now: float) -> Answer:
    """LOADING, STARTING: as `restart_early`. The driver looks first whether the guest has come up in the meantime."""
    life.wish_down(event)
    return life.enter_killing(f"{down_text(event)} before it ran", now, end_at=_end_at(event))


def stop_up(life: Life, event: Stop | Shutdown, now: float) -> Answer:
    """UP: climb the ladder from its first rung."""
    life.wish_down(event)
    if event.force:
        return life.cut(ladder.cut_power(now, end_at=_end_at(event)), down_text(event))
    if isinstance(event, Shutdown) and event.suspend:
        life.enter_suspending(event.by, f"{down_text(event)}: it is being suspended to disk")
        return life.suspend_within(event, now)
    return life.enter_stopping(_ladder(life, event, now), down_text(event), now)


def stop_stopping(life: Life, event: Stop | Shutdown, now: float) -> Answer:
    """STOPPING: another wish for the end, perhaps for an earlier one. A suspend under way may still end the run before that does."""
    if life.suspending and isinstance(event, Shutdown) and event.suspend and not event.force:
        life.wish_down(event)
        return life.suspend_within(event, now)
    if life.suspending:
        return stop_up(life, event, now)
    assert life.ladder is not None
    already = not life.want_up
    life.wish_down(event)
    if event.force:
        return life.cut(ladder.sooner(life.ladder, ladder.cut_power(now, end_at=_end_at(event))), down_text(event))
    if not already:
        life.reason = down_text(event)
    if _end_at(event) is not None or (isinstance(event, Stop) and event.timeout_s is not None):
        steps = ladder.sooner(life.ladder, _ladder(life, event, now))
        if steps != life.ladder:
            return life.enter_stopping(steps, life.reason, now)
    return ALREADY if already else ACCEPTED


def stop_killing(life: Life, event: Stop | Poweroff | Shutdown, now: float) -> Answer:
    """KILLING: it ends anyhow; the end of the host may hurry it."""
    assert life.ladder is not None
    already = not life.want_up
    life.wish_down(event)
    if not already:
        life.reason = down_text(event)
    end_at = _end_at(event)
    if end_at is not None:
        life.ladder = ladder.sooner(life.ladder, ladder.cut_power(now, end_at=end_at))
        if life.give_up_at is None:
            life.deadline = life.ladder.kill_at
        else:
            life.give_up_at = min(life.give_up_at, max(life.ladder.give_up_at, now + ladder.KILL_LEAST_S))
    return ALREADY if already else ACCEPTED


def stop_cleaning(life: Life, event: Stop | Poweroff | Shutdown, now: float) -> Answer:
    """CLEANING: what follows changes, but a daemon that stops leaves held what policy has held."""
    already = not life.want_up
    life.wish_down(event)
    if not (isinstance(event, Shutdown) and isinstance(life.verdict, policy.HoldFor)):
        life.decide(policy.Stay(down_text(event)), now)
    return ALREADY if already else ACCEPTED


def poweroff(life: Life, event: Poweroff, now: float) -> Answer:
    """UP, STOPPING: no grace."""
    steps = ladder.cut_power(now)
    life.wish_down(event)
    return life.cut(steps if life.ladder is None else ladder.sooner(life.ladder, steps), down_text(event))


# --- suspend --------------------------------------------------------------------------------------------------------------------


def suspend(life: Life, event: Suspend, now: float) -> Answer:
    """UP: what was wished stays so until the state is on disk, since the guest goes on when that fails."""
    if life.closing:
        return SHUTTING_DOWN
    return life.enter_suspending(event.by, f"being suspended to disk for {event.by}")


def suspend_stopping(life: Life, event: Suspend, now: float) -> Answer:
    """STOPPING: under way, or too late."""
    return ALREADY if life.suspending else STOPPING


# --- reset, hold, release -------------------------------------------------------------------------------------------------------


def reset(life: Life, event: Reset, now: float) -> Answer:
    """UP: the reboot that follows at once is the operator's and counts nowhere; one that is a remedy counts as the crash it cures."""
    if event.blame:
        life.blame, life.blame_until = Exit(kind=ExitKind.ERROR, text=event.blame), now + BLAME_S
        life.actions.append(FORCE_RESET)
        return ACCEPTED
    life.reset_by, life.reset_until, life.blame = event.by, now + RESET_S, None
    life.actions.append(FORCE_RESET)
    return ACCEPTED


def set_hold(life: Life, event: SetHold, now: float) -> Answer:
    """Where nothing is about to happen by itself: remember. A start that has begun is finished."""
    life.hold = event.hold
    return ACCEPTED


def set_hold_pending(life: Life, event: SetHold, now: float) -> Answer:
    """WAITING, BACKOFF: automation was about to act, and stops here."""
    if life.phase is Phase.WAITING:
        life.actions.append(DROP_TURN)
    life.hold = event.hold
    reason = life.frozen_text(life.reason)
    return life.enter_cleaning(policy.HoldFor(reason), now) if life.dirty else life.enter(Phase.HELD, reason)


def release(life: Life, event: Release, now: float) -> Answer:
    """Everywhere but HELD: forget the hold."""
    if life.hold is None:
        return NOT_HELD
    life.hold = None
    return ACCEPTED


def release_held(life: Life, event: Release, now: float) -> Answer:
    """HELD: go on as the wish says, with a clean book."""
    if life.stuck:
        if life.hold is None:
            return Answer(False, "stuck", life.reason)
        life.hold = None  # the flag goes; the kernel holds on
        return ACCEPTED
    life.hold = None
    if life.closing:
        return life.enter(Phase.DOWN, f"released by {event.by}")
    life.wish_up(Start(by=event.by))
    life.auto = event.auto
    return life.enter_waiting(f"released by {event.by}")


# --- refusals -------------------------------------------------------------------------------------------------------------------


def not_running(life: Life, event: Event, now: float) -> Answer:
    """Nothing of the guest runs."""
    return NOT_RUNNING


def not_up_yet(life: Life, event: Event, now: float) -> Answer:
    """It is on its way up."""
    return NOT_UP_YET


def is_stopping(life: Life, event: Event, now: float) -> Answer:
    """It is on its way down."""
    return STOPPING


def _ladder(life: Life, event: Stop | Shutdown, now: float) -> Ladder:
    timeout_s = event.timeout_s if isinstance(event, Stop) else None
    return ladder.climb(life.spec.stop, now, timeout_s=timeout_s, end_at=_end_at(event))


def _end_at(event: Stop | Poweroff | Shutdown) -> float | None:
    return event.end_at if isinstance(event, Shutdown) else None


def down_text(event: Stop | Poweroff | Shutdown) -> str:
    """Why a guest is down."""
    match event:
        case Shutdown():
            return event.why
        case Poweroff():
            return f"power cut by {event.by}"
        case Stop():
            return f"stopped by {event.by}"
