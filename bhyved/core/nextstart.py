"""What the next start of a guest would do, with what is remembered of the last ones: `vmctl plan NAME` when a daemon answers."""

import msgspec

from bhyved.core import macs, slots
from bhyved.core.assigned import Target, provisional
from bhyved.core.plan import Plan, plan
from bhyved.core.spec import Paths, VmSpec
from bhyved.core.status import VmRecord, VmStatus

_IS_SET_UP = "cloud-init: the guest has been set up: its seed is attached again when what is in it changes"


def next_start(
    spec: VmSpec, record: VmRecord, status: VmStatus, target: Target, *, host_id: str, paths: Paths, install: bool = False
) -> Plan:
    """Lay it out, for this or another host. Raises ConfError."""
    guess = provisional(spec, arch=target.arch, install=install)
    assigned = msgspec.structs.replace(
        guess,
        slots=slots.assign(spec, record.slots, target.arch),
        macs=macs.assign(spec, record.macs, host_id=host_id),
        taps=dict(zip(guess.taps, status.taps, strict=False)) if status.taps else guess.taps,
        vnc=status.vnc or guess.vnc,
    )
    notes: tuple[str, ...] = ()
    if spec.cloud_init is not None:
        is_set_up = spec.cloud_init.when == "first" and bool(record.seed)
        notes = (_IS_SET_UP,) if is_set_up else ()
        path = "" if is_set_up else f"{paths.db}/cloud-init/{spec.name}.iso"
        assigned = msgspec.structs.replace(assigned, seed=path)
    return plan(spec, assigned, target, f"{paths.run}/vm/{spec.name}", notes)
