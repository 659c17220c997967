"""UNIX sockets that a bhyve made: sandboxed, it cannot remove them, and the next one fails over them (contract 3.2, 3.5)."""

import os
import stat

from bhyved.core.errors import HostError, in_words


def unlink_socket(path: str) -> None:
    """Remove a socket if there is one. Raises HostError, `fatal` when something else is there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise HostError(f"{path} is no socket, and one has to be made there: remove it", fatal=True)
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"{path}: {in_words(error)}") from None
