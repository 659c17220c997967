"""Where keys stand in a TOML file."""

import tomllib
from typing import Any

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.decode import Path
from bhyved.core.tomllines import line_of, lines_of

TEXT = '''# a comment = "with a key"
cpus = 2
a.b."c.d" = 1   # and [brackets]
words = [
  "x # no comment",
  "]", # one
]
long = """
[no-table]
key = "x" ""\\"""
"""
literal = \'\'\'
  it''s = 1
\'\'\'
table = { one = 1, two = { three = "}" } }

[boot] # x
loader = 'uefi'
  [ boot . grub ]
  root = "hd0"
[[disk]]
path = "/a"
[[disk]]
path = "/b"
[disk.create]
size = "1G"
[[disk.part]]
x = 1
'''


def test_each_kind_of_statement() -> None:
    """Tables, arrays of tables, dotted and quoted keys, values of several lines."""
    lines = lines_of(TEXT)

    assert tomllib.loads(TEXT)["disk"][1]["part"][0]["x"] == 1
    assert lines == {
        ("cpus",): 2,
        ("a",): 3,
        ("a", "b"): 3,
        ("a", "b", "c.d"): 3,
        ("words",): 4,
        ("long",): 8,
        ("literal",): 12,
        ("table",): 15,
        ("boot",): 17,
        ("boot", "loader"): 18,
        ("boot", "grub"): 19,
        ("boot", "grub", "root"): 20,
        ("disk",): 21,
        ("disk", 0): 21,
        ("disk", 0, "path"): 22,
        ("disk", 1): 23,
        ("disk", 1, "path"): 24,
        ("disk", 1, "create"): 25,
        ("disk", 1, "create", "size"): 26,
        ("disk", 1, "part"): 27,
        ("disk", 1, "part", 0): 27,
        ("disk", 1, "part", 0, "x"): 28,
    }


def test_the_innermost_that_there_is() -> None:
    """What stands inside a value has the value's line, what is missing its table's; of nothing there is none."""
    lines = lines_of(TEXT)

    assert line_of(lines, ("table", "two", "three")) == 15
    assert line_of(lines, ("disk", 1, "slot")) == 23
    assert line_of(lines, ("memory",)) is None


_SCALARS = st.integers(-9, 9) | st.booleans() | st.text(alphabet="ab#\"'[]{}=.,\\\n \t", max_size=8)
_KEYS = st.text(alphabet="ab.\"'# =[]", min_size=1, max_size=4)
_TABLES = st.recursive(
    st.dictionaries(_KEYS, _SCALARS | st.lists(_SCALARS, max_size=3), max_size=3),
    lambda below: st.dictionaries(_KEYS, _SCALARS | below | st.lists(below, min_size=1, max_size=2), max_size=3),
    max_leaves=8,
)


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    """All that a document has."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path}.union(*(paths_of(below, (*path, key)) for key, below in inner))


@given(_TABLES, st.booleans())
def test_any_document(table: dict[str, Any], multiline: bool) -> None:
    """Every path found is one of the document, every key at the top is found, and none is there before its line is read."""
    text = tomli_w.dumps(table, multiline_strings=multiline)
    rows = text.split("\n")

    found = lines_of(text)

    assert set(found) <= paths_of(tomllib.loads(text))
    assert {path[0] for path in found} == set(table)
    for path, line in found.items():
        assert path not in paths_of(tomllib.loads("\n".join(rows[: line - 1])))
        assert rows[line - 1].strip()
