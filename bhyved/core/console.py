"""What a recorded console is: where its line is, how much is kept, and what is known of it at one moment."""

from typing import Literal, NamedTuple

import msgspec

from bhyved.core.assigned import nmdm_path
from bhyved.core.devices import Serial
from bhyved.core.spec import Console, VmSpec

KIB = 1024

MarkKind = Literal["boot", "exit", "attach", "detach", "gap", "note"]

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
    """One console that bhyved keeps. Ports with another mode than `managed` are somebody else's: a tcp port has room for one client."""

    port: str  # com1 … com4, or the name of a virtio-console port
    path: str  # nmdm: side B; unix: the socket bhyve listens at
    kind: Literal["nmdm", "unix"] = "nmdm"
    first_bytes: int = FIRST_BYTES
    latest_bytes: int = LATEST_BYTES
    log: LogPolicy = LogPolicy()
    on_detach: bytes = b""  # typed when whoever has the keyboard leaves
    socket: str = ""  # a UNIX socket for other programs: the guest's bytes and nothing else


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


class Output(NamedTuple):
    """What a guest printed, at an offset of its console; `at` is unix time."""

    offset: int
    data: bytes | bytearray
    at: float


class Mark(NamedTuple):
    """What bhyved has to say about a console, at an offset of it."""

    offset: int
    kind: MarkKind
    text: str
    at: float
    lost: int = 0  # bytes of the console missing before this offset


class Page(NamedTuple):
    """A stretch of a log. `next` is the offset to go on from."""

    records: list[Output | Mark]
    next: int
    more: bool


#: Ports that other programs of the host are the one client of (contract 3.2): a hub there would shut them out.
_RESERVED = "org.qemu."


def consoles_of(spec: VmSpec, kept: Console, *, dev: str = "/dev", run: str = "/var/run/bhyved") -> tuple[ConsoleSpec, ...]:
    """The consoles of a guest that bhyved keeps: managed ports, and virtio-console ports without a path of the operator's."""
    consoles = [_serial(spec.name, port, kept, dev, run) for port in spec.serial if port.mode == "managed"]
    for number, port in enumerate(spec.virtio_console):
        if port.path is None and not port.name.startswith(_RESERVED) and not port.name.startswith("com"):
            path = f"{run}/vm/{spec.name}/vtcon{number}.sock"
            consoles.append(_sized(kept, ConsoleSpec(port=port.name, path=path, kind="unix", log=_policy(kept))))
    return tuple(consoles)


def _serial(name: str, port: Serial, kept: Console, dev: str, run: str) -> ConsoleSpec:
    policy = msgspec.structs.replace(_policy(kept), enabled=port.log, timestamps=port.log_timestamps)
    if port.log_max_size is not None:
        policy = msgspec.structs.replace(policy, max_bytes=int(port.log_max_size))
    if port.log_keep is not None:
        policy = msgspec.structs.replace(policy, keep=port.log_keep)
    console = ConsoleSpec(
        port=port.port,
        path=side_b(nmdm_path(name, port.port, dev)),
        log=policy,
        on_detach=port.hangup_line.encode() if port.on_detach == "hangup-line" else b"",
        socket=f"{run}/console/{name}.{port.port}.sock" if port.socket else "",
    )
    return _sized(kept, console)


def side_b(side_a: str) -> str:
    """The hub's end of an nmdm pair."""
    return side_a.removesuffix("A") + "B"


def _policy(kept: Console) -> LogPolicy:
    return LogPolicy(max_bytes=int(kept.log_max_size), max_age_s=float(kept.log_max_age or 0), keep=kept.log_keep)


def _sized(kept: Console, console: ConsoleSpec) -> ConsoleSpec:
    """A quarter of the ring is the first part of the run: boots differ at their end more than at their beginning."""
    first = int(kept.ring) // 4
    return msgspec.structs.replace(console, first_bytes=first, latest_bytes=max(1, int(kept.ring) - first))
