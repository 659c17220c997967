"""The control socket: lets clients in, so many for each user, and gives each a task of its own.

control = Control(guests, views, peers, euid=os.geteuid())
await nursery.start(control.run, listener)           # the last service to be cancelled, so that people can watch a shutdown

A malformed, oversized, slow, silent or vanished client costs only itself: what it may cost is bounded in `connection`, `outbox` and here.
"""

import errno
from collections import Counter
from contextlib import suppress

import msgspec
import structlog
import trio

from bhyved.core import jsonrpc
from bhyved.core.errors import HostError, in_words
from bhyved.core.jsonrpc import REFUSED, Fault
from bhyved.core.rights import Peer
from bhyved.daemon.access import Access
from bhyved.daemon.connection import LAST_WORDS_S, Connection
from bhyved.daemon.figuremethods import Views
from bhyved.daemon.guests import Guests, Peers
from bhyved.daemon.requests import Requests
from bhyved.threads import in_thread

_log = structlog.get_logger()

ROOT_MAX, USER_MAX, USERS_MAX = 256, 64, 512
#: The user database may be a server that hangs: so many clients wait for it at once, and root never does.
LOOKUPS_MAX = 4
#: Shortages pass, and a client in the queue waits meanwhile. The pause is trio's own for the same case.
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
SHORTAGE_S = 0.1


class Control:
    """The server. Rights and limits by peer credentials."""

    def __init__(self, guests: Guests, views: Views, peers: Peers, *, euid: int) -> None:
        self._guests, self._peers, self._euid = guests, peers, euid
        self._requests = Requests(guests, views)
        self._connections: Counter[int] = Counter()
        self._lookups = trio.CapacityLimiter(LOOKUPS_MAX)
        self._letting_in, self._shut = trio.CancelScope(), trio.Event()
        self._shut.set()

    async def run(self, listener: trio.socket.SocketType, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. The listener is the caller's to close, after `shut`."""
        async with trio.open_nursery() as nursery:
            self._shut = trio.Event()
            task_status.started()
            try:
                with self._letting_in:
                    await self._let_in(listener, nursery)
            finally:
                self._shut.set()

    async def shut(self) -> None:
        """Let nobody in any more; those who are in stay.

        Returns when nothing waits for the listener: its number belongs to something else soon after it is closed, and trio would take
        that for the listener.
        """
        self._letting_in.cancel()
        await self._shut.wait()

    async def _let_in(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        short = False
        while True:
            try:
                sock, _ = await listener.accept()
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                if error.errno not in SHORTAGE:
                    raise
                if not short:
                    _log.warning("no client can be let in", why=in_words(error))
                short = True
                await trio.sleep(SHORTAGE_S)
                continue
            short = False
            nursery.start_soon(self._serve, sock)

    async def _serve(self, sock: trio.socket.SocketType) -> None:
        with sock:
            try:
                peer = self._peers.peer_of(sock)
            except HostError as error:
                _log.warning("client refused", why=str(error))
                return
            if self._is_full(peer.uid):
                await self._send_off(sock, peer)
                return
            self._connections[peer.uid] += 1
            try:
                peer = await self._named(peer)
                await Connection(sock, Access(self._guests, peer, self._euid), self._requests).run()
            except Exception:
                # A bug in one connection ends that connection.
                _log.exception("connection ended", uid=peer.uid, pid=peer.pid)
            finally:
                self._connections[peer.uid] -= 1
                self._connections += Counter()  # forget users without a connection

    async def _named(self, peer: Peer) -> Peer:
        if peer.uid == 0:
            return msgspec.structs.replace(peer, user="root")  # needs no groups, and must get in while a directory server hangs
        return await in_thread(self._peers.named, peer, abandon_on_cancel=True, limiter=self._lookups)

    def _is_full(self, uid: int) -> bool:
        mine = self._connections[uid]
        if uid == 0:
            return mine >= ROOT_MAX
        users = sum(count for other, count in self._connections.items() if other != 0)
        return mine >= USER_MAX or users >= USERS_MAX

    async def _send_off(self, sock: trio.socket.SocketType, peer: Peer) -> None:
        _log.debug("too many connections", uid=peer.uid, pid=peer.pid)
        fault = Fault(REFUSED, "too-many-connections", "there are too many connections already")
        with suppress(OSError), trio.move_on_after(LAST_WORDS_S):
            await sock.send(jsonrpc.error(None, fault))
