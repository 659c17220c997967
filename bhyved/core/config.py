"""Text of the configuration files in; specs, or all problems of all files, out.

Pure: whoever calls has read the files and looked at who may write them. A broken guest costs only that guest: `Loaded.vms` has every
guest whose own file (with its templates) is sound, and each problem names the guests it concerns. Problems between sound guests (two
with one MAC) leave both in `vms`; what to do about them is the caller's decision.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bhyved.core import neighbours
from bhyved.core.decode import Path, check_values, decode, nearest
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.values import name_problem

_LINE = re.compile(r" \(at line ([0-9]+), column ([0-9]+)\)$")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Source(msgspec.Struct, frozen=True):
    """One file: where it is and what it says, or the sentence why that cannot be known."""

    path: str
    text: str
    unread: str = ""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to put right. `str()` is the line for the operator."""

    file: str
    key: str = ""  # disk[0].path; empty: the file as a whole
    line: int | None = None  # known for syntax errors only
    found: str = ""
    sentence: str
    vms: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f" {self.key}:" if self.key else ""
        found = f" found {self.found};" if self.found else ""
        return f"{where}:{key}{found} {self.sentence}"


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of files says."""

    daemon: DaemonSpec | None
    vms: dict[str, VmSpec]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def problems_of(self, vm: str) -> tuple[Problem, ...]:
        """What keeps one guest from being used."""
        return tuple(problem for problem in self.problems if vm in problem.vms)


def load(main: Source, guests: Mapping[str, Source], templates: Mapping[str, Source]) -> Loaded:
    """Read everything. Never raises for what a file says."""
    loader = _Loader(templates)
    daemon = loader.daemon(main)
    vms: dict[str, VmSpec] = {}
    for name in sorted(guests):
        spec = loader.guest(name, guests[name])
        if spec is not None:
            vms[name] = spec
    loader.check_templates()
    clashes = neighbours.look(vms, known=frozenset(guests))
    problems = [*loader.problems, *(_between(clash, guests) for clash in clashes if clash.is_fatal)]
    warnings = [_between(clash, guests) for clash in clashes if not clash.is_fatal]
    return Loaded(daemon=daemon, vms=vms, problems=_merged(problems), warnings=_merged(warnings))


class _Layers:
    """A guest's file over its templates, and which file each value comes from."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}
        self.origins: dict[Path, str] = {}

    def put(self, table: Mapping[str, Any], file: str) -> None:
        _overlay(self.table, table, self.origins, file, ())

    def file_of(self, path: Path, own: str) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return own


