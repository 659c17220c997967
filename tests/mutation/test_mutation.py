"""A sample of core/ under mutation: of what could be changed there, its tests let little pass.

`make mutate` tries all of core/. BHYVED_MUTATION_SEED chooses another sample.
"""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutation import trial
from tests.mutation.trial import Survivor, attempt, functions, has_mutmut, has_own_tests, modules, share

SEED = int(os.environ.get("BHYVED_MUTATION_SEED", "1"))
MODULES = 8
LINES = 25  # of each module: a minute or so in all, on two processors
SURVIVORS_MOST = 0.2  # 15 % of 606 when it was written; some changes are none that anybody could notice
JOBS = 2

pytestmark = [pytest.mark.long, pytest.mark.skipif(not has_mutmut(), reason="mutmut is not installed")]

_SOURCE = '''\
LIMIT = 5


class Budget:
    def left(self, used: int) -> int:
        """What may still be used."""
        return LIMIT - used


def is_over(used: int) -> bool:
    return used > LIMIT


def _made_at_import() -> int:
    return 7


SEVEN = _made_at_import()
'''
_TEST = """\
from bhyved.core.budget import Budget, is_over


def test_budget() -> None:
    assert Budget().left(2) == 3
    assert is_over(9)
"""


def sample(seed: int) -> dict[str, list[str]]:
    """Some functions of some modules: for one seed nearly the same ones when core/ has grown.

    Without those of imports/: what an importer writes is read by a person before any guest starts with it.
    """

    def lot(name: str) -> float:
        return random.Random(f"{seed} {name}").random()

    chosen: dict[str, list[str]] = {}
    known = [module for module in modules() if has_own_tests(module) and not module.startswith("imports/")]
    for module in sorted(known, key=lot)[:MODULES]:
        left = LINES
        for name, lines in sorted(functions(module).items(), key=lambda each: lot(f"{module} {each[0]}")):
            if left > 0:
                chosen.setdefault(module, []).append(name)
                left -= lines
    return chosen


def test_few_changes_of_core_pass_its_tests() -> None:
    """Of a change to a decision somebody hears: those that no test notices are listed, and are few."""
    chosen = sample(SEED)
    with ThreadPoolExecutor(JOBS) as pool:
        trials = list(pool.map(attempt, chosen, chosen.values()))

    survivors = [str(survivor) for trial in trials for survivor in trial.survivors]
    told = "\n\n".join([*survivors, "\n".join(map(str, trials))])
    assert share(trials) <= SURVIVORS_MOST, f"{share(trials):.0%} of the changes survived (seed {SEED}):\n\n{told}"


def test_a_change_that_no_test_notices_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed with its place; what runs at import is not judged, and what the tests notice is not listed."""
    for file, text in {"bhyved/core/budget.py": _SOURCE, "bhyved/__init__.py": "", "tests/core/test_budget.py": _TEST}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    for name in ("pyproject.toml", "tests/conftest.py", "docs", "etc", "bin", "rc.d"):
        (tmp_path / name).symlink_to(trial.ROOT / name)
    monkeypatch.setattr(trial, "ROOT", tmp_path)

    assert modules() == ["budget"]
    assert list(functions("budget")) == ["xǁBudgetǁleft", "x_is_over"]
    result = attempt("budget")
    assert result.survivors == (Survivor("bhyved/core/budget.py", 11, "-    return used > LIMIT\n+    return used >= LIMIT"),)
    assert result.tried > 1
