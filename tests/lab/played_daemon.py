"""A played daemon for the tests of `bhyved lab`: takes the lock, answers at its socket, and ends as its words say.

Run as `played_daemon.py WORDS… -c FILE [--stop-all]`. Each life adds a line to DIR/log/lives.
"""

import os
import signal
import socket
import sys
import time
import tomllib
from pathlib import Path

from bhyved.host.hostlock import HostLock


def main(words: list[str]) -> int:
    paths = tomllib.loads(Path(words[words.index("-c") + 1]).read_text())["paths"]
    run = Path(paths["run"])
    with (Path(paths["log"]) / "lives").open("a") as lives:
        lives.write(f"{os.getpid()} {' '.join(words[words.index('-c') + 2 :])}\n")
    if "--stop-all" in words:
        return 0
    if "fails" in words:
        print("it cannot be", file=sys.stderr)
        return 78
    lock = HostLock.take(str(run))
    ends = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    if "deaf" in words:
        (run / "deaf").touch()
        time.sleep(600)
    (run / "control.sock").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(run / "control.sock"))
        control.listen()
        (run / "metrics.url").write_text("http://127.0.0.1:1\n")
        client, _ = control.accept()
        client.recv(4096)
        client.sendall(b'{"jsonrpc": "2.0", "id": 1, "result": {}}\n')
        number = signal.sigwait(ends)
    (run / "control.sock").unlink()
    if "dies" in words:
        return 5
    with (Path(paths["log"]) / "lives").open("a") as lives:
        lives.write(f"{os.getpid()} {number.name}\n")
    lock.release()
    return 99 if number == signal.SIGUSR1 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
