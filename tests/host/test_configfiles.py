"""Configuration files on disk: which are read, which are refused, and the copies that are kept of them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bhyved.core.errors import HostError
from bhyved.core.lastgood import Settled
from bhyved.host import durable
from bhyved.host.configfiles import Good, Reader, good_directory, read


@pytest.fixture(autouse=True)
def etc(tmp_path: Path) -> Path:
    """A directory of configuration with a main file and two guests."""
    etc = tmp_path / "etc"
    (etc / "vm.d").mkdir(parents=True)
    (etc / "bhyved.toml").write_text(f'[paths]\ndb = "{tmp_path}/db"\n')
    (etc / "vm.d/a.toml").write_text('template = ["base"]\n')
    (etc / "vm.d/b.toml").write_text("cpus = 2\n")
    (etc / "template.d").mkdir()
    (etc / "template.d/base.toml").write_text("cpus = 4\n")
    for path in (etc, *etc.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o022)
    return etc


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for name in ("vm.d", "template.d"):
        (tmp_path / "db/good" / name).mkdir(parents=True)
    return tmp_path / "db/good"


def lines(settled: Settled) -> list[str]:
    return [str(problem) for problem in settled.loaded.problems]


def strict(etc: Path) -> Settled:
    return read(str(etc / "bhyved.toml"))


def start(etc: Path, good: Path) -> Settled:
    """As a starting daemon reads, and keeps what it took."""
    settled = read(str(etc / "bhyved.toml"), good=str(good))
    Good(str(good), str(etc / "bhyved.toml")).save(settled)
    return settled


def copies(good: Path) -> list[str]:
    return sorted(str(path.relative_to(good)) for path in good.rglob("*.toml"))


def test_guests_and_templates_are_found_beside_the_main_file(etc: Path) -> None:
    """vm.d and template.d beside bhyved.toml are read; a file's name is the guest's."""
    settled = strict(etc)

    assert lines(settled) == []
    assert {name: spec.cpus.count for name, spec in settled.loaded.vms.items()} == {"a": 4, "b": 2}


def test_other_directories_can_be_named(etc: Path, tmp_path: Path) -> None:
    """`paths.vm-dir` and `paths.template-dir` win over those beside the main file."""
    (etc / "vm.d").rename(tmp_path / "guests")
    (etc / "template.d").rename(tmp_path / "templates")
    (etc / "bhyved.toml").write_text(f'[paths]\nvm-dir = "{tmp_path}/guests"\ntemplate-dir = "{tmp_path}/templates"')

    settled = strict(etc)

    assert lines(settled) == []
    assert set(settled.loaded.vms) == {"a", "b"}


def test_a_directory_that_is_named_must_exist(etc: Path, tmp_path: Path) -> None:
    """A missing vm.d means no guests; a missing directory that the main file names is a problem."""
    (etc / "vm.d").rename(tmp_path / "elsewhere")
    assert (lines(strict(etc)), strict(etc).loaded.vms) == ([], {})

    (etc / "bhyved.toml").write_text(f'[paths]\nvm-dir = "{tmp_path}/nowhere"')

    assert lines(strict(etc)) == [f"{tmp_path}/nowhere: does not exist"]


def test_a_missing_main_file_is_a_problem(etc: Path) -> None:
    """There is no daemon without its file, and the guests are judged all the same."""
    (etc / "bhyved.toml").unlink()

    settled = strict(etc)

    assert settled.loaded.daemon is None
    assert lines(settled) == [f"{etc}/bhyved.toml: does not exist"]
    assert set(settled.loaded.vms) == {"a", "b"}


def test_what_editors_leave_behind_is_no_guest(etc: Path) -> None:
    """Hidden files, backups and files of other kinds are not read."""
    for name in (".a.toml.swp", ".#a.toml", ".new-a.toml", "a.toml~", "a.toml.orig", "README"):
        (etc / "vm.d" / name).write_text("nonsense")

    assert lines(strict(etc)) == []


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.chmod(0o664), f"may be written by members of group {os.getegid()}; take that away with chmod go-w"),
    (lambda path: path.chmod(0o646), "may be written by anybody; take that away with chmod go-w"),
    (fifo, "is no regular file"),
    (directory, "cannot be read: is a directory"),
    (dangling, "does not exist"),
    (lambda path: path.write_bytes(b"# a\n# \xff\n"), "is not UTF-8: line 2 has the byte 0xff"),
    (lambda path: path.write_bytes(b"\xef\xbb\xbfcpus = 1"), "begins with a byte order mark; save it as UTF-8 without one"),
    (lambda path: path.write_bytes(b"#" * ((1 << 20) + 1)), "has more than 1 MiB: that is no configuration"),
]


@pytest.mark.parametrize(("damage", "sentence"), REFUSED)
@pytest.mark.parametrize("name", ["bhyved.toml", "vm.d/b.toml", "template.d/base.toml"])
def test_a_file_that_cannot_be_trusted_or_read_is_named(etc: Path, name: str, damage: Callable[[Path], object], sentence: str) -> None:
    """Whatever is wrong with a file costs that file, with a sentence; nothing hangs or raises."""
    path = etc / name
    path.parent.chmod(0o755)
    damage(path)

    settled = strict(etc)

    assert f"{path}: {sentence}" in lines(settled)
    assert ("b" in settled.loaded.vms) is (name != "vm.d/b.toml")
    assert ("a" in settled.loaded.vms) is (name != "template.d/base.toml")
    assert (settled.loaded.daemon is None) is (name == "bhyved.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(etc: Path) -> None:
    """Who may write the configuration would be root, so the file must be root's."""
    os.chown(etc / "vm.d/b.toml", 1001, -1)

    assert lines(strict(etc)) == [f"{etc}/vm.d/b.toml: belongs to uid 1001; it must belong to root"]


