"""Where a guest's VNC server listens: what its file says, or the first port that nobody has."""

import socket
from collections.abc import Container

from bhyved.core.errors import HostError
from bhyved.core.values import Listen, split_endpoint

FIRST_PORT = 5900
_PORTS = 1000


def choose(listen: Listen, before: str, taken: Container[str]) -> str:
    """The endpoint. `before`: the one of the run before, kept if possible; `taken`: those of other guests. Raises HostError."""
    if listen.has_port:
        return str(listen)
    ours = [before] if before.startswith(f"{listen}:") else []
    for endpoint in (*ours, *(f"{listen}:{port}" for port in range(FIRST_PORT, FIRST_PORT + _PORTS))):
        if endpoint not in taken and _is_free(endpoint):
            return endpoint
    raise HostError(f"no VNC port from {FIRST_PORT} to {FIRST_PORT + _PORTS - 1} is free on {listen}")


def _is_free(endpoint: str) -> bool:
    address, port = split_endpoint(endpoint)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as bhyve does (contract 3.5)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
