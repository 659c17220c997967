"""The life of one guest: a pure, total table of phase x event.

The driver feeds wishes (what people and the daemon want) and facts (what happened) into `Lifecycle.step` and performs the actions it
gets back; nothing here waits, calls or reads a clock. Three things are kept apart: `phase` is where the guest is, `desired` what was
last wished, `verdict` what follows when the run has been cleaned up. A restart is no phase: it is a stop while the wish is still up.

At most one deadline exists, set on entering a phase and cleared by the next. `TABLE` at the end of the file is the whole truth about
what may follow what; the diagram in docs/lifecycle.md is drawn from it.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from bhyved.core import ladder, policy
from bhyved.core.exits import Exit, ExitKind, Stage
from bhyved.core.ladder import Ladder
from bhyved.core.spec import VmSpec
from bhyved.core.status import Book, Desired, Hold, Phase

# --- wishes ---------------------------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Bring the guest up. `auto`: the daemon's own wish (autostart), which a hold stops."""

    by: str
    install: bool = False
    auto: bool = False


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Bring the guest down: `force` cuts the power, `timeout_s` replaces the configured grace."""

    by: str
    force: bool = False
    timeout_s: float | None = None


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """Stop gracefully, then start with the configuration as it is then."""

    by: str


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """The reset button."""

    by: str


class Poweroff(msgspec.Struct, frozen=True, kw_only=True):
    """Cut the power."""

    by: str


class SetHold(msgspec.Struct, frozen=True, kw_only=True):
    """Freeze automation."""

    hold: Hold


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Let automation go on."""

    by: str