@pytest.mark.parametrize("name", [".", "vm.d", "template.d"])
def test_a_directory_that_others_may_write_is_refused(etc: Path, name: str) -> None:
    """Whoever may write a directory can replace the files in it."""
    (etc / name).chmod(0o777)

    (line,) = [line for line in lines(strict(etc)) if "may be written by anybody" in line]
    assert str(etc / name if name != "." else etc) in line


def test_a_link_to_a_safe_file_is_followed(etc: Path, tmp_path: Path) -> None:
    """A configuration kept elsewhere may be linked to; what counts is who may write the file itself."""
    kept = tmp_path / "kept.toml"
    kept.write_text("cpus = 3")
    kept.chmod(0o644)
    (etc / "vm.d/b.toml").unlink()
    (etc / "vm.d/b.toml").symlink_to(kept)
    assert strict(etc).loaded.vms["b"].cpus.count == 3

    kept.chmod(0o666)

    assert "may be written by anybody" in lines(strict(etc))[0]


def test_a_name_of_any_bytes_is_one_printable_line(etc: Path) -> None:
    """A file name that is not text is shown escaped and refused as a guest's name."""
    for name in (b"x\xff.toml", b"x\ny.toml"):
        with open(os.path.join(os.fsencode(etc), b"vm.d", name), "wb"):
            pass

    found = lines(strict(etc))

    assert len(found) == 2
    assert all(line.isprintable() and "a guest's name" in line for line in found)


def test_an_unread_guest_is_no_typing_error_of_those_that_wait_for_it(etc: Path) -> None:
    """A guest that needs one whose file is refused is sound."""
    (etc / "vm.d/b.toml").write_text('[order]\nrequires = ["a"]')
    (etc / "vm.d/a.toml").chmod(0o666)

    assert list(strict(etc).loaded.vms) == ["b"]


def test_an_accepted_file_is_kept_and_used_when_it_breaks(etc: Path, good: Path) -> None:
    """The copy stands in for the broken file, loudly, and stays."""
    assert start(etc, good).fallbacks == ()
    (etc / "vm.d/b.toml").write_text("cpus = ")

    settled = start(etc, good)

    assert settled.loaded.vms["b"].cpus.count == 2
    (sentence,) = settled.fallbacks
    assert sentence.endswith(f"the last good copy of {etc}/vm.d/b.toml is used")
    assert (good / "vm.d/b.toml").read_text() == "cpus = 2\n"


def test_a_file_without_a_copy_costs_its_guest(etc: Path, good: Path) -> None:
    """A file that was never good holds its guest, and no copy of it is made."""
    (etc / "vm.d/b.toml").write_text("cpus = \n")

    settled = start(etc, good)

    assert list(settled.loaded.vms) == ["a"]
    assert settled.broken["b"].startswith(f'{etc}/vm.d/b.toml:1: found "cpus ="; is no TOML')
    assert copies(good) == ["bhyved.toml", "template.d/base.toml", "vm.d/a.toml"]


def test_a_broken_main_file_falls_back_with_its_paths(etc: Path, good: Path, tmp_path: Path) -> None:
    """The directories that the good copy names are read, not the defaults."""
    (etc / "vm.d").rename(tmp_path / "guests")
    (etc / "bhyved.toml").write_text(f'[paths]\nvm-dir = "{tmp_path}/guests"')
    start(etc, good)
    (etc / "bhyved.toml").write_text("[paths\n")

    settled = start(etc, good)

    assert settled.loaded.daemon is not None
    assert set(settled.loaded.vms) == {"a", "b"}


