"""Draws docs/guide/pictures/dashboard.svg: the panels of etc/grafana/bhyved.json, as they look after four minutes of a busy host.

    python docs/draw_dashboard.py       # needs prometheus, and the time that the story takes

Nothing in it is invented: a lab's guests crash, reboot, hang and are stopped, a real Prometheus scrapes the daemon meanwhile, and what is
drawn are the answers to the dashboard's own queries.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.monitoring.prometheus import PROMETHEUS, Prometheus, free_port, prometheus
from tests.system.labkit import QUICK, LabHost, sim

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads((ROOT / "etc/grafana/bhyved.json").read_text())
PICTURE = Path(__file__).parent / "guide/pictures/dashboard.svg"
#: A lab has no traffic, no lost bytes and no troubles.
LEFT_OUT = {"Network, to the guest up, from it down", "Dropped packets", "Console bytes not in the log, viewers' losses", "Troubles"}

# --- the story --------------------------------------------------------------------------------------------------------------------

LIMITS = '[restart]\ncrash-limit = "3 in 10m"\nreboot-limit = "100 in 1h"\nbackoff = "4s"\nbackoff-max = "20s"\n'
CONFIG = f'memory-reserve = "2G"\n{QUICK}[shutdown]\nmargin = "5s"\n'
GUESTS = {
    "db1": sim("boot 3s; acpi slow 2s; print login: ; wait", more="wired = true\n"),
    "web1": sim("boot 2s; acpi on; print login: ; wait", more='[order]\nafter = ["db1"]\n'),
    "mail1": sim("boot 1s; acpi on; print login: ; wait", more=LIMITS),
    "ci1": sim("boot 1s; acpi on; print login: ; sleep 20s; reboot", more=LIMITS),
    "build1": sim("boot 1s; acpi on; print login: ; sleep 50s; spin", more="autostart = false\n"),
    "win1": sim("boot 5s; acpi ignore; print login: ; wait", more='[stop]\ntimeout = "12s"\n'),
}


def sized(guest: str, memory: str) -> str:
    """No guest of a lab touches its memory."""
    return guest.replace('memory = "16M"', f'memory = "{memory}"')


BIG = {name: sized(text, memory) for (name, text), memory in zip(GUESTS.items(), ("4G", "2G", "1G", "1G", "6G", "4G"), strict=True)}
STORE = sim("boot 1s; acpi on; print login: ; wait", more='[[disk]]\npath = "{path}"\n')


def add_store(lab: LabHost) -> None:
    """A guest whose disk is on ZFS. Where it is depends on the lab."""
    subprocess.run([f"{lab.root}/bin/zfs", "create", "-p", "-V", "1M", "zroot/vm/store1"], check=True)
    lab.write("store1", sized(STORE.replace("{path}", f"{lab.root}/dev/zvol/zroot/vm/store1"), "4G"))
    lab.call("config.reload")


def play(lab: LabHost, began: float) -> None:
    """Four minutes, at the times that they say."""

    def send(name: str, line: str) -> None:
        lab.phase("up", name)
        lab.call("console.send", name=name, text=f"{line}\r")

    def replace() -> None:
        lab.kill_daemon()
        time.sleep(6)
        lab.start()

    story = [
        (at_s, partial(send, "web1", f"flood {size}KiB")) for at_s, size in ((12, 40), (32, 90), (58, 60), (95, 160), (175, 80), (215, 120))
    ]
    story += [(at_s, partial(send, "mail1", "panic")) for at_s in (40, 70, 95, 125)]
    story += [(6, partial(add_store, lab))] + [(at_s, partial(lab.ask, "snapshot", "store1")) for at_s in (20, 85, 160, 225)]
    story += [(25, partial(lab.ask, "start", "build1")), (200, partial(lab.ask, "stop", "build1"))]
    story += [(110, partial(lab.ask, "stop", "win1")), (170, partial(lab.ask, "start", "win1")), (140, replace)]
    story += [(185, partial(lab.ask, "restart", "db1")), (240, lambda: None)]
    for at_s, act in sorted(story, key=lambda step: step[0]):
        time.sleep(max(0.0, began + at_s - time.monotonic()))
        act()


# --- asking -----------------------------------------------------------------------------------------------------------------------

Points = dict[int, float]  # second of the story → value
Series = tuple[dict[str, str], Points]


def filled(expression: str) -> str:
    """As Grafana asks with all hosts and guests chosen."""
    for variable, value in {"$instance": ".*", "$vm": ".*", "$__rate_interval": "8s", "$__interval": "2s"}.items():
        expression = expression.replace(variable, value)
    return expression


async def answer(asked: Prometheus, expression: str, begin: float, end: float) -> list[Series]:
    """Every series, second by second."""
    path = f"/api/v1/query_range?query={quote(filled(expression), safe='')}&start={begin:.0f}&end={end:.0f}&step=1"
    _, body = await asked.get(path)
    result = json.loads(body)["data"]["result"]
    return [
        (series["metric"], {round(float(at) - begin): float(value) for at, value in series["values"] if value != "NaN"})
        for series in result
    ]


async def watch() -> dict[str, Any]:
    """Play the story; the answers by panel title, and when the daemon was restarted."""
    assert PROMETHEUS is not None, "prometheus is not installed"
    port = free_port()
    host = LabHost(BIG, daemon=CONFIG, options=("--metrics", f"127.0.0.1:{port}"))
    (host.root / "lab").mkdir()
    (host.root / "lab/settings.json").write_text(json.dumps({"physmem": 24 << 30}))
    with tempfile.TemporaryDirectory() as directory, host as lab:
        config = f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: bhyved, static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{instance: vmhost}}}}]}}]
"""
        async with prometheus(Path(directory), config) as asked:
            began_at, began = time.time(), time.monotonic()
            await trio.to_thread.run_sync(play, lab, began)
            now = time.time()
            answers: dict[str, Any] = {"length": int(now - began_at)}
            for panel in DASHBOARD["panels"]:
                targets = [(target["expr"], target.get("legendFormat", "")) for target in panel.get("targets", [])]
                answers[panel["title"]] = [(await answer(asked, expr, began_at, now), legend) for expr, legend in targets]
            note = DASHBOARD["annotations"]["list"][0]
            starts = sorted(begin for _, points in await answer(asked, note["expr"], began_at, now) for begin, _ in stretches(points))
            answers["restarts"] = starts[1:]
    return answers


