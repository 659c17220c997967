"""What live guests use of the host: processes and taps through psutil, virtual processors through bhyvectl(8).

Called at a scrape and at no other time. `measure` blocks for some tens of microseconds a guest: call it in a thread.
"""

from collections.abc import Iterable, Mapping

import psutil

from bhyved.core.usage import Own, Process, Traffic, Usage, Vcpus, parse_stats
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Tools

STATS_LIMIT_S = 5.0
STATS_BYTES = 1 << 20  # 60 lines of 60 bytes for each of at most 254 virtual processors


class HostUsage:
    """The host's own accounting."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._own = psutil.Process()
        self._known: dict[int, psutil.Process] = {}  # making one asks the kernel for its start time

    def measure(self, pids: Mapping[str, int], taps: Iterable[str]) -> Usage:
        """Of each guest its bhyve, given its pid, and of the host's interfaces the named ones. What cannot be seen is left out."""
        live = set(pids.values())
        self._known = {pid: process for pid, process in self._known.items() if pid in live}
        processes = {name: found for name, pid in pids.items() if (found := self._process(pid)) is not None}
        wanted = set(taps)
        return Usage(processes, _traffic(wanted) if wanted else {})

    def _process(self, pid: int) -> Process | None:
        try:
            process = self._known.get(pid) or psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                found = Process(times.user + times.system, process.memory_info().rss, process.num_threads())
        except psutil.Error:  # ended meanwhile, or a kernel that does not let us look
            self._known.pop(pid, None)
            return None
        self._known[pid] = process
        return found

    def own(self) -> Own:
        """What the daemon itself uses."""
        with self._own.oneshot():
            times = self._own.cpu_times()
            return Own(times.user + times.system, self._own.memory_info().rss, self._own.num_fds())

    async def vcpus(self, name: str) -> Vcpus:
        """The counters of a running guest. Raises HostError."""
        return await vcpus(name, self._tools)


async def vcpus(name: str, tools: Tools) -> Vcpus:
    """The counters of a running guest. Raises HostError."""
    result = await run_tool(tools, ["bhyvectl", f"--vm={name}", "--get-stats"], limit_s=STATS_LIMIT_S, keep=STATS_BYTES)
    return parse_stats(result.text)


def _traffic(taps: set[str]) -> dict[str, Traffic]:
    # nowrap would carry the counts of a destroyed tap over to the next of that name, which may be another guest's.
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    return {
        tap: Traffic(
            received_bytes=found.bytes_sent,
            sent_bytes=found.bytes_recv,
            received_packets=found.packets_sent,
            sent_packets=found.packets_recv,
            dropped_packets=found.dropin + found.dropout,
        )
        for tap, found in counters.items()
        if tap in taps
    }
