"""What a driver knows of its guest's present run, and what is written down of it when it has ended.

Everything here can be learnt again from the ledger, the console and the clock: a daemon that is killed loses nothing by it.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from bhyved.core.ansi import plain
from bhyved.core.exits import Exit, Outcome
from bhyved.core.spec import VmSpec
from bhyved.core.status import LastExit, RunRecord
from bhyved.core.units import enc_hook
from bhyved.daemon.ports import Found

CONSOLE_LINES = 100  # a kernel panic with its call trace


@dataclass(kw_only=True)
class Run:
    """One attempt to run the guest, from the wish to the end of its bhyve."""

    id: str
    by: str
    spec: VmSpec  # as started
    began: float  # monotonic: when it was this guest's turn
    began_at: datetime
    adopted: bool = False
    pid: int | None = None
    started: float | None = None  # monotonic
    started_at: datetime | None = None
    taps: tuple[str, ...] = ()
    vnc: str = ""
    was_up: bool = False
    resumes: bool = False  # a saved state
    seed: str = ""  # the fingerprint of the cloud-init seed that is attached
    ready: bool = False
    late: bool = False
    unready: str = ""  # why it is not ready yet
    unlimited: str = ""  # why its limits do not hold
    stop_began: float | None = None
    console_since: int = 0  # offset of the first console where the run began

    def note_started(self, pid: int, now: float, now_at: datetime) -> bool:
        """bhyve has its pid: whether that is news. A run that was found keeps the times of its ledger."""
        is_news = self.pid != pid or self.started is None
        self.pid = pid
        if self.started is None:
            self.started, self.started_at = now, now_at
        return is_news

    def uptime_s(self, now: float, ended_at: datetime | None) -> float:
        """How long bhyve ran. When it ended while no daemon watched, the exit file's time tells."""
        if self.started is None:
            return 0.0
        if self.adopted and ended_at is not None and self.started_at is not None:
            return max(0.0, (ended_at - self.started_at).total_seconds())
        return max(0.0, now - self.started)


def adopted(found: Found, spec: VmSpec, now: float, now_at: datetime) -> Run:
    """A run that an earlier daemon began."""
    began = now if found.started is None else found.started
    return Run(
        id=found.run,
        by=found.by,
        spec=found.spec or spec,
        began=began,
        began_at=found.started_at or now_at - timedelta(seconds=max(0.0, now - began)),
        adopted=True,
        pid=found.pid,
        started=found.started,
        started_at=found.started_at,
        taps=found.taps,
        vnc=found.vnc,
        resumes=found.resumes,
        seed=found.seed,
    )


def last_exit(end: Exit, outcome: Outcome, now_at: datetime) -> LastExit:
    """The end of a run as the board shows it. A signal's status is the shell's, not bhyve's."""
    status = None if end.signal is not None else end.status
    return LastExit(kind=end.kind, status=status, signal=end.signal, at=outcome.at or now_at, text=end.text, hint=end.hint)


def record(run: Run, end: Exit, last: LastExit, *, uptime_s: float, decision: str, stderr: str, console: str) -> RunRecord:
    """The line of the guest's history."""
    return RunRecord(
        run=run.id,
        vm=run.spec.name,
        by=run.by,
        began_at=run.began_at,
        ended_at=last.at,
        uptime_s=round(uptime_s, 3),
        kind=end.kind,
        text=end.text,
        status=last.status,
        signal=last.signal,
        hint=end.hint,
        decision=decision,
        adopted=run.adopted,
        config_hash=config_hash(run.spec),
        stderr=plain(stderr),
        console=console,
    )


def config_hash(spec: VmSpec) -> str:
    """Short and stable: two runs with the same hash had the same configuration."""
    return hashlib.sha256(msgspec.json.encode(spec, enc_hook=enc_hook, order="deterministic")).hexdigest()[:12]
