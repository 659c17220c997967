"""Who is at the other end of a local socket: the ids that the kernel kept when the peer connected, and the names that belong to them.

`peer_of` asks the kernel and never waits. `named` asks the user database, which may be a directory server that takes its time: call it
in a thread. Both are what `daemon.guests.Peers` wants.
"""

import contextlib
import grp
import os
import pwd
import socket
import struct
from typing import Protocol

import msgspec

from bhyved.core.errors import HostError, in_words
from bhyved.core.rights import Peer

# Linux, unix(7): struct ucred { pid_t pid; uid_t uid; gid_t gid; }
_UCRED = struct.Struct("@iII")
_SO_PEERCRED: int | None = getattr(socket, "SO_PEERCRED", None)
# FreeBSD, sys/ucred.h: struct xucred { u_int cr_version; uid_t cr_uid; short cr_ngroups; gid_t cr_groups[XU_NGROUPS];
# union { void *_cr_unused1; pid_t cr_pid; }; }. The union is aligned like its pointer; cr_groups[0] is the effective group.
_XUCRED = struct.Struct("@IIh16I0Pi")
_XUCRED_VERSION = 0
_XU_NGROUPS = 16
# sys/un.h: the level and the option; Python's socket module has neither on every version.
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1
_NOBODY_AT_ALL = 0xFFFF_FFFF  # (uid_t)-1, no user's id
_ROOM_BYTES = 256  # the kernel fills what it has


class Socket(Protocol):
    """The standard library's sockets, and trio's."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def peer_of(sock: Socket) -> Peer:
    """The peer's ids. Raises HostError: without them nobody may do anything."""
    try:
        if _SO_PEERCRED is not None:
            return parse_ucred(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _UCRED.size))
        return parse_xucred(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _ROOM_BYTES))
    except OSError as error:
        raise HostError(f"the kernel does not say who connected: {in_words(error)}") from None


def parse_ucred(data: bytes) -> Peer:
    """Linux's struct. Raises HostError."""
    if len(data) < _UCRED.size:
        raise HostError("the kernel does not say who connected: its answer is too short")
    pid, uid, gid = _UCRED.unpack_from(data)
    return _peer(uid, gid, pid)


def parse_xucred(data: bytes) -> Peer:
    """FreeBSD's struct. Raises HostError."""
    if len(data) < _XUCRED.size:
        raise HostError("the kernel does not say who connected: its answer is too short")
    version, uid, ngroups, *groups, pid = _XUCRED.unpack_from(data)
    if version != _XUCRED_VERSION or not 1 <= ngroups <= _XU_NGROUPS:
        raise HostError(f"the kernel says who connected in a way that is not known: version {version}, {ngroups} groups")
    return _peer(uid, groups[0], pid)


def _peer(uid: int, gid: int, pid: int) -> Peer:
    if uid == _NOBODY_AT_ALL:
        raise HostError("the kernel does not say who connected: there is no peer")
    return Peer(uid=uid, gid=gid, pid=pid if pid > 0 else None)


def named(peer: Peer) -> Peer:
    """The same peer with its user's name and the names of its groups, as far as the user database has them."""
    user = ""
    gids = {peer.gid}
    with contextlib.suppress(KeyError, OSError):
        user = pwd.getpwuid(peer.uid).pw_name
        gids.update(os.getgrouplist(user, peer.gid))
    groups = set()
    for gid in gids:
        with contextlib.suppress(KeyError, OSError):
            groups.add(grp.getgrgid(gid).gr_name)
    return msgspec.structs.replace(peer, user=user, groups=frozenset(groups))
