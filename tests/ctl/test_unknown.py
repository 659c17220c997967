"""A name that bhyved knows no guest of: what may have been meant."""

from pathlib import Path
from typing import Any

import pytest

from tests.ctl.conftest import Vmctl
from tests.ctl.played import Refusal, playing, refuse, row, told


@pytest.fixture
def main_file(tmp_path: Path) -> Path:
    """Of a daemon, with one guest's file that it has not read."""
    (tmp_path / "vm.d").mkdir()
    (tmp_path / "vm.d/web2.toml").write_text('memory = "1G"\n')
    file = tmp_path / "bhyved.toml"
    file.write_text("")
    return file


def knowing(main_file: Path) -> Any:
    """A daemon whose only guest is web1."""

    def why(params: dict[str, Any]) -> Any:
        raise Refusal(-32002, "no-such-guest", f'there is no guest "{params["name"]}"')

    def start(params: dict[str, Any]) -> Any:
        answers = [told(name, ok=False, code="no-such-guest", text=f'there is no guest "{name}"') for name in params["names"]]
        return {"answers": answers}

    return playing(daemon_info={"config": str(main_file)}, vm_list={"version": 1, "vms": [row("web1")]}, vm_why=why, vm_start=start)


@pytest.mark.parametrize("verb", ["why", "start"])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("wbe1", '; did you mean "web1"?'),
        ("mail", ""),
        ("web", '; did you mean "web1"?'),
        ("eb1xyz", ""),
        ("web2", " yet: {directory}/vm.d/web2.toml is there, and vmctl reload reads it"),
        ("../vm.d/web2", ""),
    ],
)
def test_what_may_have_been_meant(vmctl: Vmctl, main_file: Path, verb: str, name: str, more: str) -> None:
    """The nearest guest, or a file that waits for a reload; for one guest or for several."""
    with knowing(main_file) as daemon:
        ran = vmctl(daemon, verb, name)

    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f'vmctl: there is no guest "{name}"{more.format(directory=main_file.parent)}\n'


def test_help_that_cannot_be_had(vmctl: Vmctl, main_file: Path) -> None:
    """An answer stays what it was where the daemon tells nothing more."""

    refusal = refuse(-32001, "not-permitted", "nobody may not do this")
    with knowing(main_file) as daemon:
        daemon.handlers |= {"daemon.info": refusal, "vm.list": refusal}
        ran = vmctl(daemon, "why", "web2")

    assert (ran.status, ran.err) == (1, 'vmctl: there is no guest "web2"\n')
