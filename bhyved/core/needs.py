"""What a guest needs of its host before it may start: `[order] needs`, one `KIND:NAME` each.

Parsed here; `core.turns` holds a guest back while one is missing, `host.needs` looks, `daemon.needs` says when.
"""

import re
from collections.abc import Iterable

from bhyved.core.units import span

INTERFACE, PATH, POOL = "interface", "path", "pool"

#: Words of ifconfig(8) and zpool(8): one that began with a dash would be an option.
_NAMES = {
    INTERFACE: re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,14}"),
    PATH: re.compile(r"/.*"),
    POOL: re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,254}"),
}


def split(need: str) -> tuple[str, str]:
    """Kind and name of a need that has no `problem`."""
    kind, _, name = need.partition(":")
    return kind, name


def problem(need: str) -> str:
    """What is wrong with how a need is written, or ''."""
    kind, name = split(need)
    if kind in _NAMES and _NAMES[kind].fullmatch(name):
        return ""
    return f'{need!r} must be "interface:NAME", "path:/FILE" or "pool:NAME"'


def is_told(need: str) -> bool:
    """Whether devd(8) tells when it comes: interfaces, pools and device nodes, zvols among them, but no other file."""
    kind, name = split(need)
    return kind != PATH or name.startswith("/dev/")


def waits_for(need: str, why: str | None, period_s: float, *, told: bool) -> str:
    """What a guest that is held back says. `why`: as the host said, None: not asked yet. `told`: the host tells when it comes."""
    kind, name = split(need)
    if why is None:
        return f"waiting to see whether the {kind} {name} is there"
    when = f"when the host tells of something new, and every {span(period_s)}" if told else f"every {span(period_s)}"
    return f"waiting for the {kind} {name}: {why} (looked at {when})"


def named_in(sentence: str, needed: Iterable[str]) -> str | None:
    """Which of these needs a sentence of `waits_for` is about."""
    for need in needed:
        kind, name = split(need)
        if f"the {kind} {name}:" in sentence or f"the {kind} {name} is there" in sentence:
            return need
    return None


def remedy(need: str) -> str:
    """Where to look when it does not come."""
    kind, name = split(need)
    if kind == INTERFACE:
        return f"ifconfig {name} shows whether it is there; cloned_interfaces in rc.conf makes it at boot"
    if kind == POOL:
        return f"zpool import shows whether {name} can be imported"
    return f"ls {name} shows whether it is there, mount whether its file system is"
