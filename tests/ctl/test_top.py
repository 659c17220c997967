"""`vmctl top`, `web` and `metrics`: rates, order and filter, the plain table, and the full screen in a real terminal."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bhyved.ctl.connection import Connection
from bhyved.ctl.gauges import KEYS, Gauge, Gauges, chosen
from bhyved.ctl.verbs import SORTS
from bhyved.ctl.watch import HEADS, MARKED, cells
from tests.ctl.conftest import Vmctl
from tests.ctl.played import Params, PlayedDaemon, playing, row
from tests.ctl.tmux import Pane, needs_tmux, terminal


def used(name: str, cpu_s: float | None = 0.0, **changes: Any) -> Params:
    """A guest in `vm.usage`."""
    figures = {"resident_bytes": 1 << 30, "threads": 9, "received_bytes": 0, "sent_bytes": 0, "console_bytes": 0}
    nothing = {"resident_bytes": None, "threads": None} if cpu_s is None else {}
    return {"name": name, "cpu_s": cpu_s, **figures, **nothing, **changes}


def usage(at_s: float, *vms: Params) -> Params:
    return {"version": 1, "at-s": at_s, "vms": list(vms)}


@contextmanager
def looks(*pairs: tuple[list[Params], Params]) -> Iterator[PlayedDaemon]:
    """A daemon that answers each look with the next pair, and the last one for ever."""
    listings, usages = [list(each) for each in zip(*pairs, strict=True)]

    def following(answers: list[Any]) -> Any:
        return lambda _: answers.pop(0) if len(answers) > 1 else answers[0]

    with playing(vm_list=following([{"version": 1, "vms": rows} for rows in listings]), vm_usage=following(usages)) as daemon:
        yield daemon


def test_two_looks_make_rates() -> None:
    """Processor, network and console are what came between them, a second; the first look has none."""
    rows = [row("web1"), row("idle", phase="down", run="", uptime_s=None)]
    first = usage(100.0, used("web1", 10.0), used("idle", None))
    then = usage(104.0, used("web1", 11.0, received_bytes=300, sent_bytes=100, console_bytes=4000), used("idle", None))
    with looks((rows, first), (rows, then)) as daemon, Connection(str(daemon.path)) as connection:
        gauges = Gauges(())
        before = gauges.look(connection)
        web1, idle = gauges.look(connection)

    assert [(gauge.cpu, gauge.network, gauge.console) for gauge in before] == [(None, None, None)] * 2
    assert (web1.cpu, web1.network, web1.console, web1.memory_bytes) == (25.0, 100.0, 1000.0, 1 << 30)
    assert (idle.cpu, idle.memory_bytes) == (None, None)


def test_a_new_run_counts_from_nothing() -> None:
    """What the run before had used is not subtracted; nor does a count that fell make a rate."""
    first = usage(100.0, used("web1", 10.0), used("db1", 10.0))
    then = usage(102.0, used("web1", 90.0), used("db1", 9.0))
    with (
        looks(([row("web1"), row("db1")], first), ([row("web1", run="run2"), row("db1")], then)) as daemon,
        Connection(str(daemon.path)) as connection,
    ):
        gauges = Gauges(())
        gauges.look(connection)

        assert [gauge.cpu for gauge in gauges.look(connection)] == [None, None]


def gauge(name: str, **changes: Any) -> Gauge:
    rates = {key: changes.pop(key, None) for key in ("cpu", "network", "console")}
    return Gauge(row(name, **changes), {"resident_bytes": 1}, rates)


def test_order_and_filter() -> None:
    """The busiest first, those without a figure last; every word of the filter has to be somewhere."""
    guests = [gauge("b", cpu=5.0), gauge("a"), gauge("c", cpu=90.0, phase="held", reason="crashed 5 times")]

    assert [each.name for each in chosen(guests, "cpu", "")] == ["c", "b", "a"]
    assert [each.name for each in chosen(guests, "name", "")] == ["a", "b", "c"]
    assert [each.name for each in chosen(guests, "phase", "")] == ["c", "a", "b"]
    assert [each.name for each in chosen(guests, "name", "HELD crash")] == ["c"]
    assert chosen(guests, "name", "held up") == []


def test_every_key_has_its_column() -> None:
    """What the option offers can be sorted by and is marked."""
    assert set(SORTS) == KEYS.keys() == MARKED.keys()
    assert len(cells(gauge("a"))) == len(HEADS)


def test_without_a_terminal_it_is_a_table(vmctl: Vmctl) -> None:
    """As often as was asked, with rates from the second on."""
    rows = [row("web1")]
    with looks((rows, usage(0.0, used("web1", 1.0))), (rows, usage(2.0, used("web1", 2.0, console_bytes=4096)))) as daemon:
        ran = vmctl(daemon, "top", "-n", "2", "-d", "200ms")

    first, second = ran.out.split("\n\n")
    assert (ran.status, ran.err) == (0, "")
    assert first.splitlines()[0].split() == list(HEADS)[: len(first.splitlines()[0].split())]
    assert first.splitlines()[1].split()[:5] == ["web1", "up", "2h1m", "-", "1G"]
    assert second.splitlines()[1].split()[:7] == ["web1", "up", "2h1m", "50.0", "1G", "0B", "2K"]


def test_who_is_ill_stands_out(vmctl: Vmctl) -> None:
    """In its column and its words, and first where guests are sorted by phase."""
    with looks(([row("a1"), row("web1", ill="no answer")], usage(0.0, used("a1", 1.0), used("web1", 1.0)))) as daemon:
        ran = vmctl(daemon, "top", "-n", "1", "-s", "phase")

    first, second = ran.out.splitlines()[1:]
    assert first.split()[:3] == ["web1", "up", "(ill)"]
    assert first.endswith("ill: no answer")
    assert second.split()[:2] == ["a1", "up"]


def test_for_programs_it_is_a_line_a_look(vmctl: Vmctl) -> None:
    """With the numbers as they are."""
    with looks(([row("web1")], usage(0.0, used("web1", 1.0)))) as daemon:
        ran = vmctl(daemon, "top", "--json", "-n", "1", "web1")

    (line,) = ran.out.splitlines()
    (found,) = json.loads(line)["vms"]
    assert found == {
        "name": "web1",
        "phase": "up",
        "ill": "",
        "uptime_s": 7265.5,
        "cpu": None,
        "memory_bytes": 1 << 30,
        "network": None,
        "console": None,
        "restarts": 3,
    }
    assert daemon.params("vm.usage") == daemon.params("vm.list") == [{"names": ["web1"]}]


def test_too_often_is_refused(vmctl: Vmctl) -> None:
    """Looking costs the daemon something."""
    assert vmctl(None, "top", "-d", "10ms").err == "vmctl: top: --interval is at least 200ms\n"


def test_a_daemon_that_never_was_is_said(vmctl: Vmctl, tmp_path: Path) -> None:
    """At once, with the status of any other verb."""
    assert vmctl(None, "top", "-n", "1", "--socket", str(tmp_path / "none")).status == 69


# --- the full screen --------------------------------------------------------------------------------------------------------------

VMCTL = (sys.executable, "-m", "bhyved.cli.ctl")
GUESTS = [row("web1"), row("db1", phase="held", reason="crashed 5 times", uptime_s=None), *(row(f"more{n:02}") for n in range(20))]
FIGURES = usage(0.0, *(used(each["name"], resident_bytes=(number + 1) << 20) for number, each in enumerate(GUESTS)))


def names(pane: Pane) -> list[str]:
    """Of the guests on the screen, in their order."""
    return [line.split()[0] for line in pane.screen().splitlines()[2:-1] if line.strip()]


@needs_tmux
def test_the_screen_obeys_its_keys() -> None:
    """It fills the terminal and not more, sorts, filters as one types, scrolls, and leaves at q with the terminal as it was."""
    with looks((GUESTS, FIGURES)) as daemon, terminal("sh", env={"BHYVED_SOCKET": str(daemon.path), "PS1": "prompt> "}, height=13) as pane:
        pane.until("^prompt>")
        pane.type(f"{shlex.join(VMCTL)} top -d 1h\r")
        shown = pane.until("by cpu, every 1h")
        assert shown.startswith("22 guests, 21 up, 1 in trouble")
        assert len(names(pane)) == 10
        pane.type("s")
        pane.until("by memory")
        assert names(pane)[0] == "more19"
        pane.press(*["Down"] * 30)
        pane.until("^web1")
        assert names(pane)[-1] == "web1"
        pane.type("/held")
        pane.until("^/held_")
        assert names(pane) == ["db1"]
        pane.press("BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "Enter")
        pane.until("^more19")
        pane.type("/crashed\r")
        pane.until('only "crashed" \\(Escape: all\\)')
        pane.press("Escape")
        pane.until("^more19")
        pane.type("q")
        pane.until(r"^prompt> $|^prompt>\Z")

        assert "guests" not in pane.screen()


@needs_tmux
def test_the_screen_fits_itself_to_the_terminal() -> None:
    """One that becomes larger or smaller, down to nearly nothing."""
    with looks((GUESTS, FIGURES)) as daemon, terminal(*VMCTL, "top", env={"BHYVED_SOCKET": str(daemon.path)}, height=10) as pane:
        pane.until("by cpu")
        pane.tmux("resize-window", "-x", "60", "-y", "28")
        pane.until("^more17")
        assert len(names(pane)) == 22
        pane.tmux("resize-window", "-x", "9", "-y", "2")
        pane.until(r"\A22 guests?$|\A22 guest")
        pane.tmux("resize-window", "-x", "90", "-y", "12")
        pane.until("by cpu")
        pane.type("q")

        assert pane.ended() == 0


@needs_tmux
def test_the_screen_waits_for_a_daemon_that_is_restarted() -> None:
    """What was last seen stays, with a word on what is the matter; and it goes on by itself."""
    with looks((GUESTS, FIGURES)) as daemon, terminal(*VMCTL, "top", "-d", "200ms", env={"BHYVED_SOCKET": str(daemon.path)}) as pane:
        pane.until("by cpu")
        daemon.vanish()
        pane.until("^bhyved (has closed|does not run)")
        assert len(names(pane)) == 22
        daemon.listen()
        pane.until("by cpu")
        pane.press("C-c")

        assert pane.ended() == 0


@needs_tmux
def test_an_unknown_terminal_gets_tables() -> None:
    """Instead of an error of curses."""
    environment = {"BHYVED_SOCKET": "", "TERM": "nonesuch"}
    with looks(([row("web1")], usage(0.0, used("web1")))) as daemon:
        environment["BHYVED_SOCKET"] = str(daemon.path)
        with terminal(*VMCTL, "top", "-d", "200ms", env=environment) as pane:
            pane.until("(?s)NAME +PHASE.*NAME +PHASE")
            pane.press("C-c")

            assert pane.ended() == 130


# --- web and metrics --------------------------------------------------------------------------------------------------------------


def test_web_prints_the_link(vmctl: Vmctl) -> None:
    """And nothing else, so that it can be handed to a browser."""
    with playing(web_link={"url": "http://127.0.0.1:9747/login?token=x"}) as daemon:
        assert vmctl(daemon, "web") == (0, "http://127.0.0.1:9747/login?token=x\n", "")
        assert json.loads(vmctl(daemon, "web", "--json").out) == {"url": "http://127.0.0.1:9747/login?token=x"}


METRICS = {"content-type": "text/plain; version=0.0.4", "text": 'bhyved_vm_up{vm="web1"} 1.0\n'}


def test_metrics_are_printed_or_written(vmctl: Vmctl, tmp_path: Path) -> None:
    """Into a file that anybody may read, with nothing left beside it."""
    file = tmp_path / "bhyved.prom"
    file.write_text("old")
    with playing(daemon_metrics=METRICS) as daemon:
        assert vmctl(daemon, "metrics") == (0, METRICS["text"], "")
        assert vmctl(daemon, "metrics", "--textfile", str(file)) == (0, "", "")

    assert file.read_text() == METRICS["text"]
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_said(vmctl: Vmctl, tmp_path: Path) -> None:
    """With its name, and no traceback in cron's mail."""
    with playing(daemon_metrics=METRICS) as daemon:
        ran = vmctl(daemon, "metrics", "--textfile", str(tmp_path / "none/x.prom"))

    assert (ran.status, ran.err) == (1, f"vmctl: {tmp_path}/none/x.prom cannot be written: no such file or directory\n")
