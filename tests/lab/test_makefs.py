"""The stand-in of makefs(8): a real ISO 9660 image, and the refusals of makefs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bhyved.lab import makefs
from tests.lab.labhost import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    (path / "user-data").write_text("#cloud-config\n")
    return path


def test_a_directory_becomes_an_image(lab: Lab, tree: Path, tmp_path: Path) -> None:
    """With long names in small letters, and a label in capitals whatever was asked for (cd9660_arguments_set_string)."""
    if shutil.which("xorriso") is None:
        pytest.skip("xorriso is not installed")
    image = tmp_path / "seed.iso"
    lab.said("makefs", "-t", "cd9660", "-o", "rockridge,label=cidata", str(image), str(tree))

    assert image.read_bytes()[32768 + 40 : 32768 + 72] == b"CIDATA".ljust(32)
    out = tmp_path / "out"
    subprocess.run(["xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", out], check=True, capture_output=True)
    assert (out / "user-data").read_text() == "#cloud-config\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "usage: makefs "),
        (("-t", "cd9660", "IMAGE"), "usage: makefs "),
        (("-t", "iso", "IMAGE", "TREE"), "makefs: Unknown fs type `iso'."),
        (("-t", "cd9660", "-o", "joliet", "IMAGE", "TREE"), "makefs: Option `joliet' doesn't contain a value"),
        (("-t", "cd9660", "-o", "name=x", "IMAGE", "TREE"), "makefs: Unknown option `name'"),
        (("-t", "cd9660", "-o", "rockridge,", "IMAGE", "TREE"), "makefs: Empty option"),
        (("-t", "cd9660", "-o", "label=ci-data", "IMAGE", "TREE"), "makefs: error: The Disk Label must be composed of d-characters"),
        (("-t", "cd9660", "-o", f"label={'a' * 33}", "IMAGE", "TREE"), "makefs: error: The Disk Label must be at most 32 characters"),
        (("-t", "ffs", "IMAGE", "TREE"), "makefs: the lab makes cd9660 only, not ffs"),
        (("-t", "cd9660", "IMAGE", "/nowhere"), "makefs: Can't stat `/nowhere': No such file or directory"),
    ],
)
def test_refusals(lab: Lab, tree: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """Exit status 1, the reason, and no image."""
    places = {"IMAGE": str(tmp_path / "image"), "TREE": str(tree)}

    assert lab.refused("makefs", *(places.get(word, word) for word in words)).startswith(said)
    assert not (tmp_path / "image").exists()


def test_without_a_program_that_writes_images(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lab says what it lacks."""
    monkeypatch.setattr(makefs, "_PATH", str(tmp_path))

    assert makefs.main("", ["-t", "cd9660", str(tmp_path / "image"), str(tree)]) == 1
    assert capsys.readouterr().err == "makefs: the lab makes images with xorriso, genisoimage, mkisofs, and none of them is installed\n"
