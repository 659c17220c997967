"""Sections of bmd.conf(5) → what one guest is given: includes followed, templates applied, variables and sums worked out (bmd's parser.c).

Global variables are seen everywhere, those of a guest and its templates by that guest, arguments in their template.
"""

import posixpath
from collections.abc import Callable, Sequence

import msgspec

from bhyved.core.imports.bmdtext import Application, Assignment, Include, Section, Value, parse
from bhyved.core.imports.bmdwords import Sum, Variable, number
from bhyved.core.imports.imported import ForeignError

MOST_FILES = 1000
_DEEPEST = 50  # templates in one another
_LONGEST = 4096  # of a value: variables that hold each other grow fast
_LARGEST = 2**63
_LOCALBASE = "/usr/local"
#: Keys that take several values; `=` empties them first.
_LISTS = ("bhyve_env", "bhyveload_env", "cpu_pin", "disk", "hda", "iso", "network", "passthru", "sharefs")
_ALIASES = {
    "comport": "com1",
    "vconsole_nc": "virt_console_ncontrollers",
    "vconsole_np": "virt_console_nports",
    "vconsole_tmpl": "virt_console_template",
}


class Source(msgspec.Struct, frozen=True):
    """A file: its absolute path, what is in it, and the name of its owner, '' if nobody knows."""

    path: str
    text: str
    owner: str = ""


class Given(msgspec.Struct, frozen=True):
    """One value of a key, and where it stands."""

    text: str
    where: str


class Guest(msgspec.Struct):
    """All keys of one guest, in lower case."""

    name: str
    owner: str
    number: int  # bmd's $ID
    vars_directory: str
    given: dict[str, list[Given]]
    notes: list[str]


def read(main: Source, include: Callable[[str], Sequence[Source]]) -> list[Section]:
    """`include`: the files that a pattern of glob(3) names, in its order. Raises ForeignError."""
    sections: list[Section] = []
    files, at = [main], 0
    while at < len(files):
        file, at = files[at], at + 1
        for found in parse(file.text, "" if file is main else file.path, file.owner):
            if isinstance(found, Section):
                sections.append(found)
                continue
            pattern = posixpath.join(posixpath.dirname(main.path), posixpath.dirname(file.path), _pattern(found, sections))
            known = {file.path for file in files}
            files += [file for file in include(pattern) if file.path not in known]
            if len(files) > MOST_FILES:
                raise ForeignError(f"{found.pattern.where}: more than {MOST_FILES} files are included")
    return sections


def guests(sections: Sequence[Section]) -> list[str]:
    return [section.name for section in sections if section.kind == "vm"]


def guest_of(sections: Sequence[Section], name: str) -> Guest:
    """Raises ForeignError."""
    vms = [section for section in sections if section.kind == "vm"]
    mine = [section for section in vms if section.name == name]
    if len(mine) != 1:
        raise ForeignError(f"{mine[1].where if mine else 'there'}: there {'are two vm sections' if mine else 'is no vm section'} {name!r}")
    templates = {section.name: section for section in sections if section.kind == "template"}
    scope = _Scope(_globals(sections), templates)
    scope.variables |= {"NAME": name, "ID": str(vms.index(mine[0])), "OWNER": mine[0].owner or "root", "GROUP": ""}
    guest = Guest(name, mine[0].owner, vms.index(mine[0]), _vars_directory(sections), {}, [])
    scope.fill(guest, mine[0].body, {}, 0)
    if "ID" in scope.used:
        guest.notes.append(
            f"$ID is taken for {guest.number}, the guest's place among the vm sections: a bmd that has seen sections come and go counts "
            "otherwise, so compare the VNC port and the paths"
        )
    return guest


def _pattern(found: Include, sections: Sequence[Section]) -> str:
    return _Scope(_globals(sections), {}).text(found.pattern, {})


def _globals(sections: Sequence[Section]) -> dict[str, str]:
    """bmd heeds the global sections of root's files only."""
    scope = _Scope({"LOCALBASE": _LOCALBASE}, {})
    for section in sections:
        if section.kind == "global" and section.owner in ("", "root"):
            for line in section.body:
                if isinstance(line, Assignment) and line.is_variable:
                    scope.variables[line.key] = scope.text(line.values[0], {})
    return scope.variables


