"""`make mutate`: change core/ in small ways, everywhere, and list the changes that no test notices.

    python -m tests.mutation [--jobs 2] [MODULE...]

A module is named as its file is below core/: `ladder`, `imports/bmd`.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutation.trial import BrokenError, Trial, attempt, has_mutmut, modules, share


def main() -> int:
    """Returns the exit status: 0 whatever survives, which is for people to look at; 1 where a module could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="none: all of core/")
    asked = parser.parse_args()
    if odd := set(asked.modules) - set(modules()):
        parser.error(f"nothing to change: {', '.join(sorted(odd))}")
    if not has_mutmut():
        print("mutmut is not installed", file=sys.stderr)
        return 1
    names = asked.modules or modules()
    trials, broken = [], []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for name, outcome in zip(names, pool.map(_attempt, names), strict=True):  # after a ^C nothing further begins
            if isinstance(outcome, BrokenError):
                print(f"{name}: {outcome}", file=sys.stderr)
                broken.append(name)
                continue
            trials.append(outcome)
            print(*outcome.survivors, sep="\n\n", end="\n\n")
            print(outcome, flush=True)
    print()
    print(*trials, sep="\n")
    print(f"of all {sum(trial.tried for trial in trials)} mutants, {share(trials):.1%} survived")
    if broken:
        print(f"not tried: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _attempt(module: str) -> Trial | BrokenError:
    try:
        return attempt(module)
    except BrokenError as error:
        return error


if __name__ == "__main__":
    raise SystemExit(main())
