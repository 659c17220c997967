"""The configuration files on disk: read, and their last good copies kept.

`bhyved check` and `vmctl check` read strictly; a starting daemon reads with the directory of good copies, so that a broken file costs
at most its own guest. Blocking, standard library and core only: the daemon calls it before its loop or in a thread, vmctl without one.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

import msgspec

from bhyved.core.config import Loaded, Problem, Source
from bhyved.core.errors import HostError, in_words
from bhyved.core.lastgood import Files, Settled, settle, take
from bhyved.core.spec import Paths
from bhyved.host import durable, seedfiles
from bhyved.host.ownedfile import check_owner, read_owned, text_of, why_unread

MAIN = "/usr/local/etc/bhyved/bhyved.toml"
_SUFFIX = ".toml"
_OWNER = "main-file"  # in the directory of good copies: whose copies they are


class _Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a directory, or why it is refused as a whole."""

    sources: dict[str, Source]
    problem: Problem | None = None


def read(main: str = MAIN, *, good: str | None = None) -> Settled:
    """All files, judged. With `good`, the directory of good copies, these stand in for broken files. Never raises for what is there."""
    main = os.path.abspath(main)
    source = _main_source(main)
    copies = None if good is None else Good(good, main)
    paths = _paths(source, copies)
    guests = _list(paths.vm_dir or _beside(main, "vm.d"), is_needed=paths.vm_dir is not None)
    templates = _list(paths.template_dir or _beside(main, "template.d"), is_needed=paths.template_dir is not None)
    refused = [listing.problem for listing in (guests, templates) if listing.problem is not None]
    if copies is None:
        settled = take(Files(main=source, guests=guests.sources, templates=templates.sources))
        return _with(settled, [*refused, *seedfiles.problems(guests.sources, settled.loaded.vms)], ())
    files = Files(
        main=source,
        guests=guests.sources if guests.problem is None else copies.in_place_of(guests.problem.file, "vm.d"),
        templates=templates.sources if templates.problem is None else copies.in_place_of(templates.problem.file, "template.d"),
    )
    return _with(settle(files, copies), refused, tuple(f"{problem}; the last good copies of its files are used" for problem in refused))


def good_directory(main: str = MAIN) -> str:
    """Where the good copies are, as far as the main file can still tell."""
    return f"{_paths(_main_source(os.path.abspath(main)), None).db}/good"


