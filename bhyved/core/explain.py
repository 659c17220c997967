"""Why a guest is as it is, in sentences: `vmctl why`, and the lines of `vmctl history`.

Pure: everything comes from the status on the board, the configuration and the newest runs. First what the guest does, then what comes
next and what that waits for, then whatever else a person should know; one remedy, the most fitting one, is the hint.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from bhyved.core import needs
from bhyved.core.advice import Remark, remark_text
from bhyved.core.ansi import plain
from bhyved.core.drain import Drain
from bhyved.core.reload import Change, Effect, worst
from bhyved.core.room import NEVER
from bhyved.core.spec import Ready, VmSpec
from bhyved.core.status import ACTIVE, Desired, Phase, RunRecord, Suspension, VmStatus, frozen_text, utc_text
from bhyved.core.units import span

#: Host commands take milliseconds; a preparation this long has met one that hangs.
SLOW_PREPARE_S = 15.0
QUOTED = 200  # characters of a guest's or bhyve's own words in a sentence

_EFFECTS = {
    Effect.NEXT_GUEST_REBOOT: "in force with its next run, a reboot of the guest is enough",
    Effect.NEXT_COLD_START: "in force when it is stopped and started",
    Effect.REFUSED: "not possible while bhyved runs",
}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one guest at one moment. `spec` None: its file has gone. `others`: the guests that it waits for."""

    status: VmStatus
    now: float
    now_at: datetime | None = None  # the same moment, for people
    spec: VmSpec | None
    runs: Sequence[RunRecord] = ()
    others: Mapping[str, VmStatus] = {}
    changes: tuple[Change, ...] = ()
    drain: Drain | None = None
    closing: bool = False
    objections: tuple[Remark, ...] = ()  # why bhyve of this host would not run it

    @property
    def name(self) -> str:
        return self.status.name

    @property
    def phase_for(self) -> str:
        """How long the phase has lasted."""
        return span(self.now - self.status.since)


class Explanation(msgspec.Struct, frozen=True):
    """Sentences without a full stop, the first being the answer; and what to do about it, or ''."""

    sentences: tuple[str, ...]
    hint: str


def explain(case: Case) -> Explanation:
    """Say why."""
    said, hint = _PHASES[case.status.phase](case)
    sentences = [*said, *_last_run(case), *_remarks(case)]
    if case.spec is None:
        hint = f"put its file back, or `vmctl reload --prune` to stop and forget {case.name}"
    return Explanation(tuple(sentences), hint)


# --- one function a phase -------------------------------------------------------------------------------------------------------

_Said = tuple[list[str], str]


def _down(case: Case) -> _Said:
    status = case.status
    if status.suspended is not None:
        return _suspended(case, status.suspended)
    said = [_with_reason(f"{case.name} has been down for {case.phase_for}", status.reason)]
    if status.desired is Desired.UP and case.drain is not None:
        is_held = status.hold is not None
        said.append(f"it comes up again when the drain {'and the hold are' if is_held else 'is'} over")
    elif status.desired is Desired.UP and case.closing:
        said.append("bhyved is stopping its guests: it comes up again when bhyved starts")
    elif status.desired is Desired.UP:
        said.append("it is wished up, but nothing starts it now")
    elif status.hold is not None:
        said.append("it stays down until somebody starts it")
    elif status.autostart:
        said.append("it stays down until somebody starts it, or until the host boots again: autostart is on")
    else:
        said.append("nothing starts it by itself: autostart is off")
    if case.drain is not None:
        return said, "vmctl drain --off ends the drain: until then no guest is started"
    return said, _last_hint(case) or f"vmctl start {case.name}"


