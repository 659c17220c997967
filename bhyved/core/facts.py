"""What a fact does, phase by phase: the handlers of the lifecycle's table for what has happened to a guest or its host."""

from bhyved.core import ladder, policy
from bhyved.core.exits import Exit, ExitKind, Stage
from bhyved.core.happenings import (
    ACCEPTED,
    CLEAN,
    CLEAN_ALL,
    IGNORED,
    LOAD,
    PREPARE,
    PRESS,
    SPAWN,
    Answer,
    Cleaned,
    CleanFailed,
    Ended,
    Event,
    Found,
    ImpossibleEvent,
    Interrupted,
    LoaderEnded,
    Prepared,
    PrepareFailed,
    SpawnFailed,
    SuspendFailed,
    Tick,
    Turn,
    Up,
)
from bhyved.core.life import CLOSING_TEXT, Life
from bhyved.core.status import Book, Desired, Phase

Gone = Ended | LoaderEnded | SpawnFailed | Interrupted

# --- the way up -----------------------------------------------------------------------------------------------------------------


def found(life: Life, event: Found, now: float) -> Answer:
    """DOWN, once, when the daemon starts: an earlier daemon's run goes on as it is, and a stop that it had begun begins anew."""
    held, life.dirty, life.first_run, life.again, life.auto, life.held = life.held, True, False, True, True, ""
    text = "taken up from an earlier daemon"
    if life.desired is Desired.DOWN:
        return _found_unwanted(life, event, now)
    match event.stage:
        case Stage.PREPARING:
            if held:  # no start: what was left behind the last run, or its cleaning was cut short
                life.verdict = policy.HoldFor(held)
            return life.enter_found_preparing(held or text, now)
        case Stage.LOADING:
            return life.enter_loading(text, now)
        case Stage.RUNNING if event.suspending:
            return life.enter_suspending("", "was being suspended to disk when the daemon was restarted")
        case Stage.RUNNING:
            return life.enter(Phase.UP if event.up else Phase.STARTING, text)


def _found_unwanted(life: Life, event: Found, now: float) -> Answer:
    text = "was being stopped when the daemon was restarted"
    if event.stage is Stage.PREPARING:
        life.verdict = policy.Stay(text)
        return life.enter_found_preparing(text, now)
    if not event.up:
        return life.enter_killing(text, now)
    return life.enter_stopping(ladder.climb(life.spec.stop, now), text, now)


def turn(life: Life, event: Turn, now: float) -> Answer:
    """WAITING: a run begins here."""
    life.dirty, life.again, life.forced, life.blame, life.verdict, life.reset_by = True, True, False, None, None, ""
    life.actions.append(PREPARE)
    return life.enter(Phase.PREPARING, life.reason)


def prepared(life: Life, event: Prepared, now: float) -> Answer:
    """PREPARING."""
    if life.verdict is not None:
        return life.enter_cleaning(life.verdict, now)
    if not life.want_up:
        return life.enter_cleaning(policy.Stay(CLOSING_TEXT), now)
    if event.loader:
        life.actions.append(LOAD)
        return life.enter_loading(life.reason, now)
    life.actions.append(SPAWN)
    return life.enter(Phase.STARTING, life.reason)


def prepare_failed(life: Life, event: PrepareFailed, now: float) -> Answer:
    """PREPARING: what the host holds already is taken back."""
    if event.stuck:
        return life.enter_stuck(event.why)
    if event.fatal and life.verdict is None:
        return life.enter_cleaning(policy.HoldFor(event.why), now)
    return life.failed_start(event.why, now)


def spawn_failed(life: Life, event: SpawnFailed, now: float) -> Answer:
    """LOADING, STARTING."""
    return life.failed_start(event.why, now)


def interrupted(life: Life, event: Interrupted, now: float) -> Answer:
    """PREPARING, LOADING, STARTING, after adoption: nothing ran, so nothing is counted."""
    verdict = life.verdict or (life.after_wish(now) if life.want_up else policy.Stay(CLOSING_TEXT))
    return life.enter_cleaning(verdict, now)


def loader_ended(life: Life, event: LoaderEnded, now: float) -> Answer:
    """PREPARING (an earlier daemon's start had come farther than its ledger says), LOADING."""
    if event.end is not None:
        return life.failed_start(policy.sentence(event.end), now)
    if life.verdict is not None:
        return life.enter_cleaning(life.verdict, now)
    life.actions.append(SPAWN)
    return life.enter(Phase.STARTING, life.reason)


def up(life: Life, event: Up, now: float) -> Answer:
    """STARTING: what failed starts were counted is past."""
    life.book = Book(reboots=life.book.reboots, crashes=life.book.crashes)
    return life.enter(Phase.UP, life.reason)


# --- the end of a run -----------------------------------------------------------------------------------------------------------