class _Loader:
    def __init__(self, templates: Mapping[str, Source]) -> None:
        self.problems: list[Problem] = []
        self.sources = templates
        self.templates = {name: self._parse(source) for name, source in sorted(templates.items())}

    def daemon(self, main: Source) -> DaemonSpec | None:
        table = self._parse(main)
        if table is None:
            return None

        def report(path: Path, found: str, sentence: str) -> None:
            self.problems.append(Problem(file=main.path, key=key_text(path), found=found, sentence=sentence))

        return decode(DaemonSpec, table, report)

    def guest(self, name: str, source: Source) -> VmSpec | None:
        why = name_problem(name)
        if why:
            self.problems.append(Problem(file=source.path, sentence=f'{why}; rename the file, "{name}" comes from it', vms=(name,)))
            return None
        table = self._parse(source, name)
        if table is None:
            return None
        layers = _Layers()
        sound = self._stack(layers, table.pop("template", []), source.path, name, ())
        layers.put(table, source.path)

        def report(path: Path, found: str, sentence: str) -> None:
            file = layers.file_of(path, source.path)
            self.problems.append(Problem(file=file, key=key_text(path), found=found, sentence=sentence, vms=(name,)))

        spec = decode(VmSpec, layers.table, report, given={"name": name})
        return spec if sound else None

    def check_templates(self) -> None:
        """Templates that no guest uses are checked too, value by value: what they lack, a guest may have."""
        for name, table in self.templates.items():
            if table is None:
                continue
            file = self.sources[name].path

            def report(path: Path, found: str, sentence: str, file: str = file) -> None:
                self.problems.append(Problem(file=file, key=key_text(path), found=found, sentence=sentence))

            rest = {key: value for key, value in table.items() if key != "template"}
            check_values(VmSpec, rest, report, given={"name": "template"})
            self._stack(_Layers(), table.get("template", []), file, "", (name,))

    def _stack(self, layers: _Layers, names: Any, file: str, vm: str, above: tuple[str, ...]) -> bool:
        """Put the named templates, and theirs, into `layers`. False: something is wrong with them, and reported."""
        vms = (vm,) if vm else ()
        if isinstance(names, str):
            names = [names]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.problems.append(Problem(file=file, key="template", sentence='must be an array of names, such as ["base"]', vms=vms))
            return False
        sound = True
        for name in names:
            problem = self._template_problem(name, above)
            if problem:
                self.problems.append(Problem(file=file, key="template", found=f'"{name}"', sentence=problem, vms=vms))
                sound = False
                continue
            table = dict(self.templates[name] or {})
            path = self.sources[name].path
            sound &= self._stack(layers, table.pop("template", []), path, vm, (*above, name))
            layers.put(table, path)
        return sound

    def _template_problem(self, name: str, above: tuple[str, ...]) -> str:
        if name not in self.templates:
            near = nearest(name, self.templates)
            known = ", ".join(self.templates) or "none"
            return f"there is no such template; {near or f'known: {known}'}"
        if name in above:
            return f"templates go round in a circle: {' → '.join((*above[above.index(name) :], name))}"
        if self.templates[name] is None:
            return f"the template's own file is broken: {self.sources[name].path}"
        return ""

    def _parse(self, source: Source, vm: str = "") -> dict[str, Any] | None:
        vms = (vm,) if vm else ()
        if source.unread:
            self.problems.append(Problem(file=source.path, sentence=source.unread, vms=vms))
            return None
        try:
            return tomllib.loads(source.text)
        except (ValueError, RecursionError) as err:  # tomllib: a number of 5000 digits is a plain ValueError
            text = str(err) if isinstance(err, ValueError) else "nested too deeply"
            match = _LINE.search(text)
            line = int(match[1]) if match else None
            sentence = f"no TOML: {_lower(_LINE.sub('', text))}" + (f", column {match[2]}" if match else "")
            self.problems.append(Problem(file=source.path, line=line, sentence=sentence, vms=vms))
            return None


def key_text(path: Path) -> str:
    """`disk[0].path`; names that need it are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if _BARE.fullmatch(part) else '"' + part.encode("unicode_escape", "replace").decode("ascii") + '"'
            text += f".{word}" if text else word
    return text


def _overlay(base: dict[str, Any], top: Mapping[str, Any], origins: dict[Path, str], file: str, prefix: Path) -> None:
    """Later wins, tables merge, arrays replace."""
    for key, value in top.items():
        path = (*prefix, key)
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged = dict(below)
            _overlay(merged, value, origins, file, path)
            base[key] = merged
        else:
            for old in [old for old in origins if old[: len(path)] == path]:
                del origins[old]
            origins[path] = file
            base[key] = value


def _between(clash: neighbours.Clash, guests: Mapping[str, Source]) -> Problem:
    return Problem(file=guests[clash.vms[0]].path, key=clash.key, found=clash.found, sentence=clash.sentence, vms=clash.vms)


def _merged(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """One line for a problem of a template that five guests use, in the order of files."""
    by_line: dict[str, Problem] = {}
    for problem in problems:
        line = str(problem)
        if line in by_line:
            problem = msgspec.structs.replace(problem, vms=tuple(dict.fromkeys((*by_line[line].vms, *problem.vms))))
        by_line[line] = problem
    return tuple(by_line.values())


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
