"""One module of core/ under mutation: mutmut changes it in a copy, one small change at a time, and the module's own tests try to notice.

mutmut changes the bodies of functions and methods; constants, tables and properties it leaves alone. What runs while the module is imported
is not judged, since mutmut chooses a mutant after that.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CORE = Path("bhyved/core")
# What tests of core/ read besides it.
_COPIED = ("docs", "etc", "bin", "rc.d")

_ALL = "core"

#: The tests of modules that have none by their name, or others besides.
_TESTS = {
    "advice": ("core/test_plan.py",),
    "answers": ("core/test_wire.py",),
    "argv": ("core/test_plan.py", "core/test_any_guest.py"),
    "assigned": ("core/test_slots.py", "core/test_plan.py"),
    "boot": ("core/test_config.py", "core/test_plan.py"),
    "cloudinit": ("core/test_config.py", "core/test_seed.py"),
    "console": ("daemon/test_console.py", "host/test_consolelog.py"),
    "consolewire": ("daemon/test_control_console.py", "daemon/test_console.py"),
    "decode": ("core/test_config.py",),
    "devices": ("core/test_config.py", "core/test_bhyveconf.py"),
    "facts": ("core/test_lifecycle.py", "core/test_lifecycle_table.py"),
    "jsonrpc": ("core/test_wire.py", "daemon/test_control.py"),
    "life": ("core/test_lifecycle.py", "core/test_lifecycle_table.py"),
    "logindex": ("host/test_any_output.py", "host/test_consolelog.py"),
    "macs": ("core/test_slots.py",),
    "neighbours": ("core/test_config.py",),
    "params": ("core/test_wire.py",),
    "pcinodes": ("core/test_bhyveconf.py",),
    "series": ("core/test_exposition.py",),
    "slots": ("core/test_config.py",),
    "spec": ("core/test_config.py",),
    "status": ("core/test_exposition.py", "core/test_rowtext.py", "core/test_tally.py"),
    "table": ("core/test_config.py",),
    "wishes": ("core/test_lifecycle.py", "core/test_lifecycle_table.py"),
}

#: What other modules call while they are imported: the tables of `series` are made of metrics.
_AT_IMPORT = {"exposition": {"__init__"}}

# It looks at all functions of a module, and mutants are among them.
_DESELECTED = "tests/core/test_lifecycle_table.py::test_every_handler_is_used"

_SETTINGS = """\
[mutmut]
source_paths = bhyved
only_mutate = {module}
pytest_add_cli_args_test_selection =
{tests}
pytest_add_cli_args =
    --hypothesis-profile=mutation
    -pno:xdist
    -pno:rerunfailures
    -pno:cacheprovider
    --deselect={deselected}
also_copy =
{copied}
use_git_change_detection = false
timeout_constant = 5
timeout_multiplier = 2
"""
_MEMORY_KIB = 4 << 20  # some mutants make lists without end, until their time is up
# The command that prints one diff takes as long to start as this does for all of them.
_SHOW = "import sys; from mutmut.__main__ import show; [show.callback(name) for name in sys.argv[1:]]"


@dataclass(frozen=True)
class Survivor:
    """A change that no test noticed."""

    file: str
    line: int
    diff: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}\n{self.diff}"


@dataclass(frozen=True)
class Trial:
    """What came of one module."""

    module: str
    tried: int
    survivors: tuple[Survivor, ...]

    def __str__(self) -> str:
        return f"{self.module:24} {self.tried:5} mutants, {len(self.survivors):4} survived ({share([self]):.0%})"


class BrokenError(Exception):
    """mutmut could not do it: the tests fail as they are, or it is not what we know."""


def has_mutmut() -> bool:
    """Not on FreeBSD (pyproject.toml)."""
    return importlib.util.find_spec("mutmut") is not None


def share(trials: Sequence[Trial]) -> float:
    """Of all mutants, those that survived."""
    tried = sum(trial.tried for trial in trials)
    return sum(len(trial.survivors) for trial in trials) / tried if tried else 0.0


def modules() -> list[str]:
    """Those of core/ that have something to change, as paths below it: "ladder", "imports/bmd"."""
    return [name for path in sorted((ROOT / _CORE).rglob("*.py")) if functions(name := _name_of(path))]


def tests_of(module: str) -> list[str]:
    """The files of tests that are to notice changes of a module, from the root."""
    name = module.partition("/")[0]  # those of imports/ have theirs together
    by_name = [
        str(path.relative_to(ROOT)) for pattern in (f"{name}.py", f"{name}_*.py") for path in (ROOT / "tests/core").glob(f"test_{pattern}")
    ]
    by_table = [f"tests/{file}" for file in _TESTS.get(name, ())]
    return sorted({*by_name, *by_table}) or [f"tests/{_ALL}"]


def has_own_tests(module: str) -> bool:
    """Whether it is known which tests are to notice; else all of core/'s have to be tried."""
    return tests_of(module) != [f"tests/{_ALL}"]


