"""A guest as the board shows it: put together from its lifecycle, its run, its record and its file, and from nothing else."""

from dataclasses import dataclass
from datetime import datetime

from bhyved.core import policy
from bhyved.core.lifecycle import Lifecycle
from bhyved.core.reload import Change
from bhyved.core.room import Share, is_kept, share_of
from bhyved.core.spec import VmSpec
from bhyved.core.status import Phase, Suspension, VmRecord, VmStatus
from bhyved.daemon.run import Run


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """What a driver knows at one moment."""

    life: Lifecycle
    spec: VmSpec
    run: Run | None
    record: VmRecord
    since: float
    since_at: datetime
    now: float
    blocked: str = ""
    suspended: Suspension | None = None
    waiting_for: str = ""
    roomless: bool = False
    ill: str = ""
    changes: tuple[Change, ...] = ()
    orphaned: bool = False


def portray(sitting: Sitting) -> VmStatus:
    """The status, but for its generation."""
    life, run, record, spec = sitting.life, sitting.run, sitting.record, sitting.spec
    attempts, left = policy.attempts(life.spec.restart, life.book, sitting.now)
    share = share_of(spec if run is None else run.spec) if is_kept(life.phase, again=life.again, stuck=life.stuck) else Share()
    is_blocked = bool(sitting.blocked) and life.phase in (Phase.DOWN, Phase.HELD)
    return VmStatus(
        name=spec.name,
        phase=Phase.HELD if is_blocked else life.phase,
        since=sitting.since,
        since_at=sitting.since_at,
        reason=sitting.blocked if is_blocked else life.reason,
        desired=life.desired,
        hold=life.hold,
        pid=None if run is None else run.pid,
        run="" if run is None else run.id,
        by=life.by,
        started=None if run is None else run.started,
        started_at=None if run is None else run.started_at,
        ready=run is not None and run.ready and life.phase is Phase.UP,
        late=run is not None and run.late and not run.ready and life.phase is Phase.UP,
        unready="" if run is None or run.ready or life.phase is not Phase.UP else run.unready,
        adopted=run is not None and run.adopted,
        restarts=record.restarts,
        exits=record.exits,
        last_exit=record.last_exit,
        next_start=life.deadline if life.phase is Phase.BACKOFF else None,
        attempts=attempts,
        attempts_left=left,
        config_changed=tuple(change.key for change in sitting.changes),
        forced_stops=record.forced_stops,
        start_s=record.start_s,
        stop_s=record.stop_s,
        owner=tuple(map(str, spec.owner)),
        autostart=spec.autostart,
        loader=spec.boot.loader,
        cpus=spec.cpus.count,
        memory_bytes=int(spec.memory),
        serials=tuple(str(port.port) for port in spec.serial),
        taps=() if run is None else run.taps,
        vnc="" if run is None else run.vnc,
        disks=tuple(str(disk.path) for disk in spec.disk if disk.path is not None),
        suspended=sitting.suspended,
        suspending=life.suspending,
        waiting_for=sitting.waiting_for,
        roomless=sitting.roomless,
        room_bytes=share.size,
        room_wired=share.wired,
        ill=sitting.ill,
        unlimited="" if run is None else run.unlimited,
        stuck=life.stuck,
        orphaned=sitting.orphaned,
    )
