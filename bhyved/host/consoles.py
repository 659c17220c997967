"""What the console hubs need of this host: lines, rings and logs, at the places that the configuration names."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from bhyved.core.console import ConsoleSpec
from bhyved.core.errors import HostError
from bhyved.host.consolelog import ConsoleLog, log_path
from bhyved.host.logreader import LogReader
from bhyved.host.ringfile import RingFile, RingFiles
from bhyved.host.tty import Line, LineMissing, open_line


class HostConsoles:
    """Satisfies `daemon.consoleports.ConsolePorts`. `load_nmdm` loads the kernel module and raises HostError where it cannot."""

    def __init__(self, *, run: Path, log: Path, load_nmdm: Callable[[], Awaitable[None]]) -> None:
        self._rings = RingFiles(run / "console")
        self._log = log
        self._load_nmdm = load_nmdm

    async def open_line(self, spec: ConsoleSpec) -> Line:
        """Open a console; an nmdm pair that is not there may want its module. Raises HostError."""
        try:
            return await open_line(spec)
        except LineMissing:
            if spec.kind != "nmdm":
                raise
            await self._load_nmdm()
        try:
            return await open_line(spec)
        except LineMissing:  # looking for a pair makes it (contract 4.4), so that it is there and not to be seen from here (contract 7)
            raise HostError(f"console line {spec.path} is hidden: a jail's devfs.rules(5) have to unhide nmdm-*") from None

    def open_ring(self, name: str, spec: ConsoleSpec) -> RingFile:
        return self._rings.open(name, spec.port, spec.first_bytes, spec.latest_bytes)

    def open_log(self, name: str, spec: ConsoleSpec, *, first: bool) -> ConsoleLog:
        return ConsoleLog(log_path(self._log, name, spec.port, first=first), spec.log)

    def reader(self, name: str, spec: ConsoleSpec, *, first: bool) -> LogReader:
        return LogReader(log_path(self._log, name, spec.port, first=first))

    def forget(self, name: str, spec: ConsoleSpec) -> None:
        """The ring goes; logs are for the operator to remove. Raises HostError."""
        self._rings.remove(name, spec.port)
