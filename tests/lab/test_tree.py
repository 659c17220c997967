"""bhyve's configuration tree: expansion of references, and the words for true and false (contract 1.3)."""

import pytest

from bhyved.lab.freebsd import Refusal
from bhyved.lab.tree import Tree


def tree(**values: str) -> Tree:
    """A tree with these variables."""
    found = Tree()
    for name, value in values.items():
        found.set(name, value)
    return found


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("plain", "plain"),
        (r"C:\dir, and more", r"C:\dir, and more"),
        ("%(name)", "web1"),
        ("/vm/%(name)/%(name).img", "/vm/web1/web1.img"),
        ("%(path)", "/vm/web1"),
        (r"%(name)\x\\", "web1x\\"),
    ],
)
def test_a_reference_is_replaced(value: str, read: str) -> None:
    """Also a reference to a reference; the backslash is an escape only beside one."""
    assert tree(name="web1", path="/vm/%(name)", value=value).get("value") == read


@pytest.mark.parametrize(("value", "read"), [("100%", "100%"), ("a%%b", "a%%b"), ("%(name", "%(name"), ("a%(none)b", "ab")])
def test_a_bad_reference_is_warned_of(value: str, read: str, capsys: pytest.CaptureFixture[str]) -> None:
    """%% is not an escape; an unknown name is empty."""
    assert tree(name="web1", value=value).get("value") == read
    assert "Invalid reference" in capsys.readouterr().err


def test_a_circle_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """After fifteen turns."""
    assert tree(a="%(b)", b="%(a)").get("a") == ""
    assert "recursive" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["true", "on", "yes", "1", "TRUE"])
def test_true(word: str) -> None:
    """In any case."""
    assert tree(flag=word).flag("flag", default=False) is True


@pytest.mark.parametrize("word", ["false", "off", "no", "0", "No"])
def test_false(word: str) -> None:
    """In any case."""
    assert tree(flag=word).flag("flag", default=True) is False


def test_any_other_word_is_refused() -> None:
    """With status 4; a missing one is the default."""
    assert tree().flag("flag", default=True) is True
    with pytest.raises(Refusal, match="Invalid value maybe for boolean variable flag") as refusal:
        tree(flag="maybe").flag("flag", default=True)
    assert refusal.value.status == 4


def test_the_dump_is_sorted_and_unexpanded() -> None:
    """So that it can be fed back."""
    assert list(tree(b="%(a)", a="1").dump()) == ["a=1", "b=%(a)"]
