"""Broken files when a daemon starts: last good copies, or a guest held with the reason."""

from collections.abc import Mapping

from bhyved.core.config import Source
from bhyved.core.lastgood import Files, Settled, settle, take


class Kept:
    """Copies by name, `vm.d/a` or `template.d/t`."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def main(self) -> str | None:
        return self._texts.get("main")

    def guest(self, name: str) -> str | None:
        return self._texts.get(f"vm.d/{name}")

    def template(self, name: str) -> str | None:
        return self._texts.get(f"template.d/{name}")


CARD = '[[network]]\nbridge = "bridge0"\nmac = "58:9c:fc:00:00:01"'


def settled(files: Mapping[str, str], copies: Mapping[str, str]) -> Settled:
    def those(kind: str) -> dict[str, Source]:
        return {name.removeprefix(kind): Source(name, text) for name, text in files.items() if name.startswith(kind)}

    return settle(Files(main=Source("main", files.get("main", "")), guests=those("vm.d/"), templates=those("template.d/")), Kept(copies))


def test_a_reload_takes_the_files_and_no_copies() -> None:
    """What is in effect, and which of them are worth a copy."""
    files = Files(main=Source("main", ""), guests={"a": Source("vm.d/a", ""), "b": Source("vm.d/b", "cpus = 0")})
    found = take(files)

    assert found.files is files
    assert found.sound == {"main", "vm.d/a"}
    assert (found.fallbacks, found.broken) == ((), {})


def test_sound_files_are_taken_as_they_are() -> None:
    """Copies play no part where nothing is broken."""
    found = settled({"vm.d/a": "cpus = 2"}, {"vm.d/a": "cpus = 1"})

    assert found.loaded.vms["a"].cpus.count == 2
    assert (found.fallbacks, found.broken) == ((), {})
    assert found.sound == {"main", "vm.d/a"}


def test_a_broken_file_falls_back_to_its_copy_and_says_so() -> None:
    """The guest is as it was last accepted, and the sentence names the problem and the file."""
    found = settled({"vm.d/a": "cpus = 0", "vm.d/b": ""}, {"vm.d/a": "cpus = 3"})

    assert found.loaded.vms["a"].cpus.count == 3
    assert found.fallbacks == ("vm.d/a:1: cpus: found 0; must be an integer from 1 to 1024; the last good copy of vm.d/a is used",)
    assert found.broken == {}
    assert found.files.guests["a"] == Source("vm.d/a", "cpus = 3")
    assert [problem.file for problem in found.loaded.problems] == ["vm.d/a"]


def test_only_broken_files_fall_back() -> None:
    """A main file, a template and a guest that are sound stay, whatever their copies say."""
    files = {"main": "start-parallel = 3", "template.d/t": "cpus = 3", "vm.d/a": 'template = ["t"]', "vm.d/b": "cpus = 0"}
    found = settled(files, {"main": "start-parallel = 9", "template.d/t": "cpus = 9", "vm.d/a": "cpus = 8", "vm.d/b": "cpus = 7"})

    assert found.loaded.daemon is not None
    assert found.loaded.daemon.start_parallel == 3
    assert {name: spec.cpus.count for name, spec in found.loaded.vms.items()} == {"a": 3, "b": 7}


def test_a_file_that_cannot_be_read_falls_back_to_a_copy_that_is_empty() -> None:
    """An empty file is a guest of defaults; one that is out of reach is none."""
    files = Files(main=Source("main", ""), guests={"a": Source("vm.d/a", "", unread="permission denied")})
    found = settle(files, Kept({"vm.d/a": ""}))

    assert list(found.loaded.vms) == ["a"]
    assert len(found.fallbacks) == 1


def test_a_copy_that_is_the_broken_file_is_none() -> None:
    """It would be said to be used, and change nothing."""
    found = settled({"vm.d/a": "cpus = 0"}, {"vm.d/a": "cpus = 0"})

    assert (found.fallbacks, list(found.broken)) == ((), ["a"])


def test_warnings_are_those_of_what_is_in_effect() -> None:
    """Two guests that share a disk, one by its copy."""
    disk = '[[disk]]\npath = "/x"'
    (warning,) = settled({"vm.d/a": disk, "vm.d/b": "cpus = 0"}, {"vm.d/b": disk}).loaded.warnings

    assert set(warning.vms) == {"a", "b"}


def test_without_a_copy_only_that_guest_is_held() -> None:
    """The others are usable, and the held one's reason counts its further problems."""
    found = settled({"vm.d/a": "cpus = 0\nmemory = 5", "vm.d/b": ""}, {})

    assert list(found.loaded.vms) == ["b"]
    assert found.broken == {"a": "vm.d/a:1: cpus: found 0; must be an integer from 1 to 1024 (and 1 more problem)"}
    assert found.sound == {"main", "vm.d/b"}
    found = settled({"vm.d/a": "cpus = 0\nmemory = 5\nautostart = 1"}, {})
    assert found.broken["a"].endswith("(and 2 more problems)")


