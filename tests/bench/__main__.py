"""`make bench`: measure everything, print the table, write docs/benchmarks.md.

    python -m tests.bench [--guests 500] [--quick] [--write FILE]

Each figure is a ratio of this run, or a bound that any machine of today should keep. Linux with a C compiler; s6, runit and supervisord
are compared where they are installed. On a machine that does other work all of it is worth little.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.bench import answers, consoles, lives, native, peers
from tests.bench.figures import Figure, markdown, table
from tests.bench.freehost import FreeHost

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
_STALL_S = 0.02
_INTRO = Path(__file__).with_name("page.md")

T = TypeVar("T")


def main() -> int:
    """Returns the exit status: 0 whatever the verdicts, which are for people."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--guests", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    parser.add_argument("--write", type=Path, default=PAGE, help="the page to write")
    asked = parser.parse_args()
    if native.compiler() is None or not sys.platform.startswith("linux"):
        print("the bench needs Linux and a C compiler", file=sys.stderr)
        return 1
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # bhyved is measured as it is installed: compiled
    os.environ["PYTHONPATH"] = str(Path(__file__).with_name("hidden"))  # and without what only its developers have
    figures = measure(asked.guests, quick=asked.quick)
    print(table(figures))
    asked.write.write_text(page(figures))
    return 0


def page(figures: list[Figure]) -> str:
    """docs/benchmarks.md."""
    machine = f"{answers.versions()}, {os.cpu_count()} processors; {time.strftime('%Y-%m-%d')}"
    return _INTRO.read_text().format(machine=machine, table=markdown(figures))


def measure(count: int, *, quick: bool) -> list[Figure]:
    """Everything, in about two minutes."""
    few, times, seconds = (3, 3, 0.5) if quick else (10, 9, 10.0)
    figures = restarts(min(count, 100), 1 if quick else 3)
    figures += crowds(count)
    figures += answers.memory(few, few + min(count, 100))
    figures.append(answers.own_start(times))
    with FreeHost(count) as host:
        lives.start_s(host)
        host.wait_phase("up")
        figures.append(answers.idle(host, seconds))
        figures.append(answers.adoption(host))
        before = host.stretches(_STALL_S)
        figures += answers.lists(host, times, _slowest_list(count, times))
        figures += consoles.throughput(host, host.names[0], (1 if quick else 64) << 20)
        figures += consoles.flood(host, min(count, 100), seconds / 2)
        figures.append(_stalls(host, before, "lists and consoles"))
    with FreeHost(2 * count) as host:
        figures += answers.scrape(host, times)
    return figures


def restarts(count: int, rounds: int) -> list[Figure]:
    """One guest after the other."""

    def bare_s(peer: peers.Peer) -> list[float]:
        lives.start_s(peer)
        return lives.restart_s(peer, rounds)

    bare = _with_peer(peers.RawC, count, bare_s)
    with FreeHost(count) as host:
        lives.start_s(host)
        host.wait_phase("up")
        ours = lives.restart_s(host, rounds)
    figures = []
    for word, share, target in (("p50", 0.5, 6.0), ("p99", 0.99, 12.0)):
        mine, theirs = lives.quantile(ours, share), lives.quantile(bare, 0.5)
        also = f"{mine * 1e3:.3g} ms / {theirs * 1e3:.3g} ms"
        figures.append(Figure(f"restart of one, {count} up, {word}", mine / theirs, "x raw-c's p50", target, also=also))
    return figures


def crowds(count: int) -> list[Figure]:
    """All start, all die, all stop: with bhyved, raw-c and each peer that is there."""
    took: dict[str, tuple[float, float, float]] = {}
    kinds: list[type[peers.Peer]] = [peers.RawC, *(peer for peer in peers.OTHERS if peer.is_there())]
    for kind in kinds:
        took[kind.name] = _with_peer(kind, count, _crowd)
    with FreeHost(count) as host:
        cpu, before = host.cpu_s(), host.stretches(_STALL_S)
        start_s = lives.start_s(host)
        cpu_ms = (host.cpu_s() - cpu) / count * 1e3
        host.wait_phase("up")
        with consoles.Prober(host, host.names[0]) as prober:
            deaths_s = lives.deaths_s(host)
        host.wait_phase("up")
        stop_s = lives.stop_s(host)
        figures = [_stalls(host, before, "start, death and stop of all")]
    against = "s6" if "s6" in took else "raw-c"
    for number, (what, mine, factor) in enumerate((("start", start_s, 4.0), ("death", deaths_s, 3.0), ("stop", stop_s, 3.0))):
        also = ", ".join(f"{name} {times[number]:.3g} s" for name, times in took.items())
        target = factor if against == "s6" else None
        figures.append(Figure(f"{what} of {count}", mine / took[against][number], f"x {against}", target, also=f"{mine:.3g} s; {also}"))
    figures.append(Figure("processor time of the daemon for a start", cpu_ms, "ms", 4))
    figures.append(Figure("longest answer of the socket while all die", prober.control_s * 1e3, "ms", 50))
    figures.append(Figure("longest echo of a console while all die", prober.console_s * 1e3, "ms", 50))
    return figures


def _crowd(peer: peers.Peer) -> tuple[float, float, float]:
    start_s = lives.start_s(peer)
    time.sleep(peer.rests_s)
    return start_s, lives.deaths_s(peer), lives.stop_s(peer)


def _stalls(host: FreeHost, before: int, during: str) -> Figure:
    return Figure(f"stretches of the event loop above 20 ms: {during}", host.stretches(_STALL_S) - before, "", 0)


def _slowest_list(count: int, times: int) -> tuple[str, float] | None:
    """supervisorctl, where it is installed."""
    if not peers.Supervisord.is_there():
        return None

    def took(peer: peers.Peer) -> float:
        lives.start_s(peer)
        return statistics.median(peers.list_s(peer.list_argv(), min(times, 3)))

    return "supervisorctl status", _with_peer(peers.Supervisord, count, took)


def _with_peer(kind: type[peers.Peer], count: int, ask: Callable[[peers.Peer], T]) -> T:
    peer = kind(count)
    try:
        return ask(peer)
    finally:
        peer.close()


if __name__ == "__main__":
    sys.exit(main())
