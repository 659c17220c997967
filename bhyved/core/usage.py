"""What a live guest uses of its host, as figures; and how bhyvectl's counters of its virtual processors are read."""

import re
from collections.abc import Mapping

import msgspec

_VCPU = re.compile(r"vcpu ?([0-9]+) stats:?")
_COUNTER = re.compile(r"(\S.*?)\s*\t\s*([0-9]{1,20})\s*")  # 64 bits

_EXITS = "total number of vm exits"  # vmm_stat.c, on amd64 and arm64

#: Counters that are bytes of memory, not counts of something that happened.
_BYTES = frozenset({"Resident memory", "Wired memory"})


class Process(msgspec.Struct, frozen=True):
    """A bhyve process at one moment."""

    cpu_s: float
    resident_bytes: int
    threads: int


class Own(msgspec.Struct, frozen=True):
    """The daemon's own process."""

    cpu_s: float
    resident_bytes: int
    descriptors: int


class Traffic(msgspec.Struct, frozen=True):
    """What went through one tap, as its guest sees it: received is what the host sent."""

    received_bytes: int
    sent_bytes: int
    received_packets: int
    sent_packets: int
    dropped_packets: int


class Vcpus(msgspec.Struct, frozen=True):
    """What bhyvectl says of one guest: counts by virtual processor and description, and the guest's memory on the host by kind."""

    counts: Mapping[tuple[str, str], int] = {}
    memory_bytes: Mapping[str, int] = {}

    @property
    def exits(self) -> int | None:
        """How often all of them have left the guest for the host: also one that spins or sleeps does so many times a second."""
        found = [count for (_, what), count in self.counts.items() if what == _EXITS]
        return sum(found) if found else None


class Usage(msgspec.Struct, frozen=True):
    """What was found of all guests: processes by guest, taps by their name. What could not be looked at is missing."""

    processes: Mapping[str, Process] = {}
    taps: Mapping[str, Traffic] = {}


def parse_stats(text: str) -> Vcpus:
    """What `bhyvectl --get-stats` printed (contract 1.11: a line `vcpuN stats:`, then description, tab, value)."""
    counts: dict[tuple[str, str], int] = {}
    memory: dict[str, int] = {}
    vcpu = "0"
    for line in text.splitlines():
        head = _VCPU.fullmatch(line.strip())
        if head:
            vcpu = head[1]
            continue
        match = _COUNTER.fullmatch(line)
        if match is None:
            continue
        if match[1] in _BYTES:
            memory[match[1].split()[0].lower()] = int(match[2])  # the VM's own, repeated for each vCPU
        else:
            counts[vcpu, match[1]] = int(match[2])
    return Vcpus(counts, memory)
