"""TCP ports for tests."""

import socket


def free_port() -> int:
    """One of 127.0.0.1 that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
