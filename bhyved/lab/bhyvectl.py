"""The stand-in of bhyvectl(8): `main(root, argv)`. Options, texts and statuses are those of contract 1.11.

What a destroy does beside destroying is a knob of the guest, `lab.destroy`:

    refuse       the kernel refuses, which bhyvectl does not notice: exit 0, the VM stays
    linger 1s    the name is still listed for a while (contract 8.10)
    hang         it never comes back
    run-on       a live bhyve does not notice (contract 8.10)
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time

from bhyved.lab import script, snapshot
from bhyved.lab.freebsd import Refusal, Settings, number, strerror, warn
from bhyved.lab.node import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FAILED = 255  # libvmmapi's -1
_FLAGS = (
    *("create", "destroy", "force-reset", "force-poweroff", "inject-nmi", "get-stats", "get-all", "get-memmap", "get-memseg"),
    *("get-active-cpus", "get-suspended-cpus", "get-debug-cpus", "get-cpu-topology"),
)
_LOWMEM_BYTES = 3 << 30  # contract 1.5
_EXITS_HZ = 100  # as a guest that does nothing but keep its clock


def main(root: str, argv: list[str]) -> int:
    settings = Settings(root)
    try:
        return _Call(root, settings, _parse(argv, settings)).run()
    except Refusal as refusal:
        if refusal.text:
            warn(refusal.text)
        return refusal.status


def _parse(argv: list[str], settings: Settings) -> dict[str, str]:
    """getopt_long_only(3): `--name=value` or `--name value`; no letters. Raises Refusal with the usage."""
    valued = ["vm", "cpu"]
    flags = list(_FLAGS)
    if settings.snapshots and settings.is_amd64:
        valued += ["checkpoint", "suspend"]
    if settings.release == "main":
        valued.append("rundir")
        flags.append("get-vm-pid")
    given: dict[str, str] = {}
    words = list(argv)
    while words:
        name, has_value, value = words.pop(0).partition("=")
        key = name.lstrip("-")
        if not name.startswith("-") or key not in (*valued, *flags) or (has_value and key not in valued):
            raise Refusal(1, _usage(valued, flags))
        if key in valued and not has_value:
            if not words:
                raise Refusal(1, _usage(valued, flags))
            value = words.pop(0)
        given[key] = value
    if not given.get("vm"):
        raise Refusal(1, _usage(valued, flags))
    return given


def _usage(valued: list[str], flags: list[str]) -> str:
    lines = ["Usage: bhyvectl --vm=<vmname>", *(f"       [--{name}=<value>]" for name in valued if name != "vm")]
    return "\n".join((*lines, *(f"       [--{name}]" for name in flags)))


class _Call:
    """One call: its actions in an order of their own, whatever that on the command line; the first failure ends it."""

    def __init__(self, root: str, settings: Settings, given: dict[str, str]) -> None:
        self._settings = settings
        self._given = given
        self._name = given["vm"]
        self._node = Node(root, self._name)

    def run(self) -> int:
        try:
            if "create" in self._given:
                self._create()
            self._open()
            for action, act in _ACTIONS.items():
                if action in self._given:
                    act(self)
        except OSError as error:
            print(f"errno = {number(error.errno)}")
            return _FAILED
        return 0

    def _create(self) -> None:
        try:
            self._node.create(self._settings.max_vms)
        except OSError as error:
            if self._settings.is_14:
                raise
            raise self._not_opened(error) from None

    def _open(self) -> None:
        try:
            self._node.open()
        except OSError as error:
            if self._settings.is_14 and error.errno == errno.ENOENT:
                print(f"VM:{self._name} is not created.")
                raise Refusal(1) from None
            raise self._not_opened(error) from None

    def _not_opened(self, error: OSError) -> Refusal:
        return Refusal(1, f"vm_open: {self._name} could not be opened: {strerror(error.errno)}")

    def _inject_nmi(self) -> None:
        self._node.state()

    def _force_reset(self) -> None:
        self._node.suspend("reset")

    def _force_poweroff(self) -> None:
        self._node.suspend("poweroff")

    def _get_vm_pid(self) -> None:
        print(self._node.state().pid)

    def _get_stats(self) -> None:
        known = self._node.state()
        exits = int(((known.frozen_at or time.monotonic()) - known.active_since) * _EXITS_HZ) if self._node.is_running() else 0
        for cpu in range(known.active_cpus):
            print(f"vcpu{cpu} stats:")
            for text, value in (("number of ticks vcpu was idle", 0), ("total number of vm exits", exits)):
                print(f"{text:<40}\t{value}")
            print(f"{'Resident memory':<40}\t{known.memory_bytes}")

    def _get_memory(self) -> None:
        size = self._node.state().memory_bytes
        low, high = min(size, _LOWMEM_BYTES), max(0, size - _LOWMEM_BYTES)
        print("Address     Length      Segment     Offset      ")
        print(f"{0:<12X}{low:<12X}{'sysmem':<12}{0:<12X}")
        if high:
            print(f"{1 << 32:<12X}{high:<12X}{'sysmem':<12}{low:<12X}")

    def _get_active_cpus(self) -> None:
        _print_cpus("active", self._node.state().active_cpus)

    def _get_suspended_cpus(self) -> None:
        known = self._node.state()
        ended = known.suspend and not self._node.is_running()
        _print_cpus("suspended", known.active_cpus if ended else 0)

    def _get_debug_cpus(self) -> None:
        self._node.state()
        _print_cpus("debug", 0)

    def _get_cpu_topology(self) -> None:
        _, sockets, cores, threads = self._node.state().topology
        print(f"cpu_topology:\tsockets={sockets}, cores={cores}, threads={threads}, maxcpus={self._settings.max_cpus}")

    def _checkpoint(self) -> None:
        self._need_running()
        snapshot.write(self._given["checkpoint"], self._name, self._node.state())

    def _suspend(self) -> None:
        self._need_running()
        self._node.suspend("suspend", os.path.abspath(self._given["suspend"]))

    def _need_running(self) -> None:
        """bhyve's control socket is what a snapshot is asked for through (contract 6.4)."""
        if not self._node.is_running():
            warn(f"connect() failed: {strerror(errno.ENOENT)}")
            raise Refusal(errno.ENOENT)

    def _destroy(self) -> None:
        """Whatever the kernel answers is not looked at, also when another destroy was faster."""
        with contextlib.suppress(OSError):
            self._ask_to_destroy()

    def _ask_to_destroy(self) -> None:
        word, _, rest = self._node.state().destroy.partition(" ")
        if word == "refuse":
            return
        if word == "hang":
            while True:
                signal.pause()
        if word == "linger":
            pause_s = script.seconds(rest or "1s")
            self._node.vanish(pause_s)
            _later(pause_s, self._node.unlist)
            return
        self._node.destroy()


def _later(pause_s: float, act: Callable[[], None]) -> None:
    """What the kernel would do by itself. The child holds nothing of its parent, whose callers wait for that."""
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            os.setsid()
            os.closerange(0, 256)
            time.sleep(pause_s)
            act()
        finally:
            os._exit(0)


def _print_cpus(which: str, count: int) -> None:
    print(f"{which} cpus:\t {', '.join(map(str, range(count))) or '(none)'}")


_ACTIONS: dict[str, Callable[[_Call], None]] = {
    "inject-nmi": _Call._inject_nmi,
    "get-all": _Call._get_stats,
    "get-memmap": _Call._get_memory,
    "get-memseg": _Call._get_memory,
    "get-active-cpus": _Call._get_active_cpus,
    "get-suspended-cpus": _Call._get_suspended_cpus,
    "get-debug-cpus": _Call._get_debug_cpus,
    "get-cpu-topology": _Call._get_cpu_topology,
    "get-stats": _Call._get_stats,
    "get-vm-pid": _Call._get_vm_pid,
    "force-reset": _Call._force_reset,
    "force-poweroff": _Call._force_poweroff,
    "checkpoint": _Call._checkpoint,
    "suspend": _Call._suspend,
    "destroy": _Call._destroy,
}
