"""The metrics of one guest: what each is called, what it means, and how it follows from what is known of the guest.

`docs/metrics.md` is this table in prose, and a test holds the two together. There is no pid and no run in any label: a series
belongs to a guest for as long as it is configured, down or up. Counters come from the guest's record, which outlives the daemon.
"""

from collections.abc import Callable

from bhyved.core.console import ConsoleStats
from bhyved.core.exits import ExitKind
from bhyved.core.exposition import Durations, Fixed, Labelled, Many, Metric, Number, Seen, Single
from bhyved.core.status import Desired, Phase
from bhyved.core.usage import Process, Traffic

_PHASES = tuple(Phase)
_KINDS = tuple(ExitKind)


def _phases(seen: Seen) -> tuple[Number, ...]:
    return tuple([int(phase is seen.status.phase) for phase in _PHASES])


def _restarts(seen: Seen) -> tuple[Number, ...]:
    counts = seen.status.restarts
    return counts.reboot, counts.crash, counts.start_failure


def _exits(seen: Seen) -> tuple[Number, ...]:
    counts = seen.status.exits
    return tuple([counts.get(kind, 0) for kind in _KINDS])  # all of them: increase() needs the 0 before the first


def _last_exit(seen: Seen) -> Labelled:
    last = seen.status.last_exit
    return () if last is None else (((last.kind.value,), 1),)


def _next_start(seen: Seen) -> Number | None:
    at = seen.status.next_start
    return None if at is None else round(at + seen.unix_offset_s, 1)  # coarse: the two clocks drift apart, the time does not change


def _consoles(figure: Callable[[ConsoleStats], Number]) -> Callable[[Seen], Labelled]:
    return lambda seen: [((stats.port,), figure(stats)) for stats in seen.consoles]


def _process(figure: Callable[[Process], Number]) -> Callable[[Seen], Number | None]:
    return lambda seen: None if seen.process is None else figure(seen.process)


def _traffic(figure: Callable[[Traffic], Number]) -> Callable[[Seen], Labelled]:
    # By place, not by tap: tap numbers are given out anew for each run.
    return lambda seen: [((str(nic),), figure(seen.taps[tap])) for nic, tap in enumerate(seen.status.taps) if tap in seen.taps]


