"""The text of the guests' metrics: right by the parsers of prometheus_client, complete, and documented."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bhyved.core.console import ConsoleStats
from bhyved.core.exits import ExitKind
from bhyved.core.exposition import Page, Seen
from bhyved.core.series import GUEST_METRICS
from bhyved.core.snapshots import Stock
from bhyved.core.status import Desired, Histogram, Hold, LastExit, Phase, Restarts, VmStatus
from bhyved.core.usage import Process, Traffic, Vcpus

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
DOWN = VmStatus(name="spare", since_at=NOW)
BUSY = VmStatus(
    name="web1",
    since_at=NOW,
    phase=Phase.BACKOFF,
    desired=Desired.UP,
    hold=Hold(by="root", since_at=NOW),
    started_at=NOW,
    ready=True,
    adopted=True,
    stuck=True,
    restarts=Restarts(reboot=3, crash=2, start_failure=1),
    exits={ExitKind.TRIPLE_FAULT: 2},
    last_exit=LastExit(kind=ExitKind.TRIPLE_FAULT, status=3, signal=None, at=NOW),
    next_start=100.0,
    attempts_left=3,
    config_changed=("memory",),
    forced_stops=4,
    start_s=Histogram().plus(0.05).plus(0.7).plus(1000.0),
    taps=("tap7", "tap9"),
    loader="uefi",
    cpus=2,
    memory_bytes=1 << 31,
)
CONSOLE = ConsoleStats(
    port='org.my"port\\',
    open=True,
    problem="disk full",
    offset=5000,
    output_bytes=1,
    input_bytes=2,
    dropped_bytes=3,
    unlogged_bytes=4,
    viewers=1,
    writer="",
)
SEEN = Seen(
    status=BUSY,
    unix_offset_s=1_700_000_000.0,
    consoles=(CONSOLE,),
    process=Process(12.5, 1 << 30, 9),
    taps={"tap9": Traffic(1, 2, 3, 4, 5), "tap1": Traffic(9, 9, 9, 9, 9)},
    vcpus=Vcpus({("0", "vm exits due to nested page fault"): 8, ("1", "total number of vm exits"): 9}, {"resident": 1 << 28}),
    stock=Stock(count=3, newest_s=1_700_000_000),
)


def families(*guests: Seen, openmetrics: bool) -> dict[str, Metric]:
    page = Page(GUEST_METRICS)
    for guest in guests:
        page.add(guest)
    text = "".join(page.pieces(openmetrics=openmetrics))
    found = list(parse_openmetrics(text + "# EOF\n") if openmetrics else parse_text(text))
    assert len({metric.name for metric in found}) == len(found), "the lines of a metric are together"
    assert all(metric.name.startswith("bhyved_vm_") for metric in found)
    return {metric.name: metric for metric in found}


def value(found: dict[str, Metric], sample: str, **labels: str) -> float | None:
    """The value of one sample, by its full name and labels."""
    for metric in found.values():
        for each in metric.samples:
            if each.name == sample and each.labels == labels:
                return float(each.value)
    return None


@pytest.mark.parametrize("openmetrics", [False, True])
def test_both_formats_say_the_same(openmetrics: bool) -> None:
    """Every figure of a guest is where it belongs, in either format."""
    found = families(SEEN, openmetrics=openmetrics)

    def of(sample: str, **labels: str) -> float | None:
        return value(found, sample, vm="web1", **labels)

    assert of("bhyved_vm_desired_up") == 1
    assert of("bhyved_vm_up") == 0
    assert of("bhyved_vm_phase", phase="backoff") == 1
    assert of("bhyved_vm_phase", phase="up") == 0
    assert of("bhyved_vm_phase_start_time_seconds") == NOW.timestamp()
    assert of("bhyved_vm_restarts_total", cause="start-failure") == 1
    assert of("bhyved_vm_restarts_total", cause="crash") == 2
    assert of("bhyved_vm_exits_total", kind="triple-fault") == 2
    assert of("bhyved_vm_exits_total", kind="halt") == 0
    assert of("bhyved_vm_last_exit", kind="triple-fault") == 1
    assert of("bhyved_vm_last_exit_status") == 3
    assert of("bhyved_vm_next_start_time_seconds") == 1_700_000_100
    assert of("bhyved_vm_attempts_left") == 3
    assert of("bhyved_vm_config_changed_keys") == 1
    assert of("bhyved_vm_hold") == of("bhyved_vm_ready") == of("bhyved_vm_adopted") == of("bhyved_vm_stuck") == 1
    assert of("bhyved_vm_forced_stops_total") == 4
    assert of("bhyved_vm_start_duration_seconds_bucket", le="0.1") == 1
    assert of("bhyved_vm_start_duration_seconds_bucket", le="1.0") == 2
    assert of("bhyved_vm_start_duration_seconds_bucket", le="300.0") == 2
    assert of("bhyved_vm_start_duration_seconds_bucket", le="+Inf") == of("bhyved_vm_start_duration_seconds_count") == 3
    assert of("bhyved_vm_start_duration_seconds_sum") == 1000.75
    assert of("bhyved_vm_stop_duration_seconds_count") == 0
    assert of("bhyved_vm_cpu_seconds_total") == 12.5
    assert of("bhyved_vm_network_receive_bytes_total", nic="1") == 1
    assert of("bhyved_vm_network_dropped_packets_total", nic="1") == 5
    assert of("bhyved_vm_network_receive_bytes_total", nic="0") is None
    assert of("bhyved_vm_console_output_bytes_total", port=CONSOLE.port) == 5000
    assert of("bhyved_vm_console_unlogged_bytes_total", port=CONSOLE.port) == 4
    assert of("bhyved_vm_console_problem", port=CONSOLE.port) == 1
    assert of("bhyved_vm_vcpu_events_total", vcpu="0", event="vm exits due to nested page fault") == 8
    assert of("bhyved_vm_vcpu_events_total", vcpu="1", event="total number of vm exits") == 9
    assert of("bhyved_vm_host_memory_bytes", kind="resident") == 1 << 28
    assert of("bhyved_vm_info", loader="uefi", autostart="false") == 1


def test_guests_that_are_down_are_there() -> None:
    """A guest that has never run has every figure that does not need a run."""
    found = families(Seen(status=DOWN, unix_offset_s=0.0), SEEN, openmetrics=False)
    assert value(found, "bhyved_vm_up", vm="spare") == 0
    assert value(found, "bhyved_vm_restarts_total", vm="spare", cause="crash") == 0
    assert value(found, "bhyved_vm_exits_total", vm="spare", kind="unknown") == 0
    for name in ("bhyved_vm_cpu_seconds_total", "bhyved_vm_start_time_seconds", "bhyved_vm_last_exit_status", "bhyved_vm_attempts_left"):
        assert value(found, name, vm="spare") is None


@pytest.mark.parametrize("openmetrics", [False, True])
def test_all_metrics_are_said(openmetrics: bool) -> None:
    """A guest of which everything is known has a sample of each metric in the table, of the kind that the table says."""
    found = families(SEEN, openmetrics=openmetrics)
    assert {(metric.name.removesuffix("_total"), metric.kind) for metric in GUEST_METRICS} == {(m.name, m.type) for m in found.values()}


@given(name=st.text(min_size=1), port=st.text(), openmetrics=st.booleans())
def test_no_text_breaks_the_format(name: str, port: str, openmetrics: bool) -> None:
    """Whatever stands in a label is read back as it was."""
    if "\r" in name + port or "\0" in name + port:
        return  # the parser of prometheus_client splits lines there; our own names and ports have neither
    status = VmStatus(name=name, since_at=NOW)
    stats = ConsoleStats(**{**{field: getattr(CONSOLE, field) for field in CONSOLE.__struct_fields__}, "port": port})
    page = Page(GUEST_METRICS)
    page.add(Seen(status=status, unix_offset_s=0.0, consoles=(stats,)))
    lines = [line for piece in page.pieces(openmetrics=openmetrics) for line in piece.split("\n") if "console_viewers{" in line]
    (metric,) = parse_text(lines[0] + "\n")
    assert metric.samples[0].labels == {"vm": name, "port": port}


def test_no_label_names_a_run() -> None:
    """A series belongs to a guest, not to a process of it."""
    assert not {label for metric in GUEST_METRICS for label in metric.labels} & {"pid", "run", "run_id", "tap"}
    for metric in GUEST_METRICS:
        assert re.fullmatch(r"bhyved_vm_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
