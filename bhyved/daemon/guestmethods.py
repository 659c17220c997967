"""vm.*: what people and scripts ask of guests, and what they are told about them.

`requests` has looked at the caller's right over the one guest that is named; over several, each answers for itself here.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

import msgspec
import structlog
import trio

from bhyved.core import plan as plans
from bhyved.core import waiting
from bhyved.core.answers import Answers, History, Listing, Planned, Shown, Told, Waited, Why
from bhyved.core.bhyveconf import ConfError
from bhyved.core.explain import history_line
from bhyved.core.jsonrpc import REFUSED, Fault, no_such_guest
from bhyved.core.lifecycle import Answer, Poweroff, Release, Reset, Restart, SetHold, Start, Stop, Wish
from bhyved.core.params import (
    HistoryParams,
    HoldParams,
    ListParams,
    OfGuest,
    OfGuests,
    PlanParams,
    StartParams,
    StopParams,
    WaitParams,
    WhyParams,
)
from bhyved.core.reload import Change
from bhyved.core.rights import Right
from bhyved.core.spec import dump
from bhyved.core.status import Hold, VmStatus, row
from bhyved.core.waiting import Verdict
from bhyved.daemon.access import Access, Handler
from bhyved.daemon.guests import Guests
from bhyved.daemon.story import explain_guest

_log = structlog.get_logger()

FEW = 8  # guests asked in one piece: a few milliseconds
FRESH_S = 0.02  # so old may the durations of a list be that nothing else has changed in
NOT_SUSPENDED = Answer(False, "not-suspended", "the guest is not suspended: vmctl start boots it")
INTERNAL = Answer(False, "internal-error", "an internal error of bhyved, which is in its log")


class GuestMethods:
    """Handlers by method; each takes the caller and its params, and returns a result of `core.wire` or raises Fault."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self._listed: tuple[int, float, Listing] = (-1, 0.0, _listing([]))  # generation, when, and the list of all
        self.handlers: dict[str, Handler] = {
            "vm.list": self._list,
            "vm.show": self._show,
            "vm.start": self._start,
            "vm.stop": self._stop,
            "vm.restart": self._restart,
            "vm.reset": self._reset,
            "vm.poweroff": self._poweroff,
            "vm.nmi": self._nmi,
            "vm.suspend": self._suspend,
            "vm.resume": self._resume,
            "vm.hold": self._hold,
            "vm.release": self._release,
            "vm.wait": self._wait,
            "vm.why": self._why,
            "vm.history": self._history,
            "vm.plan": self._plan,
        }

    # --- asking --------------------------------------------------------------------------------------------------------------

    async def _start(self, caller: Access, params: StartParams) -> Answers:
        return await self._ask(caller, params, lambda by: Start(by=by, install=params.install, cold=params.cold))

    async def _stop(self, caller: Access, params: StopParams) -> Answers:
        return await self._ask(caller, params, lambda by: Stop(by=by, force=params.force, timeout_s=params.timeout))

    async def _restart(self, caller: Access, params: OfGuests) -> Answers:
        return await self._ask(caller, params, lambda by: Restart(by=by))

    async def _reset(self, caller: Access, params: OfGuests) -> Answers:
        return await self._ask(caller, params, lambda by: Reset(by=by))

    async def _poweroff(self, caller: Access, params: OfGuests) -> Answers:
        return await self._ask(caller, params, lambda by: Poweroff(by=by))

    async def _release(self, caller: Access, params: OfGuests) -> Answers:
        return await self._kept(await self._ask(caller, params, lambda by: Release(by=by)))

    async def _hold(self, caller: Access, params: HoldParams) -> Answers:
        now = self._guests.utc()
        until = None if params.for_ is None else now + timedelta(seconds=params.for_)
        hold = Hold(by=caller.peer.name, reason=params.reason, since_at=now, until_at=until)
        return await self._kept(await self._ask(caller, params, lambda by: SetHold(hold=hold)))

    async def _kept(self, answers: Answers) -> Answers:
        """Answers that are true for the next daemon too: what was asked for is no more than a word that is kept."""
        await self._guests.kept(*(told.name for told in answers.answers if told.ok))
        return answers

    async def _ask(
        self,
        caller: Access,
        params: OfGuests,
        wish: Callable[[str], Wish],
        first: Callable[[str], Answer | None] = lambda name: None,
    ) -> Answers:
        """One wish to each guest, unless `first` has an answer. A guest's trouble is its own answer, never the others'."""
        answers = []
        for name in self._names(caller, params):
            answer, run = self._refusal(caller, name), self._run(name)
            answer = answer or first(name)
            if answer is None:
                try:
                    answer = self._guests.submit(name, wish(caller.peer.name))
                except KeyError:  # forgotten while the ones before it were asked
                    answer = _forgotten(name)
                except Exception:
                    _log.exception("internal error", vm=name)
                    answer = INTERNAL
            answers.append(self._told(name, answer, run))
            if len(answers) % FEW == 0:
                await trio.lowlevel.checkpoint()
        return Answers(answers=answers)

    async def _resume(self, caller: Access, params: OfGuests) -> Answers:
        return await self._ask(caller, params, lambda by: Start(by=by), first=self._not_suspended)

    def _not_suspended(self, name: str) -> Answer | None:
        status = self._guests.board.get(name)
        return NOT_SUSPENDED if status is not None and status.suspended is None and not status.suspending else None

    async def _nmi(self, caller: Access, params: OfGuests) -> Answers:
        return await self._ask_slowly(caller, params, self._guests.nmi)

    async def _suspend(self, caller: Access, params: OfGuests) -> Answers:
        return await self._ask_slowly(caller, params, lambda name: self._guests.suspend(name, by=caller.peer.name))

    async def _ask_slowly(self, caller: Access, params: OfGuests, ask: Callable[[str], Awaitable[Answer]]) -> Answers:
        """One after the other what takes a host command each."""
        answers = []
        for name in self._names(caller, params):
            answer, run = self._refusal(caller, name), self._run(name)
            if answer is None:
                try:
                    answer = await ask(name)
                except KeyError:  # forgotten while the ones before it were asked
                    answer = _forgotten(name)
            answers.append(self._told(name, answer, run))
        return Answers(answers=answers)

    def _names(self, caller: Access, params: OfGuests) -> list[str]:
        return caller.guests(Right.OPERATE) if params.all else list(dict.fromkeys(params.names))

    def _refusal(self, caller: Access, name: str) -> Answer | None:
        fault = caller.refusal(Right.OPERATE, name)
        return None if fault is None else Answer(False, fault.code, fault.text)

    def _run(self, name: str) -> str:
        status = self._guests.board.get(name)
        return status.run if status is not None else ""

    def _told(self, name: str, answer: Answer, run: str) -> Told:
        if answer.code == "no-such-guest":  # whatever the board knows is not for the caller
            return Told(name=name, ok=False, code=answer.code, text=answer.text)
        status = self._guests.board.get(name)
        phase = None if status is None else status.phase
        return Told(name=name, ok=answer.ok, code=answer.code, text=answer.text, run=run, phase=phase)

    # --- looking -------------------------------------------------------------------------------------------------------------

    async def _list(self, caller: Access, params: ListParams) -> Listing:
        board, now = self._guests.board, self._guests.now()
        if params.names or not caller.sees_all:
            wanted = caller.visible(params.names)
            return _listing(board.rows([name for name in board.names() if name in wanted], now))
        generation, at, answer = self._listed
        if generation != board.generation or not 0 <= now - at < FRESH_S:
            answer = _listing(board.rows(board.names(), now))
            self._listed = board.generation, now, answer
        return answer

    async def _show(self, caller: Access, params: OfGuest) -> Shown:
        name = params.name
        started = self._guests.started_spec(name)
        spec = self._guests.spec(name) or started
        return Shown(
            vm=row(self._status(name), self._guests.now()),
            spec={} if spec is None else plans.without_secrets(dump(spec)),
            consoles=[msgspec.to_builtins(stats) for stats in self._guests.consoles.stats(name)],
            changes=self._changes(name),
            started_spec=started is not None,
        )

    async def _why(self, caller: Access, params: WhyParams) -> Why:
        name = params.name
        try:
            told = explain_guest(self._guests, name)
        except KeyError:
            raise no_such_guest(name) from None
        runs = self._guests.runs(name, params.runs) if params.runs else []
        return Why(name=name, phase=self._status(name).phase, sentences=told.sentences, runs=runs, hint=told.hint)

    async def _history(self, caller: Access, params: HistoryParams) -> History:
        runs = self._guests.runs(params.name, params.last)
        return History(runs=runs, lines=tuple(map(history_line, runs)))

    async def _plan(self, caller: Access, params: PlanParams) -> Planned:
        here = self._guests.target
        target = msgspec.structs.replace(here, release=params.release or here.release, arch=params.arch or here.arch)
        try:
            plan = self._guests.plan(params.name, target=target, install=params.install)
        except ConfError as error:
            raise Fault(REFUSED, "no-plan", str(error)) from None
        except KeyError:
            raise no_such_guest(params.name) from None
        objections = plan.refused_by.get(str(target), ())
        return Planned(text=plans.text(plan), warnings=plan.warnings, objections=objections, plan=plans.data(plan))

    async def _wait(self, caller: Access, params: WaitParams) -> Waited:
        board = self._guests.board
        begun_in = self._run(params.name)
        met = False
        with trio.move_on_after(float("inf") if params.timeout is None else params.timeout) as limit:
            while True:
                generation = board.generation
                status = board.get(params.name)
                begun_in = begun_in or self._run(params.name)  # a guest that was about to start had none yet
                verdict = waiting.look(params.until, params.after_run, begun_in, status)
                met = verdict is Verdict.MET
                if verdict is not Verdict.NOT_YET:
                    break
                await board.wait_newer(generation)
        status = board.get(params.name)
        return Waited(
            met=met,
            timed_out=limit.cancelled_caught,
            phase=None if status is None else status.phase,
            ready=status is not None and status.ready,
            reason="the guest is no longer there" if status is None else status.waiting_for or status.reason,
            run="" if status is None else status.run,
        )

    def _status(self, name: str) -> VmStatus:
        status = self._guests.board.get(name)
        if status is None:
            raise no_such_guest(name)
        return status

    def _changes(self, name: str) -> tuple[Change, ...]:
        try:
            changes = self._guests.changes(name)
        except KeyError:
            raise no_such_guest(name) from None
        return tuple(Change(each.key, plans.without_secrets(each.old), plans.without_secrets(each.new), each.effect) for each in changes)


def _listing(rows: Iterable[bytes]) -> Listing:
    return Listing(vms=msgspec.Raw(b"[" + b",".join(rows) + b"]"))


def _forgotten(name: str) -> Answer:
    fault = no_such_guest(name)
    return Answer(False, fault.code, fault.text)