GUEST_METRICS: tuple[Metric, ...] = (
    Many(
        "bhyved_vm_info",
        "gauge",
        "Always 1; how the guest boots and whether it starts by itself after power-on.",
        ("loader", "autostart"),
        lambda seen: (((seen.status.loader, "true" if seen.status.autostart else "false"), 1),),
    ),
    Single(
        "bhyved_vm_desired_up",
        "gauge",
        "Whether the guest is wished to be up, by an operator or by autostart.",
        lambda seen: int(seen.status.desired is Desired.UP),
    ),
    Single("bhyved_vm_up", "gauge", "Whether the guest is up.", lambda seen: int(seen.status.phase is Phase.UP)),
    Fixed("bhyved_vm_phase", "gauge", "1 for the phase the guest is in, 0 for the others.", "phase", Phase, _phases),
    Single(
        "bhyved_vm_phase_start_time_seconds",
        "gauge",
        "When the guest entered its phase, unix time.",
        lambda seen: seen.status.since_at.timestamp(),
    ),
    Single(
        "bhyved_vm_start_time_seconds",
        "gauge",
        "When the present bhyve was started, unix time; none without one.",
        lambda seen: None if seen.status.started_at is None else seen.status.started_at.timestamp(),
    ),
    Single("bhyved_vm_ready", "gauge", "Whether the guest is up and has met its ready condition.", lambda seen: int(seen.status.ready)),
    Single(
        "bhyved_vm_hold",
        "gauge",
        "Whether automation is frozen for the guest by an operator.",
        lambda seen: int(seen.status.hold is not None),
    ),
    Single(
        "bhyved_vm_adopted",
        "gauge",
        "Whether the present run was begun by an earlier daemon and taken over.",
        lambda seen: int(seen.status.adopted),
    ),
    Single(
        "bhyved_vm_stuck",
        "gauge",
        "Whether the kernel does not let the guest's process or node go.",
        lambda seen: int(seen.status.stuck),
    ),
    Single(
        "bhyved_vm_orphaned",
        "gauge",
        "Whether the guest's file has gone while the guest goes on.",
        lambda seen: int(seen.status.orphaned),
    ),
    Single(
        "bhyved_vm_suspended",
        "gauge",
        "Whether the guest's state is on disk, for its next start to resume.",
        lambda seen: int(seen.status.suspended is not None),
    ),
    Single(
        "bhyved_vm_ill",
        "gauge",
        "Whether the guest's health probes take it as ill.",
        lambda seen: int(bool(seen.status.ill)),
    ),
    Single(
        "bhyved_vm_unlimited",
        "gauge",
        "Whether the guest runs and its [limits] do not hold.",
        lambda seen: int(bool(seen.status.unlimited)),
    ),
    Single(
        "bhyved_vm_waits_for_memory",
        "gauge",
        "Whether the guest's automatic start is held back because the host has too little memory.",
        lambda seen: int(seen.status.roomless),
    ),
    Fixed(
        "bhyved_vm_restarts_total",
        "counter",
        "Automatic restarts by cause, since the guest was first seen on this host.",
        "cause",
        ("reboot", "crash", "start-failure"),
        _restarts,
    ),
    Fixed("bhyved_vm_exits_total", "counter", "Ended runs by kind, since the guest was first seen on this host.", "kind", ExitKind, _exits),
    Many("bhyved_vm_last_exit", "gauge", "1 for the kind of end the last run had; none before the first.", ("kind",), _last_exit),
    Single(
        "bhyved_vm_last_exit_status",
        "gauge",
        "bhyve's exit status in the last run; none where a signal ended it or nobody wrote it down.",
        lambda seen: seen.status.last_exit.status if seen.status.last_exit is not None else None,
    ),
    Single(
        "bhyved_vm_last_exit_time_seconds",
        "gauge",
        "When the last run ended, unix time.",
        lambda seen: seen.status.last_exit.at.timestamp() if seen.status.last_exit is not None else None,
    ),
    Single(
        "bhyved_vm_forced_stops_total",
        "counter",
        "Stops in which the power had to be cut, since the guest was first seen on this host.",
        lambda seen: seen.status.forced_stops,
    ),
    Durations(
        "bhyved_vm_start_duration_seconds",
        "How long starts took, from the beginning of preparations to up.",
        lambda seen: seen.status.start_s,
    ),
    Durations("bhyved_vm_stop_duration_seconds", "How long asked-for stops took, to the end of bhyve.", lambda seen: seen.status.stop_s),
    Single(
        "bhyved_vm_next_start_time_seconds",
        "gauge",
        "When the next automatic start is due, unix time; none where none is.",
        _next_start,
    ),
    Single(
        "bhyved_vm_attempts_left",
        "gauge",
        "Restarts left before the limit is met; none where nothing counts against a limit.",
        lambda seen: seen.status.attempts_left,
    ),
    Single(
        "bhyved_vm_config_changed_keys",
        "gauge",
        "Keys of the guest's configuration whose new value waits for a restart.",
        lambda seen: len(seen.status.config_changed),
    ),
    Single("bhyved_vm_cpus", "gauge", "Virtual processors configured.", lambda seen: seen.status.cpus),
    Single("bhyved_vm_memory_bytes", "gauge", "Memory configured.", lambda seen: seen.status.memory_bytes),
    Single("bhyved_vm_cpu_seconds_total", "counter", "Processor time of the present bhyve.", _process(lambda process: process.cpu_s)),
    Single(
        "bhyved_vm_resident_memory_bytes",
        "gauge",
        "Resident memory of the present bhyve, guest memory that it has touched included.",
        _process(lambda process: process.resident_bytes),
    ),
    Single("bhyved_vm_threads", "gauge", "Threads of the present bhyve.", _process(lambda process: process.threads)),
    Many(
        "bhyved_vm_network_receive_bytes_total",
        "counter",
        "Bytes that the guest received, by card; since its tap was made.",
        ("nic",),
        _traffic(lambda tap: tap.received_bytes),
    ),
    Many(
        "bhyved_vm_network_transmit_bytes_total",
        "counter",
        "Bytes that the guest sent, by card; since its tap was made.",
        ("nic",),
        _traffic(lambda tap: tap.sent_bytes),
    ),
    Many(
        "bhyved_vm_network_receive_packets_total",
        "counter",
        "Packets that the guest received, by card; since its tap was made.",
        ("nic",),
        _traffic(lambda tap: tap.received_packets),
    ),
    Many(
        "bhyved_vm_network_transmit_packets_total",
        "counter",
        "Packets that the guest sent, by card; since its tap was made.",
        ("nic",),
        _traffic(lambda tap: tap.sent_packets),
    ),
    Many(
        "bhyved_vm_network_dropped_packets_total",
        "counter",
        "Packets dropped at the guest's tap in either direction, by card; since its tap was made.",
        ("nic",),
        _traffic(lambda tap: tap.dropped_packets),
    ),
    Many(
        "bhyved_vm_console_output_bytes_total",
        "counter",
        "Bytes that the guest printed on a recorded console, since the console was first seen on this host.",
        ("port",),
        _consoles(lambda stats: stats.offset),
    ),
    Many(
        "bhyved_vm_console_input_bytes_total",
        "counter",
        "Bytes typed on a recorded console, since the daemon started.",
        ("port",),
        _consoles(lambda stats: stats.input_bytes),
    ),
    Many(
        "bhyved_vm_console_dropped_bytes_total",
        "counter",
        "Bytes of a recorded console that slow viewers missed, since the daemon started.",
        ("port",),
        _consoles(lambda stats: stats.dropped_bytes),
    ),
    Many(
        "bhyved_vm_console_unlogged_bytes_total",
        "counter",
        "Bytes of a recorded console that are missing in its log file, since the daemon started.",
        ("port",),
        _consoles(lambda stats: stats.unlogged_bytes),
    ),
    Many(
        "bhyved_vm_console_viewers",
        "gauge",
        "Sessions attached to a recorded console.",
        ("port",),
        _consoles(lambda stats: stats.viewers),
    ),
    Many(
        "bhyved_vm_console_problem",
        "gauge",
        "Whether a recorded console cannot be opened or its log not be written.",
        ("port",),
        _consoles(lambda stats: int(bool(stats.problem))),
    ),
    Single(
        "bhyved_vm_snapshots",
        "gauge",
        "Snapshots that are on all of the guest's disks, whoever took them; only where these are on ZFS.",
        lambda seen: None if seen.stock is None else seen.stock.count,
    ),
    Single(
        "bhyved_vm_newest_snapshot_time_seconds",
        "gauge",
        "When the newest of these snapshots was taken, unix time.",
        lambda seen: None if seen.stock is None else seen.stock.newest_s,
    ),
    Many(
        "bhyved_vm_vcpu_events_total",
        "counter",
        "Counters that bhyvectl --get-stats shows for a virtual processor; only with metrics.vcpu-stats.",
        ("vcpu", "event"),
        lambda seen: seen.vcpus.counts.items(),
    ),
    Many(
        "bhyved_vm_host_memory_bytes",
        "gauge",
        "Memory of the guest on the host as the vmm module counts it; only with metrics.vcpu-stats.",
        ("kind",),
        lambda seen: [((kind,), size) for kind, size in seen.vcpus.memory_bytes.items()],
    ),
)
