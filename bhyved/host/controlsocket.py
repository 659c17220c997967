"""The control socket in the file system: made under another name, then put in place, so that a client finds none or one that answers.

Its mode is 0666: who may do what is decided for each request from the peer's ids, and owners of guests belong to no common group. The
directory it is in (0755, root) is what keeps others from replacing it.
"""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from bhyved.core.errors import HostError, in_words

#: FreeBSD refuses a connection when the queue is full. The kernel cuts this to kern.ipc.soacceptqueue.
BACKLOG = 1024
MODE = 0o666


def listen(path: str) -> socket.socket:
    """The listening socket at `path`, non-blocking. A stale one is replaced, one that somebody answers at is not. Raises HostError."""
    _refuse_live(path)
    # No longer than a usual name, since sockaddr_un has 104 bytes. One daemon a directory (its lock says so): no two make it at once.
    fresh = Path(path).with_name(".control.new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(MODE)  # nobody can connect before listen()
        listener.listen(BACKLOG)
        listener.setblocking(False)
        fresh.replace(path)
    except OSError as error:
        listener.close()
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise HostError(f"the control socket {path} cannot be made: {in_words(error)}") from None
    return listener


def withdraw(path: str, listener: socket.socket) -> None:
    """Close the socket, and remove it from the file system if it is still what is there."""
    ours = False
    with contextlib.suppress(OSError):
        # The name a socket was bound to says nothing after the rename; whether somebody answers there once ours is closed does.
        ours = stat.S_ISSOCK(os.lstat(path).st_mode)
    listener.close()
    if ours and not _is_live(path):
        with contextlib.suppress(OSError):
            os.unlink(path)


def _refuse_live(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"the control socket {path} cannot be made: {in_words(error)}") from None
    if not stat.S_ISSOCK(mode):
        raise HostError(f"the control socket {path} cannot be made: a file that is no socket is there; remove it")
    if _is_live(path):
        raise HostError(f"the control socket {path} cannot be made: somebody answers there, is another bhyved running?")


def _is_live(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            # A full queue is a live one too; anything else, such as "refused", means that nobody listens.
            return error.errno in (errno.EAGAIN, errno.EINPROGRESS)
    return True
