"""What the boot of a host and its shutdown would do, guest by guest: `vmctl plan --boot` and `--shutdown`, and `doctor`.

Nothing here is measured: times are those that the configuration allows at most.
"""

from collections.abc import Mapping

import msgspec

from bhyved.core import needs, order, room
from bhyved.core.ladder import needed_s
from bhyved.core.room import Room
from bhyved.core.spec import Ready, VmSpec
from bhyved.core.turns import Pace
from bhyved.core.units import Duration


class Step(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One guest's turn: seconds from the beginning, None where only the guests themselves decide."""

    name: str
    at_s: float | None = None
    up_to_s: float | None = None
    after: tuple[str, ...] = ()
    waits: str = ""  # what of the host's memory it would wait for
    text: str


class Agenda(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The whole of it. `fits`: every guest gets the time that its file gives it, or at a boot its memory."""

    text: str
    steps: tuple[Step, ...]
    fits: bool = True
    needs_s: float | None = None
    budget_s: float | None = None


def boot(specs: Mapping[str, VmSpec], pace: Pace, memory: Room = Room()) -> Agenda:  # noqa: B008 - frozen
    """The start of every guest with `autostart`. `memory`: what they may have of the host."""
    starting = {name: spec for name, spec in specs.items() if spec.autostart}
    firsts = order.before(specs)
    waiting = room.at_boot(specs, memory)
    steps = []
    for name in order.start_order(starting):
        after = tuple(sorted(firsts[name]))
        required = specs[name].order.requires
        waits = [f"{first}, {_readiness(specs[first].order.ready, required=first in required)}" for first in after if first in starting]
        waits += [f"{first}, which does not start by itself" for first in after if first not in starting and first in required]
        waits += [f"the {kind} {what}" for kind, what in map(needs.split, specs[name].order.needs)]
        text = f"{name} after {'; '.join(waits)}" if waits else name
        lacking = waiting.get(name, "")
        steps.append(Step(name=name, after=after, waits=lacking, text=f"{text}: has to wait, {lacking}" if lacking else text))
    head = f"{_guests(len(steps) - len(waiting), 'starts', 'start')}, {pace.parallel} at a time, {Duration(pace.gap_s)} apart"
    if waiting:
        head += f"; {_guests(len(waiting), 'waits', 'wait')} for memory"
    return Agenda(text=_text(head if steps else "no guest has autostart", steps), steps=tuple(steps), fits=not waiting)


def _readiness(ready: Ready | None, *, required: bool) -> str:
    if ready is None:
        return "when it is up"
    if ready.uptime is not None:
        return f"when it has been up for {ready.uptime}"
    if ready.on_timeout == "fail" and required:
        return f"when it is ready, however long that takes (it should within {ready.timeout})"
    return f"when it is ready or after {ready.timeout}"


def shutdown(specs: Mapping[str, VmSpec], budget_s: float | None) -> Agenda:
    """The stop of these guests at the end of the host, which gives them `budget_s` together; None: as long as they take."""
    behind = order.behind(specs)
    begins: dict[str, float] = {}
    ends: dict[str, float] = {}
    steps = []
    for name in order.stop_order(specs):
        after = tuple(sorted(behind[name] & specs.keys()))
        begins[name] = max((ends[other] for other in after if other in ends), default=0.0)
        mine = needed_s(float(specs[name].stop.timeout))
        ends[name] = begins[name] + mine
        how = ", suspended if it can be" if specs[name].stop.on_host_shutdown == "suspend" else ""
        text = f"{name}: at most {Duration(round(mine))}{how}" + (f", after {', '.join(after)}" if after else "")
        steps.append(Step(name=name, at_s=begins[name], up_to_s=ends[name], after=after, text=text))
    needs = max(ends.values(), default=0.0)
    fits = budget_s is None or needs <= budget_s
    head = _verdict(len(steps), needs, budget_s, fits=fits)
    return Agenda(text=_text(head, steps), steps=tuple(steps), fits=fits, needs_s=round(needs, 1), budget_s=budget_s)


def _verdict(count: int, needs_s: float, budget_s: float | None, *, fits: bool) -> str:
    if not count:
        return "no guest would have to be stopped"
    head = f"{_guests(count, 'stops', 'stop')} within {Duration(round(needs_s))} at the latest"
    if budget_s is None:
        return head
    given = Duration(round(budget_s))
    if fits:
        return f"{head}; the host gives {given}: every guest gets its time"
    return f"{head}, but the host gives {given}: timeouts are cut short; set rcshutdown_timeout and kern.init_shutdown_timeout higher"


def _guests(count: int, one: str, many: str) -> str:
    return f"1 guest {one}" if count == 1 else f"{count} guests {many}"


def _text(head: str, steps: list[Step]) -> str:
    return "\n".join([head, *(f"{number:3}. {step.text}" for number, step in enumerate(steps, 1))]) + "\n"
