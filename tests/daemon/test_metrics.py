"""Scrapes: complete, right by real parsers, in slices, and asking the host no more than they must."""

import platform
import re
import time
from typing import Any

import pytest
import trio
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bhyved.core.room import Room
from bhyved.core.status import Phase
from bhyved.daemon import metrics
from bhyved.daemon.board import Board
from bhyved.daemon.loopwatch import LoopWatch
from bhyved.daemon.metrics import Metrics
from tests.daemon.webkit import MONOTONIC, Figures, crowd, facts, status, up

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def metrics_of(*guests: Any, figures: Figures | None = None, vcpu_stats: bool = False, **said: Any) -> Metrics:
    board = Board()
    for guest in guests:
        board.publish(guest)
    figures = figures or Figures()
    clock = said.pop("clock", lambda: MONOTONIC)
    return Metrics(board, figures, figures, lambda: facts(**said), LoopWatch(), now=clock, vcpu_stats=vcpu_stats)


async def families(made: Metrics, accept: str = "") -> dict[str, Metric]:
    scrape = await made.scrape(accept)
    text = "".join(scrape.pieces())
    found = list(parse_openmetrics(text) if accept else parse_text(text))
    assert len({metric.name for metric in found}) == len(found)
    return {metric.name: metric for metric in found}


def value(found: dict[str, Metric], sample: str, **labels: str) -> float | None:
    every = [each for metric in found.values() for each in metric.samples if each.name == sample and each.labels == labels]
    return float(every[0].value) if every else None


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_guests_and_daemon(accept: str) -> None:
    """A scrape has all guests, what they use, their consoles, and the daemon's own figures."""
    found = await families(metrics_of(*crowd()), accept)

    assert {each.labels["vm"] for each in found["bhyved_vm_up"].samples} == {"web1", "db1", "loop1", "win11", "spare", "mail"}
    assert value(found, "bhyved_vm_up", vm="web1") == 1
    assert value(found, "bhyved_vm_phase", vm="win11", phase="held") == 1
    assert value(found, "bhyved_vm_cpu_seconds_total", vm="web1") == 12.5
    assert value(found, "bhyved_vm_network_receive_bytes_total", vm="web1", nic="0") == 1000
    assert value(found, "bhyved_vm_console_output_bytes_total", vm="web1", port="com1") == 48_000
    next_start = value(found, "bhyved_vm_next_start_time_seconds", vm="loop1")
    assert next_start is not None
    assert abs(next_start - time.time() - 12) < 2
    assert value(found, "bhyved_vms", phase="up") == 2
    assert value(found, "bhyved_vms", phase="loading") == 0
    assert value(found, "bhyved_build_info", version="1.0", python=platform.python_version()) == 1
    assert value(found, "bhyved_serving") == 1
    assert value(found, "bhyved_adopted_runs_total") == 3
    assert value(found, "bhyved_events_total", event="phase") == 40
    assert value(found, "bhyved_host_command_failures_total", command="ifconfig") == 1
    assert value(found, "bhyved_host_command_duration_seconds_bucket", command="ifconfig", le="0.1") == 1
    assert value(found, "bhyved_host_command_duration_seconds_bucket", command="ifconfig", le="+Inf") == 2
    assert value(found, "bhyved_shutdown_budget_seconds") == 85
    assert value(found, "bhyved_shutdown_needed_seconds") == 70
    assert value(found, "bhyved_problem", part="journal") == 0
    assert value(found, "process_open_fds") == 30


async def test_who_is_ill_or_unlimited_and_who_waits_for_memory() -> None:
    """A guest's own series, and the host's memory with what guests have of it; a host that does not say has no series."""
    sick = up("sick", ill="no answer three times in a row", unlimited="rctl failed", room_bytes=2 << 30, room_wired=True)
    found = await families(metrics_of(sick, status("big", phase=Phase.WAITING, roomless=True)), "")

    assert (value(found, "bhyved_vm_ill", vm="sick"), value(found, "bhyved_vm_ill", vm="big")) == (1, 0)
    assert (value(found, "bhyved_vm_unlimited", vm="sick"), value(found, "bhyved_vm_unlimited", vm="big")) == (1, 0)
    assert (value(found, "bhyved_vm_waits_for_memory", vm="sick"), value(found, "bhyved_vm_waits_for_memory", vm="big")) == (0, 1)
    assert value(found, "bhyved_host_memory_bytes") == 16 << 30
    assert value(found, "bhyved_vms_memory_limit_bytes") == 15 << 30
    assert value(found, "bhyved_vms_memory_bytes") == value(found, "bhyved_vms_wired_memory_bytes") == 2 << 30
    assert value(found, "bhyved_vms_wired_memory_limit_bytes") == 4 << 30
    bare = await families(metrics_of(room=Room()), "")
    limits = ("bhyved_host_memory_bytes", "bhyved_vms_memory_limit_bytes", "bhyved_vms_wired_memory_limit_bytes")
    assert [value(bare, name) for name in limits] == [None] * 3


