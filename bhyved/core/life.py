"""What is known of one guest, and the moves from one phase to the next.

The handlers of `core.wishes` and `core.facts` decide which move to make; here is what every move takes with it: the deadline, the
actions for the driver, the words for people. No move asks how a phase was reached.
"""

from bhyved.core import ladder, policy
from bhyved.core.exits import Exit
from bhyved.core.happenings import (
    ACCEPTED,
    ASK_TURN,
    CLEAN,
    CLEAN_ALL,
    FORCE_POWEROFF,
    KILL,
    PRESS,
    SUSPEND,
    Action,
    Answer,
    Poweroff,
    Restart,
    Shutdown,
    Start,
    Stop,
)
from bhyved.core.ladder import Ladder
from bhyved.core.spec import VmSpec
from bhyved.core.status import Book, Desired, Hold, Phase

FOUND_PREPARING_S = 60.0  # more than any host command gets: freeing a large guest's memory takes the longest
CLOSING_TEXT = "bhyved is stopping its guests"


class Life:
    """One guest's state. `spec` and `closing` may be set at any time; `book`, `hold` and `desired` are the caller's to persist.

    `held` is why policy has held the guest before this daemon: its own automatic start then leads to `held` again.
    """

    def __init__(
        self,
        spec: VmSpec,
        *,
        rng: policy.Rng,
        desired: Desired,
        hold: Hold | None = None,
        book: Book = Book(),  # noqa: B008 - frozen
        held: str = "",
    ) -> None:
        self.spec = spec
        self.rng = rng
        self.phase = Phase.DOWN
        self.reason = ""
        self.deadline: float | None = None
        self.actions: list[Action] = []  # of the present step

        self.desired = desired
        self.hold = hold
        self.held = held
        self.closing = False  # the daemon is stopping its guests: the wish is kept for the next one
        self.by = ""  # who or what wished the present run, or the next one
        self.auto = False  # that was automation, which a hold stops
        self.install = False  # install media are attached, until the guest has ended once
        self.cold = False  # a saved state is to be thrown away
        self.first_run = True  # of this wish: a VNC `wait` applies
        self.again = False  # this wish has had a turn: what it was given of the host's memory stays its own

        self.book = book
        self.verdict: policy.Verdict | None = None  # what follows; while preparing: the start is to be taken back
        self.decision = ""  # the verdict in words, for the record of the run

        self.ladder: Ladder | None = None
        self.give_up_at: float | None = None  # set when the first SIGKILL has been sent
        self.suspending = False  # STOPPING, and not by its button: bhyve writes the guest's state to disk
        self.suspending_for = ""
        self.ending: Shutdown | None = None  # of the host, for which the guest is being suspended
        self.forced = False  # the power of this run was cut
        self.blame: Exit | None = None  # why we ended the run ourselves, when nobody had asked
        self.blame_until = 0.0  # a run that lives longer has not ended for it
        self.reset_by = ""
        self.reset_until = 0.0  # a reboot up to here is the operator's reset

        self.dirty = False  # the host may still hold something of a run
        self.cleaning = CLEAN_ALL  # which of the two is under way
        self.stuck = False  # the kernel does not let something go
        self.undead = False  # and that is the process itself

    @property
    def want_up(self) -> bool:
        """Whether the guest should run now: the wish, unless the daemon is stopping its guests."""
        return self.desired is Desired.UP and not self.closing

    @property
    def is_stopping(self) -> bool:
        """Whether somebody has asked for the end of the run: a suspend is no such wish until its state is on disk."""
        return self.phase is Phase.KILLING or (self.phase is Phase.STOPPING and not self.suspending)

    def is_early(self, now: float) -> bool:
        """Whether a tick is one of a deadline that has been put off or cleared."""
        return self.deadline is None or now < self.deadline

    # -- wishes --

    def wish_up(self, event: Start | Restart) -> None:
        """The guest is to run, as a person or the daemon asked; a person's wish clears the history."""
        asked_for = isinstance(event, Start) and event.install
        self.install = asked_for or (self.install and self.desired is Desired.UP)
        self.cold = (isinstance(event, Start) and event.cold) or (self.cold and self.desired is Desired.UP)
        self.desired, self.by, self.first_run, self.again, self.held = Desired.UP, event.by, True, False, ""
        self.auto = isinstance(event, Start) and event.auto
        if not self.auto:
            self.book, self.blame = Book(), None

    def wish_down(self, event: Stop | Shutdown | Poweroff) -> None:
        """The guest is not to run; a daemon that stops keeps the wish for the next one."""
        if isinstance(event, Shutdown):
            self.closing = True
        else:
            self.desired = Desired.DOWN

    # -- moves --

    def enter(self, phase: Phase, reason: str) -> Answer:
        """Into `phase`, which waits for no time unless the caller says so."""
        self.phase, self.reason, self.deadline, self.ladder, self.give_up_at = phase, reason, None, None, None
        self.suspending, self.ending = False, None
        return ACCEPTED

    def enter_waiting(self, reason: str) -> Answer:
        self.actions.append(ASK_TURN)
        return self.enter(Phase.WAITING, reason)

    def enter_found_preparing(self, reason: str, now: float) -> Answer:
        """What an earlier daemon began to do for a start has the time limit that this daemon did not set."""
        self.enter(Phase.PREPARING, reason)
        self.deadline = now + FOUND_PREPARING_S
        return ACCEPTED

    def enter_loading(self, reason: str, now: float) -> Answer:
        """A loader at a prompt waits for ever (contract 11.1, 12): it has a time limit."""
        self.enter(Phase.LOADING, reason)
        self.deadline = now + self.spec.boot.timeout
        return ACCEPTED

    def enter_stopping(self, steps: Ladder, reason: str, now: float) -> Answer:
        """Press now, if a press is due; without any grace the power is cut at once."""
        if steps.force_at <= now:
            return self.cut(steps, reason)
        if steps.due(now):
            self.actions.append(PRESS)
            steps = steps.pressed(now)
        self.enter(Phase.STOPPING, reason)
        self.ladder, self.deadline, self.install = steps, steps.next_at(), False
        return ACCEPTED

    def enter_suspending(self, by: str, reason: str) -> Answer:
        """No time limit: writing the memory takes as long as the disk needs, and the host gives it up when it does not get on."""
        self.actions.append(SUSPEND)
        self.enter(Phase.STOPPING, reason)
        self.suspending, self.suspending_for = True, by
        return ACCEPTED

    def suspend_within(self, event: Shutdown, now: float) -> Answer:
        """The host goes down: a suspend under way has its share of the time."""
        assert event.end_at is not None
        self.ending, self.deadline = event, now + max(0.0, event.end_at - now) * ladder.SUSPEND_SHARE
        return ACCEPTED

    def stop_instead(self, why: str, now: float) -> Answer:
        """Nothing came of that suspend: what is left of the time is for a stop. Should its state be written after all, that counts."""
        assert self.ending is not None
        event = self.ending
        return self.enter_stopping(ladder.climb(self.spec.stop, now, end_at=event.end_at), f"{event.why}; not suspended: {why}", now)

    def cut(self, steps: Ladder, reason: str) -> Answer:
        """Cut the power of a guest that has run."""
        self.actions.append(FORCE_POWEROFF)
        self.enter(Phase.KILLING, reason)
        self.ladder, self.deadline, self.forced, self.install = steps, steps.kill_at, True, False
        return ACCEPTED

    def enter_killing(self, reason: str, now: float, *, end_at: float | None = None) -> Answer:
        """SIGKILL at once: for a loader, and for a bhyve whose guest has not run yet."""
        self.enter(Phase.KILLING, reason)
        self.ladder = ladder.kill_now(now, end_at=end_at)
        return self.kill(now)

    def kill(self, now: float) -> Answer:
        """SIGKILL, again every second: the process may not have had its pid written down when the first one was sent."""
        assert self.ladder is not None
        if self.give_up_at is None:
            self.give_up_at = now + max(ladder.KILL_LEAST_S, self.ladder.give_up_at - self.ladder.kill_at)
        self.actions.append(KILL)
        self.deadline = min(now + ladder.KILL_AGAIN_S, self.give_up_at)
        return ACCEPTED

    def enter_stuck(self, why: str, *, undead: bool = False) -> Answer:
        """Held, and never started again over what the kernel does not let go."""
        self.stuck, self.undead = True, undead
        return self.enter(Phase.HELD, why)

    def enter_cleaning(self, verdict: policy.Verdict, now: float) -> Answer:
        """Clean up behind a run, and remember what follows."""
        self.decide(verdict, now)
        return self.clean(CLEAN if self.starts_now(now) else CLEAN_ALL)

    def clean(self, how: Action) -> Answer:
        assert self.verdict is not None
        self.actions.append(how)
        self.cleaning, self.stuck, self.undead = how, False, False
        return self.enter(Phase.CLEANING, self.verdict.reason)

    # -- what follows --

    def decide(self, verdict: policy.Verdict, now: float) -> None:
        """Set the verdict, as far as the wish allows it."""
        if isinstance(verdict, policy.StartAt) and not self.want_up:
            verdict = policy.Stay(f"{verdict.reason}; {CLOSING_TEXT}" if self.closing else verdict.reason)
        if isinstance(verdict, policy.HoldFor) and self.desired is Desired.DOWN:
            verdict = policy.Stay(verdict.reason)
        self.verdict = verdict
        if isinstance(verdict, policy.StartAt) and self._is_frozen(verdict):
            self.decision = policy.decision(policy.HoldFor(self.frozen_text(verdict.reason)), self.spec.restart, self.book, now)
        else:
            self.decision = policy.decision(verdict, self.spec.restart, self.book, now)

    def after_wish(self, now: float) -> policy.Verdict:
        """What follows an end that somebody asked for."""
        return policy.StartAt(now, f"asked for by {self.by}") if self.want_up else policy.Stay(self.reason)

    def starts_now(self, now: float) -> bool:
        """Whether the verdict is another run at once."""
        verdict = self.verdict
        return isinstance(verdict, policy.StartAt) and verdict.at <= now and self.want_up and not self._is_frozen(verdict)

    def follow(self, verdict: policy.Verdict, now: float, left_behind: str) -> Answer:
        """The run has been cleaned up: what was decided comes true, unless the wish has changed since."""
        reason = f"{verdict.reason}; left behind: {left_behind}" if left_behind else verdict.reason
        match verdict:
            case policy.HoldFor() if self.desired is Desired.UP:
                return self.enter(Phase.HELD, reason)
            case policy.StartAt() if self.want_up:
                return self._start_at(verdict, reason, now)
            case policy.Stay() if self.want_up:
                return self.enter_waiting(reason)  # the stop of all guests was taken back in the meantime
            case _:
                return self.enter(Phase.DOWN, reason)

    def _start_at(self, verdict: policy.StartAt, reason: str, now: float) -> Answer:
        if self._is_frozen(verdict):
            return self.enter(Phase.HELD, self.frozen_text(reason))
        if verdict.cause:
            self.by, self.auto = f"policy ({verdict.cause.replace('_', ' ')})", True
            self.first_run = self.first_run and verdict.cause == "start_failure"  # that was no run
        if verdict.at <= now:
            return self.enter_waiting(reason)
        self.enter(Phase.BACKOFF, reason)
        self.deadline = verdict.at
        return ACCEPTED

    def failed_start(self, why: str, now: float) -> Answer:
        """The host could not do it; whoever has changed his mind meanwhile gets what he wished."""
        if self.verdict is not None:
            return self.enter_cleaning(self.verdict, now)
        if not self.want_up:
            return self.enter_cleaning(policy.Stay(why), now)
        verdict, self.book = policy.judge_failed_start(self.spec.restart, why, self.book, now=now, rng=self.rng)
        return self.enter_cleaning(verdict, now)

    # -- holds --

    def _is_frozen(self, verdict: policy.StartAt) -> bool:
        return self.hold is not None and (self.auto or verdict.cause != "")

    def frozen_text(self, reason: str) -> str:
        """Why a guest that would go on by itself does not."""
        assert self.hold is not None
        return f"{reason}; {held_text(self.hold)}"


def held_text(hold: Hold) -> str:
    """A hold in words."""
    return f"held by {hold.by}: {hold.reason}" if hold.reason else f"held by {hold.by}"