# --- drawing ----------------------------------------------------------------------------------------------------------------------

COLUMN, UNIT, GAP = 50, 25, 8
COLOURS = ("#5794f2", "#f2a33c", "#56a64b", "#e05f8e", "#8f6ed5", "#2aa7a0", "#c9742f", "#7f8a99", "#b8a22b", "#4f6fd8")
PHASES = {
    "up": "#4c9f50", "down": "#8b93a0", "held": "#d64541", "backoff": "#e8913a", "starting": "#8cc6f0", "waiting": "#b7a7e0",
    "preparing": "#9fd0d8", "stopping": "#e3c04b", "killing": "#a83a3a", "cleaning": "#c5b58c", "loading": "#6f9fd8",
}  # fmt: skip
STYLE = """
text { font: 12px system-ui, "Noto Sans", "DejaVu Sans", sans-serif; fill: #24292f; }
.paper { fill: #f4f5f7; } .panel { fill: #fff; stroke: #dfe2e7; } .dim { fill: #68707c; font-size: 11px; }
.title { font-weight: 600; } .row { font-size: 14px; font-weight: 600; } .stat { font-size: 30px; font-weight: 600; }
.small { font-size: 10px; font-weight: 600; }
.grid { stroke: #e6e8ec; } .note { stroke: #3d7eea; stroke-dasharray: 3 3; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.green { fill: #2e7d32; } .red { fill: #c4302b; } .orange { fill: #c26a00; }
@media (prefers-color-scheme: dark) {
  text { fill: #dfe3e8; } .paper { fill: #101216; } .panel { fill: #181b20; stroke: #2a2f36; } .dim { fill: #98a1ad; }
  .grid { stroke: #2a2f36; } .green { fill: #73c97a; } .red { fill: #ff7a70; } .orange { fill: #f0a44b; }
}
"""


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escaped(said)}</text>'


def amount(value: float, unit: str) -> str:
    """A value as an axis has it."""
    if unit in ("bytes", "Bps"):
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}" + ("/s" if unit == "Bps" else "")
        return f"{value:.3g} B" + ("/s" if unit == "Bps" else "")
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    return f"{100 * value:.2g} %" if unit == "percentunit" else f"{value:.3g}"


def named(metric: dict[str, str], legend: str) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: metric.get(match[1], ""), legend)


def ceiling(value: float, unit: str) -> float:
    """A round number at or above, in the unit that the axis has."""
    if unit in ("bytes", "Bps"):
        size = next((size for size in (1 << 30, 1 << 20, 1 << 10) if value >= size), 1)
        return ceiling(value / size, "short") * size
    step = 10.0 ** (len(f"{int(value)}") - 1) if value >= 1 else 1.0
    while step > value > 0:
        step /= 10
    return next((step * factor for factor in (1, 1.5, 2, 3, 4, 5, 8) if step * factor >= value), step * 10)


