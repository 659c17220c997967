"""bhyved.toml(5) says what the program does: the same keys, the same defaults, the same choices; its examples are read."""

import re
import tomllib
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest

from bhyved.core.config import Source, load
from bhyved.core.spec import DaemonSpec, VmSpec
from bhyved.core.table import Table
from bhyved.core.units import Settings, dec_hook

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/man/bhyved.toml.5").read_text()
ITEM = re.compile(r"^\.It Ic (\S+) Pq (?:Vt|Cm) (.*?)(?: , No (required|default Li (.*)))?$")


class Entry(msgspec.Struct):
    kind: str
    is_required: bool
    default: str | None


def page_entries() -> dict[str, dict[str, Entry]]:
    """Every key of the page, by the table it stands in."""
    tables: dict[str, dict[str, Entry]] = {}
    heading = ""
    for line in PAGE.splitlines():
        if line.startswith(".Ss "):
            heading = line.removeprefix(".Ss ")
        match = ITEM.match(line)
        if match:
            default = match[4].replace(r"\(dq", '"').replace(r"\eu", r"\u") if match[4] else None
            tables.setdefault(heading, {})[match[1]] = Entry(match[2], match[3] == "required", default)
    return tables


def tables_of(kind: type[Table], heading: str, prefix: str = "") -> dict[str, type[Table]]:
    """The structs of a file, by their heading."""
    found = {heading: kind}
    for field in msgspec.structs.fields(kind):
        inner = struct_in(field.type)
        if inner is not None:
            name = f"{prefix}{field.encode_name}"
            found |= tables_of(inner, name, f"{name}.")
    return found


def struct_in(kind: Any) -> type[Table] | None:
    if isinstance(kind, type) and issubclass(kind, Table):
        return kind
    return next((found for arm in get_args(kind) if (found := struct_in(arm)) is not None), None)


TABLES = tables_of(VmSpec, "Guest") | tables_of(DaemonSpec, "Daemon")
TOP = {"Guest", "Daemon"}


def written_keys(heading: str) -> dict[str, msgspec.structs.FieldInfo]:
    """The keys a section must list: tables with a heading of their own are not keys of the top of a file."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(TABLES[heading])}
    if heading not in TOP:
        return fields
    return {key: field for key, field in fields.items() if key != "name" and (key == "cpus" or struct_in(field.type) is None)}


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_described(heading: str) -> None:
    """The page and the struct have the same keys."""
    assert set(page_entries()[heading]) == set(written_keys(heading))


@pytest.mark.parametrize("heading", TABLES)
def test_defaults_are_right(heading: str) -> None:
    """The default on the page reads as the default of the program, and a required key is marked."""
    for key, field in written_keys(heading).items():
        entry = page_entries()[heading][key]
        assert entry.is_required == field.required, key
        if field.required:
            continue
        value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        if entry.default is None:
            assert value in (None, (), Settings()) or isinstance(value, msgspec.Struct), f"{key} has a default: {value!r}"
        else:
            read = tomllib.loads(f"x = {entry.default}")["x"]
            assert msgspec.convert(read, field.type, dec_hook=dec_hook) == value, key


@pytest.mark.parametrize("heading", TABLES)
def test_choices_are_right(heading: str) -> None:
    """A key with a few words lists exactly those."""
    for key, field in written_keys(heading).items():
        arms = [arm for arm in (field.type, *get_args(field.type)) if get_origin(arm) is Literal and arm is not NoneType]
        if arms:
            assert page_entries()[heading][key].kind.split(" | ") == list(get_args(arms[0])), key


def test_no_section_is_left_over() -> None:
    """Nothing on the page describes a table that is gone."""
    assert set(page_entries()) == set(TABLES)


def examples() -> list[str]:
    blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)\n\.Ed$", PAGE, re.DOTALL | re.MULTILINE)
    return [block.replace(r"\e", "\\") for block in blocks]


TEMPLATES = {path.stem: Source(str(path), path.read_text()) for path in (ROOT / "etc/template.d").glob("*.toml")}


@pytest.mark.parametrize("text", examples())
def test_examples_are_read(text: str) -> None:
    """Every example is a configuration without problems, of a guest or of the daemon (a fragment stands in its table)."""
    if text.startswith("create ="):
        text = '[[disk]]\npath = "/d"\n' + text
    guests = {"a": Source("a", text), "db1": Source("db1", "")}
    as_guest = load(Source("", ""), guests, TEMPLATES).problems
    as_daemon = load(Source("", text), {}, {}).problems
    assert not as_guest or not as_daemon, [str(problem) for problem in (*as_guest, *as_daemon)]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_templates_are_read(name: str) -> None:
    """A guest on a shipped template, with a disk and a card, has no problem and no warning."""
    text = f'template = ["{name}"]\n[[disk]]\npath = "/d"\nmodel = "nvme"\n[[network]]\nbridge = "bridge0"\n'
    loaded = load(Source("", ""), {"a": Source("a", text)}, TEMPLATES)
    assert (loaded.problems, loaded.warnings) == ((), ())


def test_the_sample_is_all_defaults() -> None:
    """bhyved.toml.sample changes nothing, and what it comments out is right too."""
    text = (ROOT / "etc/bhyved.toml.sample").read_text()
    assert load(Source("", text), {}, {}).daemon == DaemonSpec()
    loaded = load(Source("", re.sub(r"^#(?=[a-z-]+ = )", "", text, flags=re.MULTILINE)), {}, {})
    assert loaded.problems == ()
    assert loaded.daemon != DaemonSpec()


def test_templates_say_why() -> None:
    """Each begins with a comment."""
    assert len(TEMPLATES) == 10
    assert all(source.text.startswith("# ") for source in TEMPLATES.values())
