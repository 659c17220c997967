"""The report of a selftest: what is said, and when it is a failure."""

from bhyved.core.selfcheck import Found, passed, report

GOOD = Found(title="a", about="taps", verdict="ok", saw="done", seconds=1.25)
BAD = Found(title="b", about="taps", verdict="failed", saw="gone", seconds=0.5)
LEFT = Found(title="c", about="firmware", verdict="skipped", saw="edk2-bhyve is not installed")


def test_the_whole_report() -> None:
    """Who was tested, every check under its heading, and the sum."""
    assert report({"bhyved": "0.1.0", "release": "15.0-RELEASE"}, [GOOD, BAD, LEFT]) == (
        "bhyved selftest\n"
        "  bhyved   0.1.0\n"
        "  release  15.0-RELEASE\n"
        "\n"
        "taps:\n"
        "  ok      a: done\n"
        "  failed  b: gone\n"
        "\n"
        "firmware:\n"
        "  skipped c: edk2-bhyve is not installed\n"
        "\n"
        "1 ok, 1 failed, 1 skipped, in 1.8 s\n"
    )


def test_what_counts_as_passed() -> None:
    """Skipped checks are no failure, but a host on which nothing could be tried has not passed."""
    assert passed([GOOD, LEFT])
    assert not passed([GOOD, BAD])
    assert not passed([LEFT])
    assert not passed([])
