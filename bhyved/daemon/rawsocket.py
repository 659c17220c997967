"""A UNIX socket for a console: the guest's bytes in both directions and nothing else, for conserver, socat and minicom.

Whoever may connect may type: the socket is root's (0600), like the nmdm device itself. A peer that reads too slowly loses bytes;
there is no way to tell it.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path

import trio

from bhyved.core.errors import in_words
from bhyved.daemon.hub import ConsoleHub
from bhyved.daemon.viewer import Outlet, RawWire, Viewer

BACKLOG = 8


async def serve_raw(hub: ConsoleHub) -> None:
    """Serve `hub.spec.socket` until cancelled. A socket that cannot be made costs the socket, not the console."""
    path = hub.spec.socket
    try:
        listener = _listen(Path(path))
    except OSError as error:
        hub.trouble(f"console socket {path} could not be made: {in_words(error)}")
        return
    try:
        with trio.socket.from_stdlib_socket(listener) as accepting:
            await hub.history()
            async with trio.open_nursery() as nursery:
                while True:
                    sock, _ = await accepting.accept()
                    nursery.start_soon(_serve_peer, hub, sock)
    finally:
        with suppress(OSError):
            os.unlink(path)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody can connect before listen(): the mode is right by then. A path longer than sockaddr_un is an OSError as well.
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def _serve_peer(hub: ConsoleHub, sock: trio.socket.SocketType) -> None:
    """One peer: types like anybody else while nobody else has the keyboard."""
    with sock:
        outlet = Outlet(sock)
        viewer = Viewer(outlet, RawWire(), "socket", may_write=True, since=hub.offset)
        outlet.add(viewer)
        hub.join(viewer, write=hub.writer is None)
        try:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await outlet.run()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(send)
                with suppress(OSError):
                    while data := await sock.recv(4096):
                        _type(hub, viewer, data)
                nursery.cancel_scope.cancel()
        finally:
            hub.leave(viewer)


def _type(hub: ConsoleHub, viewer: Viewer, data: bytes) -> None:
    if hub.writer is None:
        hub.claim(viewer, steal=False)
    if hub.writer is viewer:
        viewer.typed_bytes += hub.send(data)
