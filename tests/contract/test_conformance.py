"""Any guest that the configuration lets through, as bhyve reads it: by our file, and by the command line that `plan` prints."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bhyved.core import advice, bhyveconf
from bhyved.core.argv import command_line
from bhyved.core.assigned import Assigned, Target, provisional
from bhyved.core.spec import VmSpec
from bhyved.lab import layout, options
from bhyved.lab.freebsd import Settings
from tests.core.strategies import guests

TARGETS = [Target(release, arch) for release, arch in itertools.product(("14", "15", "main"), ("amd64", "arm64"))]
RUNNING = [target for target in TARGETS if target != Target("14", "arm64")]  # which has no bhyve
BOTH_SPELLINGS = ("bootrom", "bootvars")  # a file has both, a command line that of its release (contract 1.4)

Hosts = dict[Target, Path]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    """A directory with the settings of each kind of host."""
    found: Hosts = {}
    for target in RUNNING:
        found[target] = tmp_path_factory.mktemp(f"{target.release}-{target.arch}")
        layout.make(found[target], release=target.release, arch=target.arch)
    return found


def read(host: Path, *argv: str) -> dict[str, str]:
    """The tree that bhyve of this host makes of a command line, before anything is expanded."""
    line = options.parse(list(argv), Settings(str(host)))
    return dict(entry.split("=", 1) for entry in line.tree.dump())


def defaults(host: Path) -> dict[str, str]:
    """What the tree holds before the first option."""
    return dict(entry.split("=", 1) for entry in options.defaults(Settings(str(host))).dump())


def ours(spec: VmSpec, target: Target, *, install: bool) -> tuple[dict[str, str], Assigned]:
    assigned = provisional(spec, arch=target.arch, install=install)
    return bhyveconf.tree(spec, assigned, target), assigned


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(guests(), st.sampled_from(RUNNING), st.booleans())
def test_bhyve_reads_the_tree_that_was_meant(hosts: Hosts, spec: VmSpec, target: Target, install: bool) -> None:
    """No release refuses the file, and what it reads is the tree over its own defaults: nothing more, nothing cut, nothing expanded."""
    tree, assigned = ours(spec, target, install=install)
    file = hosts[target] / "bhyve.conf"
    file.write_text(bhyveconf.render(spec, assigned, target), newline="\n")

    assert read(hosts[target], "-k", str(file), spec.name) == defaults(hosts[target]) | tree


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(guests(), st.sampled_from(RUNNING), st.booleans())
def test_the_printed_command_line_makes_the_same_tree(hosts: Hosts, spec: VmSpec, target: Target, install: bool) -> None:
    """What `vmctl plan` prints for comparison is accepted too, and says exactly what the file says."""
    if advice.releases_accepting(spec)[target]:
        return  # `plan` says why this host refuses it
    tree, _ = ours(spec, target, install=install)
    argv = command_line(tree, target)

    assert meaning(read(hosts[target], *argv[1:])) == meaning(defaults(hosts[target]) | tree)


def meaning(tree: dict[str, str]) -> dict[str, str]:
    """The tree with what can be written in two ways written in one."""
    plain = dict(tree)
    for key in BOTH_SPELLINGS:
        old = plain.pop(f"lpc.{key}", None)
        plain[key] = plain.get(key, old or "")
    if plain.get("rtc.use_localtime") == "true":
        del plain["rtc.use_localtime"]  # bhyve's default, which no option says
    return plain
