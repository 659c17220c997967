"""From a request to its answer: params, rights, the handler, and the record of who changed what.

Every method comes through `Requests.answer`, so that no handler can be reached without the right that `core.methods.METHODS` names.
"""

from typing import Any

import structlog
import trio

from bhyved.core.answers import Answers
from bhyved.core.jsonrpc import REFUSED, Fault, Request, convert, unknown_method
from bhyved.core.methods import METHODS, Method
from bhyved.core.params import ReloadParams, SubscribeParams
from bhyved.core.rights import Right
from bhyved.core.status import Event
from bhyved.daemon.access import Access, Handler
from bhyved.daemon.attach import Refused
from bhyved.daemon.consolemethods import ConsoleMethods
from bhyved.daemon.figuremethods import FigureMethods, Views
from bhyved.daemon.guestmethods import GuestMethods
from bhyved.daemon.guests import Guests
from bhyved.daemon.hostmethods import HostMethods
from bhyved.daemon.refusals import Refusals
from bhyved.daemon.snapshotmethods import SnapshotMethods
from bhyved.daemon.subscription import Subscription

_log = structlog.get_logger()


class Requests:
    """What all connections share."""

    def __init__(self, guests: Guests, views: Views) -> None:
        self._guests = guests
        self._refusals = Refusals(guests.now)
        self._handlers: dict[str, Handler] = {
            **GuestMethods(guests).handlers,
            **HostMethods(guests, views).handlers,
            **ConsoleMethods(guests).handlers,
            **FigureMethods(guests, views).handlers,
            **SnapshotMethods(guests, views.snapshots).handlers,
            "events.subscribe": self._subscribe,
        }
        assert self._handlers.keys() == METHODS.keys()

    @staticmethod
    def method(request: Request) -> Method:
        """What the request is for. Raises Fault."""
        method = METHODS.get(request.method)
        if method is None:
            raise unknown_method(request.method, METHODS)
        return method

    async def answer(self, caller: Access, request: Request) -> Any:
        """A result, or a session or subscription that has one. Raises Fault; anything else is a bug."""
        method = self.method(request)
        params = convert(request.params, method.params)
        changes = method.changes and not (isinstance(params, ReloadParams) and params.plan)
        # A change that has begun is seen through and told, though whoever asked has gone meanwhile: half of a reload is neither what was
        # nor what was to be. Each has time limits of its own; those that may take long see to it themselves.
        with trio.CancelScope(shield=changes and not method.waits):
            try:
                result = await self._done(caller, request.method, params)
            except Fault as fault:
                if changes:
                    self._refusals.tell(caller.peer, request.method, fault.code)
                raise
            except trio.Cancelled:
                if changes:
                    self._record(caller, request.method, params, None)  # it may have been done
                raise
        if changes:
            self._record(caller, request.method, params, result)
        return result

    async def _done(self, caller: Access, name: str, params: Any) -> Any:
        self._check(caller, METHODS[name], params)
        try:
            return await self._handlers[name](caller, params)
        except Refused as refused:
            raise Fault(REFUSED, refused.code, refused.text) from None

    def _check(self, caller: Access, method: Method, params: Any) -> None:
        if method.right is None:
            return
        if method.of == "host":
            caller.require(method.right)
        elif method.of == "guest":
            caller.require_over(method.right, params.name)
        else:
            caller.require_somewhere(method.right)

    def _record(self, caller: Access, method: str, params: Any, result: Any) -> None:
        """One line in the log a request, one event a guest that was asked. `result` None: it was cut short."""
        peer, tell = caller.peer, self._guests.events.tell
        who = {"uid": peer.uid, "user": peer.user, "pid": peer.pid}
        if not isinstance(result, Answers):
            name = getattr(params, "name", "")
            _log.info("asked", method=method, **({"vm": name} if name else {}), **who)
            tell("asked", vm=name, by=peer.name, method=method, uid=peer.uid, pid=peer.pid)
            return
        # Names that are nobody's, or not the caller's, are the caller's words: they go neither into the log nor into the journal.
        asked = [told for told in result.answers if told.code not in ("no-such-guest", "not-permitted")]
        if result.answers and not asked:
            self._refusals.tell(peer, method, result.answers[0].code)
            return
        names = "all" if params.all else ",".join(told.name for told in asked)
        _log.info("asked", method=method, vms=names[:200], refused=sum(not told.ok for told in result.answers), **who)
        for told in asked:
            data: dict[str, Any] = {"method": method, "uid": peer.uid, "pid": peer.pid, "ok": told.ok, "code": told.code}
            tell("asked", vm=told.name, reason=told.text, by=peer.name, phase=None, **data)

    async def _subscribe(self, caller: Access, params: SubscribeParams) -> Subscription:
        for name in params.names:
            refusal = caller.refusal(Right.READ, name)
            if refusal is not None:
                raise refusal

        def may_see(event: Event) -> bool:
            return caller.may(Right.READ, event.vm)

        return Subscription(self._guests.events, params, may_see)
