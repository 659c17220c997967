"""The operator's commands at transitions: `[hooks]` of a guest, then of the daemon.

A hook is told the event as JSON on stdin and in the environment, has a time limit and a process group of its own, and can stall
nothing: only `pre-start` is waited for, because a guest must not start when it fails; all others are told and forgotten, a failure
being an event of its own.
"""

import json

import structlog

from bhyved.core.errors import HostError
from bhyved.core.spec import Hooks as HookSpec
from bhyved.core.status import Event, VmStatus
from bhyved.daemon.ports import Commands

_log = structlog.get_logger()


class Hooks:
    """Runs hooks for all guests. `ours` are the daemon's; they may be replaced by a reload."""

    def __init__(self, commands: Commands, ours: HookSpec, run_as: str | None) -> None:
        self._commands = commands
        self.ours = ours
        self.run_as = run_as or ""

    def wanted(self, spec: HookSpec, moment: str) -> bool:
        """Whether anything would run."""
        return _argv(spec, moment) is not None or _argv(self.ours, moment) is not None

    async def run(self, moment: str, spec: HookSpec, status: VmStatus, event: Event | None = None) -> str:
        """Run the guest's hook, then the daemon's; what went wrong, in one sentence, or ''."""
        problems = []
        for owner, hooks in (("", spec), ("bhyved's ", self.ours)):
            argv = _argv(hooks, moment)
            if argv is not None:
                problem = await self._one(moment, argv, float(hooks.timeout), status, event)
                if problem:
                    problems.append(f"{owner}{moment} hook {problem}")
        return "; ".join(problems)

    async def _one(self, moment: str, argv: tuple[str, ...], limit_s: float, status: VmStatus, event: Event | None) -> str:
        try:
            ran = await self._commands.run(
                argv, limit_s=limit_s, input=_story(moment, status, event), env=_environment(moment, status), run_as=self.run_as
            )
        except HostError as error:
            return f"could not be run: {error}"
        _log.info("hook", vm=status.name, hook=moment, status=ran.status, output=ran.text)
        if ran.status is None:
            return f"did not end within {limit_s:g} s and was killed"
        if ran.status != 0:
            return f"ended with status {ran.status}" + (f": {ran.text}" if ran.text else "")
        return ""


def _argv(hooks: HookSpec, moment: str) -> tuple[str, ...] | None:
    argv: tuple[str, ...] | None = getattr(hooks, moment.replace("-", "_"))
    return argv


def _story(moment: str, status: VmStatus, event: Event | None) -> bytes:
    last = status.last_exit
    told = {
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
        "seq": None if event is None else event.seq,
    }
    return json.dumps(told).encode() + b"\n"


def _environment(moment: str, status: VmStatus) -> dict[str, str]:
    return {
        "BHYVED_HOOK": moment,
        "BHYVED_VM": status.name,
        "BHYVED_PHASE": str(status.phase),
        "BHYVED_REASON": status.reason.replace("\n", " ")[:1000],
    }