def _suspended(case: Case, state: Suspension) -> _Said:
    ago = "" if case.now_at is None else f" {span((case.now_at - state.at).total_seconds())} ago,"
    by = f" by {state.by}" if state.by else ""
    said = [f"{case.name} was suspended to disk{ago} at {utc_text(state.at)}{by}: {state.path}"]
    if state.doubtful:
        said.append("a resume of it was cut short: the guest may have written to its disks since, so nothing resumes it by itself")
        return said, f"vmctl start --cold {case.name} throws it away and boots the guest"
    said.append(
        "it goes on from there when the host boots again: autostart is on"
        if case.status.autostart
        else "it stays so until somebody resumes it, also when the host boots: autostart is off"
    )
    return said, f"vmctl resume {case.name} goes on where it was, vmctl start --cold {case.name} throws that away and boots the guest"


def _waiting(case: Case) -> _Said:
    status = case.status
    said = [_with_reason(f"{case.name} is about to start, for {case.phase_for} now", status.reason)]
    if status.waiting_for:
        said.append(status.waiting_for)
    blockers = [other for other in case.others.values() if status.waiting_for.startswith(f"waiting for {other.name},")]
    for other in blockers:
        if other.phase is Phase.UP and other.unready:
            said.append(f"{other.name} is not ready: {_quoted(other.unready)}")
        elif other.reason:
            said.append(f"{other.name} is {other.phase}: {_quoted(other.reason)}")
    idle = [other.name for other in blockers if other.phase in (Phase.DOWN, Phase.HELD)]
    if idle:
        return said, f"vmctl start {idle[0]}"
    if status.roomless and NEVER in status.waiting_for:
        return said, "give it less memory"  # the sentence has the other ways
    if status.roomless:
        said.append("it starts by itself when there is room for it; guests that need less may pass it")
        return said, f"vmctl stop a guest that can do without, or vmctl start {case.name} to start it all the same"
    if blockers:
        return said, f"vmctl why {blockers[0].name}"
    # vmctl start does not help: whoever asks, a guest is not started without what it needs.
    missing = needs.named_in(status.waiting_for, case.spec.order.needs) if case.spec is not None else None
    if missing is None:
        return said, ""
    said.append("it starts by itself as soon as that is there")
    return said, needs.remedy(missing)


def _preparing(case: Case) -> _Said:
    said = [_with_reason(f"{case.name} is being prepared, for {case.phase_for}: taps, disks, files", case.status.reason)]
    if case.now - case.status.since > SLOW_PREPARE_S:
        said.append("that is unusually long: a host command such as ifconfig or bhyvectl may hang")
        return said, "ps -axo pid,etimes,command shows it; bhyved gives it up when its time is over"
    return said, ""


def _loading(case: Case) -> _Said:
    loader = case.status.loader or "its loader"
    said = [_with_reason(f"{case.name} is being loaded: {loader} has been running for {case.phase_for}", case.status.reason)]
    if case.spec is None:
        return said, ""
    limit_s = float(case.spec.boot.timeout)
    said.append(f"it is given {case.spec.boot.timeout}")
    late = case.now - case.status.since > limit_s / 2
    return said, f"look at vmctl console {case.name}: a loader at its prompt waits for ever" if late else ""


def _starting(case: Case) -> _Said:
    status = case.status
    graphics = case.spec.graphics if case.spec is not None else None
    if graphics is not None and graphics.wait and not status.by.startswith("policy"):
        said = [f"{case.name} has been starting for {case.phase_for}: bhyve waits for a VNC viewer before the guest runs (graphics.wait)"]
        return said, f"connect a VNC viewer to {status.vnc or graphics.listen}"
    said = [_with_reason(f"{case.name} has been starting for {case.phase_for}{_pid(status)}", _began(status))]
    said.append("bhyve runs, and nothing shows yet that the guest does")
    return said, ""


def _up(case: Case) -> _Said:
    status = case.status
    uptime = case.phase_for if status.started is None else span(case.now - status.started)
    said = [_with_reason(f"{case.name} has been up for {uptime}{_pid(status)}", _began(status))]
    ready = case.spec.order.ready if case.spec is not None else None
    if ready is not None and not status.ready:
        then = "" if ready.uptime is not None else f"; {_on_timeout(ready, late=status.late)}"
        said.append(f"it is not ready yet: {status.unready or unready(ready)}{then}")
    if status.attempts:
        said.append(f"it has not been up long enough to forget: {status.attempts}")
    return said, ""


