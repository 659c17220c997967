"""docs/metrics.md is what the program serves."""

import re
from pathlib import Path

from bhyved.core.config import Source, load
from bhyved.core.series import GUEST_METRICS
from bhyved.core.usage import Own
from bhyved.daemon.collector import DaemonCollector
from bhyved.daemon.loopwatch import LoopWatch
from tests.daemon.webkit import crowd, facts

TEXT = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
Row = tuple[str, str, str, str, str]


def rows(section: str) -> list[Row]:
    """Name, type, unit, labels and meaning, as they are written."""
    body = TEXT.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \| (\w+) \| (\w*) ?\| ([\w, ]*?) ?\| (.+) \|$", body, re.MULTILINE)


def unit(name: str) -> str:
    return next((unit for unit in ("seconds", "bytes") if name.removesuffix("_total").endswith(unit)), "")


def test_guests() -> None:
    """Each metric of a guest is in the table with its type, unit, labels and help text, in order."""
    assert rows("Guests") == [
        (metric.name, metric.kind, unit(metric.name), ", ".join(("vm", *metric.labels)), metric.help.rstrip("."))
        for metric in GUEST_METRICS
    ]


def test_daemon() -> None:
    """So is each metric of the daemon."""
    expected = []
    for metric in DaemonCollector(facts(), crowd(), LoopWatch(), Own(1.0, 1, 1)).collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = dict.fromkeys(label for sample in metric.samples for label in sample.labels if label != "le")
        expected.append((name, metric.type, unit(name), ", ".join(labels), metric.documentation.rstrip(".")))
    assert rows("The daemon") == expected


GUIDE = (Path(__file__).parents[2] / "docs/guide/monitoring.md").read_text()


def test_guide_lists_the_alerts() -> None:
    """Each alert stands in the guide with its delay and severity."""
    rules = (Path(__file__).parents[2] / "etc/prometheus/bhyved.rules.yml").read_text()
    told = {name for line in GUIDE.splitlines() if line.startswith("| `Bhyve") for name in re.findall(r"`(Bhyve\w+)`", line)}
    assert told == set(re.findall(r"- alert: (\w+)", rules))
    for rule in rules.split("- alert: ")[1:]:
        name, severity = rule.partition("\n")[0], re.findall(r"severity: (\w+)", rule)[0]
        (line,) = (line for line in GUIDE.splitlines() if line.startswith("|") and f"`{name}`" in line)
        assert severity in line
        lasts = re.findall(r"for: (\d+)([mhd])", rule)
        assert (f"| {' '.join(lasts[0])} |" if lasts else "| at once |") in line


def test_guide_asks_for_what_there_is() -> None:
    """The queries and the configuration of the guide are right."""
    names = {metric.name for metric in GUEST_METRICS}
    used = {name.removesuffix("_bucket") for name in re.findall(r"\bbhyved_vm_\w+", GUIDE)}
    assert used <= names
    toml = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    for text in toml:
        assert load(Source("bhyved.toml", text), {}, {}).problems == ()
    assert toml
