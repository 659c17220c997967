"""A TOML table to a spec, or every problem in it.

msgspec stops at the first problem of a table and names no nearest key; here each value is converted by itself, so that an operator
sees everything at once. `config` calls it for each file.
"""

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from bhyved.core.boot import MOST_CPUS, Topology
from bhyved.core.table import RuleError, Table
from bhyved.core.units import dec_hook

Path = tuple[str | int, ...]
Report = Callable[[Path, str, str], None]  # where, the value found (as text, or ""), the sentence

T = TypeVar("T", bound=Table)

SHOWN = 60  # characters of a value found that a message repeats


class _Bad:
    """A value that could not be had; its problem is reported."""


BAD = _Bad()


def decode(kind: type[T], table: dict[str, Any], report: Report, *, given: dict[str, Any] | None = None) -> T | None:
    """The spec of a whole file; `given` are fields that do not come from it. None: `report` was called."""
    value = _Decoder(report, root=kind).table(kind, table, (), given or {})
    return None if isinstance(value, _Bad) else value


def check_values(kind: type[Table], table: dict[str, Any], report: Report, *, given: dict[str, Any] | None = None) -> None:
    """Report what is wrong with single values of an incomplete table, such as a template."""
    _Decoder(report, root=kind, whole=False).table(kind, table, (), given or {})


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'did you mean "{match[0]}"?' if match else ""


