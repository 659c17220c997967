"""What a starting daemon makes of broken files: their last good copies, or else a guest that is held with the reason.

Pure. `host.configfiles` reads the files and the copies; a reload never comes here, since one with problems changes nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from bhyved.core.config import Loaded, Problem, Source, load


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """All configuration files of a host, by name: of the guest, of the template."""

    main: Source
    guests: Mapping[str, Source] = {}
    templates: Mapping[str, Source] = {}

    def each(self) -> Iterator[Source]:
        """Every file."""
        yield self.main
        yield from self.guests.values()
        yield from self.templates.values()


class Copies(Protocol):
    """The last accepted text of each file. None: there is none."""

    def main(self) -> str | None: ...
    def guest(self, name: str) -> str | None: ...
    def template(self, name: str) -> str | None: ...


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What files and copies come to. `loaded.problems` are those of the files as they are, `loaded.vms` the guests that can be used."""

    loaded: Loaded
    files: Files  # the texts in effect
    sound: frozenset[str] = frozenset()  # paths of those with nothing wrong: worth a good copy
    fallbacks: tuple[str, ...] = ()  # a sentence for each file whose copy is used
    broken: Mapping[str, str] = {}  # guests that have to be held, and why


def take(files: Files) -> Settled:
    """The files as they are."""
    loaded = load(files.main, files.guests, files.templates)
    return Settled(loaded=loaded, files=files, sound=_sound(files, loaded))


def settle(files: Files, copies: Copies) -> Settled:
    """Put last good copies in the place of broken files, until what can be used is used."""
    as_they_are = loaded = take(files).loaded
    complaints: dict[str, list[Problem]] = {}
    tried: set[str] = set()
    fallbacks: list[str] = []
    # A copy may break what was sound: a template falls back, and a guest that was written for the new one follows. Each round
    # tries files that no round has tried, so the rounds end.
    while suspects := {problem.file for problem in loaded.problems} - tried:
        for problem in loaded.problems:
            complaints.setdefault(problem.file, []).append(problem)
        tried |= suspects
        files, replaced = _fall_back(files, suspects, copies)
        fallbacks += [f"{_summary(complaints[path])}; the last good copy of {path} is used" for path in sorted(replaced)]
        loaded = take(files).loaded
    broken = _broken(files, as_they_are, loaded)
    usable = {name: spec for name, spec in loaded.vms.items() if name not in broken}
    return Settled(
        loaded=Loaded(daemon=loaded.daemon, vms=usable, problems=as_they_are.problems, warnings=loaded.warnings),
        files=files,
        sound=_sound(files, loaded),
        fallbacks=tuple(fallbacks),
        broken=broken,
    )


def _fall_back(files: Files, suspects: set[str], copies: Copies) -> tuple[Files, set[str]]:
    """The files with copies in the place of those suspects that have another one, and which these are."""
    replaced = set()

    def better(source: Source, copy: str | None) -> Source:
        if copy is None or (copy == source.text and not source.unread):
            return source
        replaced.add(source.path)
        return Source(source.path, copy)

    main = better(files.main, copies.main()) if files.main.path in suspects else files.main
    guests = {name: better(source, copies.guest(name)) if source.path in suspects else source for name, source in files.guests.items()}
    templates = {
        name: better(source, copies.template(name)) if source.path in suspects else source for name, source in files.templates.items()
    }
    return Files(main=main, guests=guests, templates=templates), replaced


def _broken(files: Files, as_they_are: Loaded, loaded: Loaded) -> dict[str, str]:
    """Guests that no copy has helped. Of guests that clash, the one whose file should change: the others can run."""
    names = {name for name in files.guests if name not in loaded.vms}
    names |= {problem.vms[0] for problem in loaded.problems if problem.vms and set(problem.vms) <= loaded.vms.keys()}
    return {name: _summary(as_they_are.problems_of(name) or loaded.problems_of(name)) for name in sorted(names)}


def _sound(files: Files, loaded: Loaded) -> frozenset[str]:
    bad = {problem.file for problem in loaded.problems}
    bad |= {source.path for name, source in files.guests.items() if name not in loaded.vms}
    return frozenset(source.path for source in files.each()) - bad


def _summary(problems: tuple[Problem, ...] | list[Problem]) -> str:
    more = len(problems) - 1
    return f"{problems[0]}" + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")
