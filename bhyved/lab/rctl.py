"""The stand-in of rctl(8): rules on processes of the lab, as strict as the kernel (kern_rctl.c); `kern.racct.enable` is 0 as in GENERIC.

    rctl FILTER …          rctl -a RULE …          rctl -r FILTER …

Nothing is limited. A rule is `process:PID:RESOURCE:ACTION=AMOUNT`, goes with its process, and a filter is one with parts left out.
The exit status is how many of the arguments failed, and 1 where the host does not count at all.
"""

from __future__ import annotations

import sys

from bhyved.lab import state
from bhyved.lab.processes import process_of
from bhyved.lab.sysctl import is_jailed, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Rule = tuple[int, str, str, int]  # pid, resource, action, amount

#: Which may be denied, and which throttled: RACCT_DENIABLE and RACCT_DECAYING of kern_racct.c, with rctl_rule_add's exceptions.
_DENIED = (
    "datasize",
    "stacksize",
    "coredumpsize",
    "memoryuse",
    "memorylocked",
    "maxproc",
    "openfiles",
    "vmemoryuse",
    "nthr",
    "nsemop",
    "pcpu",
)
_THROTTLED = ("readbps", "writebps", "readiops", "writeiops")
_SLOPPY = ("pseudoterminals", "swapuse", "msgqqueued", "msgqsize", "nmsgq", "nsem", "nshm", "shmsize")  # never of one process
_RESOURCES = (*_DENIED, *_THROTTLED, *_SLOPPY, "cputime", "wallclock")
_ACTIONS = ("deny", "log", "devctl", "throttle", "sigterm", "sigkill", "sigstop", "sigxcpu")
_POWERS = "kmgtpe"


class Refused(Exception):  # noqa: N818 - what the kernel says
    """An errno in words."""


def main(root: str, argv: list[str]) -> int:
    flag = argv[0] if argv and argv[0].startswith("-") else ""
    words = argv[1:] if flag else argv
    if flag not in ("", "-a", "-r") or not words:
        print("usage: rctl [-h] [-n] [filter ...]\n       rctl -a rule ...\n       rctl -r filter ...", file=sys.stderr)
        return 1
    settings = state.settings(root)
    if not variables(settings)["kern.racct.enable"]:
        print("rctl: RACCT/RCTL present, but disabled; enable using kern.racct.enable=1 tunable", file=sys.stderr)
        return 1
    if is_jailed(settings):
        asked = {"-a": "add_rule", "-r": "remove_rule"}.get(flag, "get_rules")
        print(f"rctl: rctl_{asked}: Operation not permitted", file=sys.stderr)
        return 1
    with state.Locked(root, "rctl"):
        path = f"{root}/lab/rctl.json"
        rules = [_rule_of(each) for each in (state.read(path) or {}).get("rules", [])]
        rules = [rule for rule in rules if process_of(rule[0]) is not None]
        failed = sum(not _done(flag, word, rules) for word in words)
        state.write(path, {"rules": rules})
    return failed


def _done(flag: str, word: str, rules: list[Rule]) -> bool:
    what = {"-a": "add rule", "-r": "remove rule"}.get(flag, "show rules for")
    try:
        if flag == "-a":
            _add(word, rules)
        else:
            _pick(word, rules, remove=flag == "-r")
    except Refused as refusal:
        print(f"rctl: failed to {what} '{word}': {refusal}", file=sys.stderr)
        return False
    except ValueError as error:
        print(f"rctl: malformed rule '{word}': {error}", file=sys.stderr)
        return False
    return True


def _add(word: str, rules: list[Rule]) -> None:
    pid, resource, action, amount = _parsed(word)
    if pid is None or not resource or not action or amount is None:
        raise Refused("Invalid argument")
    if action == "deny" and resource not in _DENIED:
        raise Refused("Operation not supported")
    if action == "throttle" and resource not in _THROTTLED:
        raise Refused("Operation not supported")
    if resource in _SLOPPY:
        raise Refused("Operation not supported")
    # A denial takes the place of one that differs by its amount; any other rule only that of itself.
    same = [each for each in rules if each[:3] == (pid, resource, action) and (action == "deny" or each[3] == amount)]
    rules[:] = [*(each for each in rules if each not in same), (pid, resource, action, amount)]


def _pick(word: str, rules: list[Rule], *, remove: bool) -> None:
    wanted = _parsed(word)
    found = [rule for rule in rules if all(part in (None, "") or part == have for part, have in zip(wanted, rule, strict=True))]
    if not remove:
        for pid, resource, action, amount in found:
            print(f"process:{pid}:{resource}:{action}={amount}")
    elif not found:
        raise Refused("No such process")
    rules[:] = [rule for rule in rules if rule not in found or not remove]


def _parsed(word: str) -> tuple[int | None, str, str, int | None]:
    """What is left out is None or empty. Raises Refused, and ValueError for what rctl itself refuses."""
    subject, colon, rest = word.partition(":")
    if not colon:
        raise ValueError("missing subject")
    subject_id, _, rest = rest.partition(":")
    resource, _, rest = rest.partition(":")
    action, _, amount = rest.partition("=")
    if subject not in ("process", "p"):
        raise Refused("Invalid argument")  # the lab has no other subjects
    if subject_id and not subject_id.isdigit():
        raise Refused("Invalid argument")
    if (resource and resource not in _RESOURCES) or (action and action not in _ACTIONS):
        raise Refused("Invalid argument")
    pid = int(subject_id) if subject_id else None
    number = _number(amount.partition("/")[0]) if amount else None
    if pid is not None and process_of(pid) is None:
        raise Refused("No such process")
    return pid, resource, action, number


def _number(text: str) -> int:
    """As expand_number(3)."""
    digits, power = text.rstrip("bB"), 0
    if digits[-1:].lower() in _POWERS and digits[-1:]:
        digits, power = digits[:-1], _POWERS.index(digits[-1].lower()) + 1
    if not digits.isdigit():
        raise ValueError(f"invalid numeric value '{text}'")
    return int(digits) << 10 * power


def _rule_of(said: Any) -> Rule:
    pid, resource, action, amount = said
    return int(pid), str(resource), str(action), int(amount)
