"""What every verb does first: find the socket; and how answers are printed for programs."""

from __future__ import annotations

import os
import sys

from bhyved.ctl.arguments import Asked
from bhyved.ctl.connection import SOCKET, Connection, Failure
from bhyved.ctl.message import dump


def socket_of(asked: Asked) -> str:
    return asked.text("socket") or os.environ.get("BHYVED_SOCKET") or SOCKET


def connect(asked: Asked) -> Connection:
    """Raises Failure."""
    return Connection(socket_of(asked))


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
