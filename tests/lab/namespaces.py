"""Network namespaces of Linux, seen from outside: what links one has, and who is in it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


def links_of(pid: int | None) -> dict[str, dict[str, Any]]:
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-json", "-details", "link", "show"]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return {link["ifname"]: link for link in found}


def processes_in(namespace: str) -> list[int]:
    """Who is in a network namespace, which lasts as long as anybody is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/net") == namespace:
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found
