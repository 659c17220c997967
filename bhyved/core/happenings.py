"""What can happen to a guest, what the asker is told, and what the driver must do: the words of the lifecycle.

Wishes come from people and from the daemon, facts from the host. `bhyved.core.lifecycle` is where others import them from.
"""

import msgspec

from bhyved.core.exits import Exit, Stage
from bhyved.core.status import Hold

# --- wishes ---------------------------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Bring the guest up. `auto`: the daemon's own wish (autostart), which a hold stops. `cold`: not from a saved state."""

    by: str
    install: bool = False
    cold: bool = False
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
    """The reset button. `blame`: not a person's wish, but a remedy for this, which counts as a crash."""

    by: str
    blame: str = ""


class Poweroff(msgspec.Struct, frozen=True, kw_only=True):
    """Cut the power."""

    by: str


class Suspend(msgspec.Struct, frozen=True, kw_only=True):
    """Write the guest's state to disk and end its run: the next start goes on where it was."""

    by: str


class SetHold(msgspec.Struct, frozen=True, kw_only=True):
    """Freeze automation."""

    hold: Hold


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Let automation go on. `auto`: not a person's wish, but the end of a hold's time."""

    by: str
    auto: bool = False


class Shutdown(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon stops its guests; what is wished of them stays. `why`: for people. `end_at`: the host's deadline, monotonic.

    `suspend`: by writing the guest's state to disk, as far as there is time for that.
    """

    by: str
    why: str = "stopped with the daemon"
    end_at: float | None = None
    force: bool = False
    suspend: bool = False


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


class SuspendFailed(msgspec.Struct, frozen=True):
    """The state could not be written: the guest goes on."""

    why: str


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
    """A daemon before this one left a run: the only way, besides a start, to get out of DOWN. `suspending`: it was being suspended."""

    stage: Stage
    up: bool
    suspending: bool = False


class Tick(msgspec.Struct, frozen=True):
    """The deadline has come. A late one, for a phase already left, changes nothing."""


Wish = Start | Stop | Restart | Reset | Poweroff | Suspend | SetHold | Release | Shutdown
Fact = (
    Turn
    | Prepared
    | PrepareFailed
    | SpawnFailed
    | LoaderEnded
    | Up
    | SuspendFailed
    | Ended
    | Interrupted
    | Cleaned
    | CleanFailed
    | Found
    | Tick
)
Event = Wish | Fact
WISHES: tuple[type, ...] = (Start, Stop, Restart, Reset, Poweroff, Suspend, SetHold, Release, Shutdown)
FACTS: tuple[type, ...] = (
    Turn,
    Prepared,
    PrepareFailed,
    SpawnFailed,
    LoaderEnded,
    Up,
    SuspendFailed,
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
NO_MEDIA = Answer(False, "no-media", "the guest runs without its install media: they are attached at a start, so stop it first")
STOPPING = Answer(False, "stopping", "the guest is being stopped")
SUSPENDING = Answer(False, "suspending", "the guest is being suspended to disk: it can be started when that is done")
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
SUSPEND = Action("suspend")
KILL = Action("kill")
CLEAN = Action("clean")  # for an immediate next run: taps and nodes are dealt with by its PREPARE
CLEAN_ALL = Action("clean-all")


class ImpossibleEvent(Exception):  # noqa: N818 - it names the event, and is always our bug
    """A fact that cannot happen in this phase: the driver or the host layer is wrong."""
