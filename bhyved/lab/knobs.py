"""What a guest's own file tells the lab: `lab.NAME` variables, which a real bhyve ignores (contract 1.3).

A name may be given again as `lab.NAME-from-N`: that one holds from the Nth run of this guest on, as the lab counts them.
"""

from __future__ import annotations

import os

from bhyved.lab import script, state
from bhyved.lab.freebsd import BHYVE_ERROR, errx

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.tree import Tree


class Knobs:
    """The knobs of one run."""

    def __init__(self, root: str, tree: Tree, vm: str) -> None:
        self._given = tree.below("lab")
        self.run = _count_run(root, vm)

    def get(self, name: str) -> str | None:
        """The value that holds for this run."""
        since, found = 0, self._given.get(name)
        for key, value in self._given.items():
            first = key.removeprefix(f"{name}-from-")
            if first != key and first.isdecimal() and since < int(first) <= self.run:
                since, found = int(first), value
        return found

    def seconds(self, name: str) -> float:
        """A duration, or 0. Raises Refusal when it is none."""
        value = self.get(name)
        try:
            return 0 if value is None else script.seconds(value)
        except script.ScriptError as error:
            raise errx(BHYVE_ERROR, f"lab.{name}: {error}") from None


def _count_run(root: str, vm: str) -> int:
    """Which run of this guest this is, the first being 1."""
    directory = f"{root}/lab/runs"
    os.makedirs(directory, exist_ok=True)
    with state.Locked(root, "runs"):
        runs: int = (state.read(f"{directory}/{vm}") or {"runs": 0})["runs"] + 1
        state.write(f"{directory}/{vm}", {"runs": runs})
    return runs
