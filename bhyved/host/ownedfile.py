"""Files that somebody has written for us, in whose hands we are: only root's, or our own, are read.

What stands in them is done as root, or tells a guest whom to let in (design: SECURITY). Blocking.
"""

import os
import stat

from bhyved.core.errors import in_words

LIMIT_BYTES = 1 << 20  # a guest's file has a few kilobytes


def read_owned(path: str, *, secret: bool = False) -> bytes:
    """A regular file's content. `secret`: nobody else may read it either.

    Links are followed: only root could have made them in a directory of root. But none to a secret, which may be in anybody's directory,
    and would then be a secret of root's own. Raises OSError, and ValueError with a sentence.
    """
    # Non-blocking: a FIFO in the place of a file must not stop a daemon from starting.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (os.O_NOFOLLOW if secret else 0)
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is no regular file")
        check_owner(found)
        if secret and found.st_mode & stat.S_IRWXO:
            raise ValueError("is open to everybody: chmod 600 it")
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"has more than {LIMIT_BYTES >> 20} MiB: that is no configuration")
    return data


def text_of(data: bytes) -> str:
    """Raises ValueError with a sentence."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}") from None
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark; save it as UTF-8 without one")
    return text


def check_owner(found: os.stat_result) -> None:
    """Who may write the file is root, in effect. Raises ValueError with a sentence."""
    ours = os.geteuid()
    if found.st_uid not in (0, ours):
        raise ValueError(f"belongs to uid {found.st_uid}; it must belong to root" + (f" or uid {ours}" if ours else ""))
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "anybody" if found.st_mode & stat.S_IWOTH else f"members of group {found.st_gid}"
        raise ValueError(f"may be written by {who}; take that away with chmod go-w")


def why_unread(error: OSError | ValueError) -> str:
    """What came of an attempt, as the end of a sentence that begins with the path."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read: {in_words(error)}" if isinstance(error, OSError) else str(error)
