"""The operator's commands at transitions: `[hooks]` of a guest, then of the daemon.

A hook is told what has happened as JSON on stdin and in the environment, has a time limit and a process group of its own, and can stall
nothing. What a failure means depends on the moment:

- pre-start: the guest is not started; it is tried again as after any failed start.
- pre-stop: nothing. The first press of the power button waits for it, the later ones do not.
- all others: nothing. Nobody waits for them but the end of the daemon, as long as it can.

Each is an event, `hook` or `hook-failed`, and a line in the log with what it printed.
"""

import json

import structlog
import trio

from bhyved.core.errors import HostError
from bhyved.core.spec import Hooks as HookSpec
from bhyved.core.status import VmStatus
from bhyved.core.units import span
from bhyved.daemon.events import Events
from bhyved.daemon.ports import Commands

_log = structlog.get_logger()

TOLD = 200  # characters of a hook's output in its event; the log has all that is kept


class Hooks:
    """Runs hooks for all guests. `ours` are the daemon's; they may be replaced by a reload."""

    def __init__(self, commands: Commands, events: Events, ours: HookSpec, run_as: str | None) -> None:
        self._commands, self._events = commands, events
        self.ours = ours
        self.run_as = run_as or ""

    async def run(self, moment: str, spec: HookSpec, status: VmStatus) -> str:
        """Run the guest's hook, then the daemon's; what went wrong, in one sentence, or ''."""
        problems = []
        for owner, hooks in (("", spec), ("bhyved's ", self.ours)):
            argv = _argv(hooks, moment)
            if argv is not None:
                problem = await self._one(f"{owner}{moment} hook", moment, argv, float(hooks.timeout), status)
                problems += [problem] if problem else []
        return "; ".join(problems)

    async def _one(self, which: str, moment: str, argv: tuple[str, ...], limit_s: float, status: VmStatus) -> str:
        began, text, problem = trio.current_time(), "", ""
        try:
            ran = await self._commands.run(
                argv, limit_s=limit_s, input=_story(moment, status), env=_environment(moment, status), run_as=self.run_as
            )
        except HostError as error:
            problem = f"{which}: {error}"
        except trio.Cancelled:
            self._tell(f"{which} was killed: bhyved ended", "", moment, argv, began, status)
            raise
        else:
            text = ran.text
            if ran.status is None:
                problem = f"{which} did not end within {span(limit_s)} and was killed"
            elif ran.status != 0:
                problem = f"{which} ended with status {ran.status}" + (f": {text}" if text else "")
        self._tell(problem, text, moment, argv, began, status)
        return problem

    def _tell(self, problem: str, text: str, moment: str, argv: tuple[str, ...], began: float, status: VmStatus) -> None:
        took_s = round(trio.current_time() - began, 3)
        event, say = ("hook-failed", _log.warning) if problem else ("hook", _log.info)
        command = str(argv[0])
        say(event, vm=status.name, hook=moment, command=command, took_s=took_s, **({"reason": problem} if problem else {"output": text}))
        self._events.tell(event, vm=status.name, reason=(problem or text)[:TOLD], hook=moment, command=command, took_s=took_s)


def _argv(hooks: HookSpec, moment: str) -> tuple[str, ...] | None:
    argv: tuple[str, ...] | None = getattr(hooks, moment.replace("-", "_"))
    return argv


def _story(moment: str, status: VmStatus) -> bytes:
    last = status.last_exit
    told = {
        "version": 1,
        "hook": moment,
        "vm": status.name,
        "phase": status.phase,
        "reason": status.reason,
        "desired": status.desired,
        "run": status.run,
        "pid": status.pid,
        "by": status.by,
        "taps": status.taps,
        "restarts": {"reboot": status.restarts.reboot, "crash": status.restarts.crash, "start_failure": status.restarts.start_failure},
        "last_exit": None
        if last is None
        else {"kind": last.kind, "status": last.status, "signal": last.signal, "text": last.text, "hint": last.hint},
    }
    return json.dumps(told).encode() + b"\n"


def _environment(moment: str, status: VmStatus) -> dict[str, str]:
    return {
        "BHYVED_HOOK": moment,
        "BHYVED_VM": status.name,
        "BHYVED_PHASE": str(status.phase),
        "BHYVED_REASON": status.reason.replace("\n", " ")[:1000],
    }
