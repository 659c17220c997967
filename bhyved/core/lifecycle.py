"""The life of one guest: a pure, total table of phase x event.

The driver feeds wishes (what people and the daemon want) and facts (what happened) into `Lifecycle.step` and performs the actions it
gets back; nothing here waits, calls or reads a clock. Three things are kept apart: `phase` is where the guest is, `desired` what was
last wished, `verdict` what follows when the run has been cleaned up. A restart is no phase: it is a stop while the wish is still up.

At most one deadline exists, set on entering a phase and cleared by the next. `TABLE` is the whole truth about what may follow what;
docs/lifecycle.md is drawn from it. The words are those of `core.happenings`, the handlers those of `core.wishes` and `core.facts`,
the state and its moves those of `core.life`; others import all they need from here.
"""

from collections.abc import Callable
from typing import Any

from bhyved.core import facts, wishes
from bhyved.core.happenings import (
    ACCEPTED,
    ALREADY,
    ASK_TURN,
    CLEAN,
    CLEAN_ALL,
    DROP_TURN,
    FACTS,
    FORCE_POWEROFF,
    FORCE_RESET,
    IGNORED,
    KILL,
    LOAD,
    NOT_HELD,
    NOT_RUNNING,
    NOT_UP_YET,
    PREPARE,
    PRESS,
    SHUTTING_DOWN,
    SPAWN,
    STOPPING,
    SUSPEND,
    SUSPENDING,
    WISHES,
    Action,
    Answer,
    Cleaned,
    CleanFailed,
    Ended,
    Event,
    Fact,
    Found,
    ImpossibleEvent,
    Interrupted,
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
    Wish,
)
from bhyved.core.life import Life
from bhyved.core.status import Phase

__all__ = [
    "ACCEPTED",
    "ALREADY",
    "ASK_TURN",
    "CLEAN",
    "CLEAN_ALL",
    "DROP_TURN",
    "FACTS",
    "FORCE_POWEROFF",
    "FORCE_RESET",
    "IGNORED",
    "KILL",
    "LOAD",
    "NOT_HELD",
    "NOT_RUNNING",
    "NOT_UP_YET",
    "PREPARE",
    "PRESS",
    "SHUTTING_DOWN",
    "SPAWN",
    "STOPPING",
    "SUSPEND",
    "SUSPENDING",
    "TABLE",
    "WISHES",
    "Action",
    "Answer",
    "CleanFailed",
    "Cleaned",
    "Edge",
    "Ended",
    "Event",
    "Fact",
    "Found",
    "ImpossibleEvent",
    "Interrupted",
    "Lifecycle",
    "LoaderEnded",
    "Poweroff",
    "PrepareFailed",
    "Prepared",
    "Release",
    "Reset",
    "Restart",
    "SetHold",
    "Shutdown",
    "SpawnFailed",
    "Start",
    "Stop",
    "Suspend",
    "SuspendFailed",
    "Tick",
    "Turn",
    "Up",
    "Wish",
]


class Lifecycle(Life):
    """One guest's automaton."""

    def step(self, event: Event, now: float) -> tuple[Answer, tuple[Action, ...]]:
        """Take one event. A wish is answered; a fact's answer means nothing. Raises ImpossibleEvent and then has changed nothing."""
        edge = TABLE[self.phase][type(event)]
        self.actions = []
        answer = edge.handler(self, event, now)
        assert self.phase in edge.to, f"{type(event).__name__} led to {self.phase}, which the table does not allow"
        return answer, tuple(self.actions)


class Edge:
    """What an event does in a phase, and the phases it may lead to."""

    __slots__ = ("handler", "to")

    def __init__(self, handler: Callable[[Life, Any, float], Answer], *to: Phase) -> None:
        self.handler = handler
        self.to = frozenset(to)


Row = dict[type, Edge]


def _ignored(phase: Phase, *events: type) -> Row:
    return dict.fromkeys(events, Edge(facts.ignore, phase))


def _impossible(phase: Phase, *events: type) -> Row:
    return dict.fromkeys(events, Edge(facts.impossible, phase))


P = Phase