def ended(life: Life, event: Ended, now: float) -> Answer:
    """PREPARING (as `loader_ended`), STARTING, UP: nobody asked for it, so policy decides."""
    end = event.end if life.blame is None or now > life.blame_until else life.blame
    life.install = life.install and end.kind in (ExitKind.START_ERROR, ExitKind.CONFIG_ERROR)  # any other end is the end of a run
    if life.verdict is not None:
        return life.enter_cleaning(life.verdict, now)
    if life.reset_by and end.kind is ExitKind.REBOOT and now <= life.reset_until:
        life.by, life.auto, life.first_run = life.reset_by, False, False
        return life.enter_cleaning(policy.StartAt(now, f"reset by {life.reset_by}"), now)
    verdict, life.book = policy.judge(life.spec.restart, end, life.book, uptime_s=event.uptime_s, now=now, rng=life.rng)
    if isinstance(verdict, policy.Stay):
        life.desired = Desired.DOWN  # the guest, or policy, decided: a later daemon on this boot must not bring it up again
    return life.enter_cleaning(verdict, now)


def ended_stopping(life: Life, event: Ended, now: float) -> Answer:
    """STOPPING: however it ended, it was asked to; the wish decides what follows. An end before its state was on disk is one of its own."""
    if life.suspending and event.end.kind is ExitKind.SUSPENDED:
        if life.ending is None:  # else the wish stays: what was up goes on when the host is back
            life.desired = Desired.DOWN
        return life.enter_cleaning(policy.Stay(event.end.text), now)
    if life.suspending:
        return ended(life, event, now)
    return life.enter_cleaning(life.after_wish(now), now)


def suspend_failed(life: Life, event: SuspendFailed, now: float) -> Answer:
    """STOPPING: the guest runs on, unless somebody has wished it down meanwhile, or the host goes down."""
    if life.suspending and life.ending is not None:
        return life.stop_instead(event.why, now)
    return life.enter(Phase.UP, f"not suspended: {event.why}") if life.suspending else IGNORED


def ended_killing(life: Life, event: Gone, now: float) -> Answer:
    """KILLING: nothing runs any more. A loader that we ended ourselves is a failed start."""
    if life.blame is not None and life.want_up:
        return life.failed_start(policy.sentence(life.blame), now)
    return life.enter_cleaning(life.after_wish(now), now)


def ended_held(life: Life, event: Gone, now: float) -> Answer:
    """HELD: a process that was stuck in the kernel has gone after all."""
    if not life.undead:
        return impossible(life, event, now)
    return life.enter_cleaning(policy.HoldFor(f"{life.reason}; it has ended since"), now)


def cleaned(life: Life, event: Cleaned, now: float) -> Answer:
    """CLEANING: what was decided follows; behind a last run nothing may stay."""
    if life.cleaning == CLEAN and not life.starts_now(now):
        return life.clean(CLEAN_ALL)
    life.dirty = life.cleaning == CLEAN
    return _leave_cleaning(life, now)


def clean_failed(life: Life, event: CleanFailed, now: float) -> Answer:
    """CLEANING: something is left. The next start, or the next stop, tries again, unless the kernel holds it."""
    if event.stuck:
        return life.enter_stuck(event.why)
    if life.cleaning == CLEAN and not life.starts_now(now):
        return life.clean(CLEAN_ALL)
    return _leave_cleaning(life, now, event.why)


def _leave_cleaning(life: Life, now: float, left_behind: str = "") -> Answer:
    verdict, life.verdict = life.verdict, None
    assert verdict is not None
    return life.follow(verdict, now, left_behind)


# --- deadlines ------------------------------------------------------------------------------------------------------------------


def tick_preparing(life: Life, event: Tick, now: float) -> Answer:
    """PREPARING, after adoption: the kernel does not let a host command go, and its daemon is not there to give it up."""
    if life.is_early(now):
        return IGNORED
    return life.enter_stuck("a host command of an earlier daemon still works for it: it is stuck in the kernel", undead=True)


def tick_loading(life: Life, event: Tick, now: float) -> Answer:
    """LOADING: the loader is at a prompt, or hangs."""
    if life.is_early(now):
        return IGNORED
    why = f"the loader did not finish within {life.spec.boot.timeout}"
    life.blame = Exit(kind=ExitKind.START_ERROR, text=why)
    return life.enter_killing(why, now)


def tick_stopping(life: Life, event: Tick, now: float) -> Answer:
    """STOPPING: press again, or cut the power."""
    if life.is_early(now):
        return IGNORED
    if life.suspending:
        return life.stop_instead("its state was not on disk in time", now)
    assert life.ladder is not None
    if now >= life.ladder.force_at:
        return life.cut(life.ladder.forced(now), f"{life.reason}; it did not shut down in time")
    life.actions.append(PRESS)
    life.ladder = life.ladder.pressed(now)
    life.deadline = life.ladder.next_at()
    return ACCEPTED


def tick_killing(life: Life, event: Tick, now: float) -> Answer:
    """KILLING: from the power cut to SIGKILL to giving up."""
    if life.is_early(now):
        return IGNORED
    if life.give_up_at is not None and now >= life.give_up_at:
        return life.enter_stuck("its process is stuck in the kernel: SIGKILL did not end it", undead=True)
    return life.kill(now)


def tick_backoff(life: Life, event: Tick, now: float) -> Answer:
    """BACKOFF: the wait is over."""
    return IGNORED if life.is_early(now) else life.enter_waiting(life.reason)


# --- the rest -------------------------------------------------------------------------------------------------------------------


def ignore(life: Life, event: Event, now: float) -> Answer:
    """Late or repeated: nothing to do."""
    return IGNORED


def impossible(life: Life, event: Event, now: float) -> Answer:
    """Our bug."""
    raise ImpossibleEvent(f"{type(event).__name__} in phase {life.phase}")
