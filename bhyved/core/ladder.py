"""How a stop escalates: when the power button is pressed, when the power is cut, when the process is killed, when we give up.

`climb` lays out one stop as absolute monotonic times, compressed to fit whatever time the host has left. The lifecycle walks them.
"""

from collections.abc import Sequence

import msgspec

from bhyved.core.spec import Stop

AGAIN_S = 15.0  # after the last listed press; a guest may have been too early to hear the earlier ones (contract 1.8)
FORCE_S = 10.0  # --force-poweroff needs running vCPUs and may do nothing (contract 1.9)
KILL_AGAIN_S = 1.0  # between two SIGKILLs
KILL_LEAST_S = 1.0  # for a process to die of SIGKILL, however late it is
KILL_S = 10.0  # a process that SIGKILL does not end in this time is stuck in the kernel
TAIL_SHARE = 0.3  # of a host shutdown's time, kept for the forced steps of a guest that would not fit
SUSPEND_SHARE = 0.5  # of a host shutdown's time, for writing the guest's state: the rest is for the button, should it come to that
NEEDED_LEAST_S = 3.0  # for a guest that gets no grace: cutting the power takes a process and a look


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one stop, all monotonic seconds, growing."""

    presses: tuple[float, ...]
    force_at: float
    kill_at: float
    give_up_at: float

    def due(self, now: float) -> bool:
        """Whether a press is due."""
        return bool(self.presses) and self.presses[0] <= now

    def pressed(self, now: float) -> "Ladder":
        """The ladder without the presses that are due: several late ones count as one."""
        return msgspec.structs.replace(self, presses=tuple(t for t in self.presses if t > now))

    def next_at(self) -> float:
        """The next time at which something must happen before the power is cut."""
        return min((*self.presses, self.force_at))

    def forced(self, now: float) -> "Ladder":
        """What is left when the power is cut now: however late that comes, the steps after it keep their time."""
        late = now - self.force_at
        return Ladder(presses=(), force_at=now, kill_at=self.kill_at + late, give_up_at=self.give_up_at + late)


def sooner(old: Ladder, new: Ladder) -> Ladder:
    """One stop of two that were asked for: each step comes when the first of them wants it."""
    return Ladder(
        presses=new.presses if new.force_at < old.force_at else old.presses,
        force_at=min(old.force_at, new.force_at),
        kill_at=min(old.kill_at, new.kill_at),
        give_up_at=min(old.give_up_at, new.give_up_at),
    )


def climb(stop: Stop, now: float, *, timeout_s: float | None = None, end_at: float | None = None) -> Ladder:
    """Lay out a stop that begins now. `end_at`: the host's deadline, by which the guest must be gone, whatever `timeout_s` says."""
    wanted = float(stop.timeout) if timeout_s is None else timeout_s
    force_s, kill_s, grace = FORCE_S, KILL_S, wanted
    if end_at is not None:
        left = max(0.0, end_at - now)
        tail = min(FORCE_S + KILL_S, left * TAIL_SHARE)
        force_s = kill_s = tail / 2
        grace = min(wanted, left - tail)
    scale = grace / wanted if wanted > 0 else 0.0
    presses = tuple(now + t * scale for t in _press_times(stop.presses, wanted))
    force_at = now + grace
    return Ladder(presses=presses, force_at=force_at, kill_at=force_at + force_s, give_up_at=force_at + force_s + kill_s)


def needed_s(timeout_s: float) -> float:
    """The time until `end_at` in which `climb` gives a guest its whole grace."""
    return max(NEEDED_LEAST_S, min(timeout_s + FORCE_S + KILL_S, timeout_s / (1 - TAIL_SHARE)))


def cut_power(now: float, *, end_at: float | None = None) -> Ladder:
    """A stop without grace: the power is cut at once."""
    tail = FORCE_S + KILL_S if end_at is None else min(FORCE_S + KILL_S, max(0.0, end_at - now))
    return Ladder(presses=(), force_at=now, kill_at=now + tail / 2, give_up_at=now + tail)


def kill_now(now: float, *, end_at: float | None = None) -> Ladder:
    """SIGKILL at once: for a loader, and for a bhyve whose guest has not run yet."""
    tail = KILL_S if end_at is None else min(KILL_S, max(0.0, end_at - now))
    return Ladder(presses=(), force_at=now, kill_at=now, give_up_at=now + tail)


def _press_times(presses: Sequence[float], timeout_s: float) -> list[float]:
    times = [float(t) for t in presses if t < timeout_s] or [0.0]
    later = times[-1] + AGAIN_S
    while later < timeout_s:
        times.append(later)
        later += AGAIN_S
    return times
