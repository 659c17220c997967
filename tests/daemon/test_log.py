"""The daemon's log: shapes, levels, destinations, and that nothing a guest says can forge a line."""

import json
import logging
import os
import re
import subprocess
import sys
import syslog
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.spec import Log
from bhyved.daemon import log

STAMP = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"
HOSTILE = 'x\n2026-01-01T00:00:00Z error forged\r\x1b[2J\x9b31m\u202e"\\ y=z'


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is one thing a process: each test puts it back."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What goes to syslog(3)."""
    sent: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: sent.append((priority, line)))
    return sent


def said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().err.splitlines()


def test_human_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """On a terminal a line is time, level, event and what belongs to it; values are quoted where they need it."""
    log.set_up(Log(), is_tty=True)
    structlog.get_logger().info(
        "phase", vm="web", reason="asked by uid 0", phase="up", empty="", forced=False, last=None, taps=("tap1", "tap2")
    )

    (line,) = said(capfd)
    assert (
        re.sub(f"^{STAMP}", "T", line)
        == 'T info    phase vm=web reason="asked by uid 0" phase=up empty="" forced=false last=null taps=tap1,tap2'
    )


def test_logfmt_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """Elsewhere a line is logfmt, the fixed keys first."""
    log.set_up(Log(to="stderr"), is_tty=False)
    structlog.get_logger().warning("hook failed", vm="web", why='said "no"')

    (line,) = said(capfd)
    assert re.sub(f"={STAMP}", "=T", line) == r'timestamp=T level=warning event="hook failed" vm=web why="said \"no\""'


def test_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """With format = "json" a line is an object, also for values that JSON does not know."""
    log.set_up(Log(format="json", to="stderr"), is_tty=True)
    structlog.get_logger().error("x", vm="web", argv=("a", "b"), what={1})

    (line,) = said(capfd)
    told = json.loads(line)
    assert list(told) == ["timestamp", "level", "event", "vm", "argv", "what"]
    assert told["argv"] == ["a", "b"]
    assert told["what"] == "{1}"


@pytest.mark.parametrize(("no_color", "is_tty", "coloured"), [("", True, True), ("1", True, False), ("", False, False)])
def test_colour(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_color: str, is_tty: bool, coloured: bool) -> None:
    """Levels that matter have a colour on a terminal, unless NO_COLOR says otherwise."""
    monkeypatch.setenv("NO_COLOR", no_color)
    log.set_up(Log(format="human", to="stderr"), is_tty=is_tty)
    structlog.get_logger().error("x")

    assert ("\x1b[31merror  \x1b[0m x" in capfd.readouterr().err) is coloured


def test_the_least_level(capfd: pytest.CaptureFixture[str]) -> None:
    """Less important messages are dropped, and a reload changes what is less important, also for loggers in use."""
    logger = structlog.get_logger()
    log.set_up(Log(level="warning", to="stderr"), is_tty=False)
    logger.info("a")
    logger.warning("b")
    log.set_up(Log(level="debug", to="stderr"), is_tty=False)
    logger.debug("c")

    assert [re.search(r"event=(\w+)", line)[1] for line in said(capfd)] == ["b", "c"]  # type: ignore[index]


@pytest.mark.parametrize(("to", "is_tty", "goes_to_syslog"), [("auto", True, False), ("auto", False, True), ("syslog", True, True)])
def test_where_it_goes(capfd: pytest.CaptureFixture[str], sent: list[tuple[int, str]], to: str, is_tty: bool, goes_to_syslog: bool) -> None:
    """Somebody who looks on sees it, otherwise syslog gets it; `to` overrules."""
    log.set_up(Log(to=to), is_tty=is_tty)  # type: ignore[arg-type]
    structlog.get_logger().info("x")

    assert (len(sent), len(said(capfd))) == ((1, 0) if goes_to_syslog else (0, 1))


