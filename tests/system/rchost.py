"""A FreeBSD host as far as rc.d/bhyved sees it: rc.subr, rc.shutdown, daemon(8), and stand-ins for what the script runs."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import until

ROOT = Path(__file__).parents[2]
PARTS = Path(__file__).parent / "rcsubr"

#: Words: a signal that is ignored from here on, the file for the pid, the command.
KEEPER = 'trap "" "$1"; file=$2; shift 2; "$@" & echo "$!            " >"$file.new"; mv "$file.new" "$file"; wait "$!"'


def shells() -> list[str]:
    """Every sh that is here, as a `#!` line has it; FreeBSD's own is /bin/sh there."""
    busybox = shutil.which("busybox")
    return ["/bin/sh", *([f"{busybox} sh"] if busybox else [])]


class RcHost:
    """One host in one directory. Everything it starts has the directory in its command line."""

    def __init__(self, root: Path, shell: str) -> None:
        self.root, self.shell, self.run = root, shell, root / "run"
        self.path = f"{root}/bin:{os.environ['PATH']}"
        for name in ("bin", "rc.d", "run"):
            (root / name).mkdir()
        self.write(PARTS / "rc.subr", "rc.subr")
        self.write(PARTS / "rc.shutdown", "rc.shutdown")
        self.write(ROOT / "rc.d/bhyved", "rc.d/bhyved", {"/etc/rc.subr": f"{root}/rc.subr", '"/bin/sh"': f'"{shell.split()[0]}"'})
        self.write(ROOT / "rc.d/respawn", "bin/respawn")
        for name in ("daemon", "bhyved"):
            self.write(PARTS / name, f"bin/{name}")
        self.write(PARTS / "guest", "bin/bhyve")
        for name in ("logger", "vmctl", "sysctl"):
            self.write(PARTS / "tool", f"bin/{name}")
        self.say("kldstat", "exit 0")
        (root / "bhyved.toml").write_text("")
        self.configure()

    def write(self, source: Path, name: str, replace: Mapping[str, str] = {}) -> None:
        """Install a file for this host. `replace` must find what it replaces."""
        text = source.read_text()
        for old, new in replace.items():
            assert old in text
            text = text.replace(old, new)
        for mark, value in {"@ROOT@": str(self.root), "@PYTHON@": f"{sys.executable} -IS", "@SHELL@": self.shell}.items():
            text = text.replace(mark, value)
        if "busybox" in self.shell and text.startswith("#!/bin/sh"):
            first, _, rest = text.partition("\n")
            text = "\n".join([first, *map(self._not_an_applet, ("ps", "sleep", "date", "logger", "sysctl")), rest])
        (self.root / name).write_text(text.replace("#!/bin/sh", f"#!{self.shell}", 1))
        (self.root / name).chmod(0o755)

    def _not_an_applet(self, tool: str) -> str:
        """busybox prefers its own ps to any that PATH has, and it is not FreeBSD's."""
        stand_in, real = f"{self.root}/bin/{tool}", shutil.which(tool) or "false"
        return f'{tool}() {{ if [ -x {stand_in} ]; then {stand_in} "$@"; else {real} "$@"; fi; }}'

    def say(self, tool: str, text: str) -> None:
        """A command is this sh text from now on."""
        (self.root / "bin" / tool).write_text(f"#!/bin/sh\n{text}\n")
        (self.root / "bin" / tool).chmod(0o755)

    def patch(self, name: str, old: str, new: str) -> None:
        """Change a constant of an installed script."""
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def configure(self, **variables: str) -> None:
        """Write rc.conf."""
        all_of_them = {
            "bhyved_enable": "YES",
            "bhyved_config": f"{self.root}/bhyved.toml",
            "bhyved_program": f"{self.root}/bin/bhyved",
            "bhyved_vmctl": f"{self.root}/bin/vmctl",
            "bhyved_respawn": f"{self.root}/bin/respawn",
            "bhyved_daemon": f"{self.root}/bin/daemon",
            "bhyved_run": str(self.run),
            "bhyved_path": self.path,
            **variables,
        }
        (self.root / "rc.conf").write_text("".join(f'{key}="{value}"\n' for key, value in all_of_them.items()))

    def service(self, *words: str) -> subprocess.CompletedProcess[str]:
        """service(8): the script in a shell of its own, with an emptied environment."""
        return self._run([*self.shell.split(), f"{self.root}/rc.d/bhyved", *words])

    def shut_down(self, how: str = "reboot") -> subprocess.CompletedProcess[str]:
        """init runs rc.shutdown."""
        return self._run([*self.shell.split(), f"{self.root}/rc.shutdown", how])

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        # Into files: a background process that keeps a pipe open must not hold up the test.
        with open(self.root / "out", "w+") as out, open(self.root / "err", "w+") as err:
            environment = {"HOME": "/", "PATH": "/sbin:/bin:/usr/sbin:/usr/bin"}
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, timeout=60, check=False)
            return subprocess.CompletedProcess(argv, done.returncode, Path(out.name).read_text(), Path(err.name).read_text())

    def log(self) -> list[str]:
        """What the stand-ins noted, without the paths."""
        log = self.root / "log"
        text = log.read_text() if log.exists() else ""
        return text.replace(self.path, "…").replace(f"{self.root}/", "").splitlines()

    def pid(self, name: str) -> int | None:
        """The pid in RUN/NAME.pid, of a process that is alive."""
        try:
            pid = int((self.run / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_alive(pid) else None

    @contextmanager
    def guest(self, name: str, *, deaf: bool = False) -> Iterator[int]:
        """A bhyve of ours as a keeper leaves it; `deaf` to its power button."""
        directory = self.run / "vm" / name
        directory.mkdir(parents=True)
        bhyve = [f"{self.root}/bin/bhyve", "-k", f"{directory}/bhyve.conf", name]
        keeper = subprocess.Popen(["/bin/sh", "-c", KEEPER, "keeper", "TERM" if deaf else "PIPE", f"{directory}/pid", *bhyve])
        pid_file = directory / "pid"
        until(lambda: pid_file.exists() and f"bin/bhyve -k {directory}" in command(int(pid_file.read_text())))  # has been executed
        pid = int(pid_file.read_text())
        try:
            yield pid
        finally:
            kill(pid)
            keeper.wait()

    def clean_up(self) -> None:
        """End what is left, the respawner first: it would start more."""
        for word in ("bin/respawn", ""):
            while left := [pid for pid, line in commands().items() if f"{self.root}/{word}" in line and pid != os.getpid()]:
                for pid in left:
                    kill(pid)
                until(lambda left=left: not any(is_alive(pid) for pid in left))  # type: ignore[misc]


def commands() -> dict[int, str]:
    """Every process and its command line."""
    lines = subprocess.run(["ps", "-axww", "-o", "pid=", "-o", "command="], capture_output=True, text=True, check=True).stdout.splitlines()
    split = [line.strip().partition(" ") for line in lines]
    return {int(pid): line for pid, _, line in split}


def command(pid: int) -> str:
    return subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has waited for does not."""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
