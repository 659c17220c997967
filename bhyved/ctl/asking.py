"""What every verb does first: find the socket, the guests and the time it has; and how answers are printed for programs."""

from __future__ import annotations

import os
import sys
import time

from bhyved.ctl.arguments import Asked
from bhyved.ctl.connection import SOCKET, UNREACHABLE, Connection, Failure
from bhyved.ctl.message import dump

_PATIENCE_S = 5.0  # with a daemon whose files can be read without it


def socket_of(asked: Asked) -> str:
    return asked.text("socket") or os.environ.get("BHYVED_SOCKET") or SOCKET


def connect(asked: Asked) -> Connection:
    """Raises Failure."""
    return Connection(socket_of(asked))


def guests_of(asked: Asked) -> dict[str, object]:
    """Which guests, as methods take them."""
    return {"all": True} if asked.has("all") else {"names": asked.names}


def deadline_of(asked: Asked) -> float | None:
    """By when --timeout wants it done, monotonic; None: whenever."""
    seconds = asked.seconds("timeout")
    return None if seconds is None else time.monotonic() + seconds


def main_file(asked: Asked) -> str:
    """The main file that -c names, else that of the daemon, which has been told another perhaps. Raises Failure."""
    from bhyved.host import configfiles

    if given := asked.text("config"):
        return os.path.abspath(given)
    try:
        with connect(asked) as connection:
            return str(connection.call("daemon.info", _PATIENCE_S).get("config") or configfiles.MAIN)
    except Failure as failure:
        if failure.status != UNREACHABLE:
            raise
        if socket_of(asked) != SOCKET:
            raise Failure(UNREACHABLE, f"{failure.text}; where its files are, --config says without it") from None
        return configfiles.MAIN


def version(asked: Asked) -> str:
    """The daemon's own; '' when it does not answer."""
    try:
        with connect(asked) as connection:
            return str(connection.call("daemon.info").get("version", ""))
    except Failure:
        return ""


def print_json(value: object) -> None:
    """One object, one line."""
    sys.stdout.write(dump(value) + "\n")
