"""The kernel's side of a VM: `/dev/vmm/NAME`, which outlives the bhyve that runs on it, and keeps its memory.

`DIR/dev/vmm/NAME` is what everybody sees; what the kernel knows about it lies in `DIR/lab/node/NAME`, a JSON object. A live bhyve holds
a shared flock on the former, so that nobody is fooled by a pid that has another owner by now. Used by the stand-ins of bhyve, the
loaders and bhyvectl; the rules are those of contract 1.10 and 8.10:

    active CPUs, none suspended      busy: a bhyve lives, or died without ending its guest; only a destroy helps
    all active CPUs suspended        ended; may be re-initialised, by bhyve with a bootrom or by a loader
    no active CPUs                   fresh

A real kernel ends what it has begun. Here a process may be killed between two files: a name without a state, or with one that says that
it is going since too long, is taken away by whoever opens it next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time

from bhyved.lab import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # importing it costs a third of a start

MAX_NAME = 229  # VM_MAX_NAMELEN, contract 1.5
_GONE_AT = "gone_at"  # in the place of a state: when the name has to be gone too, monotonic
_LATE_S = 5.0


class State:
    """What the kernel keeps of a VM."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.id: str = said["id"]  # another one for each VM, even of the same name
        self.memory_bytes: int = said.get("memory_bytes", 0)  # 0: it has none yet
        self.active_cpus: int = said.get("active_cpus", 0)
        self.topology: list[int] = said.get("topology", [1, 1, 1, 1])  # CPUs, sockets, cores, threads
        self.active_since: float = said.get("active_since", 0.0)  # monotonic
        self.frozen_at: float = said.get("frozen_at", 0.0)  # when its CPUs ceased to run without having ended; 0: they have not
        self.suspend: str = said.get("suspend", "")  # how it has ended, or is to
        self.loaded: bool = said.get("loaded", False)  # a loader has put a kernel into its memory
        self.payload: dict[str, str] = said.get("payload", {})  # which kernel, if the lab knows
        self.pid: int = said.get("pid", 0)  # of the bhyve that ran it last
        self.snapshot: str = said.get("snapshot", "")  # the file that it is to be suspended to
        self.destroy: str = said.get("destroy", "")  # the knob `lab.destroy` of its guest


