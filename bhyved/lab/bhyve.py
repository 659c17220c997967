"""The stand-in of bhyve(8): `main(root, argv)`, argv without the program's name; the exit status is what it returns.

What bhyve refuses, it refuses, in the order of contract 1.6, with bhyve's status and text. The guest itself is an engine's: `sim` or
`qemu`, by the lab's settings or the guest's own variable `lab.engine`. Variables that a real bhyve ignores (contract 1.3):

    lab.engine = sim | qemu
    lab.script                             what a sim guest does (see `script`)
    lab.kernel, lab.initrd, lab.append     what a qemu guest boots instead of its disks
    lab.boot-delay-before-title = 2s       time that the set-up takes
    lab.setup-fails = 4 some text          the set-up ends so
    lab.suspend = takes 2s | fails some text              what a suspend of this VM does
    lab.destroy = refuse | linger 1s | hang | run-on      what `bhyvectl --destroy` of this VM does (see `bhyvectl`)

Each may be given once more as `lab.NAME-from-N`: that one holds from the Nth run of this guest on, counted by the lab.
"""

from __future__ import annotations

import errno
import os
import signal
import time

from bhyved.lab import firmware, options, script, snapshot, title
from bhyved.lab.board import Board
from bhyved.lab.engine import ERROR, HALT, POWEROFF, REBOOT, SUSPENDED, TRIPLE_FAULT, Engine
from bhyved.lab.freebsd import BHYVE_ERROR, EX_OSERR, EX_USAGE, Refusal, Settings, err, errx, strerror, warn
from bhyved.lab.knobs import Knobs
from bhyved.lab.node import Node
from bhyved.lab.run import Destroyed, Killed, Run
from bhyved.lab.sim import Sim

_SUSPENDED_AS = {REBOOT: "reset", POWEROFF: "poweroff", HALT: "halt", TRIPLE_FAULT: "triplefault"}


def main(root: str, argv: list[str]) -> int:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own doing
    title.forget(root)
    try:
        return _Bhyve(root, argv).main()
    except Refusal as refusal:
        if refusal.text:
            warn(refusal.text)
        return refusal.status
    except Killed as killed:
        return _die(killed.number)