def _stopping(case: Case) -> _Said:
    if case.status.suspending:
        said = [_with_reason(f"{case.name} stands still while bhyve writes its state to disk, for {case.phase_for}", case.status.reason)]
        return [*said, "it goes on if that fails"], ""
    said = [_with_reason(f"{case.name} has been shutting down for {case.phase_for}", case.status.reason)]
    if case.spec is not None:
        said.append(
            f"its power button has been pressed; its power is cut {case.spec.stop.timeout} after the stop began, or when the asker said"
        )
    return said, f"vmctl poweroff {case.name} cuts the power now"


def _killing(case: Case) -> _Said:
    said = [_with_reason(f"{case.name}'s power is being cut, for {case.phase_for}", case.status.reason)]
    return [*said, "first by bhyvectl, then by SIGKILL; if that does not end it, it is stuck in the kernel"], ""


def _cleaning(case: Case) -> _Said:
    said = [_with_reason(f"what the last run of {case.name} left on the host is being removed, for {case.phase_for}", case.status.reason)]
    return said, ""


def _backoff(case: Case) -> _Said:
    status = case.status
    said = [_with_reason(f"{case.name} waits before it is started again", status.reason)]
    if status.next_start is not None:
        in_s = f"next start in {span(status.next_start - case.now)}"
        is_new = status.attempts and status.attempts not in status.reason
        said.append(f"{status.attempts}, {in_s}" if is_new else in_s)
    return said, _last_hint(case) or f"vmctl start {case.name} starts it now and forgets the count"


def _held(case: Case) -> _Said:
    status = case.status
    said = [_with_reason(f"{case.name} has been held for {case.phase_for}", status.reason)]
    if status.stuck:
        said.append("the kernel does not let its process or node go, and bhyved never starts a guest over that")
        hint = f"procstat -k {status.pid or 'PID'} shows where it hangs; as a rule only a reboot of the host clears it"
        return said, f"{hint}, but vmctl stop {case.name} tries once more"
    if status.hold is not None:
        if status.hold.until_at is not None:
            said.append(f"the hold ends at {utc_text(status.hold.until_at)}, and the guest starts")
        return said, f"vmctl release {case.name}"
    said.append("it waits for a person: nothing starts it by itself")
    return said, _last_hint(case) or f"when the cause is mended, vmctl start {case.name}"


_PHASES = {
    Phase.DOWN: _down,
    Phase.WAITING: _waiting,
    Phase.PREPARING: _preparing,
    Phase.LOADING: _loading,
    Phase.STARTING: _starting,
    Phase.UP: _up,
    Phase.STOPPING: _stopping,
    Phase.KILLING: _killing,
    Phase.CLEANING: _cleaning,
    Phase.BACKOFF: _backoff,
    Phase.HELD: _held,
}

# --- what else is to be said ----------------------------------------------------------------------------------------------------


def _last_run(case: Case) -> Iterator[str]:
    """How the last run ended, for a guest that has none now."""
    last = case.status.last_exit
    if case.status.phase in ACTIVE or last is None:
        return
    run = case.runs[-1] if case.runs else None
    ended = f"its last run ended at {utc_text(last.at)}"
    if run is not None and run.ended_at == last.at:
        ended += f", after {span(run.uptime_s)}"
    yield ended if last.text and last.text in case.status.reason else _with_reason(ended, last.text)
    words = plain(run.stderr).strip().splitlines() if run is not None and run.kind in _BHYVES_FAULT else []
    if words:
        yield f'bhyve\'s last words: "{_quoted(words[-1])}"'


