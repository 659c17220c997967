"""One guest's suspend: whether it can be, having bhyve write its state, and what became of that when the run has ended.

`host.machine` calls it. bhyvectl only asks: before main it ends when the request is sent, and that bhyve failed shows in what bhyve prints
and in files that stop growing (contract 6.4). So a suspend is looked at a few times a second while it lasts; its success is the end of
the run, for which `Machine.watch` waits as for any other.
"""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import trio

from bhyved.core.errors import HostError, in_words
from bhyved.core.exits import Outcome, never_ran
from bhyved.core.saved import SavedState, devices_in, objections, risks
from bhyved.core.spec import VmSpec
from bhyved.host.durable import read_plain
from bhyved.host.ledger import Ledger
from bhyved.host.runlog import RunLog
from bhyved.host.site import Site
from bhyved.host.statefiles import StateFiles, disk_marks
from bhyved.host.tool import run_tool
from bhyved.threads import in_thread

SUSPEND_ENDS = (0, 5)  # contract 1.7.1
_SIGNALLED = 129  # from here on a status is a signal's (contract 8.8)
_MORE_BYTES = 64 << 20  # for devices and kernel state, which take a few MiB, and for the file system's own
_ASK_S = 10.0
_WRITE_S = 86_400.0  # newer bhyvectls wait for bhyve's answer; a bhyve that stops writing is given up long before
_LOOK_S = 0.25
_QUIET_S = 3.0  # after a message that sounds like a failure, and nothing more is written: it was one
_BEGIN_S = 30.0  # bhyve opens its files before all else
_STALL_S = 300.0  # nothing written for so long, and nothing said: a disk that hangs
#: What `vm_checkpoint` and what it calls print when they fail (contract 6.5).
_FAILURE = re.compile(r"^.*(Failed to|Could not|Unable to perform|snapshot-save failed|Unrecognized checkpoint|buffer too small).*$", re.M)