def test_a_refused_directory_falls_back_as_a_whole(etc: Path, good: Path) -> None:
    """The guests of a directory that anybody may write are those of the copies."""
    start(etc, good)
    (etc / "vm.d/b.toml").write_text("cpus = 9")
    (etc / "vm.d").chmod(0o777)

    settled = start(etc, good)

    assert {name: spec.cpus.count for name, spec in settled.loaded.vms.items()} == {"a": 4, "b": 2}
    assert settled.fallbacks[0].endswith("; the last good copies of its files are used")
    assert "vm.d/b.toml" in copies(good)


def test_a_guest_that_is_gone_leaves_no_copy(etc: Path, good: Path) -> None:
    """A new guest of an old name cannot fall back to the old one."""
    start(etc, good)
    (etc / "vm.d/b.toml").unlink()

    assert set(start(etc, good).loaded.vms) == {"a"}

    assert copies(good) == ["bhyved.toml", "template.d/base.toml", "vm.d/a.toml"]


def test_only_what_changed_is_written(etc: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start over an unchanged configuration writes nothing."""
    start(etc, good)
    written: list[str] = []
    real = durable.write_new
    monkeypatch.setattr(durable, "write_new", lambda path, data, mode=0o600: (written.append(path), real(path, data, mode)))

    start(etc, good)
    assert written == []

    (etc / "vm.d/b.toml").write_text("cpus = 5")
    start(etc, good)

    assert written == [f"{good}/vm.d/b.toml"]


def test_copies_of_another_main_file_are_not_used(etc: Path, good: Path) -> None:
    """A daemon that is tried with a file of its own never starts somebody else's guests."""
    start(etc, good)
    (etc / "bhyved.toml").rename(etc / "other.toml")
    (etc / "other.toml").write_text("[paths\n")

    assert read(str(etc / "other.toml"), good=str(good)).loaded.daemon is None

    (etc / "other.toml").write_text("")
    Good(str(good), str(etc / "other.toml")).save(read(str(etc / "other.toml"), good=str(good)))
    (etc / "vm.d/b.toml").write_text("cpus = ")
    assert list(read(str(etc / "other.toml"), good=str(good)).broken) == []


def test_copies_taken_over_halfway_are_nobodys(etc: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash while copies of one main file replace those of another leaves none that could be taken for either's."""
    start(etc, good)
    (etc / "bhyved.toml").rename(etc / "other.toml")

    real = durable.replace_all

    def crash(files: dict[str, bytes]) -> dict[str, OSError]:
        real(files)
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "replace_all", crash)
    with pytest.raises(KeyboardInterrupt):
        Good(str(good), str(etc / "other.toml")).save(read(str(etc / "other.toml"), good=str(good)))

    assert copies(good) != []
    for main in ("bhyved.toml", "other.toml"):
        assert Good(str(good), str(etc / main)).main() is None


def test_copies_that_cannot_be_kept_are_an_error_with_a_sentence(etc: Path, good: Path) -> None:
    """A missing directory is reported to the caller, not swallowed."""
    (good / "vm.d").rmdir()

    with pytest.raises(HostError, match=r"^the last good copies of the configuration could not be kept: no such file or directory$"):
        start(etc, good)


def test_the_copies_are_where_the_main_file_says(etc: Path, tmp_path: Path) -> None:
    """DB/good of the file, or of the defaults when the file says nothing any more."""
    assert good_directory(str(etc / "bhyved.toml")) == f"{tmp_path}/db/good"

    (etc / "bhyved.toml").write_text("[paths\n")

    assert good_directory(str(etc / "bhyved.toml")) == "/var/db/bhyved/good"


def test_a_reload_keeps_copies_only_of_what_was_accepted(etc: Path, good: Path) -> None:
    """Reading counts problems and keeps nothing; accepting keeps what was read."""
    reader = Reader(str(etc / "bhyved.toml"), Good(str(good), str(etc / "bhyved.toml")))
    reader.keep(read(str(etc / "bhyved.toml"), good=str(good)))
    (etc / "vm.d/b.toml").write_text("cpus = 0")
    assert reader.read().vms.keys() == {"a"}
    assert reader.problems == 1

    (etc / "vm.d/b.toml").write_text("cpus = 6")
    assert reader.read().vms["b"].cpus.count == 6
    assert (good / "vm.d/b.toml").read_text() == "cpus = 2\n"

    reader.accept()

    assert reader.problems == 0
    assert (good / "vm.d/b.toml").read_text() == "cpus = 6"