#: Ends whose cause bhyve itself may have printed.
_BHYVES_FAULT = frozenset({"error", "start-error", "config-error", "killed", "unknown", "triple-fault"})


def _remarks(case: Case) -> Iterator[str]:
    status = case.status
    if status.adopted and status.phase in ACTIVE:
        yield "an earlier bhyved started this run; this one has taken it up"
    if status.hold is not None and status.phase is not Phase.HELD:
        hold = status.hold
        then = "; when the guest ends, nothing starts it again" if status.phase in ACTIVE else ""
        yield _with_reason(f"it is on hold {frozen_text(hold.by, hold.until_at, '')}", hold.reason) + then
    if status.ill:
        yield f"its health probes take it as ill: {status.ill}"
    if status.unlimited:
        yield f"its limits do not hold: {_quoted(status.unlimited)}"
    elif case.spec is not None and case.spec.limits is not None and status.pid is not None:
        yield f"its bhyve is limited by rctl(8): {case.spec.limits}"
    if case.objections:
        yield f"bhyve of this host cannot run it as its file is: {'; '.join(remark_text(each) for each in case.objections)}"
    if case.drain is not None and status.phase in (Phase.WAITING, Phase.BACKOFF, Phase.DOWN):
        drained = f"the host is drained {frozen_text(case.drain.by, case.drain.until_at, '')}, no guest is started"
        reason = "" if case.drain.reason in status.reason else case.drain.reason
        yield _with_reason(drained, reason)
    pending = tuple(change for change in case.changes if change.effect is not Effect.LIVE)
    if case.spec is None:
        yield "its file has gone: it goes on as it is"
    elif pending:
        keys = ", ".join(change.key for change in pending)
        yield f"its configuration has changed since it was started ({_quoted(keys)}): {_EFFECTS[worst(pending)]}"


def _began(status: VmStatus) -> str:
    """Why this run began. After a restart by policy the reason is the end of the run before."""
    return f"started again after this: {status.reason}" if status.by.startswith("policy") and status.reason else status.reason


def _with_reason(sentence: str, reason: str) -> str:
    return f"{sentence}: {_quoted(reason)}" if reason else sentence


def _quoted(text: str) -> str:
    """Words of others on one line, not too long, unable to move a cursor."""
    line = " ".join(plain(text).split())
    return line if len(line) <= QUOTED else line[: QUOTED - 1] + "…"


def _pid(status: VmStatus) -> str:
    return "" if status.pid is None else f" (pid {status.pid})"


def _last_hint(case: Case) -> str:
    return case.status.last_exit.hint if case.status.last_exit is not None else ""


def unready(ready: Ready, why: str = "") -> str:
    """What a guest that is not ready yet lacks; `why`: what its probe was answered."""
    asked = _question(ready)
    return f"{asked} ({why})" if why else asked


def _question(ready: Ready) -> str:
    if ready.console is not None:
        return f'its console has not shown "{ready.console}"'
    if ready.tcp is not None:
        return f"nothing answers at {ready.tcp}"
    if ready.ping is not None:
        return f"{ready.ping} does not answer a ping"
    if ready.command is not None:
        return f"{ready.command[0]} says no"
    return f"it has to be up for {ready.uptime}" if ready.uptime is not None else "its agent does not answer"


def _on_timeout(ready: Ready, *, late: bool) -> str:
    if late:
        return f"its {ready.timeout} are over: guests that require it keep waiting, those that only come after it do not"
    if ready.on_timeout == "continue":
        return f"it counts as ready after {ready.timeout} all the same"
    return f"after {ready.timeout} only guests that require it still wait for it"


# --- history --------------------------------------------------------------------------------------------------------------------


def history_line(record: RunRecord) -> str:
    """One run on one line."""
    who = f"{record.by}, taken up by a later bhyved" if record.adopted else record.by
    end = _quoted(record.text)
    return f"{utc_text(record.began_at)}, ran {span(record.uptime_s)}, by {who}: {end} → {_quoted(record.decision)}"