class Suspending:
    """One guest's."""

    def __init__(self, site: Site, name: str, states: StateFiles, log: RunLog) -> None:
        self._site, self._name, self._states, self._log = site, name, states, log

    async def check(self, spec: VmSpec, *, install: bool) -> tuple[str, ...]:
        """What may go wrong, a sentence each. Raises HostError where it must not or cannot be tried."""
        against = objections(spec, self._site.target.arch)
        if against:
            raise HostError("; ".join(against))
        if install:
            raise HostError("its install media are attached, and the run that resumes it would be without them")
        usage = await run_tool(self._site.tools, ("bhyvectl", "--usage"), limit_s=_ASK_S, ok=None)
        if b"--suspend" not in usage.stdout + usage.stderr:
            raise HostError(
                "this bhyve cannot save guests: no release can, only a system built with WITH_BHYVE_SNAPSHOT=yes in src.conf "
                "and a kernel with options BHYVE_SNAPSHOT"
            )
        return risks(spec)

    async def attempt(self, ledger: Ledger, spec: VmSpec, by: str, has_ended: Callable[[], bool]) -> str:
        """Why it failed. A success is the end of the run: then this never returns, and is cancelled.

        A suspend that an earlier daemon has begun is only watched. Raises HostError where it could not be begun.
        """
        said: list[str] = []
        begun = bool(ledger.suspending)
        if not begun:
            await in_thread(self._states.begin, int(spec.memory) + _MORE_BYTES)
            ledger = msgspec.structs.replace(ledger, suspending=by, suspend_log=self._log.size())
            self._site.ledgers.put(self._name, ledger, atomically=True)
        async with trio.open_nursery() as nursery:
            if not begun:
                nursery.start_soon(self._ask, said)
            # Where an earlier daemon has asked, it has done so a while ago, or was killed before it could.
            begin_s = _QUIET_S if begun else _BEGIN_S
            why, is_over = await self._look(ledger.suspend_log, said, has_ended, begin_s=begin_s)
            nursery.cancel_scope.cancel()
        if is_over:
            self._site.ledgers.put(self._name, msgspec.structs.replace(ledger, suspending="", suspend_log=0), atomically=True)
            await in_thread(self._states.give_up)
        return why

    async def _ask(self, said: list[str]) -> None:
        # Not with the guest's FIFO: an end of the run must show, also when bhyvectl still waits for an answer.
        argv = ("bhyvectl", f"--vm={self._name}", f"--suspend={self._states.wanted}")
        try:
            await run_tool(self._site.tools, argv, limit_s=_WRITE_S)
        except HostError as error:
            said.append(str(error))

    async def _look(self, log_from: int, said: list[str], has_ended: Callable[[], bool], *, begin_s: float) -> tuple[str, bool]:
        """Until it is clear that nothing comes of it: why, and whether bhyve is through with it."""
        written, quiet_since = self._states.written_bytes(), trio.current_time()
        while True:
            await trio.sleep(_LOOK_S)
            now, more = trio.current_time(), self._states.written_bytes()
            if has_ended():
                await trio.sleep_forever()
            if more != written:
                written, quiet_since = more, now
            failures = [*said, *(match[0].strip() for match in _FAILURE.finditer(self._log.since(log_from)))]
            if failures and now - quiet_since >= _QUIET_S:
                return _sentence(failures), True
            if written is None and now - quiet_since >= begin_s:
                return f"bhyve has not begun to write {self._states.wanted} within {begin_s:g} s", True
            if now - quiet_since >= _STALL_S:
                # Not over: should it succeed after all, its state counts.
                return f"bhyve has written nothing to {self._states.wanted} for {_STALL_S:g} s, and may yet end", False

    async def after(self, ledger: Ledger, outcome: Outcome) -> Outcome:
        """A bhyve has ended: what becomes of the state that it was given, and is there one that it has left?"""
        if ledger.resume:
            if never_ran(outcome):
                await in_thread(self._states.give_back)
            elif outcome.status is not None and outcome.status < _SIGNALLED:
                await in_thread(self._states.spent)  # else it is in doubt, unless the guest was seen running
        # A suspend takes the node away, a reboot leaves it (contract 1.7.6): before December 2025 both end with 0.
        is_reboot = outcome.status == 0 and outcome.node_present is True
        if ledger.suspending and outcome.status in SUSPEND_ENDS and not is_reboot:
            return await self._finish(ledger, outcome)
        return outcome

    async def _finish(self, ledger: Ledger, outcome: Outcome) -> Outcome:
        """The run has ended while it was to be suspended: whether there is a state of it, made durable."""
        spec = ledger.started_spec()
        about = SavedState(
            run=ledger.run,
            by=ledger.suspending,
            at=outcome.at or datetime.now(UTC),
            spec=ledger.spec,
            bhyve=ledger.bhyve,
            seed=ledger.seed,
            cpu=await cpu_model(self._site),
        )
        keep = functools.partial(self._keep, about, 0 if spec is None else int(spec.memory), [disk.path for disk in ledger.disks])
        lacks = await in_thread(keep)
        if lacks:
            return msgspec.structs.replace(outcome, unsaved=lacks)
        return msgspec.structs.replace(outcome, saved=self._states.saved)

    def _keep(self, about: SavedState, memory_bytes: int, disks: list[str]) -> str:
        try:
            conf = read_plain(self._site.conf(self._name)).decode(errors="replace")
        except OSError as error:
            return f"{self._site.conf(self._name)}: {in_words(error)}"
        return self._states.keep(msgspec.structs.replace(about, disks=disk_marks(disks), devices=devices_in(conf)), memory_bytes)


def _sentence(failures: list[str]) -> str:
    """bhyve's own words; with a socket missing, what that means (contract 6.4)."""
    text = "; ".join(dict.fromkeys(failures))
    if "connect() failed" in text:
        return f"{text}: bhyve does not listen at /var/run/bhyve, which must have been there when the guest was started"
    return text if len(text) <= 400 else f"{text[:399]}…"


async def cpu_model(site: Site) -> str:
    """hw.model; '' where it cannot be had."""
    try:
        return (await run_tool(site.tools, ("sysctl", "-n", "hw.model"), limit_s=_ASK_S)).text.strip()
    except HostError:
        return ""