def functions(module: str) -> dict[str, int]:
    """What can be changed and judged of a module: the names that mutmut has for it, and how many lines each has."""
    tree = _parse(module)
    at_import = {call.func.id for call in _calls_at_import(tree) if isinstance(call.func, ast.Name)} | _AT_IMPORT.get(module, set())
    return {
        name: (node.end_lineno or node.lineno) - node.lineno
        for name, node in _definitions(tree)
        if node.name not in at_import and all(_is_plain(decorator) for decorator in node.decorator_list)
    }


def attempt(module: str, only: Iterable[str] = ()) -> Trial:
    """Change the functions that are named (none: all of them) and see which changes survive. Leaves nothing behind."""
    judged = functions(module)
    dotted = f"bhyved.core.{module.replace('/', '.')}"
    with tempfile.TemporaryDirectory(prefix="mutation-") as at:
        _lay_out(Path(at), module)
        _mutmut(at, "run", "--max-children", "1", *(f"{dotted}.{name}__mutmut_*" for name in only))
        states = dict(line.strip().rsplit(": ", 1) for line in _mutmut(at, "results", "--all", "true").splitlines() if line)
        tried = [name for name, state in states.items() if state != "not checked" and _function_of(name) in judged]
        survived = [name for name in tried if states[name] in ("survived", "no tests")]
        return Trial(module, len(tried), tuple(_survivors(at, module, survived)))


def _lay_out(at: Path, module: str) -> None:
    """What mutmut copies from, which is the tree itself, and its settings."""
    for name in ("bhyved", "tests", "pyproject.toml", *_COPIED):
        (at / name).symlink_to(ROOT / name)
    tests, copied = ("\n".join(f"    {word}" for word in words) for words in (tests_of(module), _COPIED))
    (at / "setup.cfg").write_text(_SETTINGS.format(deselected=_DESELECTED, module=_CORE / f"{module}.py", tests=tests, copied=copied))


def _mutmut(at: str, *words: str) -> str:
    return _run(at, str(Path(sys.executable).with_name("mutmut")), *words)


def _run(at: str, *command: str) -> str:
    # PYTEST_… are of those who run us: reruns, the worker of pytest-xdist that we may be. Tests are compiled once for all mutants.
    ours = (name for name in os.environ if not name.startswith("PYTEST_") and name != "PYTHONDONTWRITEBYTECODE")
    environment = {name: os.environ[name] for name in ours}
    limited = ("sh", "-c", f'ulimit -v {_MEMORY_KIB}; exec "$@"', "sh", *command)
    done = subprocess.run(limited, check=False, cwd=at, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise BrokenError(f"{' '.join(command)}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def _survivors(at: str, module: str, names: Sequence[str]) -> Iterator[Survivor]:
    if not names:
        return
    begins = {name: node.lineno for name, node in _definitions(_parse(module))}
    lines = (ROOT / _CORE / f"{module}.py").read_text().splitlines()
    shown = re.split(r"^# bhyved\.", _run(at, sys.executable, "-c", _SHOW, *names), flags=re.MULTILINE)[1:]
    for name, text in zip(names, shown, strict=True):
        diff = text.splitlines()[3:]  # after the mutant's name and those of the files
        gone = next((line[1:].strip() for line in diff if line.startswith("-")), "")
        # mutmut counts from the function's first line, without its indentation
        begin = begins[_function_of(name)]
        line = next((number for number in range(begin, len(lines) + 1) if lines[number - 1].strip() == gone), begin)
        yield Survivor(f"{_CORE}/{module}.py", line, "\n".join(line for line in diff if line[:1] in ("-", "+")))


def _parse(module: str) -> ast.Module:
    return ast.parse((ROOT / _CORE / f"{module}.py").read_text())


def _name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / _CORE).with_suffix(""))


def _function_of(mutant: str) -> str:
    """`bhyved.core.ladder.x_climb__mutmut_3` is of `x_climb`."""
    return mutant.rpartition(".")[2].rpartition("__mutmut_")[0]


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods by the names that mutmut has for them."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield f"x_{node.name}", node
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    yield f"xǁ{node.name}ǁ{method.name}", method


def _is_plain(decorator: ast.expr) -> bool:
    """Whether mutmut changes what is decorated so."""
    return isinstance(decorator, ast.Name) and decorator.id in ("classmethod", "staticmethod")


def _calls_at_import(tree: ast.Module) -> Iterator[ast.Call]:
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Call):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
