"""The rules that rctl(8) keeps for a guest's bhyve. Which they are to be is `core.limits`'s."""

from bhyved.core import limits as rules
from bhyved.core.errors import HostError
from bhyved.core.limits import Limits
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Tools

_ASK_S = 5.0


async def limit(tools: Tools, pid: int, limits: Limits | None, *, pass_fd: int | None = None) -> None:
    """Have a process run under exactly these limits, whatever of ours it has. Raises HostError."""
    listed = await run_tool(tools, ("rctl", f"process:{pid}"), limit_s=_ASK_S, pass_fd=pass_fd)
    steps = rules.steps(limits, pid, listed.text)
    if steps.remove:
        await run_tool(tools, ("rctl", "-r", *steps.remove), limit_s=_ASK_S, pass_fd=pass_fd)
    if steps.add:
        await run_tool(tools, ("rctl", "-a", *steps.add), limit_s=_ASK_S, pass_fd=pass_fd)


async def refuse_unlimited(tools: Tools, limits: Limits | None) -> None:
    """A guest whose limits would not hold is not started: raises HostError."""
    if limits is None:
        return
    racct = await run_tool(tools, ("sysctl", "-n", "kern.racct.enable"), limit_s=_ASK_S, ok=None)
    jailed = await run_tool(tools, ("sysctl", "-n", "security.jail.jailed"), limit_s=_ASK_S, ok=None)
    why = rules.refusal(racct.text.strip(), jailed=jailed.text.strip() == "1")
    if why:
        raise HostError(why, fatal=True)
