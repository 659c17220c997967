"""Verbs that ask guests for something: start, stop, restart, reset, poweroff, nmi, suspend, resume, hold, release; and the waiting."""

from __future__ import annotations

import sys
import time

from bhyved.ctl.amounts import one_line, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, deadline_of, guests_of, print_json
from bhyved.ctl.connection import FAILED, NOT_PERMITTED, OK, TIMED_OUT, Connection, result
from bhyved.ctl.listing import standing
from bhyved.ctl.patience import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Told = dict[str, Any]

#: The daemon lets one connection wait for 64 guests at once.
WAITS_AT_ONCE = 48
#: The longest that one request may wait for; without --timeout, it is made again.
WAIT_S = 86_400.0


def start(asked: Asked) -> int:
    until = "ready" if asked.has("ready") else "up"
    return _ask(asked, "vm.start", until, waits=True, install=asked.has("install") or None, cold=asked.has("cold") or None)


def stop(asked: Asked) -> int:
    return _ask(asked, "vm.stop", "down", waits=True, force=asked.has("force") or None, timeout=asked.seconds("grace"))


def restart(asked: Asked) -> int:
    return _ask(asked, "vm.restart", "ready" if asked.has("ready") else "up", waits=True)


def reset(asked: Asked) -> int:
    return _ask(asked, "vm.reset", "up", done="is being reset")


def poweroff(asked: Asked) -> int:
    return _ask(asked, "vm.poweroff", "down", done="its power is being cut")


def nmi(asked: Asked) -> int:
    return _ask(asked, "vm.nmi", "", done="has got its interrupt")


def suspend(asked: Asked) -> int:
    return _ask(asked, "vm.suspend", "suspended", waits=True)


def resume(asked: Asked) -> int:
    return _ask(asked, "vm.resume", "ready" if asked.has("ready") else "up", waits=True)


def hold(asked: Asked) -> int:
    seconds = asked.seconds("for")
    done = "on hold" + ("" if seconds is None else f" for {span(seconds)}")
    return _ask(asked, "vm.hold", "", done=done, reason=asked.text("reason"), for_=seconds)


def release(asked: Asked) -> int:
    return _ask(asked, "vm.release", "", done="released")


def _ask(asked: Asked, method: str, until: str, *, waits: bool = False, done: str = "accepted", **params: object) -> int:
    """Ask each guest; where it is wanted, wait for those that agreed. `waits`: unless --no-wait is given. `done`: for those that do it."""
    deadline = deadline_of(asked)
    with connect(asked) as connection:
        answers: list[Told] = connection.call(method, **guests_of(asked), **params)["answers"]
        if not (asked.has("wait", waits) and until):
            return show_answers(asked, answers, done=done)
        agreed = [told for told in answers if told["ok"]]
        statuses = _say_refused(asked, answers)
        for told in agreed:
            if told["text"]:  # it agrees, and there is something to know about that
                _say(told)
        statuses += _wait(connection, agreed, until, deadline, is_quiet=asked.has("json"))
    _say_all(answers, as_json=asked.has("json"))
    return worst(statuses)


def show_answers(asked: Asked, answers: list[Told], *, done: str = "accepted") -> int:
    """What guests have answered, where nothing is to be waited for; the exit status. `done`: what is said of those that agree."""
    statuses = _say_refused(asked, answers)
    for told in answers:
        if told["ok"] and not asked.has("json"):
            words = done if told["code"] == "accepted" else told["code"]
            print(f"{told['name']}: {one_line(told['text']) or words}")
    _say_all(answers, as_json=asked.has("json"))
    return worst(statuses)


def _say_refused(asked: Asked, answers: list[Told]) -> list[int]:
    refused = [told for told in answers if not told["ok"]]
    for told in refused:
        if told["code"] == "no-such-guest" and not asked.has("json"):
            from bhyved.ctl.unknown import helped

            _say(told | {"text": helped(asked, told["text"])})
        else:
            _say(told)
    return [NOT_PERMITTED if told["code"] == "not-permitted" else FAILED for told in refused]


def _say_all(answers: list[Told], *, as_json: bool) -> None:
    if as_json:
        print_json({"version": 1, "answers": answers})
    elif not answers:
        print("no guests", file=sys.stderr)


def worst(statuses: list[int]) -> int:
    """One status for several guests: theirs, if those that failed agree."""
    failed = {status for status in statuses if status != OK}
    return OK if not failed else failed.pop() if len(failed) == 1 else FAILED


def _say(told: Told) -> None:
    sys.stdout.flush()
    name, words = told["name"], one_line(told["text"]) or told["code"]
    # A name may be any word of a sentence, so that it counts only where sentences have a guest's.
    is_named = words.startswith(f"{name} ") or f'"{name}"' in words or f" to {name}:" in words
    print(f"vmctl: {words}" if is_named else f"vmctl: {name}: {words}", file=sys.stderr)


def wait_for(connection: Connection, names: list[str], until: str, deadline: float | None, *, is_quiet: bool) -> int:
    """Wait until guests are where they should be, whoever asked them; the exit status."""
    return worst(_wait(connection, [{"name": name, "code": "already", "run": ""} for name in names], until, deadline, is_quiet=is_quiet))


def _wait(connection: Connection, agreed: list[Told], until: str, deadline: float | None, *, is_quiet: bool) -> list[int]:
    """A status for each guest. What came of it is added to its answer, and said as soon as it is known."""
    began = time.monotonic()
    patience = Patience(connection.path, until, is_quiet=is_quiet)
    left = list(reversed(agreed))
    asked: dict[int, Told] = {}
    statuses = []
    while left or asked:
        while left and len(asked) < WAITS_AT_ONCE:
            told = left.pop()
            asked[_send_wait(connection, told, until, deadline)] = told
        message = connection.read(patience.look_at)
        if message is None:
            patience.look([told["name"] for told in (*asked.values(), *left)])
            continue
        if message.get("id") not in asked:
            continue
        told = asked.pop(message["id"])
        waited = result(message)
        if waited["timed-out"] and deadline is None:
            left.append(told)
            continue
        told |= {"met": waited["met"], "timed-out": waited["timed-out"], "phase": waited["phase"], "ready": waited["ready"]}
        told |= {"run": waited["run"], "reason": waited["reason"]}
        statuses.append(OK if waited["met"] else TIMED_OUT if waited["timed-out"] else FAILED)
        if not is_quiet or statuses[-1] != OK:
            _say_waited(told, until, time.monotonic() - began)
    return statuses


def _send_wait(connection: Connection, told: Told, until: str, deadline: float | None) -> int:
    timeout_s = WAIT_S if deadline is None else max(0.0, min(WAIT_S, deadline - time.monotonic()))
    # Of a guest that had nothing to do, the run that it has counts; of one that has, a run before this wish does not.
    after_run = (told["run"] or None) if told["code"] == "accepted" else None
    return connection.send("vm.wait", name=told["name"], until=until, after_run=after_run, timeout=timeout_s)


def _say_waited(told: Told, until: str, seconds: float) -> None:
    name, phase, reason = told["name"], told["phase"] or "gone", one_line(told["reason"])
    if told["met"]:
        print(f"{name}: {until if until in ('ready', 'suspended') else phase}")
        sys.stdout.flush()  # the next guest may take its time
        return
    sys.stdout.flush()
    late = f" after {span(seconds)}" if told["timed-out"] else ""
    print(
        f"vmctl: {name} is {standing(phase)}, not {until}{late}" + (f": {reason}" if reason else "") + f" (vmctl why {name})",
        file=sys.stderr,
    )