class Panel:
    """One panel, at its place."""

    def __init__(self, panel: dict[str, Any], x: int, y: int, width: int, answers: dict[str, Any]) -> None:
        self.title, self.answers, self.length = panel["title"], answers[panel["title"]], answers["length"]
        defaults = panel["fieldConfig"]["defaults"]
        self.unit, self.steps = defaults.get("unit", "short"), defaults.get("thresholds", {}).get("steps", [])
        # The dashboard's only overrides: series of another unit, which have their axis at the right.
        self.right = next((each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]), "")
        self.restarts = answers["restarts"]
        self.x, self.y = x * COLUMN + GAP // 2, y
        self.w, self.h = width * COLUMN - GAP, panel["gridPos"]["h"] * UNIT - GAP

    def drawn(self, kind: str) -> str:
        frame = f'<rect class="panel" x="{self.x}" y="{self.y}" width="{self.w}" height="{self.h}" rx="4"/>'
        inner = {"stat": self.stat, "timeseries": self.lines, "state-timeline": self.states, "table": self.table}[kind]()
        return frame + text(self.x + 12, self.y + 20, self.title, "title" if 7.2 * len(self.title) < self.w else "small") + inner

    def stat(self) -> str:
        value = last(self.answers[0][0][0][1])
        colour = [step["color"] for step in self.steps if step["value"] is None or value >= step["value"]][-1]
        shown = amount(value, self.unit) if self.unit != "short" else f"{value:.0f}"
        return text(self.x + self.w / 2, self.y + self.h / 2 + 22, shown, f"stat {colour}", "middle")

    def across(self, second: float, left: float, width: float) -> float:
        return left + width * second / self.length

    def times(self, left: float, width: float, bottom: float) -> str:
        """The axis of time, and the daemon's restarts."""
        marks = "".join(
            text(self.across(at, left, width), bottom + 15, f"{at // 60}:{at % 60:02}", "dim", "middle") for at in range(0, self.length, 60)
        )
        for at in self.restarts:
            x = self.across(at, left, width)
            marks += (
                f'<line class="note" x1="{x:.1f}" x2="{x:.1f}" y1="{self.y + 32}" y2="{bottom:.1f}"><title>bhyved restarted</title></line>'
            )
        return marks

    def lines(self) -> str:
        series = [(named(metric, legend), points) for found, legend in self.answers for metric, points in found if points]
        of_right = [name for name, _ in series if self.right and re.fullmatch(self.right, name)]
        left, top, bottom = self.x + 66, self.y + 34, self.y + self.h - 46
        width = self.w - (104 if of_right else 80)
        drawn = self.times(left, width, bottom)
        most: dict[bool, float] = {}
        for is_right in (False, True):
            values = [value for name, points in series if (name in of_right) is is_right for value in points.values()]
            unit = "short" if is_right else self.unit
            most[is_right] = ceiling(max(values, default=1.0) or 1.0, unit)
            for part in range(5) if values or not is_right else ():
                y = bottom - (bottom - top) * part / 4
                place, anchor = (left + width + 6, "start") if is_right else (left - 6, "end")
                drawn += text(place, y + 4, amount(most[is_right] * part / 4, unit), "dim", anchor)
                drawn += f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>' if not is_right else ""
        legend_x = float(left)
        for number, (name, points) in enumerate(series):
            colour = COLOURS[number % len(COLOURS)]
            path, before = "", -10
            for second, value in sorted(points.items()):
                y = bottom - (bottom - top) * max(0.0, value) / most[name in of_right]
                path += f"{'L' if second - before <= 2 else 'M'}{self.across(second, left, width):.1f} {y:.1f}"
                before = second
            drawn += f'<path class="line" stroke="{colour}" d="{path}"/>'
            if legend_x + 24 + 6.3 * len(name) < self.x + self.w:
                drawn += f'<rect x="{legend_x:.0f}" y="{self.y + self.h - 20}" width="10" height="10" rx="2" fill="{colour}"/>'
                drawn += text(legend_x + 14, self.y + self.h - 11, name, "dim")
            legend_x += 28 + 6.3 * len(name)
        return drawn

    def states(self) -> str:
        (series, _), *_ = self.answers
        by_vm: dict[str, dict[str, Points]] = defaultdict(dict)
        for metric, points in series:
            by_vm[metric["vm"]][metric["phase"]] = points
        left, width, top, bottom = self.x + 66, self.w - 80, self.y + 34, self.y + self.h - 46
        pitch = (bottom - top) / len(by_vm)
        drawn, seen = "", dict[str, None]()
        for number, vm in enumerate(sorted(by_vm)):
            y = top + pitch * number
            drawn += text(left - 8, y + pitch / 2 + 4, vm, "", "end")
            for phase, points in by_vm[vm].items():
                seen[phase] = None
                for begin, end in stretches(points):
                    x = self.across(begin, left, width)
                    wide = self.across(end + 1, left, width) - x
                    drawn += f'<rect x="{x:.1f}" y="{y + 3:.1f}" width="{wide:.1f}" height="{pitch - 6:.1f}" fill="{PHASES[phase]}"/>'
                    if wide > 8 * len(phase):
                        drawn += f'<text x="{x + 6:.1f}" y="{y + pitch / 2 + 4:.1f}" style="fill: #fff">{phase}</text>'
        legend_x = float(left)
        for phase in sorted(seen):
            drawn += f'<rect x="{legend_x:.0f}" y="{self.y + self.h - 20}" width="10" height="10" rx="2" fill="{PHASES[phase]}"/>'
            drawn += text(legend_x + 14, self.y + self.h - 11, phase, "dim")
            legend_x += 30 + 6.5 * len(phase)
        return drawn + self.times(left, width, bottom)

    def table(self) -> str:
        (phases, _), (attempts, _), *_ = self.answers
        now = max(max(points) for _, points in phases)
        left = {metric["vm"]: points[now] for metric, points in attempts if now in points}
        rows = sorted((metric["vm"], metric["phase"]) for metric, points in phases if now in points)
        places = (self.x + 14, self.x + 150, self.x + self.w - 16)
        drawn = "".join(
            text(x, self.y + 46, head, "dim", anchor)
            for x, head, anchor in zip(places, ("vm", "phase", "attempts left"), ("start", "start", "end"), strict=True)
        )
        for number, (vm, phase) in enumerate(rows):
            y = self.y + 70 + 22 * number
            drawn += (
                text(places[0], y, vm) + text(places[1], y, phase) + text(places[2], y, f"{left[vm]:.0f}" if vm in left else "", "", "end")
            )
        return drawn


