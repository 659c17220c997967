"""The bench itself: a small run of it measures everything and writes its page. No figure is judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import native
from tests.bench.figures import Figure, markdown, table
from tests.system.rchost import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bench reads Linux's /proc")


@pytest.mark.long
@pytest.mark.skipif(native.compiler() is None, reason="a C compiler is not installed")
def test_a_small_run_measures_everything(tmp_path: Path) -> None:
    """A handful of guests go through the whole bench, and the page has a line for each figure."""
    words = [sys.executable, "-m", "tests.bench", "--guests", "5", "--quick", "--write", str(tmp_path / "page.md")]

    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text()
    for what in (
        "restart of one",
        "start of 5",
        "death of 5",
        "stop of 5",
        "`vmctl list`",
        "/metrics",
        "wake-ups",
        "byte-exact",
        "kill -9",
    ):
        assert what in done.stdout
        assert what in page


def test_a_figure_is_judged_by_its_target() -> None:
    """At most, at least, or not at all."""
    figures = [Figure("a", 2.0, "x", 3.0), Figure("b", 2.0, "x", 3.0, more=True), Figure("c", 2.0, "x")]

    assert [figure.holds for figure in figures] == [True, False, None]
    assert table(figures).splitlines()[1].split()[:3] == ["a", "2", "x"]
    assert "| b | 2 x | at least 3 x | no |  |" in markdown(figures)
