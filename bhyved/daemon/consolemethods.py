"""console.*: who may watch or type where. What a console does is `attach`'s and `consoleask`'s business."""

import msgspec

from bhyved.core.consolewire import AttachParams, LogParams, LogResult, SendParams, SendResult, TailParams, WaitParams, WaitResult
from bhyved.core.rights import Right
from bhyved.daemon import consoleask
from bhyved.daemon.access import Access, Handler
from bhyved.daemon.attach import AttachSession, TailSession, open_attach, open_tail
from bhyved.daemon.guests import Guests


class ConsoleMethods:
    """Handlers by method, as in `guestmethods`; two of them return a session that takes the connection over. Raise Refused too."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self.handlers: dict[str, Handler] = {
            "console.attach": self._attach,
            "console.tail": self._tail,
            "console.log": self._log,
            "console.wait-for": self._wait_for,
            "console.send": self._send,
        }

    async def _attach(self, caller: Access, params: AttachParams) -> AttachSession:
        may_write = caller.may(Right.CONSOLE_WRITE, params.name)
        return await open_attach(self._guests.consoles, params, who=str(caller.peer), may_write=may_write)

    async def _tail(self, caller: Access, params: TailParams) -> TailSession:
        for name in params.names:
            refusal = caller.refusal(Right.CONSOLE_READ, name)
            if refusal is not None:
                raise refusal
        names = params.names or tuple(caller.guests(Right.CONSOLE_READ))
        return await open_tail(self._guests.consoles, msgspec.structs.replace(params, names=names), who=str(caller.peer))

    async def _log(self, caller: Access, params: LogParams) -> LogResult:
        return await consoleask.log(self._guests.consoles, params)

    async def _wait_for(self, caller: Access, params: WaitParams) -> WaitResult:
        return await consoleask.wait_for(self._guests.consoles, params)

    async def _send(self, caller: Access, params: SendParams) -> SendResult:
        return await consoleask.send(self._guests.consoles, params)
