"""A file for a new guest: judged together with all others before it is written, and never over one that is there."""

from __future__ import annotations

import os
import sys

from bhyved.core.errors import in_words
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import main_file
from bhyved.ctl.connection import CONFIG, FAILED, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bhyved.core.spec import Paths, VmSpec

_VM_D, _SUFFIX = "vm.d", ".toml"


class Files:
    """The configuration files as they are. Raises Failure when the main file cannot be used."""

    def __init__(self, asked: Asked) -> None:
        from bhyved.host import configfiles

        main = main_file(asked)
        self.verb = asked.verb.name
        self.settled = configfiles.read(main)
        daemon = self.settled.loaded.daemon
        if daemon is None:
            why = "the main file cannot be used" + ("" if asked.text("config") else "; --config names another")
            raise Failure(CONFIG, why, lines=tuple(str(problem) for problem in self.settled.loaded.problems))
        self.paths = daemon.paths
        self.directory = str(daemon.paths.vm_dir or os.path.join(os.path.dirname(main), _VM_D))

    def file(self, name: str) -> str:
        """Where the file of a guest of this name is, or would be."""
        return f"{self.directory}/{name}{_SUFFIX}"

    def place(self, name: str) -> Place:
        """Where the guest's file will be. Raises Failure when the name cannot be one, or is taken."""
        from bhyved.core.values import name_problem

        if why := name_problem(name):
            raise Failure(USAGE, f'{self.verb}: "{name}": {why}')
        file = self.file(name)
        if os.path.lexists(file):
            raise Failure(FAILED, f"{file} exists already: edit it, or choose another name")
        return Place(self, name, file)


class Place:
    """One guest that has no file yet."""

    def __init__(self, files: Files, name: str, file: str) -> None:
        self._files, self.name, self.file = files, name, file

    def judged(self, text: str) -> VmSpec:
        """The guest, if all files together would be accepted with it. Raises Failure."""
        from bhyved.core import advice
        from bhyved.core.assigned import Target
        from bhyved.core.config import Source, load
        from bhyved.host import seedfiles

        settled, name = self._files.settled, self.name
        files = settled.files
        loaded = load(files.main, {**files.guests, name: Source(self.file, text)}, files.templates)
        old = {str(problem) for problem in settled.loaded.problems}
        problems = [str(problem) for problem in loaded.problems if name in problem.vms or str(problem) not in old]
        if name in loaded.vms:
            problems += map(str, seedfiles.problems({name: Source(self.file, text)}, {name: loaded.vms[name]}))
        if problems or name not in loaded.vms:
            raise Failure(CONFIG, "nothing has been made", lines=tuple(problems))
        for problem in settled.loaded.problems:
            print(f"warning: `vmctl reload` will refuse this: {problem}", file=sys.stderr)
        for warning in loaded.warnings:
            if name in warning.vms:
                print(f"warning: {warning}", file=sys.stderr)
        for remark in advice.warnings(loaded.vms[name], Target()):
            print(f"warning: {advice.remark_text(remark)}", file=sys.stderr)
        return loaded.vms[name]

    def write(self, text: str, *, otherwise: str = "") -> None:
        """`otherwise`: what else a failure has left behind. Raises Failure."""
        from bhyved.host import durable

        try:
            durable.replace(self.file, text.encode(), 0o644)
        except OSError as error:
            raise Failure(FAILED, f"{self.file} cannot be written: {in_words(error)}{otherwise}") from None


def toml(table: dict[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(table)


def is_there(path: str, paths: Paths) -> bool:
    """By listing where the path is a device: a look-up in /dev may create what it looks for (contract 5.3)."""
    if not path.startswith(f"{paths.dev}/"):
        return os.path.lexists(path)
    directory, name = os.path.split(path)
    try:
        return name in os.listdir(directory)
    except (OSError, ValueError):  # no path at all, with a NUL in it
        return False
