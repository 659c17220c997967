"""`bhyved selftest`: try on this host what bhyved takes for granted, and print a report for a bug report."""

import os
import sys

from bhyved.core import selfcheck
from bhyved.core.errors import HostError
from bhyved.core.selfcheck import Found
from bhyved.core.spec import DaemonSpec
from bhyved.host import configfiles

OK, FAILED = 0, 1


def selftest(config: str, *, as_json: bool) -> int:
    """Returns the exit status: 0 when nothing failed, however much could not be tried.

    Only `[paths]` of the main file is heeded, and where there is none, the defaults.
    """
    if sys.platform.startswith("freebsd") and os.geteuid() != 0:
        print("bhyved selftest: only root may make guests, taps and console lines", file=sys.stderr)
        return FAILED
    daemon = configfiles.read(config).loaded.daemon or DaemonSpec()
    from bhyved.host.selftest import run  # trio: only this needs it

    def tell(found: Found) -> None:
        if sys.stderr.isatty():
            print(selfcheck.line(found), file=sys.stderr, flush=True)

    try:
        host, found = run(daemon.paths, tell)
    except HostError as error:
        print(f"bhyved selftest: {error}", file=sys.stderr)
        return FAILED
    print(selfcheck.as_json(host, found).decode() if as_json else selfcheck.report(host, found).rstrip("\n"))
    return OK if selfcheck.passed(found) else FAILED