async def test_what_is_wrong_with_the_daemon() -> None:
    """A part that does not work, broken files and a daemon that is not there yet are all visible."""
    found = await families(
        metrics_of(drained=True, problems={"journal": "disk full"}, config_problems=2, not_ready="finding guests", shutdown_budget_s=None)
    )
    assert value(found, "bhyved_problem", part="journal") == 1
    assert value(found, "bhyved_config_problems") == 2
    assert value(found, "bhyved_drained") == 1
    assert value(found, "bhyved_serving") == 0
    assert value(found, "bhyved_shutdown_budget_seconds") is None


async def test_the_format_is_the_scrapers_choice() -> None:
    """OpenMetrics for those who ask for it, else the text format."""
    made = metrics_of(*crowd())
    plain, modern = await made.scrape("text/plain"), await made.scrape(OPENMETRICS)
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert modern.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert "".join(modern.pieces()).endswith("# EOF\n")
    assert "# EOF" not in "".join(plain.pieces())


async def test_a_gone_guest_is_gone() -> None:
    """A guest that is no longer configured has no series."""
    board = Board()
    board.publish(up("web1"))
    board.publish(up("web2"))
    figures = Figures()
    made = Metrics(board, figures, figures, facts, LoopWatch(), now=lambda: MONOTONIC)
    board.remove("web2")
    assert 'vm="web2"' not in "".join((await made.scrape()).pieces())


async def test_others_run_during_a_scrape() -> None:
    """A thousand guests are rendered in slices: somebody else's work waits for a few guests, not for all."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    made = metrics_of(*(status(f"vm{number}") for number in range(1000)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        scrape = await made.scrape()
        rendered, turns = turns, 0
        text = await scrape.text()
        nursery.cancel_scope.cancel()
    pieces = list(scrape.pieces())
    assert rendered >= 1000 // metrics.SLICE
    assert turns >= len(pieces) - 1 > 10  # who goes first is drawn
    assert text == "".join(pieces)


async def test_scrapes_take_turns() -> None:
    """Two scrapers at once do not make two measurements at once."""
    figures = Figures()
    inside = 0
    most = 0

    async def vcpus(name: str) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await trio.lowlevel.checkpoint()
        inside -= 1
        return await Figures().vcpus(name)

    figures.vcpus = vcpus  # type: ignore[method-assign]
    made = metrics_of(up("a"), up("b"), figures=figures, vcpu_stats=True)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(made.scrape)
    assert most == 1


async def test_vcpu_counters_are_wished_for() -> None:
    """Without metrics.vcpu-stats no scrape starts a process."""
    figures = Figures()
    assert "bhyved_vm_vcpu_events" not in await families(metrics_of(*crowd(), figures=figures))
    assert figures.asked == []


async def test_vcpu_counters_at_a_bounded_rate() -> None:
    """Only running guests are asked, none more often than every ten seconds, and so many a scrape."""
    now = MONOTONIC
    figures = Figures()
    guests = [up(f"vm{number:03}") for number in range(metrics.VCPU_LOOKS + 5)]
    made = metrics_of(*guests, status("down"), figures=figures, vcpu_stats=True, clock=lambda: now)

    found = await families(made)
    assert figures.asked == [guest.name for guest in guests[: metrics.VCPU_LOOKS]]
    assert value(found, "bhyved_vm_vcpu_events_total", vm="vm000", vcpu="0", event="vm exits due to external interrupt") == 7
    await families(made)
    await families(made)
    assert sorted(figures.asked) == [guest.name for guest in guests], "those who were left out come first, the others not yet again"
    now += metrics.VCPU_AGE_S
    await families(made)
    assert len(figures.asked) == 2 * metrics.VCPU_LOOKS + 5


async def test_a_failing_bhyvectl_costs_its_counters_only() -> None:
    """A guest that cannot be asked has its other figures."""
    figures = Figures()
    figures.vcpu_error = "vm_open: no such file or directory"
    found = await families(metrics_of(up("web1"), figures=figures, vcpu_stats=True))
    assert value(found, "bhyved_vm_up", vm="web1") == 1
    assert "bhyved_vm_vcpu_events" not in found


def test_the_loop_is_watched() -> None:
    """A long piece of work in the loop is counted with its length; waiting is not."""
    watch = LoopWatch()

    async def work() -> None:
        await trio.sleep(0.2)
        end = time.perf_counter() + 0.06
        while time.perf_counter() < end:
            pass

    trio.run(work, instruments=[watch])
    assert 0.06 <= watch.longest_s < 0.2
    assert sum(watch.counts[5:]) == 1
    assert watch.total_s < 0.2
    assert sum(watch.counts) >= 2


async def test_names_by_the_rules() -> None:
    """Base units, `_total` for counters, a help text, and no figure of one process only."""
    for metric in (await families(metrics_of(*crowd()))).values():
        assert re.fullmatch(r"(bhyved|process)_[a-z_]+", metric.name)
        assert metric.documentation
        assert metric.type in ("gauge", "counter", "histogram")
        assert not {"pid", "run"} & {label for each in metric.samples for label in each.labels}
