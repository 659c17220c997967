"""The stand-ins of bhyve and its companions as tests handle them: a lab of one's own, guests with a console, their ends."""

import contextlib
import json
import os
import select
import signal
import subprocess
import termios
import time
import tty
from pathlib import Path

from bhyved.lab import launchers
from tests.waiting import until

PATIENCE_S = 30.0  # a guest is up in a tenth of a second; but tests run beside other tests
ROM_BYTES = 4096


class Console:
    """A terminal whose slave side is for a guest's com port, and this side for the test."""

    def __init__(self) -> None:
        self._fd, self._slave = os.openpty()  # the slave stays open here: a port that comes and goes hangs nothing up
        self.path = os.ttyname(self._slave)
        self.printed = ""

    def wait_for(self, text: str) -> str:
        """Read until `text` has come since the last `type`; everything since then."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.printed:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r}, but at last {self.printed[-400:]!r}"
            self.printed += os.read(self._fd, 65536).decode(errors="replace")
        return self.printed

    def type(self, text: str) -> None:
        """Send `text`, and wait for nothing printed before it any more."""
        self.printed = ""
        os.write(self._fd, text.encode())

    def heeds_carrier(self) -> bool:
        """The guest's side would notice a hang-up: CLOCAL is off."""
        return not termios.tcgetattr(self._slave)[tty.CFLAG] & termios.CLOCAL

    def close(self) -> None:
        """Hang up."""
        os.close(self._slave)
        os.close(self._fd)


class Bhyve:
    """One process of the stand-in bhyve, or of a loader."""

    def __init__(self, lab: "Lab", argv: list[str], *, ignoring_term: bool = False, console: Console | None = None) -> None:
        if ignoring_term:  # as a keeper does: contract 8.3
            argv = ["/bin/sh", "-c", 'trap "" TERM; exec "$@"', "sh", *argv]
        self._lab = lab
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env={}
        )
        self.pid = self.process.pid
        self._console = console

    @property
    def console(self) -> Console:
        """com1."""
        assert self._console is not None
        return self._console

    def wait_titled(self) -> "Bhyve":
        """Wait until ps would show `bhyve: NAME`: everything is set up."""
        until(lambda: self.title or self.process.poll() is not None, "the title")
        assert self.title, f"ended with {self.process.returncode}: {self.said()}"
        return self

    @property
    def title(self) -> str:
        """Its title, or nothing."""
        with contextlib.suppress(FileNotFoundError):
            return (self._lab.root / "lab" / "title" / str(self.pid)).read_text()
        return ""

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end: exit status, or minus the signal's number."""
        return self.process.wait(PATIENCE_S)

    def said(self) -> str:
        """What it printed on stderr. It must have ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def printed(self) -> str:
        """What it printed on stdout. It must have ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def kill(self) -> None:
        """SIGKILL, if it is still there, and its end."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Nothing of it is left."""
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Lab:
    """A lab host without its services: state, devices and the stand-ins."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("dev", "lab", "bin"):
            (root / name).mkdir(parents=True)
        launchers.write(root)
        self.rom = root / "rom.fd"
        self.rom.write_bytes(bytes(ROM_BYTES))
        self._processes: list[Bhyve] = []
        self._consoles: list[Console] = []

    def settle(self, **settings: object) -> None:
        """What kind of host it is: `freebsd.Settings`."""
        (self.root / "lab" / "settings.json").write_text(json.dumps(settings))

    def tool(self, name: str) -> str:
        """The path of a stand-in."""
        return str(self.root / "bin" / name)

    def call(self, name: str, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run a stand-in to its end."""
        done = subprocess.run([self.tool(name), *argv], input=stdin, capture_output=True, timeout=PATIENCE_S, check=False, env={})
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def control(self, *actions: str, vm: str = "web1") -> subprocess.CompletedProcess[str]:
        """bhyvectl."""
        return self.call("bhyvectl", f"--vm={vm}", *actions)

    def has_node(self, vm: str = "web1") -> bool:
        """/dev/vmm/NAME is there."""
        return (self.root / "dev" / "vmm" / vm).exists()

    def config(self, *, has_rom: bool = True, **variables: str) -> Path:
        """A file for `-k`: a small machine with `variables`, in whose names `__` is a dot. An empty value leaves one out."""
        tree = {"memory.size": "16M", "acpi_tables": "true", "pci.0.0.0.device": "hostbridge", "pci.0.31.0.device": "lpc"}
        if has_rom:
            tree |= {"bootrom": str(self.rom), "lpc.bootrom": str(self.rom)}
        tree |= {name.replace("__", "."): value for name, value in variables.items()}
        path = self.root / f"{len(self._processes)}.conf"
        path.write_text("".join(f"{name}={value}\n" for name, value in tree.items() if value))
        return path

    def start(self, vm: str = "web1", *, ignoring_term: bool = False, has_rom: bool = True, **variables: str) -> Bhyve:
        """`bhyve -k FILE NAME` with a console on com1."""
        console = self.console()
        file = self.config(has_rom=has_rom, **{"lpc__com1__path": console.path, **variables})
        return self._kept(Bhyve(self, [self.tool("bhyve"), "-k", str(file), vm], ignoring_term=ignoring_term, console=console))

    def spawn(self, tool: str, *argv: str, console: Console | None = None) -> Bhyve:
        """Any stand-in, running."""
        return self._kept(Bhyve(self, [self.tool(tool), *argv], console=console))

    def start_with_old_title(self, title: str, **variables: str) -> Bhyve:
        """`start`, with a pid whose last owner was killed while it had a title."""
        script = 'mkdir -p "$0" && echo "$1" >"$0/$$" && shift && exec "$@"'
        argv = ["/bin/sh", "-c", script, str(self.root / "lab" / "title"), title]
        return self._kept(Bhyve(self, [*argv, self.tool("bhyve"), "-k", str(self.config(**variables)), "web1"]))

    def console(self) -> Console:
        """A fresh terminal."""
        self._consoles.append(Console())
        return self._consoles[-1]

    def close(self) -> None:
        """Nothing is left running."""
        for process in self._processes:
            process.close()
        for console in self._consoles:
            console.close()

    def _kept(self, process: Bhyve) -> Bhyve:
        self._processes.append(process)
        return process
