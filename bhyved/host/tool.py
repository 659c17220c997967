"""Run a host command without blocking the loop: bounded in time and output, its failure a sentence.

Called by everything in `host` that acts on the system while guests run. A command that acts on a guest inherits the guest's
liveness FIFO (`pass_fd`), so that whoever watches the FIFO knows that nobody is still at work on that guest, even when the daemon
that began the work has been killed.
"""

from collections.abc import Collection, Sequence

import trio

from bhyved.core.errors import HostError
from bhyved.host.child import OUTPUT_BYTES, run_child
from bhyved.host.toolbox import Result, Tools, judged, not_run, overdue


async def run_tool(
    tools: Tools,
    argv: Sequence[str],
    *,
    limit_s: float = 10.0,
    pass_fd: int | None = None,
    input: bytes = b"",
    ok: Collection[int] | None = (0,),
    keep: int = OUTPUT_BYTES,
) -> Result:
    """The command's result, if its status is among `ok` (None: any status).

    Raises ToolError for another status, Stuck when its time is up and it cannot be killed, HostError when it was killed or could
    not be run at all. `pass_fd` is inherited under its own number.
    """
    full = (tools.path(argv[0]), *argv[1:])
    began, done = trio.current_time(), False
    try:
        result = await run_child(tools, full, limit_s=limit_s, env=tools.env(), input=input, pass_fd=pass_fd, keep=keep)
        if result is None:
            raise HostError(overdue(argv, limit_s))
        judged(argv, result, ok)
        done = True
    except OSError as error:
        raise HostError(not_run(argv, error)) from None
    finally:
        tools.note(argv[0], trio.current_time() - began, failed=not done)
    return result
