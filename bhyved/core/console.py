"""What a recorded console is: where its line is, how much is kept, and what is known of it at one moment."""

from typing import Literal

import msgspec

KIB = 1024

#: Ring: 256 KiB. libvirt raised its own from 128 KiB because whole boots did not fit; a quarter keeps the start of the run.
FIRST_BYTES = 64 * KIB
LATEST_BYTES = 192 * KIB
#: Log: virtlogd's 2 MiB a file, and two more of them than its three.
LOG_BYTES = 2 * KIB * KIB
LOG_KEEP = 5


class LogPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a console is logged. `max_bytes` 0 and `max_age_s` 0 leave rotation to somebody else, such as newsyslog(8)."""

    enabled: bool = True
    max_bytes: int = LOG_BYTES
    max_age_s: float = 0.0
    keep: int = LOG_KEEP
    timestamps: bool = False  # a UTC time before each line, in the file itself


class ConsoleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One console that bhyved keeps. Ports with `mode = "external"` have none."""

    port: str  # com1 … com4, or the name of a virtio-console port
    path: str  # nmdm: side B; unix: the socket bhyve listens at; tcp: ADDRESS:PORT
    kind: Literal["nmdm", "unix", "tcp"] = "nmdm"
    first_bytes: int = FIRST_BYTES
    latest_bytes: int = LATEST_BYTES
    log: LogPolicy = LogPolicy()
    on_detach: bytes = b""  # typed when the last writer leaves


class ConsoleStats(msgspec.Struct, frozen=True, kw_only=True):
    """One console at one moment, for metrics, `vmctl show` and `doctor`. Bytes are counted since the daemon began."""

    port: str
    open: bool
    problem: str  # why the line is not open, or the log not written; empty when all is well
    offset: int  # bytes recorded since the console was first known
    output_bytes: int
    input_bytes: int
    dropped_bytes: int  # lost by slow viewers
    unlogged_bytes: int  # not in the log file
    viewers: int
    writer: str