class Good:
    """The last accepted text of every file, in files of the same names under DB/good. They belong to one main file."""

    def __init__(self, directory: str, main: str) -> None:
        self._directory = directory
        self._main = os.path.abspath(main)

    def main(self) -> str | None:
        """`lastgood.Copies`."""
        return self._copy("bhyved.toml")

    def guest(self, name: str) -> str | None:
        """`lastgood.Copies`."""
        return self._copy(f"vm.d/{name}{_SUFFIX}")

    def template(self, name: str) -> str | None:
        """`lastgood.Copies`."""
        return self._copy(f"template.d/{name}{_SUFFIX}")

    def in_place_of(self, directory: str, kind: str) -> dict[str, Source]:
        """The copies of what was in a directory that cannot be used now."""
        copies = {entry: self._copy(f"{kind}/{entry}") for entry in self._entries(kind)}
        return {entry.removesuffix(_SUFFIX): Source(f"{directory}/{entry}", text) for entry, text in copies.items() if text is not None}

    def save(self, settled: Settled) -> None:
        """Keep the sound texts that are in effect, durably, and drop the copies of files that are gone. Raises HostError."""
        known = {"bhyved.toml": settled.files.main}
        known |= {f"vm.d/{name}{_SUFFIX}": source for name, source in settled.files.guests.items()}
        known |= {f"template.d/{name}{_SUFFIX}": source for name, source in settled.files.templates.items()}
        texts = {name: source.text for name, source in known.items() if source.path in settled.sound}
        try:
            is_ours = self._is_ours()
            if not is_ours:  # until all is written these are nobody's copies
                self._drop(_OWNER)
            for name in self._names():
                if name not in known or not is_ours:
                    self._drop(name)
            self._write({name: text for name, text in texts.items() if self._text(name) != text})
            if not is_ours:
                self._write({_OWNER: self._main})
        except OSError as error:
            raise HostError(f"the last good copies of the configuration could not be kept: {in_words(error)}") from None

    def _drop(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{name}")

    def _write(self, texts: dict[str, str]) -> None:
        failed = durable.replace_all({f"{self._directory}/{name}": text.encode() for name, text in texts.items()})
        for error in failed.values():
            raise error

    def _copy(self, name: str) -> str | None:
        return self._text(name) if self._is_ours() else None

    def _is_ours(self) -> bool:
        return self._text(_OWNER) == self._main

    def _text(self, name: str) -> str | None:
        try:
            return durable.read_plain(f"{self._directory}/{name}").decode()
        except (OSError, UnicodeDecodeError):
            return None

    def _names(self) -> Iterator[str]:
        yield "bhyved.toml"
        for kind in ("vm.d", "template.d"):
            yield from (f"{kind}/{entry}" for entry in self._entries(kind))

    def _entries(self, kind: str) -> list[str]:
        try:
            return _wanted(f"{self._directory}/{kind}")
        except OSError:
            return []


class Reader:
    """`daemon.ports.Files`: the files of a running daemon, for its reloads. Blocking: call it in a thread."""

    def __init__(self, main: str, good: Good) -> None:
        self._main = main
        self._good = good
        self._last: Settled | None = None

    @property
    def problems(self) -> int:
        """In the files as they were read last."""
        return 0 if self._last is None else len(self._last.loaded.problems)

    def read(self) -> Loaded:
        """`daemon.ports.Files`."""
        self._last = read(self._main)
        return self._last.loaded

    def accept(self) -> None:
        """`daemon.ports.Files`."""
        if self._last is not None:
            self._good.save(self._last)

    def keep(self, settled: Settled) -> None:
        """What the daemon started with, good copies in the place of broken files included. Raises HostError."""
        self._last = settled
        self._good.save(settled)


def _paths(source: Source, copies: Good | None) -> Paths:
    """`[paths]` of the main file, of its copy if it is broken, or the defaults."""
    for text in (source, Source(source.path, (copies and copies.main()) or "")):
        spec = take(Files(main=text)).loaded.daemon
        if spec is not None:
            return spec.paths
    return Paths()


def _with(settled: Settled, refused: list[Problem], fallbacks: tuple[str, ...]) -> Settled:
    """`settled`, which knows nothing of directories and of files that are named in files, with what is wrong with those."""
    loaded = msgspec.structs.replace(settled.loaded, problems=(*refused, *settled.loaded.problems))
    return msgspec.structs.replace(settled, loaded=loaded, fallbacks=(*fallbacks, *settled.fallbacks))


def _main_source(path: str) -> Source:
    directory = os.path.dirname(path)
    try:
        _check_directory(directory)
    except FileNotFoundError:
        pass  # then the file itself is missing too, which says more
    except (OSError, ValueError) as error:
        return Source(_printable(path), "", unread=f"its directory {_printable(directory)} {why_unread(error)}")
    return _source(path)


def _list(directory: str, *, is_needed: bool) -> _Listing:
    """The files NAME.toml of a directory. One that is not there has none, unless the main file names it."""
    try:
        _check_directory(directory)
        entries = _wanted(directory)
    except FileNotFoundError as error:
        if not is_needed:
            return _Listing(sources={})
        return _Listing(sources={}, problem=Problem(file=_printable(directory), sentence=why_unread(error)))
    except (OSError, ValueError) as error:
        return _Listing(sources={}, problem=Problem(file=_printable(directory), sentence=why_unread(error)))
    return _Listing(sources={_printable(entry.removesuffix(_SUFFIX)): _source(f"{directory}/{entry}") for entry in entries})


def _wanted(directory: str) -> list[str]:
    """NAME.toml, without what editors and half-done writes leave behind."""
    return sorted(entry for entry in os.listdir(directory) if entry.endswith(_SUFFIX) and not entry.startswith("."))


def _source(path: str) -> Source:
    try:
        return Source(_printable(path), text_of(read_owned(path)))
    except (OSError, ValueError) as error:
        return Source(_printable(path), "", unread=why_unread(error))


def _check_directory(path: str) -> None:
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError("is no directory")
    check_owner(found)


def _printable(path: str) -> str:
    """A name that fits on one line of any log, whatever bytes it has."""
    return path if path.isprintable() else ascii(path)[1:-1]


def _beside(main: str, name: str) -> str:
    return os.path.join(os.path.dirname(main), name)
