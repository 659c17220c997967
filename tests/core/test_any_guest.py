"""Any guest that the configuration lets through: its file parses back, its record reads back, nothing breaks out of its value."""

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import bhyveconf, slots
from bhyved.core.argv import command_line
from bhyved.core.assigned import Target, provisional
from bhyved.core.config import Source, load
from bhyved.core.plan import plan, text
from bhyved.core.spec import VmSpec, dump, undump
from tests.core.strategies import guests
from tests.fuzz import examples

TARGETS = st.sampled_from([Target(release, arch) for release in ("14", "15", "main") for arch in ("amd64", "arm64")])


def read_back(text: str) -> dict[str, str]:
    """As bhyve reads it: lines end at LF only, the name at the first `=`, `%(…)` would be expanded (contract 1.3)."""
    variables = {}
    for line in text.removesuffix("\n").split("\n"):
        name, equals, value = line.partition("=")
        assert name, line
        assert equals, line
        assert value, line
        assert not line.startswith("#")
        assert "%" not in value
        assert name not in variables
        variables[name] = value
    return variables


@given(guests(), TARGETS, st.booleans())
def test_the_file_parses_back(spec: VmSpec, target: Target, install: bool) -> None:
    """What bhyve reads is the tree that was meant, and no name is a value and a group at once."""
    assigned = provisional(spec, arch=target.arch, install=install)
    tree = bhyveconf.tree(spec, assigned, target)
    assert read_back(bhyveconf.render(spec, assigned, target)) == tree
    assert not any(other.startswith(f"{name}.") for name in tree for other in tree)
    places = [name for name in tree if name.startswith("pci.") and name.count(".") == 4 and name.endswith(".device")]
    if target.arch == "amd64":
        assert tree["pci.0.0.0.device"] == "hostbridge"
        assert sum(tree[name] == "lpc" for name in places) == 1
    assert not any(tree[name] in ("ahci-hd", "ahci-cd", "amd_hostbridge") for name in places)


@given(guests())
def test_the_record_reads_back(spec: VmSpec) -> None:
    """The spec as started, written to the run's record in TOML, is the same spec afterwards."""
    written = tomli_w.dumps(dump(spec))
    loaded = load(Source("", ""), {"a": Source("a", written.replace('name = "a"\n', "", 1))}, {})
    assert undump(dump(spec)) == spec
    assert loaded.vms["a"] == spec, [str(problem) for problem in loaded.problems]


@given(guests(), TARGETS)
def test_the_command_line_says_the_same(spec: VmSpec, target: Target) -> None:
    """Every variable is in the command line once, as an option or as -o; a comma never cuts a value in two."""
    tree = bhyveconf.tree(spec, provisional(spec, arch=target.arch), target)
    argv = command_line(tree, target)
    assert argv[0] == "bhyve"
    assert argv[-1] == spec.name
    for path in [str(disk.path) for disk in spec.disk if disk.path is not None]:
        words = [word for word in argv if path in word]
        assert words
        assert "," not in path or any(word.endswith(f"={path}") for word in words)


@given(guests(), TARGETS)
def test_any_plan_is_printed(spec: VmSpec, target: Target) -> None:
    """No guest makes `vmctl plan` fail."""
    found = text(plan(spec, provisional(spec, arch=target.arch), target, "/run/a"))
    assert found.startswith(f"# a on {target}\n")


@given(guests(), guests())
def test_slots_are_kept_between_any_two_guests(old: VmSpec, new: VmSpec) -> None:
    """Whatever an edit makes of a guest: a device that stays keeps its slot, and no slot is given twice."""
    before = slots.assign(old, {})
    after = slots.assign(new, before)
    whole = {key: place for key, place in after.items() if "/" not in place}
    assert len(set(whole.values())) == len(whole)
    assert all(after[key] == before[key] for key in whole.keys() & before.keys() if "/" not in before[key])


@examples(200)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(["disk", "share", "virtio-console", "serial"]))
def test_a_hostile_string_stays_a_value(hostile: str, where: str) -> None:
    """Any string at all, in a path or a name: a problem in words, or one line of the file with exactly that value."""
    spec, plain = _guest_with(where, hostile), _guest_with(where, "x")
    if spec is None:
        return
    tree = read_back(bhyveconf.render(spec, provisional(spec), Target()))
    assert plain is not None
    assert tree.keys() == bhyveconf.tree(plain, provisional(plain), Target()).keys()
    assert any(hostile in value for value in tree.values())


def _guest_with(where: str, word: str) -> VmSpec | None:
    """A guest with `word` in one place; None where the configuration refuses it, in words."""
    tables = {
        "disk": {"disk": [{"path": f"/{word}"}]},
        "share": {"share": [{"name": word, "path": "/p"}]},
        "virtio-console": {"virtio-console": [{"name": word}]},
        "serial": {"serial": [{"mode": "device", "device": f"/{word}"}]},
    }
    loaded = load(Source("", ""), {"a": Source("a", tomli_w.dumps(tables[where]))}, {})
    assert "a" in loaded.vms or loaded.problems_of("a")
    return loaded.vms.get("a")
