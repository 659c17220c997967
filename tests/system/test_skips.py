"""What the test run says of tests that it did not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.rchost import ROOT

TESTS = """
import pytest

def test_lacks():
    pytest.skip("qemu is not installed")

@pytest.mark.skipif(True, reason="only on FreeBSD")
def test_elsewhere():
    pass

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""


def run(tmp_path: Path, no_skip: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    environment = {**os.environ, "BHYVED_NO_SKIP": no_skip}
    return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_skipped_test_is_named(tmp_path: Path) -> None:
    """The end of the output lists every test that was not run, under its reason."""
    done = run(tmp_path, "")

    assert done.returncode == 0
    listed = done.stdout.partition("not run")[2].splitlines()[1:5]
    assert listed == ["only on FreeBSD:", "    test_some.py::test_elsewhere", "qemu is not installed:", "    test_some.py::test_lacks"]


@pytest.mark.parametrize("setting", ["0", "1"])
def test_in_ci_a_missing_program_is_a_failure(tmp_path: Path, setting: str) -> None:
    """With BHYVED_NO_SKIP=1 what can be installed must be there; other platforms and known failures are none."""
    done = run(tmp_path, setting)

    assert done.returncode == int(setting)
    assert ("1 failed, 1 skipped, 1 xfailed" in done.stdout) is (setting == "1")