def _vars_directory(sections: Sequence[Section]) -> str:
    scope = _Scope(_globals(sections), {})
    for section in sections:
        for line in section.body if section.kind == "global" else ():
            if isinstance(line, Assignment) and line.key == "vars_directory" and not line.is_variable:
                return scope.text(line.values[0], {})
    return f"{_LOCALBASE}/var/cache/bmd"


class _Scope:
    """Variables, and which of them were used."""

    def __init__(self, variables: dict[str, str], templates: dict[str, Section]) -> None:
        self.variables, self._templates = variables, templates
        self.used: set[str] = set()
        self._applied: set[str] = set()

    def fill(self, guest: Guest, body: Sequence[Assignment | Application], arguments: dict[str, str], depth: int) -> None:
        for line in body:
            if isinstance(line, Application):
                for name, values in line.templates:
                    self._apply(guest, name, values, arguments, depth)
            elif line.is_variable:
                value = self.text(line.values[0], arguments)
                arguments.pop(line.key, None)
                self.variables[line.key] = value
            else:
                self._set(guest, line, arguments)

    def _apply(self, guest: Guest, target: Value, values: Sequence[Value], arguments: dict[str, str], depth: int) -> None:
        name = self.text(target, arguments)
        template = self._templates.get(name)
        if template is None or depth > _DEEPEST:
            why = f"there is no template {name!r}" if template is None else f"more than {_DEEPEST} templates are in one another"
            raise ForeignError(f"{target.where}: {why}")
        if name in self._applied:
            guest.notes.append(f"{target.where}: the template {name!r} is applied once only, as bmd does")
            return
        self._applied.add(name)
        inner: dict[str, str] = {}
        for at, (argument, default) in enumerate(template.arguments):
            is_given = at < len(values) and values[at].pieces
            inner[argument] = self.text(values[at], arguments) if is_given else self._default(default, arguments)
        self.fill(guest, template.body, inner, depth + 1)

    def _default(self, value: Value, arguments: dict[str, str]) -> str:
        try:
            return self.text(value, arguments)
        except ForeignError:
            return ""  # so bmd, and says so in its log

    def _set(self, guest: Guest, line: Assignment, arguments: dict[str, str]) -> None:
        key = line.key.lower()
        key = _ALIASES.get(key, key)
        values = [Given(self.text(value, arguments), value.where) for value in line.values]
        if key in _LISTS:
            guest.given[key] = [*(guest.given.get(key, []) if line.adds else []), *values]
            return
        if line.adds or len(values) != 1:
            raise ForeignError(f"{line.where}: {key} takes one value")
        guest.given[key] = values
        if key == "name":
            self.variables["NAME"] = values[0].text
        elif key == "owner":
            self.variables["OWNER"], _, self.variables["GROUP"] = values[0].text.partition(":")

    def text(self, value: Value, arguments: dict[str, str]) -> str:
        """Raises ForeignError."""
        text = ""
        for piece in value.pieces:
            if isinstance(piece, Sum):
                text += str(self._sum(piece, arguments, value.where))
            elif isinstance(piece, Variable):
                text += self._variable(piece.name, arguments, value.where)
            else:
                text += piece
            if len(text) > _LONGEST:
                raise ForeignError(f"{value.where}: the value has more than {_LONGEST} letters")
        return text

    def _variable(self, name: str, arguments: dict[str, str], where: str) -> str:
        self.used.add(name)
        found = arguments.get(name, self.variables.get(name))
        if found is None:
            raise ForeignError(f"{where}: ${{{name}}} is nowhere defined: bmd leaves the line out, so take it out or define it")
        return found

    def _sum(self, wanted: Sum, arguments: dict[str, str], where: str) -> int:
        stack: list[int] = []
        for term in wanted.terms:
            if isinstance(term, Variable):
                stack.append(number(self._variable(term.name, arguments, where), f"{where}: ${{{term.name}}} is "))
            elif isinstance(term, int):
                stack.append(term)
            elif term == "~":
                stack.append(-stack.pop())
            else:
                right, left = stack.pop(), stack.pop()
                stack.append(_worked_out(term, left, right, where))
        return stack.pop()


def _worked_out(operator: str, left: int, right: int, where: str) -> int:
    """As C does: a quotient is cut towards zero."""
    if operator in "/%" and right == 0:
        raise ForeignError(f"{where}: a division by zero")
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1) if operator in "/%" else 0
    result = {"+": left + right, "-": left - right, "*": left * right, "/": quotient, "%": left - quotient * right}[operator]
    if abs(result) >= _LARGEST:
        raise ForeignError(f"{where}: the sum is too large")
    return result
