"""Alert rules, dashboard and exposition against the tools they are for."""

import json
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from bhyved.core.daemonfacts import CommandFacts
from bhyved.core.series import GUEST_METRICS
from bhyved.core.snapshots import Stock
from bhyved.core.status import Desired, Histogram, Phase, Restarts
from bhyved.core.usage import Process, Traffic, Usage
from bhyved.daemon.loopwatch import BOUNDS_S
from tests.daemon.webkit import Server, console, crowd, facts
from tests.monitoring.prometheus import LOOK_S, PROMTOOL, Prometheus, needs_prometheus, needs_promtool, prometheus

ROOT = Path(__file__).parents[2]
ETC = ROOT / "etc/prometheus"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "etc/grafana/bhyved.json").read_text())


def promtool(*argv: str, input: bytes = b"") -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *argv], input=input, capture_output=True, cwd=ETC, check=False, timeout=120)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    assert "WARNING" not in output


@needs_promtool
def test_configuration_is_sound() -> None:
    """The scrape configuration, with the rules that it names, is one that Prometheus takes."""
    promtool("check", "config", "scrape.yml")


@needs_promtool
@pytest.mark.parametrize("name", ["bhyved.rules.test.yml", "bhyved.rules.days.test.yml"])
def test_rules(name: str) -> None:
    """Each alert fires when it should, for whom it should, with what it should say; and not else."""
    promtool("test", "rules", name)


def test_every_alert_is_tested() -> None:
    """No rule stands without a test that sees it fire."""
    alerts = set(re.findall(r"- alert: (\w+)", (ETC / "bhyved.rules.yml").read_text()))
    tests = "".join(path.read_text() for path in ETC.glob("*.test.yml"))
    assert alerts == set(re.findall(r"alertname: (\w+)\n +exp_alerts", tests))
    assert len(alerts) == 24


@needs_promtool
async def test_exposition_is_clean() -> None:
    """promtool finds nothing to complain about in names, units and help texts."""
    scrape = await Server(*crowd()).metrics.scrape("")
    await trio.to_thread.run_sync(lambda: promtool("check", "metrics", input="".join(scrape.pieces()).encode()))


# --- with a real Prometheus -------------------------------------------------------------------------------------------------------


def quick_config(server: Server) -> str:
    """The shipped rules, impatient: what must last must last no time."""
    return f"""
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [quick.rules.yml]
scrape_configs:
  - job_name: bhyved
    static_configs: [{{targets: ["127.0.0.1:{server.port}"]}}]
"""


def write_quick_rules(directory: Path) -> None:
    rules = re.sub(r"\n +for: \w+", "", (ETC / "bhyved.rules.yml").read_text())
    (directory / "quick.rules.yml").write_text(rules)


def well(server: Server) -> None:
    """A host on which nothing is wrong: every alert's cause is taken back."""
    server.figures.stocks = {"web1": Stock(count=3, newest_s=int(time.time()))}
    for status in server.board.all():
        changes = {
            "desired": Desired.DOWN,
            "forced_stops": 0,
            "restarts": Restarts(),
            "exits": {},
            "config_changed": (),
            "ready": status.phase is Phase.UP,
        }
        server.board.publish(msgspec.structs.replace(status, **{**changes, "phase": Phase.UP if status.phase is Phase.UP else Phase.DOWN}))
    server.figures.consoles = {name: (console("com1"),) for name in ("web1", "db1")}
    server.facts = facts(commands={"ifconfig": CommandFacts()})


def worse(server: Server) -> None:
    """The crowd as it is: one crashes, one is held, one waits for a new configuration, one console is not logged."""
    for status in crowd():
        server.board.publish(status)
    server.figures.consoles = {"web1": (console("com1"),), "db1": (console("com1", unlogged_bytes=512, problem="disk full"),)}
    commands = {"ifconfig": CommandFacts(durations=Histogram().plus(0.1), failures=20)}
    server.facts = facts(problems={"journal": "disk full", "records": ""}, commands=commands, shutdown_needed_s=120.0)


EXPECTED = {
    ("BhyveVmDown", "loop1"),
    ("BhyveVmDown", "mail"),
    ("BhyveVmHeld", "win11"),
    ("BhyveVmCrashLoop", "loop1"),
    ("BhyveVmCrashLoop", "win11"),
    ("BhyveVmForcedStop", "win11"),
    ("BhyveVmNotReady", "db1"),
    ("BhyveVmConsoleNotRecorded", "db1"),
    ("BhyveVmConfigWaits", "db1"),
    ("BhyvedPartFailing", "journal"),
    ("BhyvedHostCommandsFail", "ifconfig"),
    ("BhyvedShutdownTooShort", ""),
}


