"""`bhyved selftest`: what bhyved takes for granted about its host, tried on the host itself.

Every check touches only what carries the selftest's own name (`core.selfcheck.GUEST`, `TAP`) and takes it away again. On FreeBSD it
needs root and the base system; checks that need more are skipped by name. `cli.selftest` calls `run` and prints.
"""

from bhyved.host.selftest.run import run

__all__ = ["run"]
