"""Old configuration and new → what changes, and when each change takes effect.

Every run, also the one after a guest's own reboot, is a new bhyve on a new node with a newly written file; so hardware, serial ports too,
waits for the guest's next reboot, and only what belongs to a cold start waits longer. What needs a stop is a guest whose file has gone.
"""

import enum
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.table import Table
from bhyved.core.units import enc_hook


class Effect(enum.StrEnum):
    """When a change takes effect, from soonest to never."""

    LIVE = "live"
    NEXT_GUEST_REBOOT = "next-guest-reboot"
    NEXT_COLD_START = "next-cold-start"
    REFUSED = "refused"


class Change(msgspec.Struct, frozen=True):
    """One key that differs. `old` and `new` are as an operator writes them; None: not there."""

    key: str
    old: Any
    new: Any
    effect: Effect


class ReloadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload would do. Guests without a difference are not in `changed`."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: dict[str, tuple[Change, ...]] = {}
    daemon: tuple[Change, ...] = ()


#: The longest prefix decides; hardware is what is left.
_VM_EFFECTS = {
    "autostart": Effect.LIVE,
    "owner": Effect.LIVE,
    "restart": Effect.LIVE,
    "stop": Effect.LIVE,
    "stop.ignore-early-term": Effect.NEXT_GUEST_REBOOT,  # the keeper is told when it starts
    "order": Effect.LIVE,
    "health": Effect.LIVE,
    "hooks": Effect.LIVE,
    "limits": Effect.LIVE,
    "boot.timeout": Effect.LIVE,
    "disk.create": Effect.LIVE,
    "disk.shared": Effect.LIVE,
    "serial.on-detach": Effect.LIVE,
    "serial.hangup-line": Effect.LIVE,
    "serial.log": Effect.LIVE,
    "serial.log-timestamps": Effect.LIVE,
    "serial.log-max-size": Effect.LIVE,
    "serial.log-keep": Effect.LIVE,
    "serial.socket": Effect.LIVE,
    "graphics.wait": Effect.NEXT_COLD_START,  # applies to the first run only
    "cdrom.when": Effect.NEXT_COLD_START,
    "boot.grub.install-root": Effect.NEXT_COLD_START,
    "boot.grub.install-directory": Effect.NEXT_COLD_START,
    "boot.grub.install-commands": Effect.NEXT_COLD_START,
}
_DAEMON_EFFECTS = {
    "paths": Effect.REFUSED,  # running guests are found again under them
    "log.to": Effect.REFUSED,
    "console.ring": Effect.REFUSED,
}


def compare(old: VmSpec, new: VmSpec) -> tuple[Change, ...]:
    """Every key of one guest that differs."""
    return tuple(_differences(old, new, "", _VM_EFFECTS, Effect.NEXT_GUEST_REBOOT))


def compare_daemon(old: DaemonSpec, new: DaemonSpec) -> tuple[Change, ...]:
    """Every key of bhyved.toml that differs. Refused is what only a restart of the daemon changes; guests stay over that."""
    return tuple(_differences(old, new, "", _DAEMON_EFFECTS, Effect.LIVE))


def plan(old: Mapping[str, VmSpec], new: Mapping[str, VmSpec], daemon: tuple[DaemonSpec, DaemonSpec]) -> ReloadPlan:
    """The whole of it. `daemon`: the old and the new main file."""
    changed = {name: compare(old[name], new[name]) for name in sorted(old.keys() & new.keys())}
    return ReloadPlan(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed={name: changes for name, changes in changed.items() if changes},
        daemon=compare_daemon(*daemon),
    )


def worst(changes: tuple[Change, ...]) -> Effect:
    """The latest effect among changes: what must happen until all of them hold."""
    order = list(Effect)
    return max((change.effect for change in changes), key=order.index, default=Effect.LIVE)


def _differences(old: Any, new: Any, key: str, effects: Mapping[str, Effect], rest: Effect) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, Table) and type(old) is type(new):
        for field in msgspec.structs.fields(old):
            name = f"{key}.{field.encode_name}" if key else field.encode_name
            yield from _differences(getattr(old, field.name), getattr(new, field.name), name, effects, rest)
    elif isinstance(old, tuple) and isinstance(new, tuple) and any(isinstance(item, Table) for item in (*old, *new)):
        for index in range(max(len(old), len(new))):
            one = old[index] if index < len(old) else None
            other = new[index] if index < len(new) else None
            yield from _differences(one, other, f"{key}[{index}]", effects, rest)
    else:
        yield Change(key, _written(old), _written(new), _effect(key, effects, rest))


def _effect(key: str, effects: Mapping[str, Effect], rest: Effect) -> Effect:
    parts = [part.partition("[")[0] for part in key.split(".")]
    for length in range(len(parts), 0, -1):
        effect = effects.get(".".join(parts[:length]))
        if effect is not None:
            return effect
    return rest


def _written(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=enc_hook)
