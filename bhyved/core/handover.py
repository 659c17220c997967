"""What daemon and host hand to each other: the values that the methods of `daemon.ports` take and return.

They are here because neither knows the other: `daemon.ports` shows them to the daemon, `host` makes and reads them.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from bhyved.core.exits import Stage
from bhyved.core.spec import VmSpec
from bhyved.core.status import Suspension, VmRecord


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One start as it was asked for."""

    run: str  # run id
    by: str
    spec: VmSpec
    record: VmRecord
    install: bool = False  # install media attached
    first: bool = True  # not an automatic restart: VNC wait applies
    cold: bool = False  # a saved state is to be thrown away, not resumed


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A run of this boot that an earlier daemon began, as its ledger tells."""

    run: str
    by: str
    stage: Stage
    spec: VmSpec | None  # as started; None: the record could not be read
    pid: int | None
    started: float | None
    started_at: datetime | None
    taps: tuple[str, ...] = ()
    vnc: str = ""
    install: bool = False
    resumes: bool = False  # a saved state
    seed: str = ""  # the fingerprint of the cloud-init seed that is attached
    suspending: bool = False


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the host gave a run. The host keeps the rest to itself."""

    taps: tuple[str, ...] = ()
    vnc: str = ""
    slots: Mapping[str, str] = {}
    macs: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()
    resumed: Suspension | None = None  # the saved state that this run goes on from
    seed: str = ""  # the fingerprint of the cloud-init seed that is attached; "": none is


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What a starting daemon found on the host besides runs of its own."""

    foreign: Mapping[str, int] = {}  # configured guests that somebody else's bhyve runs: its pid
    removed: tuple[str, ...] = ()  # what was left over and is gone, a sentence each
    problems: tuple[str, ...] = ()  # what could not be removed, a sentence each


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How an operator's command ended. `status` is None when its time ran out; `text` is the end of what it printed."""

    status: int | None
    text: str = ""
