"""The table itself: total, honoured, and no wider than what can happen."""

import copy
import inspect
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from bhyved.core import facts, wishes
from bhyved.core.exits import ExitKind, Stage
from bhyved.core.lifecycle import (
    FACTS,
    TABLE,
    WISHES,
    Cleaned,
    CleanFailed,
    Edge,
    Ended,
    Event,
    Found,
    ImpossibleEvent,
    Interrupted,
    Lifecycle,
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
from bhyved.core.policy import StartAt
from bhyved.core.spec import Stop as StopSpec
from bhyved.core.spec import VmSpec
from bhyved.core.status import Desired, Phase
from bhyved.core.units import Duration
from tests.core.lives import HOLD, end


def state(life: Lifecycle) -> dict[str, Any]:
    """Everything but the actions of the last step."""
    return {key: value for key, value in vars(life).items() if key != "actions"}


def events(life: Lifecycle, now: float) -> list[Event]:
    """Every event, in each of its kinds that matter to a handler."""
    return [
        *(Start(by="a", auto=auto) for auto in (False, True)),
        *(Stop(by="a", force=force, timeout_s=timeout_s) for force, timeout_s in ((False, None), (False, 1.0), (True, None))),
        *(Shutdown(by="a", force=force, end_at=end_at) for force, end_at in ((False, None), (False, now + 3.0), (True, None))),
        *(Shutdown(by="a", suspend=True, end_at=end_at) for end_at in (now - 3.0, now + 3.0)),
        *(event(by="a") for event in (Restart, Reset, Poweroff, Suspend, Release)),
        SetHold(hold=HOLD),
        *(
            Found(stage, up)
            for stage, up in ((Stage.PREPARING, False), (Stage.LOADING, False), (Stage.RUNNING, False), (Stage.RUNNING, True))
        ),
        Found(Stage.RUNNING, up=True, suspending=True),
        *(Prepared(loader=loader) for loader in (False, True)),
        *(PrepareFailed("why", fatal=fatal, stuck=stuck) for fatal, stuck in ((False, False), (True, False), (False, True))),
        *(LoaderEnded(how) for how in (None, end("start-error"))),
        *(
            Ended(end(kind), 1.0)
            for kind in (ExitKind.POWEROFF, ExitKind.REBOOT, ExitKind.ERROR, ExitKind.CONFIG_ERROR, ExitKind.SUSPENDED)
        ),
        *(CleanFailed("why", stuck=stuck) for stuck in (False, True)),
        *(event() for event in (Turn, Up, Interrupted, Cleaned, Tick)),
        SpawnFailed("why"),
        SuspendFailed("why"),
    ]


def shape(life: Lifecycle, now: float) -> tuple[Any, ...]:
    """What of a state decides where it may go; two of the same shape are explored once."""
    verdict = life.verdict
    later = isinstance(verdict, StartAt) and verdict.at > now
    wish = (life.desired, life.closing, life.auto, life.hold is None, life.held == "")
    run = (
        life.suspending,
        life.blame is None,
        life.reset_by == "",
        life.give_up_at is None,
        life.dirty,
        life.cleaning,
        life.stuck,
        life.undead,
    )
    return (life.phase, type(verdict), later, life.is_early(now), life.spec.stop.timeout, *wish, *run)


def explore() -> Iterator[tuple[Lifecycle, Event, Lifecycle]]:
    """Every state that can be reached: a state, an event, and the state behind it."""
    graceless = VmSpec(name="web1", stop=StopSpec(timeout=Duration(0)))
    waiting = [(Lifecycle(graceless, rng=lambda: 0.0, desired=Desired.UP), 0.0)]
    for desired in Desired:
        for hold in (None, HOLD):
            for held in ("", "crashed too often"):
                waiting.append((Lifecycle(VmSpec(name="web1"), rng=lambda: 0.0, desired=desired, hold=hold, held=held), 0.0))
    known = set()
    while waiting:
        life, now = waiting.pop()
        if shape(life, now) in known:
            continue
        known.add(shape(life, now))
        turned = copy.copy(life)
        turned.closing = not life.closing
        waiting.append((turned, now))
        for event in events(life, now):
            after = copy.copy(life)
            try:
                answer, actions = after.step(event, now)
            except ImpossibleEvent:
                assert state(after) == state(life), "an impossible fact has changed something"
                continue
            if not answer.ok:
                assert (state(after), actions) == (state(life), ()), "a refused wish has changed something"
            yield life, event, after
            waiting += [(after, later) for later in {now, max(now, after.deadline or now)}]


def test_the_table_is_total() -> None:
    """Every phase answers every event."""
    assert set(TABLE) == set(Phase)
    for phase, row in TABLE.items():
        assert set(row) == {*WISHES, *FACTS}, phase


def test_every_wish_has_an_answer_of_its_own() -> None:
    """What people ask is never impossible and never ignored."""
    for phase, row in TABLE.items():
        for wish in WISHES:
            assert row[wish].handler not in (facts.impossible, facts.ignore), (phase, wish)


def test_what_is_ignored_or_impossible_leads_nowhere() -> None:
    """Such a cell stays in its phase."""
    for phase, row in TABLE.items():
        for edge in row.values():
            if edge.handler in (facts.impossible, facts.ignore):
                assert edge.to == {phase}


def test_every_handler_is_used() -> None:
    """No handler is left over from another table."""
    used = {edge.handler for row in TABLE.values() for edge in row.values()}
    for module in (wishes, facts):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            takes_event = list(inspect.signature(function).parameters) == ["life", "event", "now"]
            if takes_event and not name.startswith("_") and function.__module__ == module.__name__:
                assert function in used, name


def test_edges_are_exactly_what_can_happen() -> None:
    """Of all lives that can be lived, some takes each edge of the table, and none another."""
    seen: dict[tuple[Phase, type], set[Phase]] = defaultdict(set)
    for before, event, after in explore():
        seen[before.phase, type(event)].add(after.phase)

    for phase, row in TABLE.items():
        for kind, edge in row.items():
            if edge.handler is not facts.impossible:
                assert seen[phase, kind] == edge.to, f"{kind.__name__} in {phase}"


def test_a_step_that_the_table_does_not_allow_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that goes where its edge does not lead is our bug, and is told so."""
    life = Lifecycle(VmSpec(name="web1"), rng=lambda: 0.0, desired=Desired.DOWN)
    monkeypatch.setitem(TABLE[Phase.DOWN], Start, Edge(wishes.start_idle, Phase.DOWN))
    with pytest.raises(AssertionError, match="Start led to waiting, which the table does not allow"):
        life.step(Start(by="a"), 0.0)


def test_an_impossible_fact_names_itself() -> None:
    """And the phase, for the log."""
    life = Lifecycle(VmSpec(name="web1"), rng=lambda: 0.0, desired=Desired.DOWN)
    with pytest.raises(ImpossibleEvent, match="Cleaned in phase down"):
        life.step(Cleaned(), 0.0)