def test_a_copy_that_is_broken_too_helps_nobody() -> None:
    """A guest whose copy a newer bhyved refuses is held for what its present file says."""
    found = settled({"vm.d/a": "cpus = 0"}, {"vm.d/a": "cpu = 1"})

    assert "found 0" in found.broken["a"]
    assert found.loaded.vms == {}


def test_a_broken_template_falls_back_for_all_that_use_it() -> None:
    """One copy serves every guest of the template."""
    guests = {f"vm.d/{name}": 'template = ["t"]' for name in "abc"}

    found = settled({**guests, "template.d/t": "cpus = "}, {"template.d/t": "cpus = 5"})

    assert [spec.cpus.count for spec in found.loaded.vms.values()] == [5, 5, 5]
    assert len(found.fallbacks) == 1


def test_a_guest_follows_its_template_back() -> None:
    """A guest that was rewritten for a new template, which is broken, falls back with it."""
    found = settled(
        {"vm.d/a": 'template = ["new"]\ncpus = 2', "template.d/new": "cpus = "},
        {"vm.d/a": 'template = ["old"]\ncpus = 1', "template.d/old": ""},
    )

    assert found.fallbacks[0].startswith('vm.d/a:1: template: found "new"; the template\'s own file is broken')
    assert list(found.broken) == ["a"]  # its old template is gone from the disk: nothing to fall back on

    found = settled(
        {"vm.d/a": 'template = ["new"]\ncpus = 2', "template.d/new": "cpus = ", "template.d/old": ""},
        {"vm.d/a": 'template = ["old"]\ncpus = 1', "template.d/old": ""},
    )

    assert found.loaded.vms["a"].cpus.count == 1
    assert found.broken == {}


def test_a_copy_that_breaks_a_sound_guest_takes_that_guest_along() -> None:
    """A guest that only fits the new template falls back in a second round."""
    needs_new = 'template = ["t"]\ncpus = 2\n[[passthru]]\ndevice = "1/0/0"'
    found = settled(
        {"vm.d/a": needs_new, "vm.d/b": 'template = ["t"]', "template.d/t": "wired = true\ncpus = 0"},
        {"vm.d/a": "cpus = 7", "template.d/t": ""},
    )

    assert {name: spec.cpus.count for name, spec in found.loaded.vms.items()} == {"a": 7, "b": 1}
    assert [text.rpartition("; ")[2] for text in found.fallbacks] == [
        "the last good copy of template.d/t is used",
        "the last good copy of vm.d/a is used",
    ]


def test_what_no_copy_helps_is_tried_once() -> None:
    """One guest is broken from the beginning, another by the copy of its template; neither has a copy."""
    needs_new = 'template = ["t"]\n[[passthru]]\ndevice = "1/0/0"'
    found = settled({"vm.d/a": needs_new, "vm.d/x": "cpus = 0", "template.d/t": "wired = true\ncpus = 0"}, {"template.d/t": ""})

    assert found.loaded.vms == {}
    assert list(found.broken) == ["a", "x"]


def test_a_sound_guest_that_clashes_with_a_copy_is_held_for_that() -> None:
    """Its own file has no problem that could be named."""
    found = settled({"vm.d/a": "cpus = 0", "vm.d/b": CARD}, {"vm.d/a": CARD})

    assert found.broken == {"b": 'vm.d/b:3: network[0].mac: found "58:9c:fc:00:00:01"; the MAC address belongs to a (network[0].mac) too'}


def test_of_two_guests_that_clash_one_runs() -> None:
    """Without a copy, the guest whose file is to change is held; its counterpart is usable."""
    found = settled({"vm.d/a": CARD, "vm.d/b": CARD}, {})

    assert len(found.broken) == len(found.loaded.vms) == 1
    assert found.broken.keys() | found.loaded.vms.keys() == {"a", "b"}
    assert found.sound == {"main", *(f"vm.d/{name}" for name in found.loaded.vms)}


def test_a_broken_main_file_falls_back_or_leaves_no_daemon() -> None:
    """Its copy is used; without one there is nothing to start with."""
    assert settled({"main": "start-parallel = 0"}, {"main": "start-parallel = 9"}).loaded.daemon is not None
    assert settled({"main": "start-parallel = 0"}, {}).loaded.daemon is None


def test_a_guest_that_its_template_breaks_is_not_worth_a_copy() -> None:
    """Only a guest that can be used is sound, whichever file the problem is in."""
    found = settled({"vm.d/a": 'template = ["t"]', "template.d/t": "cpus = 0"}, {})

    assert found.sound == {"main"}
