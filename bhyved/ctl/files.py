"""`vmctl check` and `vmctl plan`: of the daemon where there is one, and of the files themselves where there is none or -c names them.

Without a daemon, what only a running host knows (slots and addresses given before, taps) is a guess, and says so.
"""

from __future__ import annotations

import os
import sys

from bhyved.ctl.amounts import counted, one_line
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, main_file, print_json, socket_of
from bhyved.ctl.connection import CONFIG, FAILED, OK, SOCKET, UNREACHABLE, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from bhyved.core.assigned import Target
    from bhyved.core.config import Loaded


def check(asked: Asked) -> int:
    told = _from_daemon(asked, "config.check")
    if told is None:
        loaded = read_files(asked)
        told = {"problems": [str(problem) for problem in loaded.problems], "warnings": [str(warning) for warning in loaded.warnings]}
        told["guests"] = len(loaded.vms)
    problems = told["problems"]
    if asked.has("json"):
        print_json({"version": 1, **told})
        return CONFIG if problems else OK
    for problem in problems:
        print(one_line(problem), file=sys.stderr)
    for warning in told["warnings"]:
        print(f"warning: {one_line(warning)}", file=sys.stderr)
    if problems:
        print(f"vmctl: {counted(len(problems), 'problem')}", file=sys.stderr)
        return CONFIG
    print("the configuration is good")
    return OK


def plan(asked: Asked) -> int:
    whole = [key for key in ("boot", "shutdown") if asked.has(key)]
    if not whole and asked.names in (["boot"], ["shutdown"]):  # the host's, as one would say it
        whole, asked.names = asked.names, []
    if len(whole) > 1 or bool(whole) == bool(asked.names):
        raise Failure(USAGE, "plan: give the names of guests, or --boot, or --shutdown (vmctl plan --help)")
    if whole:
        return _show(asked, _from_daemon(asked, f"daemon.plan-{whole[0]}") or _agenda(asked, whole[0]))
    statuses = [_plan_of(asked, name) for name in asked.names]
    return max(statuses)


def _plan_of(asked: Asked, name: str) -> int:
    params = {"release": asked.text("release"), "arch": asked.text("arch"), "install": asked.has("install") or None}
    told = _from_daemon(asked, "vm.plan", name=name, **params)
    if told is None:
        return _show(asked, _planned(asked, name))
    for objection in told["objections"]:
        print(f"this host refuses it: {one_line(objection)}", file=sys.stderr)
    return _show(asked, told)


def _show(asked: Asked, told: dict[str, Any]) -> int:
    if asked.has("json"):
        print_json(told)
    else:
        sys.stdout.write(told["text"])
    return OK


def _from_daemon(asked: Asked, method: str, **params: object) -> dict[str, Any] | None:
    """Its answer; None where the files are to be read: -c says so, or nobody is there to be asked."""
    if asked.is_given("config"):
        return None
    try:
        with connect(asked) as connection:
            return connection.call(method, **params)
    except Failure as failure:
        if failure.status != UNREACHABLE or socket_of(asked) != SOCKET:  # the files of another daemon are somewhere else
            raise
        print(f"{failure.text}; the files are read without it", file=sys.stderr)
        return None


def read_files(asked: Asked) -> Loaded:
    from bhyved.host import configfiles

    return configfiles.read(main_file(asked)).loaded


def _sound(asked: Asked) -> Loaded:
    loaded = read_files(asked)
    if loaded.daemon is None:
        lines = tuple(one_line(str(problem)) for problem in loaded.problems)
        raise Failure(CONFIG, "the main file cannot be used", lines=lines)
    return loaded


def _planned(asked: Asked, name: str) -> dict[str, Any]:
    from bhyved.core import plan as plans
    from bhyved.core.assigned import provisional
    from bhyved.core.bhyveconf import ConfError

    loaded = _sound(asked)
    assert loaded.daemon is not None
    spec = loaded.vms.get(name)
    if spec is None:
        lines = tuple(one_line(str(problem)) for problem in loaded.problems)
        raise Failure(CONFIG if lines else FAILED, f'there is no guest "{name}" whose file can be used', lines=lines)
    target = _target(asked)
    assigned = provisional(spec, arch=target.arch, install=asked.has("install"))
    guess = "without the daemon, taps, slots and addresses that the guest has had before are not known: these are a guess"
    try:
        laid_out = plans.plan(spec, assigned, target, f"{loaded.daemon.paths.run}/vm/{name}", extra=(guess,))
    except ConfError as error:
        raise Failure(CONFIG, str(error)) from None
    objections = laid_out.refused_by.get(str(target), ())
    return {
        "text": plans.text(laid_out),
        "warnings": laid_out.warnings,
        "objections": objections,
        "plan": plans.data(laid_out),
    }


def _target(asked: Asked) -> Target:
    """What is asked for, and for the rest this host, if it is one that runs bhyve."""
    from bhyved.core.assigned import Target

    here = os.uname()
    is_bsd = here.sysname == "FreeBSD"
    releases: dict[str, Literal["14", "15", "main"]] = {"14": "14", "15": "15", "main": "main"}
    major = here.release.partition(".")[0] if is_bsd else "15"
    release = releases.get(asked.text("release") or major, "main")
    arch = asked.text("arch") or ("arm64" if is_bsd and here.machine in ("arm64", "aarch64") else "amd64")
    return Target(release, "arm64" if arch == "arm64" else "amd64")


def _agenda(asked: Asked, which: str) -> dict[str, Any]:
    import msgspec

    from bhyved.core import agenda
    from bhyved.core.turns import Pace

    loaded = _sound(asked)
    assert loaded.daemon is not None
    if which == "boot":
        pace = Pace(parallel=loaded.daemon.start_parallel, gap_s=float(loaded.daemon.start_gap))
        laid_out = agenda.boot(loaded.vms, pace)
    else:
        laid_out = agenda.shutdown(loaded.vms, None)
    table: dict[str, Any] = msgspec.to_builtins(laid_out)
    return table