async def until_alerts(asked: Prometheus, expected: set[tuple[str, str]]) -> None:
    found: set[tuple[str, str]] = set()
    with trio.move_on_after(30):
        while (found := await asked.alerts()) != expected:  # noqa: ASYNC110 - another process
            await trio.sleep(LOOK_S)
    assert found == expected


@needs_prometheus
async def test_the_right_alerts_fire(tmp_path: Path) -> None:
    """Nothing fires while all is well; when guests crash, are held and wait, exactly their alerts do; a dead daemon is the last."""
    write_quick_rules(tmp_path)
    server = Server(*crowd())
    well(server)
    async with server.running(), prometheus(tmp_path, quick_config(server)) as asked:
        with trio.fail_after(30):
            await asked.scraped_again()
        assert await asked.alerts() == set()
        worse(server)
        await until_alerts(asked, EXPECTED)
        server.facts = facts(started_at=server.now, not_ready="looking for running guests", config_problems=1)
        later = {("BhyvedRestarted", ""), ("BhyvedNotServing", ""), ("BhyvedConfigBroken", "")}
        gone = {("BhyvedPartFailing", "journal"), ("BhyvedShutdownTooShort", "")}
        await until_alerts(asked, (EXPECTED - gone) | later)


def expressions() -> list[tuple[str, str]]:
    """Every query of the dashboard, with what it is for."""
    panels = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return panels + [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]


def filled(expression: str) -> str:
    """As Grafana asks with all hosts and guests chosen."""
    chosen = {"$instance": ".*", "$vm": ".*", "$__rate_interval": "5s", "$__interval": "5s"}
    for variable, value in chosen.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


@needs_prometheus
async def test_every_query_of_the_dashboard_finds_something(tmp_path: Path) -> None:
    """With guests in every state, no panel of the dashboard is empty, and no query is wrong."""
    write_quick_rules(tmp_path)
    server = Server(*crowd())
    well(server)
    # Host commands and starts are shown as rates: both have to happen while Prometheus looks.
    async with server.running(), prometheus(tmp_path, quick_config(server)) as asked:
        with trio.fail_after(60):
            await asked.scraped_again()
            worse(server)
            server.figures.usage = Usage({"web1": Process(20.0, 1 << 30, 9)}, {"tap0": Traffic(9000, 9000, 90, 90, 9)})
            server.facts = facts(problems={"journal": "disk full"}, config_problems=1, started_at=datetime.now(UTC))
            await asked.scraped_again()
            empty = [title for title, expression in expressions() if not await asked.query(filled(expression))]
    assert empty == []


# --- the dashboard as a file ------------------------------------------------------------------------------------------------------


def metric_names() -> set[str]:
    """All names that a query may use."""
    names = {metric.name for metric in GUEST_METRICS}
    return names | {
        f"{metric.name}_{part}" for metric in GUEST_METRICS if metric.kind == "histogram" for part in ("bucket", "count", "sum")
    }


async def test_dashboard_and_rules_know_only_our_metrics() -> None:
    """A renamed metric is noticed here, not in an empty panel."""
    scrape = await Server(*crowd()).metrics.scrape("")
    served = set(re.findall(r"^(\w+)[{ ]", "".join(scrape.pieces()), re.MULTILINE)) | metric_names()
    texts = (ROOT / "etc/grafana/bhyved.json").read_text(), (ETC / "bhyved.rules.yml").read_text()
    used = {name for text in texts for name in re.findall(r"\bbhyved_\w+", text)}
    assert used <= served
    assert "1.0" in map(str, BOUNDS_S), "the rule about the loop asks for this bucket"


def test_panels_have_their_places() -> None:
    """No two panels overlap, none hangs over the edge, each has an id of its own and asks the chosen source."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not cells & taken, panel["title"]
        assert grid["x"] + grid["w"] <= 24
        taken |= cells
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel.get("targets", []))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_guides_picture_is_of_this_dashboard() -> None:
    """Each panel has its place in it, but for those that a lab cannot fill; `python docs/draw_dashboard.py` draws it anew."""
    drawn = (ROOT / "docs/guide/pictures/dashboard.svg").read_text()
    left_out = set(
        re.findall(r'"([^"]+)"', re.findall(r"^LEFT_OUT = \{(.*?)\}", (ROOT / "docs/draw_dashboard.py").read_text(), re.MULTILINE)[0])
    )
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    assert left_out < titles
    assert {title for title in titles if f">{title}</text>" not in drawn} == left_out
