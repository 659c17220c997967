"""The daemon's own log: where it goes and how a line looks.

Called once by the program before anything logs, and again when a reload changes `[log]`. What a guest or a user can put into a value
is quoted, so that one event is one line, whatever it holds; the traceback of a bug follows its line (human, syslog) or stands in it.
"""

import contextlib
import json
import logging
import os
import syslog
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from bhyved.core.spec import Log

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "31;1"}
_NEEDS_QUOTES = frozenset(' "=\\')

Event = MutableMapping[str, Any]


def set_up(spec: Log, *, is_tty: bool) -> None:
    """Send all logging of this process where `[log]` says. `is_tty`: standard error is a terminal, somebody looks on."""
    to_syslog = spec.to == "syslog" or (spec.to == "auto" and not is_tty)
    shape = spec.format if spec.format != "auto" else ("human" if is_tty and not to_syslog else "logfmt")
    processors: list[Processor] = [structlog.processors.add_log_level, structlog.processors.format_exc_info]
    if to_syslog:
        syslog.openlog("bhyved", syslog.LOG_PID, syslog.LOG_DAEMON)
    else:  # syslog has a time and a level of its own
        processors.insert(0, structlog.processors.TimeStamper(fmt="iso", utc=True))
    processors.append(_renderer(shape, to_syslog=to_syslog, colour=is_tty and not os.environ.get("NO_COLOR")))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[spec.level]),
        logger_factory=lambda *_: _Syslog() if to_syslog else _Stderr(),
        cache_logger_on_first_use=False,  # a reload may change the level
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


def _renderer(shape: str, *, to_syslog: bool, colour: bool) -> Callable[[Any, str, Event], str]:
    if shape == "json":
        return lambda _, __, event: _as_json(event, to_syslog)
    if to_syslog:
        return lambda _, __, event: _with_traceback(event, lambda rest: _pairs({"event": rest.pop("event"), **_without(rest, "level")}))
    if shape == "human":
        return lambda _, __, event: _with_traceback(event, lambda rest: _human(rest, colour=colour))
    return lambda _, __, event: _pairs(_in_order(event))


def _as_json(event: Event, to_syslog: bool) -> str:
    ordered = _in_order(event)
    return json.dumps(_without(ordered, "level") if to_syslog else ordered, default=str)


def _human(event: Event, *, colour: bool) -> str:
    level = event.pop("level")
    shown = f"{level:<7}"
    if colour and level in _COLOURS:
        shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
    return f"{event.pop('timestamp')} {shown} {escaped(str(event.pop('event')))} {_pairs(event)}".rstrip()


def _with_traceback(event: Event, render: Callable[[Event], str]) -> str:
    """The line, and each line of a traceback behind a mark that no line of the log begins with."""
    traceback = event.pop("exception", "")
    lines = [render(event), *(f"  | {escaped(line)}" for line in traceback.splitlines())]
    return "\n".join(lines)


def _in_order(event: Event) -> Event:
    first = ("timestamp", "level", "event")
    return {key: event[key] for key in first if key in event} | {key: value for key, value in event.items() if key not in first}


def _without(event: Event, key: str) -> Event:
    return {name: value for name, value in event.items() if name != key}


def _pairs(event: Event) -> str:
    return " ".join(f"{key}={_quoted(_text(value))}" for key, value in event.items())


def _text(value: object) -> str:
    match value:
        case bool() | None | dict():
            return json.dumps(value, default=str)
        case list() | tuple() | set() | frozenset():
            return ",".join(_text(item) for item in value)
        case _:
            return str(value)


def _quoted(text: str) -> str:
    if text and text.isprintable() and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def escaped(text: str) -> str:
    """`text` without anything that moves a cursor, ends a line or turns the direction of writing."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Stderr:
    """Standard error. That it is full or gone costs the line: a daemon must not end for its log."""

    def info(self, lines: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"{lines}\n".encode())

    debug = warning = error = critical = info


class _Syslog:
    """syslog(3), a message for each line: libc cuts longer ones off at 2 KiB, which is where a traceback gets interesting."""

    def debug(self, lines: str) -> None:
        _send(syslog.LOG_DEBUG, lines)

    def info(self, lines: str) -> None:
        _send(syslog.LOG_INFO, lines)

    def warning(self, lines: str) -> None:
        _send(syslog.LOG_WARNING, lines)

    def error(self, lines: str) -> None:
        _send(syslog.LOG_ERR, lines)

    def critical(self, lines: str) -> None:
        _send(syslog.LOG_CRIT, lines)


def _send(priority: int, lines: str) -> None:
    for line in lines.split("\n"):
        syslog.syslog(priority, line)


class _FromLibraries(logging.Handler):
    """What libraries say through `logging`, in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        level = max((level for level in _LEVELS.values() if level <= record.levelno), default=logging.DEBUG)
        structlog.get_logger().log(level, record.getMessage(), logger=record.name, exc_info=record.exc_info)
