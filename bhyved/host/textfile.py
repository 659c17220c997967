"""Metrics in a file, for node_exporter's textfile collector."""

import contextlib
import os
from collections.abc import Iterable


def write_textfile(path: str, pieces: Iterable[str]) -> None:
    """Replace `path` by the text, at once: a reader finds the old or the new one. Raises OSError."""
    # node_exporter reads every *.prom in the directory: the temporary file must not be called so, as one of `durable` would.
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)  # node_exporter is another user, and the umask may be root's or cron's
            file.writelines(pieces)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
