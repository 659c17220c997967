"""The methods of the control socket: what each takes, and who may call it.

docs/protocol.md has the same table; a test compares.
"""

from typing import Literal

import msgspec

from bhyved.core import consolewire
from bhyved.core.consolewire import Params
from bhyved.core.params import (
    DrainParams,
    HistoryParams,
    HoldParams,
    ListParams,
    MetricsParams,
    NoParams,
    OfGuest,
    OfGuests,
    PlanParams,
    ReloadParams,
    RollbackParams,
    SnapshotDeleteParams,
    SnapshotParams,
    StartParams,
    StopParams,
    SubscribeParams,
    WaitParams,
    WhyParams,
)
from bhyved.core.rights import Right


class Method(msgspec.Struct, frozen=True):
    """What a method takes and who may call it. `of` is what the right is needed over: one guest, each of several, or the host."""

    params: type[Params]
    of: Literal["anybody", "host", "guest", "guests"]
    right: Right | None = None
    changes: bool = False  # something: logged, and told as an event
    waits: bool = False  # later requests of the connection go ahead of its answer


METHODS: dict[str, Method] = {
    "daemon.info": Method(NoParams, "anybody"),
    "vm.list": Method(ListParams, "guests", Right.READ),
    "vm.show": Method(OfGuest, "guest", Right.READ),
    "vm.start": Method(StartParams, "guests", Right.OPERATE, changes=True),
    "vm.stop": Method(StopParams, "guests", Right.OPERATE, changes=True),
    "vm.restart": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.reset": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.poweroff": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.nmi": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.suspend": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.resume": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.hold": Method(HoldParams, "guests", Right.OPERATE, changes=True),
    "vm.release": Method(OfGuests, "guests", Right.OPERATE, changes=True),
    "vm.snapshot": Method(SnapshotParams, "guests", Right.OPERATE, changes=True, waits=True),
    "vm.snapshots": Method(OfGuest, "guest", Right.READ, waits=True),
    "vm.snapshot-delete": Method(SnapshotDeleteParams, "guest", Right.OPERATE, changes=True, waits=True),
    "vm.rollback": Method(RollbackParams, "guest", Right.ADMIN, changes=True, waits=True),
    "vm.usage": Method(ListParams, "guests", Right.READ),
    "vm.wait": Method(WaitParams, "guest", Right.READ, waits=True),
    "vm.why": Method(WhyParams, "guest", Right.READ),
    "vm.history": Method(HistoryParams, "guest", Right.READ),
    "vm.plan": Method(PlanParams, "guest", Right.READ),
    "config.check": Method(NoParams, "host", Right.READ),
    "config.reload": Method(ReloadParams, "host", Right.ADMIN, changes=True),
    "daemon.drain": Method(DrainParams, "host", Right.ADMIN, changes=True),
    "daemon.plan-boot": Method(NoParams, "host", Right.READ),
    "daemon.plan-shutdown": Method(NoParams, "host", Right.READ),
    "daemon.metrics": Method(MetricsParams, "host", Right.READ),
    "web.link": Method(NoParams, "host", Right.ADMIN, changes=True),
    "events.subscribe": Method(SubscribeParams, "guests", Right.READ, waits=True),
    "console.attach": Method(consolewire.AttachParams, "guest", Right.CONSOLE_READ),
    "console.tail": Method(consolewire.TailParams, "guests", Right.CONSOLE_READ),
    "console.log": Method(consolewire.LogParams, "guest", Right.CONSOLE_READ),
    "console.wait-for": Method(consolewire.WaitParams, "guest", Right.CONSOLE_READ, waits=True),
    "console.send": Method(consolewire.SendParams, "guest", Right.CONSOLE_WRITE, changes=True),
}
