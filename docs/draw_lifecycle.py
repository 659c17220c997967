"""Draws the diagram and the table of docs/lifecycle.md from the program's own table: `python docs/draw_lifecycle.py`.

What stands between the marks is replaced, the prose around them is not touched. A test checks that the file is current.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bhyved.core import facts
from bhyved.core.lifecycle import FACTS, TABLE, WISHES
from bhyved.core.status import Phase

PAGE = Path(__file__).with_name("lifecycle.md")


def diagram() -> str:
    """Every edge between two phases, with the events that take it."""
    edges: dict[tuple[Phase, Phase], list[str]] = defaultdict(list)
    for phase, row in TABLE.items():
        for event in (*WISHES, *FACTS):
            for next_ in Phase:
                if next_ in row[event].to and next_ is not phase:
                    edges[phase, next_].append(event.__name__)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> down"]
    lines += [f"    {phase} --> {next_}: {', '.join(events)}" for (phase, next_), events in edges.items()]
    return "\n".join([*lines, "```"])


def table() -> str:
    """A row an event, a column a phase, and where it may lead."""
    lines = ["| event | " + " | ".join(Phase) + " |", "|---" * (len(Phase) + 1) + "|"]
    for event in (*WISHES, *FACTS):
        lines.append(f"| `{event.__name__}` | " + " | ".join(_cell(phase, event) for phase in Phase) + " |")
    return "\n".join(lines)


def _cell(phase: Phase, event: type) -> str:
    edge = TABLE[phase][event]
    if edge.handler is facts.impossible:
        return ""
    if edge.handler is facts.ignore:
        return "·"
    return " ".join("=" if next_ is phase else next_ for next_ in Phase if next_ in edge.to)


def drawn(page: str) -> str:
    """The page with both parts as they should be."""
    for name, part in (("diagram", diagram()), ("table", table())):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        page, found = pattern.subn(lambda match, part=part: f"{match[1]}\n{part}\n{match[2]}", page)
        assert found == 1, f"{PAGE} has no place for the {name}"
    return page


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