def test_syslog_has_levels_and_no_time_of_ours(sent: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Facility daemon, priorities by level, and a line without what syslog itself adds."""
    opened: list[object] = []
    monkeypatch.setattr(syslog, "openlog", lambda *args: opened.extend(args))
    log.set_up(Log(level="debug"), is_tty=False)
    logger = structlog.get_logger()
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, level)("phase", vm="web")

    assert opened == ["bhyved", syslog.LOG_PID, syslog.LOG_DAEMON]
    priorities = [syslog.LOG_DEBUG, syslog.LOG_INFO, syslog.LOG_WARNING, syslog.LOG_ERR, syslog.LOG_CRIT]
    assert sent == [(priority, "event=phase vm=web") for priority in priorities]


def fail(words: str) -> None:
    raise ValueError(words)


def log_failure(words: str) -> None:
    try:
        fail(words)
    except ValueError:
        structlog.get_logger().exception("internal error", vm="web")


@pytest.mark.parametrize("to", ["stderr", "syslog"])
@pytest.mark.parametrize("shape", ["human", "logfmt", "json"])
def test_a_traceback_is_told_once(capfd: pytest.CaptureFixture[str], sent: list[tuple[int, str]], shape: str, to: str) -> None:
    """A bug's traceback is there, once, whatever the format; no local variable is in it."""
    log.set_up(Log(format=shape, to=to), is_tty=False)  # type: ignore[arg-type]
    log_failure("oh no")

    told = "\n".join([line for _, line in sent] + said(capfd))
    assert told.count("Traceback") == 1
    assert told.count("ValueError: oh no") == 1
    assert "words =" not in told
    assert len(told.splitlines()) == (1 if shape == "json" or (shape, to) == ("logfmt", "stderr") else told.count("  | ") + 1)


@pytest.mark.parametrize("to", ["stderr", "syslog"])
@pytest.mark.parametrize("shape", ["human", "logfmt", "json"])
def test_nothing_that_is_logged_can_forge_a_line(
    capfd: pytest.CaptureFixture[str], sent: list[tuple[int, str]], shape: str, to: str
) -> None:
    """Line ends, escape sequences and direction marks from a guest stay inside their quotes, in tracebacks too."""
    log.set_up(Log(format=shape, to=to), is_tty=True)  # type: ignore[arg-type]
    structlog.get_logger().info(HOSTILE, vm="web", text=HOSTILE)
    log_failure(HOSTILE)

    lines = [line for _, line in sent] + capfd.readouterr().err.replace("\x1b[31merror  \x1b[0m", "error").split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(re.match(r"\s*2026-01-01", line) for line in lines)


@given(st.text(st.sampled_from('ab\\"= \n\x1b\x9b') | st.characters()))
def test_any_text_can_be_had_back(text: str) -> None:
    """A quoted value is one printable word that says exactly what was logged."""
    quoted = log._quoted(text)

    assert quoted.isprintable()
    bare = re.fullmatch(r'[^ "=\\]+', quoted)
    inner = quoted if bare else re.fullmatch(r'"((?:[^"\\]|\\.)*)"', quoted)[1]  # type: ignore[index]
    assert re.sub(r"\\(x..|u....|U.{8}|.)", lambda m: ("\\" + m[1]).encode("ascii").decode("unicode_escape"), inner) == text


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    """A full disk or a closed terminal behind standard error costs lines, not the daemon."""
    log.set_up(Log(to="stderr"), is_tty=False)
    reading, writing = os.pipe()
    os.close(reading)
    kept = os.dup(2)
    os.dup2(writing, 2)
    try:
        with pytest.raises(BrokenPipeError):
            os.write(2, b"x")
        structlog.get_logger().info("x")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writing)


def test_libraries_speak_through_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings of libraries that use `logging` come in our form, their chatter does not."""
    log.set_up(Log(to="stderr"), is_tty=False)
    logging.getLogger("some.library").info("hello")
    logging.getLogger("some.library").log(35, "careful %s", "now")

    (line,) = said(capfd)
    assert line.endswith('level=warning event="careful now" logger=some.library')


def test_the_daemon_does_not_load_rich() -> None:
    """Importing the log costs no rich, and leaves it importable for whoever wants it."""
    program = "import sys, bhyved.daemon.log; print(any(name.split('.')[0] == 'rich' for name in sys.modules))"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
