"""The report of a selftest: what is said, and when it is a failure."""

import json

import pytest

from bhyved.core.selfcheck import SECTIONS, Found, as_json, passed, report, summary

GOOD = Found(section="5.3", title="a", about="taps", verdict="ok", saw="done", seconds=1.25)
BAD = Found(section="5.3", title="b", about="taps", verdict="failed", saw="gone", seconds=0.5)
LEFT = Found(section="1.7.1", title="c", about="firmware", verdict="skipped", saw="edk2-bhyve is not installed")


def test_the_whole_report() -> None:
    """Who was tested, what the numbers are, every check under its heading with its number, and the sum."""
    assert report({"bhyved": "0.1.0", "release": "15.0-RELEASE"}, [GOOD, BAD, LEFT]) == (
        "bhyved selftest\n"
        "  bhyved   0.1.0\n"
        "  release  15.0-RELEASE\n"
        "\n"
        f"{SECTIONS}\n"
        "\n"
        "taps:\n"
        "  ok      5.3    a: done\n"
        "  failed  5.3    b: gone\n"
        "\n"
        "firmware:\n"
        "  skipped 1.7.1  c: edk2-bhyve is not installed\n"
        "\n"
        "1 ok, 1 failed, 1 skipped, in 1.8 s: this host does not do all that bhyved needs\n"
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([GOOD], "1 ok, 0 failed, 0 skipped, in 1.2 s: this host does what bhyved needs"),
        ([GOOD, LEFT], "1 ok, 0 failed, 1 skipped, in 1.2 s: nothing failed, but 1 could not be tried, and nothing is known of that"),
        ([BAD], "0 ok, 1 failed, 0 skipped, in 0.5 s: this host does not do all that bhyved needs"),
    ],
)
def test_the_last_words(found: list[Found], words: str) -> None:
    """What could not be tried is told plainly: it is neither good nor bad."""
    assert summary(found) == words


def test_what_counts_as_passed() -> None:
    """Skipped checks are no failure, and one failed check is."""
    assert passed([GOOD, LEFT])
    assert passed([LEFT])
    assert not passed([GOOD, BAD])


def test_the_report_for_programs() -> None:
    """The same as an object: the host, the sums, and each check with its section."""
    told = json.loads(as_json({"bhyved": "0.1.0"}, [GOOD, BAD]))

    assert (told["version"], told["host"], told["passed"]) == (1, {"bhyved": "0.1.0"}, False)
    assert told["counts"] == {"ok": 1, "failed": 1, "skipped": 0}
    assert told["checks"][0] == {"section": "5.3", "title": "a", "about": "taps", "verdict": "ok", "saw": "done", "seconds": 1.25}