class Node:
    """One VM, looked at or run by one process."""

    def __init__(self, root: str, name: str) -> None:
        self.name = name
        self._root = root
        self._device = os.path.join(root, "dev", "vmm", name)
        self._file = os.path.join(root, "lab", "node", name)
        self._id = ""
        self._held = -1

    def exists(self) -> bool:
        """The name is taken."""
        return os.path.lexists(self._device)

    def create(self, limit: int | None = None) -> None:
        """A VM without memory. Raises OSError: EEXIST, EINVAL (the name is too long), ENOMEM (`limit` VMs exist)."""
        if len(os.fsencode(self.name)) > MAX_NAME:
            raise OSError(errno.EINVAL, "name too long")
        with state.Locked(self._root, "node"):
            if limit is not None and len(names(self._root)) >= limit:
                raise OSError(errno.ENOMEM, "hw.vmm.maxvmms")
            for path in (self._device, self._file):
                os.makedirs(os.path.dirname(path), exist_ok=True)
            os.close(os.open(self._device, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._id = os.urandom(8).hex()
            self._write(State({"id": self._id}))

    def open(self) -> None:
        """Raises OSError: ENOENT, or EINVAL while it is being destroyed (contract 8.10)."""
        if not self.exists() or self._was_left():
            raise OSError(errno.ENOENT, "no such VM")
        known = self._read()
        if known is None:
            raise OSError(errno.EINVAL, "being destroyed")
        self._id = known.id

    def reinit(self) -> None:
        """As new, but for its memory. Raises OSError EBUSY unless its last run has ended."""
        with state.Locked(self._root, "node"):
            known = self.state()
            if known.active_cpus and not known.suspend:
                raise OSError(errno.EBUSY, "busy")
            self._write(State({"id": self._id, "memory_bytes": known.memory_bytes, "destroy": known.destroy}))

    def hold(self) -> None:
        """This process has the VM open, as long as it lives."""
        self._held = os.open(self._device, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def set_memory(self, size: int) -> None:
        """Raises OSError EINVAL when it has memory of another size already (contract 1.10)."""
        if self.state().memory_bytes not in (0, size):
            raise OSError(errno.EINVAL, "other size")
        self.update(memory_bytes=size)

    def activate_cpus(self, topology: list[int]) -> None:
        """This process runs the VM. Raises OSError EBUSY when they are active: only re-initialising changes that (contract 8.10)."""
        if self.state().active_cpus:
            raise OSError(errno.EBUSY, "active")
        self.update(active_cpus=topology[0], topology=topology, pid=os.getpid(), active_since=time.monotonic(), frozen_at=0.0)

    def state(self) -> State:
        """What the kernel knows. Raises OSError ENXIO when this VM, or this one of the name, is gone."""
        known = self._read()
        if known is None or known.id != self._id:
            raise OSError(errno.ENXIO, "destroyed")
        return known

    def update(self, **news: object) -> None:
        """Change attributes of the state. Raises OSError as `state` does."""
        with state.Locked(self._root, "node"):
            self._write(State({**vars(self.state()), **news}))

    def suspend(self, how: str, file: str = "") -> None:
        """Ask the VM to end. Raises OSError EALREADY when it has been asked, or has ended."""
        with state.Locked(self._root, "node"):
            known = self.state()
            if known.suspend:
                raise OSError(errno.EALREADY, "already")
            self._write(State({**vars(known), "suspend": how, "snapshot": file}))
        _wake(self._runner())

    def destroy(self) -> None:
        """The VM is gone; if a bhyve runs on it, that one is told."""
        runner = self._runner()
        with state.Locked(self._root, "node"):
            self.state()
            self.unlist()
        _wake(runner)

    def vanish(self, pause_s: float) -> None:
        """Forget what it was; its name stays for a while, until `unlist`. Raises OSError ENXIO when it is gone."""
        with state.Locked(self._root, "node"):
            self.state()
            state.write(self._file, {_GONE_AT: time.monotonic() + pause_s + _LATE_S})

    def _was_left(self) -> bool:
        """Somebody was killed while it was made or destroyed: nothing is left of it now."""
        with state.Locked(self._root, "node"):
            said = state.read(self._file)
            is_left = said is None or said.get(_GONE_AT, float("inf")) < time.monotonic()
            if is_left:
                self.unlist()
            return is_left

    def unlist(self) -> None:
        """Take the name away. The directory exists only while there are VMs (contract 1.13)."""
        with contextlib.suppress(OSError):  # nothing was known of it
            os.unlink(self._file)
        with contextlib.suppress(OSError):  # somebody else was faster, or other VMs are there
            os.unlink(self._device)
            os.rmdir(os.path.dirname(self._device))

    def is_running(self) -> bool:
        """A bhyve lives on it."""
        with state.Locked(self._root, "look"):  # two who look at once would see each other
            try:
                return state.is_held(self._device)
            except OSError:
                return False

    def _runner(self) -> int:
        """The pid of the bhyve that lives on it, or 0."""
        return self.state().pid if self.is_running() else 0

    def _read(self) -> State | None:
        said = state.read(self._file)
        return None if said is None or _GONE_AT in said else State(said)

    def _write(self, news: State) -> None:
        state.write(self._file, vars(news))


def names(root: str) -> list[str]:
    """All VMs of the lab."""
    try:
        return sorted(os.listdir(os.path.join(root, "dev", "vmm")))
    except FileNotFoundError:
        return []


def _wake(pid: int) -> None:
    """SIGURG harms nobody, and a stopped bhyve does not see it until it is continued, as the real one (contract 8.10)."""
    if pid:
        with contextlib.suppress(OSError):  # it has ended since
            os.kill(pid, signal.SIGURG)