TABLE: dict[Phase, Row] = {
    P.DOWN: {
        Start: Edge(wishes.start_idle, P.WAITING, P.HELD, P.DOWN),
        Restart: Edge(wishes.start_idle, P.WAITING, P.DOWN),
        Stop: Edge(wishes.stop_idle, P.DOWN, P.CLEANING),
        Poweroff: Edge(wishes.stop_idle, P.DOWN, P.CLEANING),
        Shutdown: Edge(wishes.stop_idle, P.DOWN),
        Reset: Edge(wishes.not_running, P.DOWN),
        Suspend: Edge(wishes.not_running, P.DOWN),
        SetHold: Edge(wishes.set_hold, P.DOWN),
        Release: Edge(wishes.release, P.DOWN),
        Found: Edge(facts.found, P.PREPARING, P.LOADING, P.STARTING, P.UP, P.STOPPING, P.KILLING),
        **_ignored(P.DOWN, Turn, Up, Tick, SuspendFailed),
        **_impossible(P.DOWN, Prepared, PrepareFailed, SpawnFailed, LoaderEnded, Ended, Interrupted, Cleaned, CleanFailed),
    },
    P.WAITING: {
        Start: Edge(wishes.start_waiting, P.WAITING),
        Restart: Edge(wishes.start_waiting, P.WAITING),
        Stop: Edge(wishes.stop_pending, P.DOWN, P.CLEANING),
        Poweroff: Edge(wishes.stop_pending, P.DOWN, P.CLEANING),
        Shutdown: Edge(wishes.stop_pending, P.DOWN, P.CLEANING),
        Reset: Edge(wishes.not_up_yet, P.WAITING),
        Suspend: Edge(wishes.not_up_yet, P.WAITING),
        SetHold: Edge(wishes.set_hold_pending, P.HELD, P.CLEANING),
        Release: Edge(wishes.release, P.WAITING),
        Turn: Edge(facts.turn, P.PREPARING),
        **_ignored(P.WAITING, Up, Tick, SuspendFailed),
        **_impossible(P.WAITING, Prepared, PrepareFailed, SpawnFailed, LoaderEnded, Ended, Interrupted, Cleaned, CleanFailed, Found),
    },
    P.PREPARING: {
        Start: Edge(wishes.start_preparing, P.PREPARING),
        Restart: Edge(wishes.restart_preparing, P.PREPARING),
        Stop: Edge(wishes.stop_preparing, P.PREPARING),
        Poweroff: Edge(wishes.stop_preparing, P.PREPARING),
        Shutdown: Edge(wishes.stop_preparing, P.PREPARING),
        Reset: Edge(wishes.not_up_yet, P.PREPARING),
        Suspend: Edge(wishes.not_up_yet, P.PREPARING),
        SetHold: Edge(wishes.set_hold, P.PREPARING),
        Release: Edge(wishes.release, P.PREPARING),
        Prepared: Edge(facts.prepared, P.LOADING, P.STARTING, P.CLEANING),
        PrepareFailed: Edge(facts.prepare_failed, P.CLEANING, P.HELD),
        LoaderEnded: Edge(facts.loader_ended, P.STARTING, P.CLEANING),
        Ended: Edge(facts.ended, P.CLEANING),
        Interrupted: Edge(facts.interrupted, P.CLEANING),
        Tick: Edge(facts.tick_preparing, P.PREPARING, P.HELD),
        **_ignored(P.PREPARING, Turn, Up, SuspendFailed),
        **_impossible(P.PREPARING, SpawnFailed, Cleaned, CleanFailed, Found),
    },
    P.LOADING: {
        Start: Edge(wishes.start_running, P.LOADING),
        Restart: Edge(wishes.restart_early, P.KILLING, P.LOADING),
        Stop: Edge(wishes.stop_early, P.KILLING),
        Poweroff: Edge(wishes.stop_early, P.KILLING),
        Shutdown: Edge(wishes.stop_early, P.KILLING),
        Reset: Edge(wishes.not_up_yet, P.LOADING),
        Suspend: Edge(wishes.not_up_yet, P.LOADING),
        SetHold: Edge(wishes.set_hold, P.LOADING),
        Release: Edge(wishes.release, P.LOADING),
        SpawnFailed: Edge(facts.spawn_failed, P.CLEANING),
        LoaderEnded: Edge(facts.loader_ended, P.STARTING, P.CLEANING),
        Interrupted: Edge(facts.interrupted, P.CLEANING),
        Tick: Edge(facts.tick_loading, P.LOADING, P.KILLING),
        **_ignored(P.LOADING, Turn, Up, SuspendFailed),
        **_impossible(P.LOADING, Prepared, PrepareFailed, Ended, Cleaned, CleanFailed, Found),
    },
    P.STARTING: {
        Start: Edge(wishes.start_running, P.STARTING),
        Restart: Edge(wishes.restart_early, P.KILLING, P.STARTING),
        Stop: Edge(wishes.stop_early, P.KILLING),
        Poweroff: Edge(wishes.stop_early, P.KILLING),
        Shutdown: Edge(wishes.stop_early, P.KILLING),
        Reset: Edge(wishes.not_up_yet, P.STARTING),
        Suspend: Edge(wishes.not_up_yet, P.STARTING),
        SetHold: Edge(wishes.set_hold, P.STARTING),
        Release: Edge(wishes.release, P.STARTING),
        SpawnFailed: Edge(facts.spawn_failed, P.CLEANING),
        Up: Edge(facts.up, P.UP),
        Ended: Edge(facts.ended, P.CLEANING),
        Interrupted: Edge(facts.interrupted, P.CLEANING),
        **_ignored(P.STARTING, Turn, Tick, SuspendFailed),
        **_impossible(P.STARTING, Prepared, PrepareFailed, LoaderEnded, Cleaned, CleanFailed, Found),
    },
    P.UP: {
        Start: Edge(wishes.start_running, P.UP),
        Restart: Edge(wishes.restart_up, P.STOPPING, P.KILLING, P.UP),
        Stop: Edge(wishes.stop_up, P.STOPPING, P.KILLING),
        Poweroff: Edge(wishes.poweroff, P.KILLING),
        Shutdown: Edge(wishes.stop_up, P.STOPPING, P.KILLING),
        Reset: Edge(wishes.reset, P.UP),
        Suspend: Edge(wishes.suspend, P.STOPPING, P.UP),
        SetHold: Edge(wishes.set_hold, P.UP),
        Release: Edge(wishes.release, P.UP),
        Ended: Edge(facts.ended, P.CLEANING),
        **_ignored(P.UP, Turn, Up, Tick, SuspendFailed),
        **_impossible(P.UP, Prepared, PrepareFailed, SpawnFailed, LoaderEnded, Interrupted, Cleaned, CleanFailed, Found),
    },
    P.STOPPING: {
        Start: Edge(wishes.start_ending, P.STOPPING),
        Restart: Edge(wishes.start_ending, P.STOPPING),
        Stop: Edge(wishes.stop_stopping, P.STOPPING, P.KILLING),
        Poweroff: Edge(wishes.poweroff, P.KILLING),
        Shutdown: Edge(wishes.stop_stopping, P.STOPPING, P.KILLING),
        Reset: Edge(wishes.is_stopping, P.STOPPING),
        Suspend: Edge(wishes.suspend_stopping, P.STOPPING),
        SetHold: Edge(wishes.set_hold, P.STOPPING),
        Release: Edge(wishes.release, P.STOPPING),
        SuspendFailed: Edge(facts.suspend_failed, P.UP, P.STOPPING, P.KILLING),
        Ended: Edge(facts.ended_stopping, P.CLEANING),
        Tick: Edge(facts.tick_stopping, P.STOPPING, P.KILLING),
        **_ignored(P.STOPPING, Turn, Up),
        **_impossible(P.STOPPING, Prepared, PrepareFailed, SpawnFailed, LoaderEnded, Interrupted, Cleaned, CleanFailed, Found),
    },
    P.KILLING: {
        Start: Edge(wishes.start_ending, P.KILLING),
        Restart: Edge(wishes.start_ending, P.KILLING),
        Stop: Edge(wishes.stop_killing, P.KILLING),
        Poweroff: Edge(wishes.stop_killing, P.KILLING),
        Shutdown: Edge(wishes.stop_killing, P.KILLING),
        Reset: Edge(wishes.is_stopping, P.KILLING),
        Suspend: Edge(wishes.is_stopping, P.KILLING),
        SetHold: Edge(wishes.set_hold, P.KILLING),
        Release: Edge(wishes.release, P.KILLING),
        SpawnFailed: Edge(facts.ended_killing, P.CLEANING),
        LoaderEnded: Edge(facts.ended_killing, P.CLEANING),
        Ended: Edge(facts.ended_killing, P.CLEANING),
        Interrupted: Edge(facts.ended_killing, P.CLEANING),
        Tick: Edge(facts.tick_killing, P.KILLING, P.HELD),
        **_ignored(P.KILLING, Turn, Up, SuspendFailed),
        **_impossible(P.KILLING, Prepared, PrepareFailed, Cleaned, CleanFailed, Found),
    },
    P.CLEANING: {
        Start: Edge(wishes.start_ending, P.CLEANING),
        Restart: Edge(wishes.start_ending, P.CLEANING),
        Stop: Edge(wishes.stop_cleaning, P.CLEANING),
        Poweroff: Edge(wishes.stop_cleaning, P.CLEANING),
        Shutdown: Edge(wishes.stop_cleaning, P.CLEANING),
        Reset: Edge(wishes.not_running, P.CLEANING),
        Suspend: Edge(wishes.not_running, P.CLEANING),
        SetHold: Edge(wishes.set_hold, P.CLEANING),
        Release: Edge(wishes.release, P.CLEANING),
        Cleaned: Edge(facts.cleaned, P.CLEANING, P.WAITING, P.BACKOFF, P.HELD, P.DOWN),
        CleanFailed: Edge(facts.clean_failed, P.CLEANING, P.WAITING, P.BACKOFF, P.HELD, P.DOWN),
        **_ignored(P.CLEANING, Turn, Up, Tick, SuspendFailed),
        **_impossible(P.CLEANING, Prepared, PrepareFailed, SpawnFailed, LoaderEnded, Ended, Interrupted, Found),
    },
    P.BACKOFF: {
        Start: Edge(wishes.start_pending, P.WAITING, P.BACKOFF),
        Restart: Edge(wishes.start_pending, P.WAITING, P.BACKOFF),
        Stop: Edge(wishes.stop_pending, P.DOWN, P.CLEANING),
        Poweroff: Edge(wishes.stop_pending, P.DOWN, P.CLEANING),
        Shutdown: Edge(wishes.stop_pending, P.DOWN, P.CLEANING),
        Reset: Edge(wishes.not_running, P.BACKOFF),
        Suspend: Edge(wishes.not_running, P.BACKOFF),
        SetHold: Edge(wishes.set_hold_pending, P.HELD, P.CLEANING),
        Release: Edge(wishes.release, P.BACKOFF),
        Tick: Edge(facts.tick_backoff, P.WAITING, P.BACKOFF),
        **_ignored(P.BACKOFF, Turn, Up, SuspendFailed),
        **_impossible(P.BACKOFF, Prepared, PrepareFailed, SpawnFailed, LoaderEnded, Ended, Interrupted, Cleaned, CleanFailed, Found),
    },
    P.HELD: {
        Start: Edge(wishes.start_pending, P.WAITING, P.HELD),
        Restart: Edge(wishes.start_pending, P.WAITING, P.HELD),
        Stop: Edge(wishes.stop_held, P.DOWN, P.CLEANING, P.HELD),
        Poweroff: Edge(wishes.stop_held, P.DOWN, P.CLEANING, P.HELD),
        Shutdown: Edge(wishes.shutdown_held, P.HELD),
        Reset: Edge(wishes.not_running, P.HELD),
        Suspend: Edge(wishes.not_running, P.HELD),
        SetHold: Edge(wishes.set_hold, P.HELD),
        Release: Edge(wishes.release_held, P.WAITING, P.DOWN, P.HELD),
        SpawnFailed: Edge(facts.ended_held, P.CLEANING),
        LoaderEnded: Edge(facts.ended_held, P.CLEANING),
        Ended: Edge(facts.ended_held, P.CLEANING),
        Interrupted: Edge(facts.ended_held, P.CLEANING),
        **_ignored(P.HELD, Turn, Up, Tick, SuspendFailed),
        **_impossible(P.HELD, Prepared, PrepareFailed, Cleaned, CleanFailed, Found),
    },
}