def shown(value: object) -> str:
    """A value as the operator wrote it, on one line, not too long."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = '"' + value.encode("unicode_escape", "replace").decode("ascii").replace('"', '\\"') + '"'
        case dict():
            text = "a table"
        case list():
            text = "an array"
        case _:
            text = str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


class _Decoder:
    def __init__(self, report: Report, *, root: type[Table], whole: bool = True) -> None:
        self.report = report
        self.root = root
        self.whole = whole

    def table(self, kind: type[Table], table: dict[str, Any], path: Path, given: dict[str, Any]) -> Any:
        fields = {key: field for key, field in _fields(kind).items() if field.name not in given}
        values = dict(given)
        bad = False
        for key, raw in table.items():
            if key not in fields:
                sentence = "is no key of the file: its own name says it" if key in given else self._unknown(key, fields, path)
                self.report((*path, key), "", sentence)
                bad = True
                continue
            value = self.value(fields[key].type, raw, (*path, key))
            if value is BAD:
                bad = True
            else:
                values[fields[key].name] = value
        if not self.whole:
            return BAD
        for key, field in fields.items():
            if field.required and key not in table:
                self.report((*path, key), "", "is missing")
                bad = True
        return BAD if bad else self._construct(kind, values, table, path)

    def _construct(self, kind: type[Table], values: dict[str, Any], table: dict[str, Any], path: Path) -> Any:
        try:
            return kind(**values)
        except RuleError as err:
            for key, sentence in err.broken:
                self.report((*path, *split_key(key)), _found(table, split_key(key)), sentence)
            return BAD

    def value(self, kind: Any, raw: Any, path: Path) -> Any:
        kind, meta = _unwrap(kind)
        if isinstance(kind, type) and issubclass(kind, Table):
            if kind is Topology and type(raw) is int:
                count = self._scalar(int, msgspec.Meta(ge=1, le=MOST_CPUS), raw, path)
                return count if count is BAD else Topology(sockets=count)
            if isinstance(raw, dict):
                return self.table(kind, raw, path, {})
            if kind is Topology:
                return self._bad(path, raw, "must be a number of vCPUs, or a table such as { sockets = 1, cores = 2 }")
            brackets = "[[{}]]" if isinstance(path[-1], int) else "[{}]"
            return self._bad(path, raw, f"must be a table: write {brackets.format(_last(path))}")
        if get_origin(kind) is tuple:
            return self._array(get_args(kind)[0], raw, path, meta)
        return self._scalar(kind, meta, raw, path)

    def _array(self, kind: Any, raw: Any, path: Path, meta: msgspec.Meta | None) -> Any:
        inner, _ = _unwrap(kind)
        if not isinstance(raw, list):
            if isinstance(inner, type) and issubclass(inner, Table):
                return self._bad(path, raw, f"must be an array of tables: write [[{_last(path)}]]")
            return self._bad(path, raw, "must be an array, in [brackets]")
        if meta is not None and meta.max_length is not None and len(raw) > meta.max_length:
            return self._bad(path, f"{len(raw)} of them", f"at most {meta.max_length} are possible")
        values = [self.value(kind, item, (*path, index)) for index, item in enumerate(raw)]
        return BAD if any(value is BAD for value in values) else tuple(values)

    def _scalar(self, kind: Any, meta: msgspec.Meta | None, raw: Any, path: Path) -> Any:
        try:
            return msgspec.convert(raw, Annotated[kind, meta] if meta else kind, strict=True, dec_hook=dec_hook)
        except msgspec.ValidationError as err:
            return self._bad(path, raw, _wanted(kind, meta, raw, err))

    def _bad(self, path: Path, raw: Any, sentence: str) -> _Bad:
        self.report(path, raw if isinstance(raw, str) and raw.endswith(" of them") else shown(raw), sentence)
        return BAD

    def _unknown(self, key: str, fields: Iterable[str], path: Path) -> str:
        known = list(fields)
        near = nearest(key, known)
        if near:
            return f"unknown key; {near}"
        home = _home(self.root, key) if path or key not in known else ""
        if home:
            return f"unknown key here; it belongs {home}"
        return f"unknown key; known: {', '.join(known)}"


def _home(root: type[Table], key: str) -> str:
    """Where in the file a key would be right. TOML ends the top of a file at the first [table], which surprises many."""
    fields = _fields(root)
    if key in fields:
        return "to the top of the file, before the first [table]"
    for name, field in fields.items():
        kind, _ = _unwrap(field.type)
        brackets = "[{}]"
        if get_origin(kind) is tuple:
            kind, brackets = _unwrap(get_args(kind)[0])[0], "[[{}]]"
        if isinstance(kind, type) and issubclass(kind, Table) and key in _fields(kind):
            return f"into {brackets.format(name)}"
    return ""


@functools.cache
def _fields(kind: type[Table]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The fields of a table by their keys. msgspec works them out anew each time, and every guest's file asks."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _unwrap(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    """A type without `| None` and `Annotated`, and its Meta."""
    meta = None
    while True:
        if get_origin(kind) is Annotated:
            kind, meta = get_args(kind)[0], get_args(kind)[1]
        elif get_origin(kind) in (Union, UnionType):
            kind = next(arm for arm in get_args(kind) if arm is not NoneType)
        else:
            return kind, meta


def _wanted(kind: Any, meta: msgspec.Meta | None, raw: Any, err: msgspec.ValidationError) -> str:
    if get_origin(kind) is Literal:
        words = get_args(kind)
        near = nearest(raw, words) if isinstance(raw, str) else ""
        return f"must be one of {', '.join(shown(word) for word in words)}" + (f"; {near}" if near else "")
    if kind is bool:
        return "must be true or false"
    if kind is int and meta is not None:
        least, most = meta.ge, meta.le
        return f"must be an integer from {least} to {most}"
    if kind is str:
        return "must be text, in quotes"
    return str(err.__cause__) if err.__cause__ is not None else str(err)


def split_key(key: str) -> Path:
    """The path of a rule's key: `pin[0]`, `options."x.y"`."""
    if '."' in key:
        head, _, tail = key.partition('."')
        return (*split_key(head), tail.removesuffix('"'))
    parts: list[str | int] = []
    for word in filter(None, key.split(".")):
        name, bracket, index = word.partition("[")
        parts.append(name)
        if bracket:
            parts.append(int(index.removesuffix("]")))
    return tuple(parts)


def _found(table: Any, path: Path) -> str:
    for part in path:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            return ""
    return "" if isinstance(table, dict | list) else shown(table)


def _last(path: Path) -> str:
    return ".".join(part for part in path if isinstance(part, str))
