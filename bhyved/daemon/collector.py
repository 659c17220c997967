"""The daemon's own metrics, as a collector of prometheus_client. Some tens of samples, whatever the number of guests."""

import platform
from collections import Counter as Tally
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bhyved.core.daemonfacts import DaemonFacts
from bhyved.core.room import taken
from bhyved.core.status import BOUNDS_S, Phase, VmStatus
from bhyved.core.usage import Own
from bhyved.daemon import loopwatch
from bhyved.daemon.loopwatch import LoopWatch


class DaemonCollector(Collector):
    """What is known of the daemon at one scrape."""

    def __init__(self, facts: DaemonFacts, statuses: list[VmStatus], loop: LoopWatch, own: Own) -> None:
        self._facts, self._statuses, self._loop, self._own = facts, statuses, loop, own

    def collect(self) -> Iterator[Metric]:
        facts = self._facts
        build = GaugeMetricFamily("bhyved_build_info", "Always 1; the version of bhyved and of Python.", labels=["version", "python"])
        build.add_metric([facts.version, platform.python_version()], 1)
        yield build
        yield GaugeMetricFamily("bhyved_start_time_seconds", "When the daemon started, unix time.", value=facts.started_at.timestamp())
        yield GaugeMetricFamily(
            "bhyved_serving",
            "Whether the daemon looks after its guests: it has found them, and is not going.",
            value=int(not facts.not_ready),
        )
        yield GaugeMetricFamily(
            "bhyved_drained", "Whether the host is drained: no guest is started until that is taken back.", value=int(facts.drained)
        )
        yield self._guests()
        yield CounterMetricFamily("bhyved_adopted_runs", "Runs that this daemon took over from an earlier one.", value=facts.adopted)
        yield GaugeMetricFamily(
            "bhyved_config_problems", "Problems in the configuration files as they were read last.", value=facts.config_problems
        )
        yield from self._shutdown()
        yield from self._memory()
        yield from self._work()
        yield from self._process()

    def _guests(self) -> Metric:
        phases = Tally(status.phase for status in self._statuses)
        guests = GaugeMetricFamily("bhyved_vms", "Configured guests by phase.", labels=["phase"])
        for phase in Phase:
            guests.add_metric([phase.value], phases[phase])
        return guests

    def _shutdown(self) -> Iterator[Metric]:
        if self._facts.shutdown_budget_s is not None:
            yield GaugeMetricFamily(
                "bhyved_shutdown_budget_seconds", "Time that a shutdown of the host gives the guests.", value=self._facts.shutdown_budget_s
            )
        yield GaugeMetricFamily(
            "bhyved_shutdown_needed_seconds",
            "Time that the guests may take to stop by their configured timeouts, one after the other where their order says so.",
            value=self._facts.shutdown_needed_s,
        )

    def _memory(self) -> Iterator[Metric]:
        room, having = self._facts.room, taken(self._statuses)
        if room.host.total_bytes is not None:
            yield GaugeMetricFamily("bhyved_host_memory_bytes", "Memory of the host.", value=room.host.total_bytes)
        if room.limit_bytes is not None:
            yield GaugeMetricFamily(
                "bhyved_vms_memory_limit_bytes",
                "Memory that guests may have together before automatic starts wait; none with overcommit.",
                value=room.limit_bytes,
            )
        yield GaugeMetricFamily(
            "bhyved_vms_memory_bytes",
            "Memory configured of the guests that have theirs: that run, or start again by themselves.",
            value=having.size,
        )
        if room.host.wired_bytes is not None:
            yield GaugeMetricFamily(
                "bhyved_vms_wired_memory_limit_bytes",
                "Memory that wired guests may have together before automatic starts wait: vm.max_user_wired.",
                value=room.host.wired_bytes,
            )
        yield GaugeMetricFamily("bhyved_vms_wired_memory_bytes", "What of bhyved_vms_memory_bytes is wired.", value=having.wired)

    def _work(self) -> Iterator[Metric]:
        events = CounterMetricFamily("bhyved_events", "Events by kind, since the daemon started.", labels=["event"])
        for event, count in sorted(self._facts.events.items()):
            events.add_metric([event], count)
        yield events
        failures = CounterMetricFamily(
            "bhyved_host_command_failures", "Host commands that failed or were killed when their time was up.", labels=["command"]
        )
        durations = HistogramMetricFamily("bhyved_host_command_duration_seconds", "How long host commands took.", labels=["command"])
        for command, done in sorted(self._facts.commands.items()):
            failures.add_metric([command], done.failures)
            durations.add_metric([command], _buckets(BOUNDS_S, done.durations.counts), done.durations.total_s)
        yield failures
        yield durations
        parts = GaugeMetricFamily("bhyved_problem", "Whether a part of the daemon does not do its work.", labels=["part"])
        for part, sentence in sorted(self._facts.problems.items()):
            parts.add_metric([part], int(bool(sentence)))
        yield parts

    def _process(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(
            "bhyved_loop_busy_seconds",
            "How long the event loop was busy before it looked at its sockets again.",
            buckets=_buckets(loopwatch.BOUNDS_S, self._loop.counts),
            sum_value=self._loop.total_s,
        )
        yield GaugeMetricFamily(
            "bhyved_loop_longest_busy_seconds", "The longest of these stretches since the daemon started.", value=self._loop.longest_s
        )
        yield CounterMetricFamily("process_cpu_seconds", "Processor time of the daemon.", value=self._own.cpu_s)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of the daemon.", value=self._own.resident_bytes)
        yield GaugeMetricFamily("process_open_fds", "Open file descriptors of the daemon.", value=self._own.descriptors)


def _buckets(bounds: tuple[float, ...], counts: tuple[int, ...] | list[int]) -> list[tuple[str, float]]:
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))
