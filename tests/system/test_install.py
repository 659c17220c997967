"""`make install`: what a host has after it, and what a second one leaves alone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bhyved.host import configfiles

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def install(root: Path) -> Path:
    """Its PREFIX."""
    subprocess.run(["make", "-C", ROOT, "install", f"DESTDIR={root}", "PREFIX=/usr/local"], check=True, capture_output=True)
    return root / "usr/local"


def test_a_first_install_can_be_started(tmp_path: Path) -> None:
    """The rc script refuses to start without the main file, and the guide's first guest has a template."""
    prefix = install(tmp_path)
    settled = configfiles.read(str(prefix / "etc/bhyved/bhyved.toml"))

    assert settled.loaded.problems == ()
    assert set(settled.files.templates) == {path.stem for path in (ROOT / "etc/template.d").glob("*.toml")}
    assert (prefix / "etc/newsyslog.conf.d/bhyved.conf").exists()
    for name in (
        "bash-completion/completions/vmctl",
        "zsh/site-functions/_vmctl",
        "fish/vendor_completions.d/vmctl.fish",
        "man/man8/vmctl.8",
    ):
        assert (prefix / "share" / name).exists()
    for script in ("etc/rc.d/bhyved", "libexec/bhyved/respawn"):
        assert (prefix / script).stat().st_mode & 0o111


def test_a_second_install_leaves_what_is_somebodys_own(tmp_path: Path) -> None:
    """The new samples are beside it."""
    prefix = install(tmp_path)
    for name in ("bhyved.toml", "template.d/freebsd.toml"):
        (prefix / f"etc/bhyved/{name}").write_text("# mine\n")
    (prefix / "etc/bhyved/bhyved.toml.sample").write_text("# old\n")
    install(tmp_path)

    for name in ("bhyved.toml", "template.d/freebsd.toml"):
        assert (prefix / f"etc/bhyved/{name}").read_text() == "# mine\n"
    assert (prefix / "etc/bhyved/bhyved.toml.sample").read_text() == (ROOT / "etc/bhyved.toml.sample").read_text()
