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
from bhyved.core.decode import Path, check_values, decode, nearest, shown, split_key
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.tomllines import line_of, lines_of
from bhyved.core.values import name_problem

_LINE = re.compile(r" \(at line ([0-9]+), column ([0-9]+)\)$")
_TUPLE = re.compile(r"\('[^()]*'\S*\)")  # how tomllib shows a key: ('boot', 'grub')
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'")
_PLAINLY = {"cannot overwrite a value": "the key has a value already", "cannot mutate immutable namespace": "nothing can be added to"}
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WORD = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=\s*([A-Za-z0-9_./:@-]+)\s*(?:#.*)?")  # a key and a word without quotes
_SWITCHES = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}


class Source(msgspec.Struct, frozen=True):
    """One file: where it is and what it says, or the sentence why that cannot be known."""

    path: str
    text: str
    unread: str = ""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to put right. `str()` is the line for the operator."""

    file: str
    key: str = ""  # disk[0].path; empty: the file as a whole
    line: int | None = None  # None: the file has nothing of it, or is wrong as a whole
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
    loader = _Loader(templates, [main, *guests.values(), *templates.values()])
    daemon = loader.daemon(main)
    vms: dict[str, VmSpec] = {}
    for name in sorted(guests):
        spec = loader.guest(name, guests[name])
        if spec is not None:
            vms[name] = spec
    loader.check_templates()
    clashes = neighbours.look(vms, known=frozenset(guests))
    problems = [*loader.problems, *(loader.between(clash, guests) for clash in clashes if clash.is_fatal)]
    warnings = [loader.between(clash, guests) for clash in clashes if not clash.is_fatal]
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
    def __init__(self, templates: Mapping[str, Source], files: Iterable[Source]) -> None:
        self.problems: list[Problem] = []
        self.sources = templates
        self.texts = {source.path: source.text for source in files}
        self.lines: dict[str, dict[Path, int]] = {}
        self.templates = {name: self._parse(source) for name, source in sorted(templates.items())}

    def daemon(self, main: Source) -> DaemonSpec | None:
        table = self._parse(main)
        if table is None:
            return None

        def report(path: Path, found: str, sentence: str) -> None:
            self._add(main.path, path, found, sentence)

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
            self._add(layers.file_of(path, source.path), path, found, sentence, (name,))

        spec = decode(VmSpec, layers.table, report, given={"name": name})
        return spec if sound else None

    def check_templates(self) -> None:
        """Templates that no guest uses are checked too, value by value: what they lack, a guest may have."""
        for name, table in self.templates.items():
            if table is None:
                continue
            file = self.sources[name].path

            def report(path: Path, found: str, sentence: str, file: str = file) -> None:
                self._add(file, path, found, sentence)

            rest = {key: value for key, value in table.items() if key != "template"}
            check_values(VmSpec, rest, report, given={"name": "template"})
            self._stack(_Layers(), table.get("template", []), file, "", (name,))

    def _stack(self, layers: _Layers, names: Any, file: str, vm: str, above: tuple[str, ...]) -> bool:
        """Put the named templates, and theirs, into `layers`. False: something is wrong with them, and reported."""
        vms = (vm,) if vm else ()
        if isinstance(names, str):
            names = [names]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._add(file, ("template",), shown(names), 'must be an array of names, such as ["base"]', vms)
            return False
        sound = True
        for name in names:
            problem = self._template_problem(name, above)
            if problem:
                self._add(file, ("template",), shown(name), problem, vms)
                sound = False
                continue
            table = dict(self.templates[name] or {})
            path = self.sources[name].path
            sound &= self._stack(layers, table.pop("template", []), path, vm, (*above, name))
            layers.put(table, path)
        return sound

    def between(self, clash: neighbours.Clash, guests: Mapping[str, Source]) -> Problem:
        """What is wrong between guests, in the file of the first of them."""
        file = guests[clash.vms[0]].path
        line = self._line(file, split_key(clash.key))
        return Problem(file=file, key=clash.key, line=line, found=clash.found, sentence=clash.sentence, vms=clash.vms)

    def _add(self, file: str, path: Path, found: str, sentence: str, vms: tuple[str, ...] = ()) -> None:
        line = self._line(file, path)
        self.problems.append(Problem(file=file, key=key_text(path), line=line, found=found, sentence=sentence, vms=vms))

    def _line(self, file: str, path: Path) -> int | None:
        if file not in self.lines:
            self.lines[file] = lines_of(self.texts[file])
        return line_of(self.lines[file], path)

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
        except (ValueError, RecursionError) as err:
            line, sentence = _syntax(err, source.text)
            found = shown(source.text.split("\n")[line - 1].strip()) if line is not None else ""
            self.problems.append(Problem(file=source.path, line=line, found=found, sentence=f"is no TOML: {sentence}", vms=vms))
            return None


def _syntax(err: ValueError | RecursionError, text: str) -> tuple[int | None, str]:
    """The line where tomllib gave up, and why, without Python's words."""
    if isinstance(err, RecursionError):
        return None, "nested too deeply"
    if not isinstance(err, tomllib.TOMLDecodeError):
        return None, "a number has too many digits"  # Python reads at most 4300
    said = _TUPLE.sub(lambda match: f"[{key_text(tuple(_QUOTED.findall(match[0])))}]", _lower(str(err)))
    for pythons, ours in _PLAINLY.items():
        said = said.replace(pythons, ours)
    match = _LINE.search(said)
    if match is not None:
        line = int(match[1])
        return line, _unquoted(text.split("\n")[line - 1]) or f"{said[: match.start()]}, column {match[2]}"
    return text.rstrip("\n").count("\n") + 1, said.replace(" (at end of document)", ", at the end of the file")


def _unquoted(line: str) -> str:
    """What is wrong with `memory = 2G`, which is how other tools and rc.conf(5) have it; '' if it is something else."""
    match = _WORD.fullmatch(line)
    if match is None:
        return ""
    try:
        tomllib.loads(line)  # by itself it is well: the fault is elsewhere
    except ValueError:
        key, word = match.groups()
        if switch := _SWITCHES.get(word.lower()):
            return f"it is written so: {key} = {switch}"
        return f'text must be in quotes: {key} = "{word}"' if any(map(str.isalpha, word)) else ""
    return ""


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


def _merged(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """One line for a problem of a template that five guests use; the files in the order in which they came, each from top to bottom."""
    by_line: dict[str, Problem] = {}
    for problem in problems:
        line = str(problem)
        if line in by_line:
            problem = msgspec.structs.replace(problem, vms=tuple(dict.fromkeys((*by_line[line].vms, *problem.vms))))
        by_line[line] = problem
    files = {file: number for number, file in enumerate(dict.fromkeys(problem.file for problem in by_line.values()))}
    return tuple(sorted(by_line.values(), key=lambda problem: (files[problem.file], problem.line or 0)))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
