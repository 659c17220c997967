"""What the stand-ins ask of the lab host: the process that is the lab's kernel as far as that must live (`lab.host`)."""

from __future__ import annotations

import os
import socket

LIMIT_S = 10.0


def socket_path(root: str) -> str:
    """Where the lab host listens: one line in, one line out."""
    return f"{root}/lab/host.sock"


def pairs(root: str) -> str:
    """Have the null-modem pairs of all guests made; empty, or why that cannot be."""
    answer = _ask(root, "pairs")
    return "" if answer == "ok" else answer


def has_pairs(root: str) -> bool:
    """Whether no guest lacks a pair."""
    return _ask(root, "missing") == "ok"


def _ask(root: str, question: str) -> str:
    with socket.socket(socket.AF_UNIX) as host:
        host.settimeout(LIMIT_S)
        try:
            host.connect(socket_path(root))
            host.sendall(question.encode() + b"\n")
            return host.makefile(encoding="utf-8").readline().strip() or "Input/output error"
        except OSError as error:
            return os.strerror(error.errno) if error.errno else "Operation timed out"
