"""What requests carry on the control socket, by method; those of console.* are in `consolewire`.

docs/protocol.md is written from these; a test compares. Keys are kebab-case.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bhyved.core.consolewire import WAIT_MAX_S, Params

#: Ten years: a hold or a drain that nobody releases is a hold without end.
HOLD_MAX_S = 10 * 366 * 86_400.0

#: Shown in terminals and logs: one line, without control characters.
Remark = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
StopSeconds = Annotated[float, Meta(ge=0, le=86_400)]
HoldSeconds = Annotated[float, Meta(gt=0, le=HOLD_MAX_S)]
Until = Literal["up", "ready", "down", "suspended"]


class NoParams(Params, frozen=True, kw_only=True):
    """Methods that take none."""


class OfGuest(Params, frozen=True, kw_only=True):
    """One guest."""

    name: str


class OfGuests(Params, frozen=True, kw_only=True):
    """Guests by name, or every one that the caller may use."""

    names: tuple[str, ...] = ()
    all: bool = False

    def __post_init__(self) -> None:
        if bool(self.names) == self.all:
            raise ValueError('give names, or "all": true' + (", not both" if self.all else ""))


class ListParams(Params, frozen=True, kw_only=True):
    """`vm.list` and `vm.usage`. Without names: all that the caller may see."""

    names: tuple[str, ...] = ()


class StartParams(OfGuests, frozen=True, kw_only=True):
    """`vm.start`. `cold`: a saved state is thrown away."""

    install: bool = False
    cold: bool = False


class StopParams(OfGuests, frozen=True, kw_only=True):
    """`vm.stop`. `timeout` replaces the guest's own grace."""

    force: bool = False
    timeout: StopSeconds | None = None


class HoldParams(OfGuests, frozen=True, kw_only=True):
    """`vm.hold`."""

    reason: Remark = ""
    for_: HoldSeconds | None = msgspec.field(default=None, name="for")


class WaitParams(OfGuest, frozen=True, kw_only=True):
    """`vm.wait`."""

    until: Until
    after_run: str | None = None
    timeout: Annotated[float, Meta(ge=0, le=WAIT_MAX_S)] | None = None


class WhyParams(OfGuest, frozen=True, kw_only=True):
    """`vm.why`. `runs`: how many of the newest runs come along."""

    runs: Annotated[int, Meta(ge=0, le=100)] = 3


class HistoryParams(OfGuest, frozen=True, kw_only=True):
    """`vm.history`."""

    last: Annotated[int, Meta(ge=1, le=1000)] = 20


class PlanParams(OfGuest, frozen=True, kw_only=True):
    """`vm.plan`. Without release and arch: the host's own."""

    release: Literal["14", "15", "main"] | None = None
    arch: Literal["amd64", "arm64"] | None = None
    install: bool = False


class SnapshotParams(OfGuests, frozen=True, kw_only=True):
    """`vm.snapshot`. Without `snapshot`, it is named after the moment."""

    snapshot: str | None = None


class SnapshotDeleteParams(OfGuest, frozen=True, kw_only=True):
    """`vm.snapshot-delete`. A snapshot that bhyved did not take must be named in full: DATASET@NAME."""

    snapshot: str


class RollbackParams(OfGuest, frozen=True, kw_only=True):
    """`vm.rollback`."""

    snapshot: str
    destroy_newer: bool = False


class ReloadParams(Params, frozen=True, kw_only=True):
    """`config.reload`. `plan`: say what would happen and change nothing. `prune`: stop guests whose file is gone."""

    plan: bool = False
    prune: bool = False


class DrainParams(Params, frozen=True, kw_only=True):
    """`daemon.drain`: stop every guest and start none, or take that back."""

    on: bool
    reason: Remark = ""
    for_: HoldSeconds | None = msgspec.field(default=None, name="for")


class SubscribeParams(Params, frozen=True, kw_only=True):
    """`events.subscribe`. Without `since` and `since-time`: from now on."""

    since: Annotated[int, Meta(ge=0)] | None = None
    since_time: float | None = None
    names: tuple[str, ...] = ()
    follow: bool = True


class MetricsParams(Params, frozen=True, kw_only=True):
    """`daemon.metrics`. `accept`: as in HTTP, which of the formats; without it, Prometheus's text."""

    accept: Annotated[str, Meta(max_length=1000)] = ""
