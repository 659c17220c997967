"""Every check, one after another: each bounded in time, none able to stop the others."""

import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime

import trio

import bhyved
from bhyved.core.errors import HostError, in_words
from bhyved.core.selfcheck import GUEST, Found, Verdict
from bhyved.core.spec import Paths
from bhyved.host.selftest import consoles, guests, processes, seeds, taps
from bhyved.host.selftest.bench import Bench, Check, Wrong
from bhyved.host.selftest.needs import NotHere
from bhyved.host.toolbox import Tools

CHECKS: dict[str, tuple[Check, ...]] = processes.CHECKS | consoles.CHECKS | taps.CHECKS | seeds.CHECKS | guests.CHECKS
LIMIT_S = 20.0  # a check; the slowest takes a second
_LEAVES_NOTHING = Check("1.10", "nothing of the selftest is left", Bench.clear)
_FACTS = (
    ("kernel", ("sysctl", "-n", "kern.osrelease")),
    ("userland", ("freebsd-version", "-u")),
    ("machine", ("sysctl", "-n", "hw.machine_arch")),
    ("processor", ("sysctl", "-n", "hw.model")),
    ("guest of", ("sysctl", "-n", "kern.vm_guest")),
    ("jailed", ("sysctl", "-n", "security.jail.jailed")),
)


def run(paths: Paths, tell: Callable[[Found], None]) -> tuple[dict[str, str], list[Found]]:
    """What the host is, and what was found; `tell` hears of each check when it is done. Raises HostError where nothing can be tried."""
    tools = Tools(bin=tuple(map(str, paths.bin)))
    # Our own directory is where a bhyve that aborts leaves its core: on some processors that is how a guest's panic ends.
    with tempfile.TemporaryDirectory(prefix="bhyved-selftest-", ignore_cleanup_errors=True) as directory, contextlib.chdir(directory):
        return trio.run(_run, Bench(paths, tools, directory), tell)


async def _run(bench: Bench, tell: Callable[[Found], None]) -> tuple[dict[str, str], list[Found]]:
    found: list[Found] = []
    if GUEST in (await bench.processes.look_soon()).guests:
        raise HostError(f"a guest {GUEST} runs: is there another selftest?")
    host = await _host(bench)
    try:
        for about, checks in CHECKS.items():
            for check in checks:
                found.append(await _tried(bench, about, check))
                tell(found[-1])
        found.append(await _tried(bench, "afterwards", _LEAVES_NOTHING))
        tell(found[-1])
    except BaseException:
        with trio.CancelScope(shield=True):
            await bench.clear()
        raise
    return host, found


async def _tried(bench: Bench, about: str, check: Check) -> Found:
    began = time.monotonic()

    def so(verdict: Verdict, saw: str) -> Found:
        one_line = " ".join("".join(c if c.isprintable() else " " for c in saw).split())
        return Found(section=check.section, title=check.title, about=about, verdict=verdict, saw=one_line, seconds=time.monotonic() - began)

    try:
        with trio.fail_after(LIMIT_S):
            return so("ok", await check.try_it(bench))
    except NotHere as missing:
        return so("skipped", str(missing))
    except (Wrong, HostError) as wrong:
        return so("failed", str(wrong))
    except trio.TooSlowError:
        return so("failed", f"it took longer than {LIMIT_S:g} s")
    except OSError as error:
        return so("failed", f"{error.filename or 'a system call'}: {in_words(error)}")


async def _host(bench: Bench) -> dict[str, str]:
    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "bhyved": bhyved.__version__}
    facts |= {"python": platform.python_version(), "trio": trio.__version__}
    for word, command in _FACTS:
        try:
            said = (await bench.tool(*command)).text.strip()
        except HostError:
            said = ""
        facts[word] = said or "unknown"
    return facts | {"system": f"{sys.platform}, uid {os.geteuid()}"}
