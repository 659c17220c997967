"""What ps shows of a stand-in: `DIR/lab/title/PID`, where a real one would call setproctitle(3). Read by `lab.processes`."""

import contextlib
import os


def show(root: str, title: str) -> None:
    """From now on, this."""
    os.makedirs(f"{root}/lab/title", exist_ok=True)
    with open(f"{root}/lab/title/{os.getpid()}", "w", encoding="utf-8") as file:
        file.write(title)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write("bhyve")  # a convenience of Linux, for people who look from outside


def forget(root: str) -> None:
    """No title: at the end, and at the start, as a pid may have had an owner before who was killed."""
    with contextlib.suppress(OSError):
        os.unlink(f"{root}/lab/title/{os.getpid()}")
