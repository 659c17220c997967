"""What helps with a name that bhyved knows no guest of: the file that it has not read yet, or the nearest name that it knows."""

from __future__ import annotations

import os

from bhyved.ctl.arguments import Asked, nearest
from bhyved.ctl.asking import connect
from bhyved.ctl.connection import Failure


def helped(asked: Asked, text: str) -> str:
    """`text`, which names the guest that was asked for, and what may have been meant."""
    name = next((name for name in asked.names if f'"{name}"' in text), None)
    if name is None:
        return text
    if file := _unread(asked, name):
        return f"{text} yet: {file} is there, and vmctl reload reads it"
    return text + nearest(name, _known(asked))


def _unread(asked: Asked, name: str) -> str:
    """The guest's file, or ''."""
    from bhyved.core.values import name_problem
    from bhyved.ctl.newguest import Files

    if name_problem(name):
        return ""
    try:
        file = Files(asked).file(name)
    except Failure:  # the daemon has gone, or its files are not for this user
        return ""
    return file if os.path.lexists(file) else ""


def _known(asked: Asked) -> list[str]:
    try:
        with connect(asked) as connection:
            return [row["name"] for row in connection.call("vm.list")["vms"]]
    except Failure:
        return []
