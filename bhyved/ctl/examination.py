"""`vmctl doctor`: what on this host will keep guests from starting, running or ending well, and the line that mends it.

Looks for itself and needs no daemon; changes nothing. Each check is a generator of findings; a host that cannot say something is told of
as such, and the next check goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bhyved.core.config import Loaded
from bhyved.ctl import guestchecks, hostchecks
from bhyved.ctl.amounts import counted, one_line
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import print_json
from bhyved.ctl.connection import FAILED, OK
from bhyved.ctl.files import read_files
from bhyved.ctl.visit import Finding, Visit, fail, ok, warn

CHECKS = (*hostchecks.CHECKS, *guestchecks.CHECKS, hostchecks.listener)


def examine(asked: Asked) -> int:
    """Exit status 1 when something fails; warnings are no failure."""
    loaded = read_files(asked)
    findings = [*_configuration(loaded)]
    if loaded.daemon is not None:
        visit = Visit(loaded.daemon, loaded.vms)
        findings += [finding for check in CHECKS for finding in check(visit)]
    if asked.has("json"):
        print_json({"version": 1, "checks": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            _show(finding)
    return FAILED if any(finding.level == "fail" for finding in findings) else OK


def _show(finding: Finding) -> None:
    sys.stdout.write(f"{finding.level:4}  {finding.about}: {one_line(finding.text)}\n")
    if finding.remedy:
        sys.stdout.write("".join(f"      {line}\n" for line in finding.remedy.splitlines()))


def _configuration(loaded: Loaded) -> Iterator[Finding]:
    yield from (fail("configuration", str(problem)) for problem in loaded.problems)
    yield from (warn("configuration", str(warning)) for warning in loaded.warnings)
    if not loaded.problems:
        yield ok("configuration", f"{counted(len(loaded.vms), 'guest')}, no problem")
