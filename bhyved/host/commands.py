"""The operator's own commands: hooks, readiness probes, `stop.command`.

Called by the daemon as `daemon.ports.Commands`. A command is root's, or `run-as`'s, in an environment that is the same on every host:
never that of whoever started the daemon. What it leaves in the background after its own end goes on; one that overruns its time is
killed with its process group.
"""

import os
import pwd
from collections.abc import Mapping, Sequence

from bhyved.core.errors import HostError
from bhyved.core.handover import Ran
from bhyved.host.child import run_child
from bhyved.host.spawn import Account
from bhyved.host.toolbox import Tools, not_run, one_line, show
from bhyved.threads import in_thread

TAIL_BYTES = 4096  # of a command's output, before it is cut to a sentence


class HostCommands:
    """`daemon.ports.Commands`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self, argv: Sequence[str], *, limit_s: float, input: bytes = b"", env: Mapping[str, str] = {}, run_as: str = "") -> Ran:
        """One command in its own process group and a clean environment, killed when its time is up. Raises HostError."""
        full = (self._tools.path(argv[0]), *argv[1:])
        account, who = await self._who(argv, run_as)
        environment = {**self._tools.env(), **who, **{key: _clean(value) for key, value in env.items()}}
        tail = bytearray()
        try:
            result = await run_child(
                self._tools, full, limit_s=limit_s, env=environment, input=input, account=account, keep=TAIL_BYTES, tail=tail
            )
        except OSError as error:
            raise HostError(not_run(argv, error)) from None
        return Ran(status=None if result is None else result.status, text=one_line(tail))

    async def _who(self, argv: Sequence[str], run_as: str) -> tuple[Account | None, dict[str, str]]:
        """The account, None: our own, and what its environment says of it."""
        if not run_as:
            return None, {}
        try:
            # The user database may be on the network: not in the loop.
            uid, home, account = await in_thread(_look_up, run_as)
        except KeyError:
            raise HostError(f'`{show(argv)}` could not be run: there is no user "{run_as}"', fatal=True) from None
        return account if uid != os.geteuid() else None, {"HOME": home, "USER": run_as, "LOGNAME": run_as}


def _look_up(name: str) -> tuple[int, str, Account]:
    entry = pwd.getpwnam(name)
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return entry.pw_uid, entry.pw_dir, Account(uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)


def _clean(value: str) -> str:
    """A value that an environment can hold: it may come from a guest."""
    return value.replace("\0", "").encode(errors="replace").decode()
