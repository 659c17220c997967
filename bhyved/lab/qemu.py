"""The lab's qemu engine: one real guest in one QEMU, seen as bhyve would show it.

The stand-in `bhyve` owns it: it starts the engine, presses the power button, forces an end, and is told how the guest
ended, in bhyve's exit statuses. How QEMU's ways become bhyve's:

    guest does                    QEMU says                         status
    reboot                        SHUTDOWN, guest-reset             0
    ACPI power-off                SHUTDOWN, guest-shutdown          1
    halt, interrupts off          nothing: looked for every second  2
    triple fault                  guest-reset, and so in the log    3
    -                             QEMU has died                     4
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bhyved.lab.qemu_devices import RefusedError, Surroundings
from bhyved.lab.qemu_machine import Payload, Wiring, command_line
from bhyved.lab.qmp import Qmp, QmpError
from bhyved.lab.tpm_proxy import TpmProxy

REBOOT, POWEROFF, HALT, TRIPLE_FAULT, ERROR = 0, 1, 2, 3, 4  # contract 1.7.1
HALT_LOOK_S = 1.0  # QEMU has no event for a halted guest; a look costs it about a millisecond
HALT_SURE_S = 0.05  # a second look, in case the first fell between the guest's hlt and its waking
QUIT_S = 10.0  # QEMU goes at once; on a crowded machine it may have to wait for a turn
_PM1_CONTROL = "i /h 0x604"  # where SeaBIOS and OVMF put q35's; "portw[0x0604] = 0x0001"
_SCI_EN, _NOT_PLACED = 0x0001, 0xFFFF
_INTERRUPTS_ON = 0x200  # IF in EFLAGS
_CPU = re.compile(r"[ER]FL=([0-9a-f]+).*?HLT=(\d)", re.DOTALL)
_PR_SET_PDEATHSIG = 1


class QemuGuest:
    """A guest from power-on to its end. `start` first, `close` last, whatever happens between them."""

    def __init__(self, config: Mapping[str, str], around: Surroundings, scratch: Path, payload: Payload | None = None) -> None:
        """`scratch` is a directory of this run alone; the caller removes it."""
        self._config = config
        self._around = around
        self._scratch = scratch
        self._payload = payload
        self._process: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._looks_halted = False
        self._next_look = 0.0
        self.com: dict[int, socket.socket] = {}  # com port -> what the guest writes there, and reads

    def start(self, com_ports: tuple[int, ...], tpm: socket.socket | None = None) -> None:
        """Power on, with a connection to swtpm if there is one. Raises RefusedError, with a sentence, when there can be no such guest."""
        with contextlib.ExitStack() as theirs:
            qmp, qmp_end = socket.socketpair()
            theirs.enter_context(qmp_end)
            self._qmp = Qmp(qmp)
            ends: dict[int, int] = {}
            for number in com_ports:
                self.com[number], end = socket.socketpair()
                ends[number] = theirs.enter_context(end).fileno()
            proxy = TpmProxy(tpm) if tpm is not None else None
            wiring = Wiring(qmp_end.fileno(), self._reset_log, ends, proxy.for_qemu.fileno() if proxy else None)
            argv = command_line(self._config, self._around, wiring, self._payload)
            self._process = self._spawn(argv, wiring)
        if proxy is not None:
            proxy.start()
        self._greet()

    def fileno(self) -> int:
        """Readable when `outcome` may have news."""
        return self._running.fileno()

    def wait_at_most_s(self) -> float:
        """How long to wait for that before calling `outcome` all the same: a halted guest makes no noise."""
        return max(0.0, self._next_look - time.monotonic())

    def outcome(self) -> int | None:
        """bhyve's exit status once the guest has ended, else None."""
        try:
            for event in self._running.take_events():
                if event.name == "SHUTDOWN":
                    return self._classified(str(event.data.get("reason")))
            if self._running.has_hung_up():
                return ERROR
            if time.monotonic() >= self._next_look:
                return self._halted()
        except QmpError:
            return ERROR
        return None

    def has_acpi(self) -> bool:
        """The guest has switched ACPI on, and so the power button is one."""
        try:
            value = int(self._running.monitor(_PM1_CONTROL).partition("=")[2], 16)
        except (QmpError, ValueError):
            return False
        return bool(value & _SCI_EN) and value != _NOT_PLACED

    def press(self) -> None:
        """The ACPI power button. A press that the guest has not acknowledged yet absorbs the next ones."""
        with contextlib.suppress(QmpError):
            self._running.call("system_powerdown")

    def show(self, viewer: socket.socket) -> None:
        """Hand a VNC viewer over to QEMU; `viewer` may be closed afterwards."""
        with contextlib.suppress(QmpError):
            self._running.call("getfd", {"fdname": "viewer"}, [viewer.fileno()])
            self._running.call("add_client", {"protocol": "vnc", "fdname": "viewer"})

    def close(self) -> None:
        """Cut the power, if there is still any, and wait until QEMU is gone. What is in `com` can still be read."""
        if self._qmp is not None:
            with contextlib.suppress(QmpError):
                self._qmp.call("quit")
        if self._process is not None:
            try:
                self._process.wait(QUIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._qmp is not None:
            self._qmp.close()

    @property
    def pid(self) -> int:
        """QEMU's."""
        assert self._process is not None
        return self._process.pid

    @property
    def _running(self) -> Qmp:
        assert self._qmp is not None, "not started"
        return self._qmp

    @property
    def _reset_log(self) -> Path:
        return self._scratch / "resets.log"

    @property
    def _stderr(self) -> Path:
        return self._scratch / "qemu.stderr"

    def _spawn(self, argv: list[str], wiring: Wiring) -> subprocess.Popen[bytes]:
        """A session of its own, so that a ^C meant for somebody else does not end the guest."""
        fds = [wiring.qmp, *wiring.com.values(), *(self._around.sockets or {}).values(), *(self._around.serial_fds or {}).values()]
        if wiring.tpm is not None:
            fds.append(wiring.tpm)
        try:
            with self._stderr.open("wb") as stderr:
                return subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    pass_fds=fds,
                    start_new_session=True,
                    preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509  the only thread, of the TPM, starts after this
                )
        except FileNotFoundError:
            raise RefusedError(f"{argv[0]} is not installed (package qemu-system-x86)") from None

    def _greet(self) -> None:
        """QEMU answers once all its devices are there, or ends with a word on stderr."""
        try:
            self._running.negotiate()
            password = next((value for name, value in self._config.items() if name.startswith("pci.") and name.endswith(".password")), None)
            if password is not None:
                self._running.call("set_password", {"protocol": "vnc", "password": password[:8]})
        except QmpError as failure:
            self.close()
            said = self._stderr.read_text(errors="replace").strip().splitlines()
            raise RefusedError(said[-1] if said else str(failure)) from failure
        self._next_look = time.monotonic() + HALT_LOOK_S

    def _classified(self, reason: str) -> int:
        if reason == "guest-reset":
            return TRIPLE_FAULT if b"Triple fault" in self._reset_log.read_bytes() else REBOOT
        return POWEROFF if reason == "guest-shutdown" else ERROR

    def _halted(self) -> int | None:
        """Every CPU has stopped and none can be woken by an interrupt, at two looks in a row."""
        cpus = _CPU.findall(self._running.monitor("info registers -a"))
        halted = bool(cpus) and all(halt == "1" and not int(flags, 16) & _INTERRUPTS_ON for flags, halt in cpus)
        if halted and self._looks_halted:
            return HALT
        self._looks_halted = halted
        self._next_look = time.monotonic() + (HALT_SURE_S if halted else HALT_LOOK_S)
        return None


def _dies_with(parent: int) -> Callable[[], None]:
    """Killing bhyve kills its guest at once, so QEMU is killed when the stand-in ends, however that ends."""
    libc: Any = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the promise was made
            os._exit(1)

    return prepare
