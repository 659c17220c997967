"""Where the host's commands are, what environment they get, and what is said when one fails.

No trio here: `vmctl` works without a daemon through `ask`, the daemon through `host.tool.run_tool`. The directories are
configuration (`paths.bin`); nothing is searched in the PATH that the daemon happens to have (rc's is short, contract 8.4).
"""

import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bhyved.core.daemonfacts import CommandFacts
from bhyved.core.errors import HostError, in_words
from bhyved.host.spawn import has_ended

SENTENCE_CHARS = 400  # of a command's own text in a message: a line or two of a terminal
WORD_CHARS = 120  # of one word of a command in a message: any path that people give


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended: exit status, or minus the signal's number; and what it printed, each at most OUTPUT_BYTES."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """What it printed on stdout, decoded."""
        return self.stdout.decode(errors="replace")


class ToolError(HostError):
    """A command ended with a status that is no success; `result` for those who know better what it means."""

    def __init__(self, argv: Sequence[str], result: Result) -> None:
        said = said_by(result)
        super().__init__(f"`{show(argv)}` {ended(result.status)}{': ' + said if said else ''}")
        self.result = result


@dataclass
class Tools:
    """The commands of one host, found in `bin`, first match wins."""

    bin: tuple[str, ...]
    #: Children that the kernel would not let go when their time was up, with what they were doing.
    stuck: dict[int, str] = field(default_factory=dict)
    #: How each command has done since this process started.
    facts: dict[str, CommandFacts] = field(default_factory=dict, repr=False)
    _paths: dict[str, str] = field(default_factory=dict, repr=False)

    def path(self, name: str) -> str:
        """The absolute path of a command. Raises HostError naming the directories that were searched."""
        known = self._paths.get(name)
        if known is not None:
            return known
        if os.path.isabs(name):
            return name
        for directory in self.bin:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                self._paths[name] = path
                return path
        raise HostError(f"{name} was not found in {':'.join(self.bin)}")

    def note(self, name: str, seconds: float, *, failed: bool) -> None:
        """One command has ended, or was killed."""
        old = self.facts.get(name, CommandFacts())
        self.facts[name] = CommandFacts(durations=old.durations.plus(seconds), failures=old.failures + failed)

    def env(self) -> Mapping[str, str]:
        """The whole environment of a command: the same for every host and every caller."""
        return {"PATH": ":".join(self.bin), "HOME": "/", "LC_ALL": "C"}

    def reap_stuck(self) -> None:
        """Forget the stuck children that the kernel has let go meanwhile."""
        for pid in list(self.stuck):
            if has_ended(pid):
                del self.stuck[pid]

    def ask(self, argv: Sequence[str], *, limit_s: float = 10.0, ok: Collection[int] | None = (0,)) -> Result:
        """Run a command and wait for it, blocking. For before the loop, threads, and `vmctl`. Raises HostError."""
        full = (self.path(argv[0]), *argv[1:])
        try:
            done = subprocess.run(
                full, stdin=subprocess.DEVNULL, capture_output=True, env=self.env(), timeout=limit_s, start_new_session=True, check=False
            )
        except subprocess.TimeoutExpired:
            raise HostError(overdue(argv, limit_s)) from None
        except OSError as error:
            raise HostError(not_run(argv, error)) from None
        return judged(argv, Result(status=done.returncode, stdout=done.stdout, stderr=done.stderr), ok)


def judged(argv: Sequence[str], result: Result, ok: Collection[int] | None) -> Result:
    """`result`, if its status is among `ok` (None: any). Raises ToolError."""
    if ok is not None and result.status not in ok:
        raise ToolError(argv, result)
    return result


def show(argv: Sequence[str]) -> str:
    """A command as one would type it, without the directory; of a word that is a whole file, such as a property, the beginning."""
    words = (os.path.basename(argv[0]), *argv[1:])
    return " ".join(word if len(word) <= WORD_CHARS else f"{word[: WORD_CHARS - 1]}…" for word in words)


def ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"failed with exit status {status}"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"


def overdue(argv: Sequence[str], limit_s: float) -> str:
    """Said of a command that was killed because its time was up."""
    return f"`{show(argv)}` did not end within {limit_s:g} s and was killed"


def not_run(argv: Sequence[str], error: OSError) -> str:
    """Said of a command that could not even be started."""
    return f"`{show(argv)}` could not be run: {in_words(error)}"


def said_by(result: Result) -> str:
    """What a failed command said: stderr, or else stdout (bhyvectl's `errno = N`)."""
    return one_line(result.stderr) or one_line(result.stdout)


def one_line(output: bytes | bytearray) -> str:
    """A command's output on one line, printable and of bounded length: its end, which has the reason."""
    lines = output.decode(errors="replace").splitlines()
    text = "; ".join(line.strip() for line in lines if line.strip())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= SENTENCE_CHARS else "…" + text[-SENTENCE_CHARS:]