def last(points: Points) -> float:
    return points[max(points)]


def stretches(points: Points) -> list[tuple[int, int]]:
    """Seconds without a hole between them."""
    found: list[list[int]] = []
    for second in sorted(points):
        if found and second - found[-1][1] <= 2:
            found[-1][1] = second
        else:
            found.append([second, second])
    return [(begin, end) for begin, end in found]


def placed() -> Iterator[tuple[dict[str, Any], int, int, int]]:
    """Panels in the dashboard's order, each with its column, its y and its width; what is left out leaves no hole."""
    lines: list[list[dict[str, Any]]] = [[]]
    for panel in sorted(DASHBOARD["panels"], key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"])):
        if panel["title"] in LEFT_OUT:
            continue
        if sum(each["gridPos"]["w"] for each in lines[-1]) + panel["gridPos"]["w"] > 24:
            lines.append([])
        lines[-1].append(panel)
    y = GAP
    for line in lines:
        x = 0
        for panel in line:
            width = 24 - x if panel is line[-1] else panel["gridPos"]["w"]
            yield panel, x, y, width
            x += width
        y += max(panel["gridPos"]["h"] for panel in line) * UNIT


def picture(answers: dict[str, Any]) -> str:
    """All of it."""
    drawn, bottom = "", 0
    for panel, x, y, width in placed():
        bottom = max(bottom, y + panel["gridPos"]["h"] * UNIT)
        if panel["type"] == "row":
            drawn += text(GAP, y + 18, panel["title"], "row")
        else:
            drawn += Panel(panel, x, y, width, answers).drawn(panel["type"])
    size = f'viewBox="0 0 {24 * COLUMN} {bottom}" width="{24 * COLUMN}" height="{bottom}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><title>The dashboard bhyved, after four minutes of a lab</title>'
        f'<style>{STYLE}</style><rect class="paper" width="100%" height="100%"/>{drawn}</svg>\n'
    )


def main() -> int:
    if PROMETHEUS is None:
        print(f"{PICTURE.name} is not drawn: prometheus is not installed", file=sys.stderr)
        return 0
    PICTURE.write_text(picture(trio.run(watch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