class _Bhyve:
    """One process of it."""

    def __init__(self, root: str, argv: list[str]) -> None:
        self._root = root
        self._argv = argv
        self._settings = Settings(root)

    def main(self) -> int:
        self._line = options.parse(self._argv, self._settings)
        self._tree = self._line.tree
        if self._line.restore is not None:
            snapshot.configure(self._tree, self._line.restore)
        if self._tree.flag("config.dump", default=False):
            print("\n".join(self._tree.dump()))
            return 1
        self._knobs = Knobs(self._root, self._tree, self._line.name)
        try:
            self._set_up()
            self._power_on()
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise err(BHYVE_ERROR, "vm_openf", error) from None  # the node was destroyed meanwhile
        try:
            return self._run()
        finally:
            self._engine.close()
            self._board.close()
            title.forget(self._root)

    def _set_up(self) -> None:
        """Steps 3 to 13 of contract 1.6."""
        tree, settings = self._tree, self._settings
        self._topology = options.topology(tree)
        try:
            memory_bytes = options.memory_bytes(tree.get("memory.size") or "")
        except ValueError:
            raise errx(EX_USAGE, f"invalid memsize '{tree.get('memory.size')}'") from None
        if tree.has_node("domains") and not tree.flag("acpi_tables", default=False):
            raise errx(EX_USAGE, "NUMA emulation requires ACPI")
        bootrom, variables = firmware.files(tree, settings)
        self._node = Node(self._root, self._line.name)
        self._open_node(has_bootrom=bootrom is not None)
        self._node.hold()
        if self._knobs.get("destroy") is not None:
            self._node.update(destroy=self._knobs.get("destroy"))
        if self._topology[0] > settings.max_cpus:
            raise Refusal(BHYVE_ERROR, f"{self._topology[0]} vCPUs requested but only {settings.max_cpus} available")
        self._set_memory(memory_bytes)
        if bootrom is not None:
            firmware.load(bootrom, variables, settings)
        self._board = Board(self._root, settings, tree, self._line.name)
        self._board.fit()
        self._set_up_as_told()
        self._activate_cpus()
        if tree.flag("x86.mptable", default=True) and settings.is_amd64 and self._board.has_more_buses:
            raise Refusal(BHYVE_ERROR, "MPtable is incompatible with multiple PCI hierarchies.")
        self._engine = self._chosen_engine(has_bootrom=bootrom is not None)

    def _power_on(self) -> None:
        """Step 14, and the guest runs."""
        try:
            self._engine.start()
        except Refusal:
            self._node.update(active_cpus=0)
            raise
        title.show(self._root, f"bhyve: {self._line.name}")

    def _open_node(self, *, has_bootrom: bool) -> None:
        """Step 5. On 14 by separate calls of libvmmapi, later by one."""
        node, old = self._node, self._settings.is_14
        fresh = False
        if not self._settings.is_amd64 and not has_bootrom:
            raise Refusal(BHYVE_ERROR, "no bootrom specified")
        try:
            if not node.exists() and (has_bootrom or old):
                node.create(self._settings.max_vms)
                fresh = True
        except OSError as error:
            raise _open_error("vm_create" if old else "vm_openf", error, old=old) from None
        if not has_bootrom and fresh:
            raise Refusal(BHYVE_ERROR, "virtual machine cannot be booted")
        if not has_bootrom and not node.exists():
            raise errx(BHYVE_ERROR, "no bootrom was configured")
        try:
            node.open()
        except OSError as error:
            raise _open_error("vm_open" if old else "vm_openf", error, old=old) from None
        if has_bootrom and not fresh:
            try:
                node.reinit()
            except OSError as error:
                raise _open_error("vm_reinit" if old else "vm_openf", error, old=old) from None

    def _set_memory(self, size: int) -> None:
        limit = self._settings.memory_bytes
        try:
            if limit is not None and size > limit:
                raise OSError(errno.ENOMEM, "no memory")
            self._node.set_memory(size)
        except OSError as error:
            raise Refusal(BHYVE_ERROR, f"Unable to setup memory ({error.errno})") from None

    def _activate_cpus(self) -> None:
        try:
            self._node.activate_cpus(self._topology)
        except OSError as error:
            raise err(EX_OSERR, "could not activate CPU 0", error) from None

    def _set_up_as_told(self) -> None:
        time.sleep(self._knobs.seconds("boot-delay-before-title"))
        failure = self._knobs.get("setup-fails")
        if failure is not None:
            status, _, text = failure.partition(" ")
            raise Refusal(int(status) if status.isdecimal() else BHYVE_ERROR, text)

    def _chosen_engine(self, *, has_bootrom: bool) -> Engine:
        state_of_node = self._node.state()
        name = self._knobs.get("engine") or self._settings.engine
        if name == "qemu":
            from bhyved.lab.qemu_engine import QemuEngine  # here, because only its guests should pay for it

            return QemuEngine(self._root, self._settings, self._tree, self._knobs, self._board, state_of_node.payload)
        has_code = has_bootrom or state_of_node.loaded  # else the CPU starts in empty memory: contract 2.3
        steps = self._steps() if has_code else [script.Step("triple-fault")]
        button = self._settings.is_amd64 and self._tree.flag("acpi_tables", default=False)
        typed = b"" if self._line.restore is None else snapshot.typed_in(self._line.restore)
        return Sim(steps, self._board, has_button=button, typed=typed)

    def _steps(self) -> list[script.Step]:
        if self._line.restore is not None:
            return snapshot.resumed()
        try:
            return script.parse(self._knobs.get("script") or script.DEFAULT)
        except script.ScriptError as error:
            raise errx(BHYVE_ERROR, f"lab.script: {error}") from None

    def _run(self) -> int:
        run = Run(self._engine, self._board, self._node, outlives_node=self._knobs.get("destroy") == "run-on")
        try:
            outcome = run.to_end()
            while outcome == SUSPENDED and self._fails_to_suspend():
                outcome = run.to_end()
        except Destroyed:
            warn("vm_run error -1, errno 6")
            return POWEROFF if self._settings.is_14 else ERROR  # contract 1.7.2
        if outcome < 0:
            raise Killed(-outcome)
        if outcome == SUSPENDED:
            return self._suspended()
        self._leave_node(outcome)
        return outcome

    def _fails_to_suspend(self) -> bool:
        word, _, text = (self._knobs.get("suspend") or "").partition(" ")
        if word != "fails":
            return False
        warn(f"{text}\nUnable to perform the requested operation\n")
        self._node.update(suspend="", snapshot="")
        return True

    def _suspended(self) -> int:
        known = self._node.state()
        word, _, seconds = (self._knobs.get("suspend") or "").partition(" ")
        takes_s = script.seconds(seconds) if word == "takes" else 0.0
        snapshot.write(known.snapshot, self._line.name, known, engine=self._engine.state(), takes_s=takes_s)
        self._node.destroy()
        return snapshot.status(self._settings)

    def _leave_node(self, outcome: int) -> None:
        """After a regular end it may be used again; after any other it stays busy (contract 1.10)."""
        try:
            if outcome == POWEROFF and self._tree.flag("destroy_on_poweroff", default=False):
                self._node.destroy()
            elif outcome in _SUSPENDED_AS:
                self._node.update(suspend=_SUSPENDED_AS[outcome])
        except OSError:
            pass  # destroyed in the same instant


def _open_error(call: str, error: OSError, *, old: bool) -> Refusal:
    """On 14 perror(3) says it, later err(3)."""
    text = f"{call}: {strerror(error.errno)}"
    return Refusal(BHYVE_ERROR, text if old else f"bhyve: {text}")


def _die(number: int) -> int:
    """End by a signal, without a core file. What a shell would show, should the process survive it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
