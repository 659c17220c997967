"""`[limits]`: what a guest's bhyve may use of the host, as rules of rctl(8) on its process.

Source: contract 8.3, rctl(8), and kern_rctl.c of FreeBSD for what follows. A rule of a process goes with it, so that each run is given
its own. `pcpu` is denied and the others are throttled: no resource knows both. A further `deny` takes the place of one that differs by
its amount only, a further `throttle` stands beside it. Memory has no key: what a guest may have is `memory`, and a limit of what is
resident makes the host page for ever.
"""

import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple

from msgspec import Meta

from bhyved.core.table import Rule, Table
from bhyved.core.units import Size

_ACTIONS = {"pcpu": "deny", "readbps": "throttle", "writebps": "throttle", "readiops": "throttle", "writeiops": "throttle"}
_RULE = re.compile(r"process:(\d+):(\w+):(\w+)=(\d+)(?:/process)?")

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Limits(Table, frozen=True, kw_only=True):
    """Amounts in rctl(8)'s words: hundredths of one processor, bytes and operations a second, together for all disks."""

    pcpu: Count | None = None
    readbps: Size | None = None
    writebps: Size | None = None
    readiops: Count | None = None
    writeiops: Count | None = None

    def rules(self) -> Iterator[Rule]:
        if not self.amounts():
            yield "", f"must have at least one of {', '.join(_ACTIONS)}"
        for key, amount in self.amounts().items():
            if amount == 0:
                yield key, "must be more than 0: a guest that may do nothing is better stopped"

    def amounts(self) -> dict[str, int]:
        """Resource → how much of it."""
        return {key: int(amount) for key in _ACTIONS if (amount := getattr(self, key)) is not None}

    def __str__(self) -> str:
        """As people read it: `pcpu 150, readbps 50M`."""
        return ", ".join(f"{key} {getattr(self, key)}" for key in self.amounts())


class Steps(NamedTuple):
    """What is to be done to the rules of a process: filters for `rctl -r`, then rules for `rctl -a`."""

    remove: tuple[str, ...]
    add: tuple[str, ...]


def rules(limits: Limits, pid: int | str) -> tuple[str, ...]:
    """As `rctl -a` takes them."""
    return tuple(f"process:{pid}:{key}:{_ACTIONS[key]}={amount}" for key, amount in limits.amounts().items())


def steps(limits: Limits | None, pid: int, listing: str) -> Steps:
    """From the rules that `rctl process:PID` has printed to those of `limits`. What an operator has set besides is left alone."""
    wanted = {} if limits is None else limits.amounts()
    had: dict[str, set[int]] = {}
    for line in listing.split():
        rule = _RULE.fullmatch(line)
        if rule and int(rule[1]) == pid and _ACTIONS.get(rule[2]) == rule[3]:
            had.setdefault(rule[2], set()).add(int(rule[4]))
    other = {key for key, amounts in had.items() if amounts != {wanted.get(key)}}
    missing = {key for key in wanted if key not in had} | (other & wanted.keys())
    added = () if limits is None else tuple(rule for rule in rules(limits, pid) if rule.split(":")[2] in missing)
    return Steps(remove=tuple(f"process:{pid}:{key}:{_ACTIONS[key]}" for key in _ACTIONS if key in other), add=added)


def refusal(racct: str, *, jailed: bool) -> str:
    """Why no limit would hold, or ''. `racct`: what `sysctl -n kern.racct.enable` prints."""
    if jailed:  # prison_priv_check of kern_jail.c knows none of rctl's privileges, and no parameter gives them
        return "limits: a jail may set no rules of rctl(8): limit the whole jail on its host, jail:NAME:pcpu:deny=150 for example"
    if racct == "1":
        return ""
    if racct == "0":
        return "limits: the host does not count what processes use: put kern.racct.enable=1 into /boot/loader.conf and reboot it"
    return "limits: this kernel has no kern.racct.enable: it was built without RACCT and RCTL, which GENERIC has"