class Shutdown(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon stops its guests; the wish for the next start of the daemon stays. `end_at`: the host's deadline, monotonic."""

    by: str
    end_at: float | None = None
    force: bool = False


# --- facts ----------------------------------------------------------------------------------------------------------------------


class Turn(msgspec.Struct, frozen=True):
    """Dependencies are ready and there is a place to start."""


class Prepared(msgspec.Struct, frozen=True):
    """Host resources are there. `loader`: a loader has to run before bhyve."""

    loader: bool


class PrepareFailed(msgspec.Struct, frozen=True):
    """The host refused. `fatal`: trying again cannot help. `stuck`: the kernel does not let something go."""

    why: str
    fatal: bool = False
    stuck: bool = False


class SpawnFailed(msgspec.Struct, frozen=True):
    """Neither loader nor bhyve could be started (descriptors, memory, processes)."""

    why: str


class LoaderEnded(msgspec.Struct, frozen=True):
    """The loader has ended: `end` None means that the kernel is loaded."""

    end: Exit | None


class Up(msgspec.Struct, frozen=True):
    """bhyve has all its resources and the guest runs."""


class Ended(msgspec.Struct, frozen=True):
    """The bhyve of this run has ended."""

    end: Exit
    uptime_s: float


class Interrupted(msgspec.Struct, frozen=True):
    """A start that an earlier daemon began never got as far as a process."""


class Cleaned(msgspec.Struct, frozen=True):
    """What the run left behind is gone."""


class CleanFailed(msgspec.Struct, frozen=True):
    """Something of the run could not be removed. `stuck`: never start over it."""

    why: str
    stuck: bool = False


class Found(msgspec.Struct, frozen=True):
    """A daemon before this one left a run: the only way, besides a start, to get out of DOWN."""

    stage: Stage
    up: bool


class Tick(msgspec.Struct, frozen=True):
    """The deadline has come. A late one, for a phase already left, changes nothing."""


Wish = Start | Stop | Restart | Reset | Poweroff | SetHold | Release | Shutdown
Fact = Turn | Prepared | PrepareFailed | SpawnFailed | LoaderEnded | Up | Ended | Interrupted | Cleaned | CleanFailed | Found | Tick
Event = Wish | Fact
WISHES: tuple[type, ...] = (Start, Stop, Restart, Reset, Poweroff, SetHold, Release, Shutdown)
FACTS: tuple[type, ...] = (
    Turn,
    Prepared,
    PrepareFailed,
    SpawnFailed,
    LoaderEnded,
    Up,
    Ended,
    Interrupted,
    Cleaned,
    CleanFailed,
    Found,
    Tick,
)

# --- answers and actions --------------------------------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True):
    """What the asker is told: `ok` for done and for already so; `code` is API, `text` a sentence to print as it is."""

    ok: bool
    code: str
    text: str = ""


ACCEPTED = Answer(True, "accepted")
ALREADY = Answer(True, "already")
NOT_RUNNING = Answer(False, "not-running", "the guest is not running")
NOT_UP_YET = Answer(False, "not-up-yet", "the guest has not come up yet")
STOPPING = Answer(False, "stopping", "the guest is being stopped")
SHUTTING_DOWN = Answer(False, "shutting-down", "bhyved is stopping its guests")
NOT_HELD = Answer(True, "already", "the guest is not held")
IGNORED = Answer(True, "ignored")


class Action(msgspec.Struct, frozen=True):
    """Something for the driver to do; its end comes back as a fact. `name` is one of the constants below."""

    name: str


ASK_TURN = Action("ask-turn")
DROP_TURN = Action("drop-turn")
PREPARE = Action("prepare")
LOAD = Action("load")
SPAWN = Action("spawn")
PRESS = Action("press")
FORCE_POWEROFF = Action("force-poweroff")
FORCE_RESET = Action("force-reset")
KILL = Action("kill")
CLEAN = Action("clean")  # for an immediate next run: taps and nodes are dealt with by its PREPARE
CLEAN_ALL = Action("clean-all")


class ImpossibleEvent(Exception):  # noqa: N818 - it names the event, and is always our bug
    """A fact that cannot happen in this phase: the driver or the host layer is wrong."""


# --- the machine ----------------------------------------------------------------------------------------------------------------


class Lifecycle:
    """One guest's automaton. `spec` may be replaced at any time; `book`, `hold` and `desired` are the caller's to persist."""

    def __init__(self, spec: VmSpec, *, rng: policy.Rng, desired: Desired, hold: Hold | None = None, book: Book = Book()) -> None:  # noqa: B008 - frozen
        self.spec = spec
        self.rng = rng
        self.phase = Phase.DOWN
        self.desired = desired
        self.hold = hold
        self.book = book
        self.closing = False
        self.verdict: policy.Verdict | None = None
        self.deadline: float | None = None
        self.ladder: Ladder | None = None
        self.reason = ""
        self.by = ""
        self.install = False  # install media stay until the guest has ended once
        self.first_run = True  # of this wish: a VNC `wait` applies
        self.dirty = False  # the host may still hold something of a run
        self.stuck = False
        self.forced = False  # the power of this run was cut
        self.resetting = False  # an operator pressed reset: the reboot that follows counts nowhere
        self.decision = ""  # what follows the last run, in words
        self.blame: Exit | None = None  # why we ended the run ourselves, when that was no stop
        self._actions: list[Action] = []

    @property
    def want_up(self) -> bool:
        """Whether the guest should run now: the wish, unless the daemon is stopping its guests."""
        return self.desired is Desired.UP and not self.closing

    def step(self, event: Event, now: float) -> tuple[Answer, tuple[Action, ...]]:
        """Take one event. A wish is answered; a fact's answer means nothing. Raises ImpossibleEvent and then has changed nothing."""
        edge = TABLE[self.phase][type(event)]
        self._actions = []
        answer = edge.handler(self, event, now)
        assert self.phase in edge.to, f"{type(event).__name__} led to {self.phase}, which the table does not allow"
        return answer, tuple(self._actions)

    # -- wishes --

    def on_start(self, event: Start, now: float) -> Answer:
        """DOWN, BACKOFF, HELD: begin now, with a clean book if a person asks."""
        if self.closing:
            return SHUTTING_DOWN
        if self.stuck:
            return Answer(False, "stuck", self.reason)
        self.desired = Desired.UP
        if event.auto and self.hold is not None:
            return self._enter_held(_held_text(self.hold))
        if not event.auto:
            self.book = Book()
        self.by, self.install, self.first_run = event.by, event.install, True
        return self._enter_waiting(f"asked for by {event.by}")

    def on_start_again(self, event: Start, now: float) -> Answer:
        """WAITING to UP, STOPPING, KILLING, CLEANING: the last wish wins; a guest on its way down comes up again after it."""
        if self.closing:
            return SHUTTING_DOWN
        answer = ALREADY if self.want_up and self.phase not in (Phase.STOPPING, Phase.KILLING, Phase.CLEANING) else ACCEPTED
        self.desired = Desired.UP
        if self.phase in (Phase.STOPPING, Phase.KILLING, Phase.CLEANING):
            self.by, self.install, self.first_run = event.by, event.install, True
            self.verdict = policy.StartAt(now, f"asked for by {event.by}")
        if not event.auto:
            self.book = Book()
        return answer

    def on_stop_idle(self, event: Stop | Shutdown | Poweroff, now: float) -> Answer:
        """DOWN."""
        already = self.desired is Desired.DOWN
        self._wish_down(event)
        return ALREADY if already or isinstance(event, Shutdown) else ACCEPTED

    def on_stop_pending(self, event: Stop | Shutdown | Poweroff, now: float) -> Answer:
        """WAITING, BACKOFF, HELD: nothing runs."""
        if self.stuck:
            self._wish_down(event)
            return ACCEPTED
        if self.phase is Phase.WAITING:
            self._actions.append(DROP_TURN)
        self._wish_down(event)
        reason = _down_text(event)
        if self.dirty:
            return self._enter_cleaning(policy.Stay(reason), now)
        return self._enter(Phase.DOWN, reason)

    def on_stop_preparing(self, event: Stop | Shutdown | Poweroff | Restart, now: float) -> Answer:
        """PREPARING: the host command under way ends first; then everything is taken back."""
        if isinstance(event, Restart):
            return self.on_start_again(Start(by=event.by), now)
        self._wish_down(event)
        self.reason = f"{_down_text(event)}; a host command is still under way"
        return ACCEPTED

    def on_stop_early(self, event: Stop | Shutdown | Poweroff | Restart, now: float) -> Answer:
        """LOADING, STARTING: no vCPU has run, so there is nothing to save, and a button would not be heard (contract 1.9)."""
        if isinstance(event, Restart):
            self.by, self.verdict = event.by, None
        else:
            self._wish_down(event)
        return self._enter_killing(ladder.kill_now(now), KILL, f"{_down_text(event)} before the guest ran")

    def on_stop_up(self, event: Stop | Shutdown | Restart, now: float) -> Answer:
        """UP: climb the ladder from its first rung."""
        if isinstance(event, Restart):
            if self.closing:
                return SHUTTING_DOWN
            self.desired, self.by, self.first_run = Desired.UP, event.by, True
            self.book = Book()
            return self._enter_stopping(ladder.climb(self.spec.stop, now), f"restart asked for by {event.by}", now)
        self._wish_down(event)
        end_at = event.end_at if isinstance(event, Shutdown) else None
        if event.force:
            return self._cut(ladder.cut_power(now, end_at=end_at), _down_text(event))
        timeout_s = event.timeout_s if isinstance(event, Stop) else None
        return self._enter_stopping(ladder.climb(self.spec.stop, now, timeout_s=timeout_s, end_at=end_at), _down_text(event), now)

    def on_stop_stopping(self, event: Stop | Shutdown | Restart, now: float) -> Answer:
        """STOPPING: another wish for the end, or an earlier end."""
        if isinstance(event, Restart):
            return self.on_start_again(Start(by=event.by), now)
        already = self.desired is Desired.DOWN or self.closing
        self._wish_down(event)
        end_at = event.end_at if isinstance(event, Shutdown) else None
        if event.force:
            return self._cut(ladder.cut_power(now, end_at=end_at), _down_text(event))
        timeout_s = event.timeout_s if isinstance(event, Stop) else None
        fresh = ladder.climb(self.spec.stop, now, timeout_s=timeout_s, end_at=end_at)
        assert self.ladder is not None
        if (timeout_s is not None or end_at is not None) and fresh.force_at < self.ladder.force_at:
            return self._enter_stopping(fresh, _down_text(event), now)
        return ALREADY if already else ACCEPTED

    def on_stop_ending(self, event: Stop | Shutdown | Poweroff | Restart, now: float) -> Answer:
        """KILLING, CLEANING: it ends anyhow; what follows may change."""
        if isinstance(event, Restart):
            return self.on_start_again(Start(by=event.by), now)
        already = not self.want_up
        self._wish_down(event)
        self.verdict = policy.Stay(_down_text(event))
        return ALREADY if already else ACCEPTED

    def on_poweroff(self, event: Poweroff, now: float) -> Answer:
        """UP, STOPPING."""
        self._wish_down(event)
        return self._cut(ladder.cut_power(now), f"power cut by {event.by}")

    def on_restart_idle(self, event: Restart, now: float) -> Answer:
        """DOWN, BACKOFF, HELD."""
        return self.on_start(Start(by=event.by), now)

    def on_restart_waiting(self, event: Restart, now: float) -> Answer:
        """WAITING: it is about to start anyhow."""
        return self.on_start_again(Start(by=event.by), now)

    def on_reset(self, event: Reset, now: float) -> Answer:
        """UP: the guest's next reboot is ours and counts nowhere."""
        self.resetting = True
        self._actions.append(FORCE_RESET)
        return ACCEPTED

    def on_hold(self, event: SetHold, now: float) -> Answer:
        """Everywhere: remember. Where automation was about to act, it stops here."""
        self.hold = event.hold
        if self.phase is Phase.BACKOFF or (self.phase is Phase.WAITING and self.want_up):
            if self.phase is Phase.WAITING:
                self._actions.append(DROP_TURN)
            return self._enter_held(_held_text(event.hold))
        return ACCEPTED

    def on_release(self, event: Release, now: float) -> Answer:
        """Everywhere but HELD: forget the hold."""
        answer = NOT_HELD if self.hold is None else ACCEPTED
        self.hold = None
        return answer

    def on_release_held(self, event: Release, now: float) -> Answer:
        """HELD: go on as the wish says."""
        self.hold = None
        if self.stuck:
            return Answer(False, "stuck", self.reason)
        if not self.want_up:
            return self._enter(Phase.DOWN, f"released by {event.by}")
        return self.on_start(Start(by=event.by), now)

    def refuse_not_running(self, event: Event, now: float) -> Answer:
        return NOT_RUNNING

    def refuse_not_up(self, event: Event, now: float) -> Answer:
        return NOT_UP_YET

    def refuse_stopping(self, event: Event, now: float) -> Answer:
        return STOPPING

    # -- facts --

    def on_found(self, event: Found, now: float) -> Answer:
        """DOWN, once, when the daemon starts: an earlier daemon's run goes on as it is."""
        self.dirty, self.first_run = True, False
        if event.stage is Stage.PREPARING:
            return self._enter(Phase.PREPARING, "a start that an earlier daemon began")
        if not self.want_up:
            return self._found_unwanted(event, now)
        if event.stage is Stage.LOADING:
            self._enter(Phase.LOADING, "taken up while loading")
            return self._set_deadline(now + self.spec.boot.timeout)
        return self._enter(Phase.UP if event.up else Phase.STARTING, "taken up from an earlier daemon")

    def on_turn(self, event: Turn, now: float) -> Answer:
        """WAITING."""
        self.dirty, self.forced, self.resetting, self.blame, self.verdict = True, False, False, None, None
        self._actions.append(PREPARE)
        return self._enter(Phase.PREPARING, self.reason)

    def on_prepared(self, event: Prepared, now: float) -> Answer:
        """PREPARING."""
        if not self.want_up:
            return self._enter_cleaning(policy.Stay(self.reason), now)
        if not event.loader:
            self._actions.append(SPAWN)
            return self._enter(Phase.STARTING, self.reason)
        self._actions.append(LOAD)
        self._enter(Phase.LOADING, self.reason)
        return self._set_deadline(now + self.spec.boot.timeout)

    def on_prepare_failed(self, event: PrepareFailed, now: float) -> Answer:
        """PREPARING."""
        if event.stuck:
            self.stuck = True
            return self._enter_held(event.why)
        if event.fatal:
            return self._enter_cleaning(policy.HoldFor(event.why), now)
        return self._failed_start(event.why, now)

    def on_interrupted(self, event: Interrupted, now: float) -> Answer:
        """PREPARING, LOADING, STARTING, KILLING after adoption: nothing ran, so nothing is counted."""
        return self._enter_cleaning(self._after_wish(now, "an interrupted start"), now)

    def on_spawn_failed(self, event: SpawnFailed, now: float) -> Answer:
        """LOADING, STARTING, KILLING."""
        return self._failed_start(event.why, now)

    def on_loader_ended(self, event: LoaderEnded, now: float) -> Answer:
        """LOADING."""
        if event.end is not None:
            return self._failed_start(policy.sentence(event.end), now)
        self._actions.append(SPAWN)
        return self._enter(Phase.STARTING, self.reason)

    def on_loader_ended_killing(self, event: LoaderEnded, now: float) -> Answer:
        """KILLING, HELD (stuck): the loader is gone."""
        if self.blame is not None and self.want_up:
            return self._failed_start(policy.sentence(self.blame), now)
        self.stuck = False
        return self._enter_cleaning(self._after_wish(now, self.reason), now)

    def on_up(self, event: Up, now: float) -> Answer:
        """STARTING."""
        self.book = msgspec.structs.replace(self.book, failures=0)
        return self._enter(Phase.UP, self.reason)

    def on_ended(self, event: Ended, now: float) -> Answer:
        """STARTING, UP: nobody asked for it."""
        end = event.end
        if self.resetting and end.kind is ExitKind.REBOOT:
            return self._enter_cleaning(policy.StartAt(now, "reset by an operator"), now)
        self.install = self.install and end.kind is ExitKind.START_ERROR  # install media go away after the first end
        verdict, self.book = policy.judge(self.spec.restart, end, self.book, uptime_s=event.uptime_s, now=now, rng=self.rng)
        return self._enter_cleaning(verdict, now)

    def on_ended_asked(self, event: Ended, now: float) -> Answer:
        """STOPPING, KILLING: however it ended, it was asked to; the wish decides what follows."""
        if self.blame is not None and self.want_up:
            return self._failed_start(policy.sentence(self.blame), now)
        self.install = False
        return self._enter_cleaning(self._after_wish(now, self.reason), now)

    def on_ended_stuck(self, event: Ended, now: float) -> Answer:
        """HELD: a process that was stuck in the kernel has gone after all."""
        self.stuck = False
        return self._enter_cleaning(policy.HoldFor(f"{self.reason}; it has ended since"), now)

    def on_tick_loading(self, event: Tick, now: float) -> Answer:
        """LOADING: a prompt waits for ever (contract 11.1, 12)."""
        if self._early(now):
            return IGNORED
        why = f"the loader did not finish within {self.spec.boot.timeout}"
        self.blame = Exit(kind=ExitKind.START_ERROR, text=why)
        return self._enter_killing(ladder.kill_now(now), KILL, why)

    def on_tick_stopping(self, event: Tick, now: float) -> Answer:
        """STOPPING: press again, or cut the power."""
        assert self.ladder is not None
        if self._early(now):
            return IGNORED
        if now >= self.ladder.force_at:
            return self._cut(self.ladder, f"{self.reason}; it did not shut down in time")
        if self.ladder.due(now):
            self._actions.append(PRESS)
            self.ladder = self.ladder.pressed(now)
        return self._set_deadline(self.ladder.next_at())

    def on_tick_killing(self, event: Tick, now: float) -> Answer:
        """KILLING: from the power cut to SIGKILL to giving up."""
        assert self.ladder is not None
        if self._early(now):
            return IGNORED
        if now >= self.ladder.give_up_at:
            self.stuck = True
            return self._enter_held("its process is stuck in the kernel: SIGKILL did not end it")
        self._actions.append(KILL)
        return self._set_deadline(self.ladder.give_up_at)

    def on_tick_backoff(self, event: Tick, now: float) -> Answer:
        """BACKOFF: the wait is over."""
        if self._early(now):
            return IGNORED
        return self._enter_waiting(self.reason)

    def on_cleaned(self, event: Cleaned, now: float) -> Answer:
        """CLEANING: the verdict, unless the wish has changed since."""
        verdict = self.verdict
        self.verdict = None
        assert verdict is not None
        final = not isinstance(verdict, policy.StartAt) or verdict.at > now or not self.want_up
        if self.dirty and final and CLEAN_ALL not in self._performed:
            return self._enter_cleaning(verdict, now, everything=True)
        if self._performed:
            self.dirty = CLEAN_ALL not in self._performed
        if not self.want_up:
            reason = verdict.reason
            if isinstance(verdict, policy.StartAt):
                reason = self.reason
            return self._enter(Phase.DOWN, reason)
        return self._follow(verdict, now)

    def on_clean_failed(self, event: CleanFailed, now: float) -> Answer:
        """CLEANING: something is left; a person must look if the kernel holds it, else the next start tries again."""
        if event.stuck:
            self.stuck = True
            return self._enter_held(event.why)
        self._performed = (CLEAN_ALL,)
        return self.on_cleaned(Cleaned(), now)

    def ignore(self, event: Event, now: float) -> Answer:
        """Late or repeated: nothing to do."""
        return IGNORED

    def impossible(self, event: Event, now: float) -> Answer:
        raise ImpossibleEvent(f"{type(event).__name__} in phase {self.phase}")

    # -- moves --

    _performed: tuple[Action, ...] = ()

    def _enter(self, phase: Phase, reason: str) -> Answer:
        self.phase, self.reason, self.deadline = phase, reason, None
        if phase not in (Phase.STOPPING, Phase.KILLING):
            self.ladder = None
        return ACCEPTED

    def _set_deadline(self, at: float) -> Answer:
        self.deadline = at
        return ACCEPTED

    def _early(self, now: float) -> bool:
        return self.deadline is None or now < self.deadline

    def _enter_waiting(self, reason: str) -> Answer:
        self._actions.append(ASK_TURN)
        return self._enter(Phase.WAITING, reason)

    def _enter_held(self, reason: str) -> Answer:
        return self._enter(Phase.HELD, reason)

    def _enter_stopping(self, steps: Ladder, reason: str, now: float) -> Answer:
        self._enter(Phase.STOPPING, reason)
        if steps.due(now):
            self._actions.append(PRESS)
            steps = steps.pressed(now)
        self.ladder = steps
        return self._set_deadline(steps.next_at())

    def _cut(self, steps: Ladder, reason: str) -> Answer:
        self.forced = True
        return self._enter_killing(steps, FORCE_POWEROFF, reason)

    def _enter_killing(self, steps: Ladder, first: Action, reason: str) -> Answer:
        self._actions.append(first)
        self._enter(Phase.KILLING, reason)
        self.ladder = steps
        return self._set_deadline(steps.give_up_at if first == KILL else steps.kill_at)

    def _enter_cleaning(self, verdict: policy.Verdict, now: float, *, everything: bool = False) -> Answer:
        at_once = isinstance(verdict, policy.StartAt) and verdict.at <= now and self.want_up and self.hold is None
        action = CLEAN if at_once and not everything else CLEAN_ALL
        self._performed = (action,)
        self._actions.append(action)
        self._enter(Phase.CLEANING, verdict.reason)
        self.verdict = verdict
        return ACCEPTED

    def _follow(self, verdict: policy.Verdict, now: float) -> Answer:
        match verdict:
            case policy.Stay():
                # The guest, or policy, decided: a later daemon on this boot must not bring it up again.
                self.desired = Desired.DOWN
                return self._enter(Phase.DOWN, verdict.reason)
            case policy.HoldFor():
                return self._enter_held(verdict.reason)
            case policy.StartAt():
                return self._start_at(verdict, now)

    def _start_at(self, verdict: policy.StartAt, now: float) -> Answer:
        if self.hold is not None and verdict.cause:
            return self._enter_held(f"{verdict.reason}; {_held_text(self.hold)}")
        if verdict.cause:
            self.by, self.first_run = f"policy ({verdict.cause.replace('_', ' ')})", False
        if verdict.at <= now:
            return self._enter_waiting(verdict.reason)
        self._enter(Phase.BACKOFF, verdict.reason)
        return self._set_deadline(verdict.at)

    def _failed_start(self, why: str, now: float) -> Answer:
        if not self.want_up:
            return self._enter_cleaning(policy.Stay(self.reason), now)
        verdict, self.book = policy.judge_failed_start(self.spec.restart, why, self.book, now=now, rng=self.rng)
        return self._enter_cleaning(verdict, now)

    def _after_wish(self, now: float, reason: str) -> policy.Verdict:
        """What follows an end that somebody asked for."""
        return policy.StartAt(now, reason) if self.want_up else policy.Stay(reason)

    def _found_unwanted(self, event: Found, now: float) -> Answer:
        """The wish is down: an earlier daemon was stopping it."""
        if event.stage is Stage.LOADING or not event.up:
            self.phase = Phase.LOADING if event.stage is Stage.LOADING else Phase.STARTING
            return self._enter_killing(ladder.kill_now(now), KILL, "stopped before the daemon was restarted")
        self.phase = Phase.UP
        return self._enter_stopping(ladder.climb(self.spec.stop, now), "stopped before the daemon was restarted", now)

    def _wish_down(self, event: Stop | Shutdown | Poweroff) -> None:
        if isinstance(event, Shutdown):
            self.closing = True
        else:
            self.desired = Desired.DOWN


def _down_text(event: Event) -> str:
    match event:
        case Shutdown():
            return "stopped with the daemon"
        case Restart(by=by):
            return f"restart asked for by {by}"
        case Stop(by=by):
            return f"stopped by {by}"
        case Poweroff(by=by):
            return f"power cut by {by}"
        case _:
            raise AssertionError(event)


def _held_text(hold: Hold) -> str:
    return f"held by {hold.by}: {hold.reason}" if hold.reason else f"held by {hold.by}"


# --- the table ------------------------------------------------------------------------------------------------------------------

Handler = Callable[[Lifecycle, Any, float], Answer]


class Edge:
    """What an event does in a phase, and the phases it may lead to."""

    __slots__ = ("handler", "to")

    def __init__(self, handler: Handler, *to: Phase) -> None:
        self.handler = handler
        self.to = frozenset(to)


L, P = Lifecycle, Phase


def _row(phase: Phase, **edges: Edge) -> dict[type, Edge]:
    """The row of a phase: what is not written is impossible."""
    names = {event.__name__: event for event in (*WISHES, *FACTS)}
    row = {event: Edge(L.impossible, phase) for event in FACTS}
    row |= {event: Edge(L.ignore, phase) for event in (Turn, Up, Tick)}
    row |= {SetHold: Edge(L.on_hold, phase), Release: Edge(L.on_release, phase)}
    row |= {names[name]: edge for name, edge in edges.items()}
    return row


TABLE: dict[Phase, dict[type, Edge]] = {
    P.DOWN: _row(
        P.DOWN,
        Start=Edge(L.on_start, P.WAITING, P.HELD, P.DOWN),
        Stop=Edge(L.on_stop_idle, P.DOWN),
        Restart=Edge(L.on_restart_idle, P.WAITING, P.DOWN),
        Reset=Edge(L.refuse_not_running, P.DOWN),
        Poweroff=Edge(L.on_stop_idle, P.DOWN),
        Shutdown=Edge(L.on_stop_idle, P.DOWN),
        Found=Edge(L.on_found, P.PREPARING, P.LOADING, P.STARTING, P.UP, P.STOPPING, P.KILLING),
    ),
    P.WAITING: _row(
        P.WAITING,
        Start=Edge(L.on_start_again, P.WAITING),
        Stop=Edge(L.on_stop_pending, P.DOWN, P.CLEANING),
        Restart=Edge(L.on_restart_waiting, P.WAITING),
        Reset=Edge(L.refuse_not_up, P.WAITING),
        Poweroff=Edge(L.on_stop_pending, P.DOWN, P.CLEANING),
        SetHold=Edge(L.on_hold, P.HELD),
        Shutdown=Edge(L.on_stop_pending, P.DOWN, P.CLEANING),
        Turn=Edge(L.on_turn, P.PREPARING),
    ),
    P.PREPARING: _row(
        P.PREPARING,
        Start=Edge(L.on_start_again, P.PREPARING),
        Stop=Edge(L.on_stop_preparing, P.PREPARING),
        Restart=Edge(L.on_stop_preparing, P.PREPARING),
        Reset=Edge(L.refuse_not_up, P.PREPARING),
        Poweroff=Edge(L.on_stop_preparing, P.PREPARING),
        Shutdown=Edge(L.on_stop_preparing, P.PREPARING),
        Prepared=Edge(L.on_prepared, P.LOADING, P.STARTING, P.CLEANING),
        PrepareFailed=Edge(L.on_prepare_failed, P.HELD, P.CLEANING),
        Interrupted=Edge(L.on_interrupted, P.CLEANING),
    ),
    P.LOADING: _row(
        P.LOADING,
        Start=Edge(L.on_start_again, P.LOADING),
        Stop=Edge(L.on_stop_early, P.KILLING),
        Restart=Edge(L.on_stop_early, P.KILLING),
        Reset=Edge(L.refuse_not_up, P.LOADING),
        Poweroff=Edge(L.on_stop_early, P.KILLING),
        Shutdown=Edge(L.on_stop_early, P.KILLING),
        SpawnFailed=Edge(L.on_spawn_failed, P.CLEANING),
        LoaderEnded=Edge(L.on_loader_ended, P.STARTING, P.CLEANING),
        Interrupted=Edge(L.on_interrupted, P.CLEANING),
        Tick=Edge(L.on_tick_loading, P.LOADING, P.KILLING),
    ),
    P.STARTING: _row(
        P.STARTING,
        Start=Edge(L.on_start_again, P.STARTING),
        Stop=Edge(L.on_stop_early, P.KILLING),
        Restart=Edge(L.on_stop_early, P.KILLING),
        Reset=Edge(L.refuse_not_up, P.STARTING),
        Poweroff=Edge(L.on_stop_early, P.KILLING),
        Shutdown=Edge(L.on_stop_early, P.KILLING),
        SpawnFailed=Edge(L.on_spawn_failed, P.CLEANING),
        Up=Edge(L.on_up, P.UP),
        Ended=Edge(L.on_ended, P.CLEANING),
        Interrupted=Edge(L.on_interrupted, P.CLEANING),
    ),
    P.UP: _row(
        P.UP,
        Start=Edge(L.on_start_again, P.UP),
        Stop=Edge(L.on_stop_up, P.STOPPING, P.KILLING),
        Restart=Edge(L.on_stop_up, P.STOPPING, P.UP),
        Reset=Edge(L.on_reset, P.UP),
        Poweroff=Edge(L.on_poweroff, P.KILLING),
        Shutdown=Edge(L.on_stop_up, P.STOPPING, P.KILLING),
        Ended=Edge(L.on_ended, P.CLEANING),
    ),
    P.STOPPING: _row(
        P.STOPPING,
        Start=Edge(L.on_start_again, P.STOPPING),
        Stop=Edge(L.on_stop_stopping, P.STOPPING, P.KILLING),
        Restart=Edge(L.on_stop_stopping, P.STOPPING),
        Reset=Edge(L.refuse_stopping, P.STOPPING),
        Poweroff=Edge(L.on_poweroff, P.KILLING),
        Shutdown=Edge(L.on_stop_stopping, P.STOPPING, P.KILLING),
        Ended=Edge(L.on_ended_asked, P.CLEANING),
        Tick=Edge(L.on_tick_stopping, P.STOPPING, P.KILLING),
    ),
    P.KILLING: _row(
        P.KILLING,
        Start=Edge(L.on_start_again, P.KILLING),
        Stop=Edge(L.on_stop_ending, P.KILLING),
        Restart=Edge(L.on_stop_ending, P.KILLING),
        Reset=Edge(L.refuse_stopping, P.KILLING),
        Poweroff=Edge(L.on_stop_ending, P.KILLING),
        Shutdown=Edge(L.on_stop_ending, P.KILLING),
        SpawnFailed=Edge(L.on_spawn_failed, P.CLEANING),
        LoaderEnded=Edge(L.on_loader_ended_killing, P.CLEANING),
        Ended=Edge(L.on_ended_asked, P.CLEANING),
        Interrupted=Edge(L.on_interrupted, P.CLEANING),
        Tick=Edge(L.on_tick_killing, P.KILLING, P.HELD),
    ),
    P.CLEANING: _row(
        P.CLEANING,
        Start=Edge(L.on_start_again, P.CLEANING),
        Stop=Edge(L.on_stop_ending, P.CLEANING),
        Restart=Edge(L.on_stop_ending, P.CLEANING),
        Reset=Edge(L.refuse_not_running, P.CLEANING),
        Poweroff=Edge(L.on_stop_ending, P.CLEANING),
        Shutdown=Edge(L.on_stop_ending, P.CLEANING),
        Cleaned=Edge(L.on_cleaned, P.CLEANING, P.DOWN, P.WAITING, P.BACKOFF, P.HELD),
        CleanFailed=Edge(L.on_clean_failed, P.CLEANING, P.DOWN, P.WAITING, P.BACKOFF, P.HELD),
    ),
    P.BACKOFF: _row(
        P.BACKOFF,
        Start=Edge(L.on_start, P.WAITING),
        Stop=Edge(L.on_stop_pending, P.DOWN, P.CLEANING),
        Restart=Edge(L.on_restart_idle, P.WAITING),
        Reset=Edge(L.refuse_not_running, P.BACKOFF),
        Poweroff=Edge(L.on_stop_pending, P.DOWN, P.CLEANING),
        SetHold=Edge(L.on_hold, P.HELD),
        Shutdown=Edge(L.on_stop_pending, P.DOWN, P.CLEANING),
        Tick=Edge(L.on_tick_backoff, P.WAITING, P.BACKOFF),
    ),
    P.HELD: _row(
        P.HELD,
        Start=Edge(L.on_start, P.WAITING, P.HELD),
        Stop=Edge(L.on_stop_pending, P.DOWN, P.CLEANING, P.HELD),
        Restart=Edge(L.on_restart_idle, P.WAITING, P.HELD),
        Reset=Edge(L.refuse_not_running, P.HELD),
        Poweroff=Edge(L.on_stop_pending, P.DOWN, P.CLEANING, P.HELD),
        Release=Edge(L.on_release_held, P.WAITING, P.DOWN, P.HELD),
        Shutdown=Edge(L.on_stop_pending, P.DOWN, P.CLEANING, P.HELD),
        LoaderEnded=Edge(L.on_loader_ended_killing, P.CLEANING),
        Ended=Edge(L.on_ended_stuck, P.CLEANING),
    ),
}
