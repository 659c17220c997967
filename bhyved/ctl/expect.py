"""`vmctl console` for scripts: type something, wait for something, or do a file of such steps.

Waiting is exact: a step begins to look right behind what the step before it has found, whatever pieces the output comes in, and goes on
over a restart of the daemon. Escape sequences between the letters do not hide a match.
"""

from __future__ import annotations

import codecs
import re
import select
import sys
import time

from bhyved.core.ansi import plain_bytes
from bhyved.core.frames import Gap
from bhyved.core.units import Duration
from bhyved.ctl.amounts import one_line, span
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import connect, print_json, socket_of
from bhyved.ctl.connection import FAILED, OK, TIMED_OUT, USAGE, Failure
from bhyved.ctl.line import Line, Printed, place
from bhyved.ctl.sequences import Whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Place = tuple[int | str | None, int | None]

WAIT_S = 60.0
#: How far back a match may begin.
WINDOW = 1 << 16
#: Of what was printed instead, when a wait is over in vain.
QUOTED_LINES = 5

_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "e": b"\x1b", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.|\Z)", re.DOTALL)


class Send:
    """Type it."""

    def __init__(self, keys: str) -> None:
        self.keys = keys


class Wait:
    """Until it is printed."""

    def __init__(self, pattern: re.Pattern[str], seconds: float) -> None:
        self.pattern, self.seconds = pattern, seconds


Step = Send | Wait


def run_script(asked: Asked) -> int:
    steps = _steps(asked)
    word = asked.text("since")
    runner = _Runner(asked, place("boot" if word is None else word), is_placed=word is not None)
    done, found = 0, ""
    try:
        for step in steps:
            if isinstance(step, Send):
                runner.send(step.keys)
            else:
                match = runner.wait(step)
                if match is None:
                    break
                found = match
            done += 1
    finally:
        runner.close()
    if asked.has("json"):
        print_json({"version": 1, "done": done == len(steps), "steps": done, "found": found, "offset": runner.offset})
    if done < len(steps):
        step = steps[done]
        assert isinstance(step, Wait)
        late = f'has not printed "{step.pattern.pattern}" within {span(step.seconds)}'
        print(f"vmctl: {asked.names[0]} {late}{runner.instead()}", file=sys.stderr)
        return TIMED_OUT
    return OK


# --- the steps -------------------------------------------------------------------------------------------------------------------


def _steps(asked: Asked) -> list[Step]:
    seconds = asked.seconds("timeout")
    limit_s = WAIT_S if seconds is None else seconds
    path = asked.text("expect")
    if path is not None:
        if asked.is_given("send") or asked.is_given("wait-for"):
            raise Failure(USAGE, "console: --expect goes without --send and --wait-for")
        return parse_steps(_text_of(path), path, limit_s)
    steps: list[Step] = []
    keys, pattern = asked.text("send"), asked.text("wait-for")
    if keys is not None:
        steps.append(Send(_unescaped(keys)))
    if pattern is not None:
        steps.append(Wait(_compiled(pattern), limit_s))
    return steps


def _text_of(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Failure(USAGE, f"{path}: {str(why).lower()}") from None


def parse_steps(text: str, path: str, limit_s: float = WAIT_S) -> list[Step]:
    """A step a line: `send TEXT`, `wait [DURATION] REGEX`. Raises Failure, naming the line."""
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.lstrip().partition(" ")
        if not word or word.startswith("#"):
            continue
        try:
            if word == "send":
                steps.append(Send(_unescaped(rest)))
            elif word == "wait":
                steps.append(_wait(rest, limit_s))
            else:
                raise Failure(USAGE, f'a step is "send TEXT" or "wait [DURATION] REGEX", not "{one_line(word)}"')
        except Failure as failure:
            raise Failure(USAGE, f"{path}:{number}: {failure.text}") from None
    return steps


def _wait(rest: str, limit_s: float) -> Wait:
    first, _, behind = rest.partition(" ")
    try:
        seconds = float(Duration.parse(first))
    except ValueError:
        return Wait(_compiled(rest), limit_s)
    return Wait(_compiled(behind), seconds)


def _compiled(pattern: str) -> re.Pattern[str]:
    if not pattern:
        raise Failure(USAGE, "a pattern must not be empty")
    try:
        return re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise Failure(USAGE, f'"{pattern}" is no regular expression: {error}') from None


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        word = match[1]
        if word.startswith("x") and len(word) == 3:
            return chr(int(word[1:], 16))
        if word not in _ESCAPES:
            raise Failure(USAGE, rf'"\{word}" is none of \r \n \t \e \\ \xHH')
        return _ESCAPES[word].decode()

    return _ESCAPE.sub(one, text)


# --- doing them ------------------------------------------------------------------------------------------------------------------


class _Runner:
    """Sends on a connection, and watches on a line from the first wait on."""

    def __init__(self, asked: Asked, begin: Place, *, is_placed: bool) -> None:
        self._asked, self._begin, self._is_placed = asked, begin, is_placed
        self._name, self._port = asked.names[0], asked.text("port") or ""
        self._line: Line | None = None
        self._whole = Whole()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._seen = ""  # printed, and not yet behind a match
        self.offset = 0

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

    def send(self, keys: str) -> None:
        """Raises Failure when they are not taken."""
        steal = self._asked.has("steal") or None
        with connect(self._asked) as connection:
            try:
                done = connection.call("console.send", name=self._name, port=self._port or None, text=keys, steal=steal)
            except Failure as failure:
                hint = "; --steal types all the same" if failure.code == "keyboard-busy" else ""
                raise Failure(failure.status, failure.text + hint) from None
        size = len(keys.encode())
        if done["taken"] < size:
            raise Failure(FAILED, f"{self._name} does not read: {done['taken']} of {size} bytes were taken")
        self.offset = done["offset"]
        if self._line is None and not self._is_placed:
            self._begin = (done["offset"], None)  # what comes from here on may be the answer

    def wait(self, step: Wait) -> str | None:
        """What was found; None: not in time."""
        line = self._opened()
        deadline = time.monotonic() + step.seconds
        while True:
            match = step.pattern.search(self._seen)
            if match is not None and match.end() > 0:
                self._seen = self._seen[match.end() :]
                return match[0]
            self._seen = self._seen[-WINDOW:]
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._more(line, left)

    def _opened(self) -> Line:
        if self._line is None:
            since, lines = self._begin
            self._line = Line(socket_of(self._asked), self._name, self._port, read_only=True, since=since, lines=lines)
            self._line.open()
        return self._line

    def _more(self, line: Line, seconds: float) -> None:
        poll, fileno, retry_s = select.poll(), line.fileno(), line.retry_s
        if fileno is not None:
            poll.register(fileno, select.POLLIN | (select.POLLOUT if line.wants_room else 0))
        poll.poll(min(seconds, seconds if retry_s is None else retry_s) * 1000 + 1)
        line.flush()
        self._take(line.receive())
        self.offset = line.offset
        if line.retry_s == 0.0:
            line.again()

    def _take(self, items: Iterable[object]) -> None:
        for item in items:
            if isinstance(item, Printed):
                self._seen += self._decode(plain_bytes(self._whole.feed(item.data)))
            elif isinstance(item, Gap):
                self._seen += self._decode(plain_bytes(self._whole.rest())) + "\n"

    def instead(self) -> str:
        """The last of what was printed, for whoever has to find out."""
        lines = [line for line in map(one_line, self._seen.split("\n")) if line][-QUOTED_LINES:]
        return ", but\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
