"""`vmctl web` and `vmctl metrics`: the way to the status page, and what Prometheus would be told."""

from __future__ import annotations

import sys

from bhyved.core.errors import in_words
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, print_json
from bhyved.ctl.connection import FAILED, OK, Failure


def link(asked: Asked) -> int:
    with connect(asked) as connection:
        told = connection.call("web.link")
    if asked.has("json"):
        print_json(told)
    else:
        print(told["url"])
    return OK


def metrics(asked: Asked) -> int:
    with connect(asked) as connection:
        told = connection.call("daemon.metrics")
    path = asked.text("textfile")
    if path is not None:
        _write(path, told["text"])
    elif asked.has("json"):
        print_json(told)
    else:
        sys.stdout.write(told["text"])
    return OK


def _write(path: str, text: str) -> None:
    """A reader finds the old file or the new one. Raises Failure."""
    from bhyved.host.textfile import write_textfile

    try:
        write_textfile(path, [text])
    except OSError as error:
        raise Failure(FAILED, f"{path} cannot be written: {in_words(error)}") from None
