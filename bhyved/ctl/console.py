"""`vmctl console`: a person at a guest's console, as with cu(1).

The guest does not notice that anybody comes or goes, and a daemon that is restarted costs nothing but a remark: the line comes back and
goes on with the next byte.
"""

from __future__ import annotations

import os
import select
import signal

from bhyved.core.escape import Escape, Wish, help_text
from bhyved.core.frames import Gap
from bhyved.ctl.amounts import one_line, size
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import socket_of
from bhyved.ctl.connection import OK, USAGE, Failure
from bhyved.ctl.line import Happened, Item, Line, Lost, Opened, Printed, place
from bhyved.ctl.sequences import Whole, without_questions
from bhyved.ctl.terminal import ENDS, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYS_BYTES = 4096
_SCRIPTED = ("send", "wait-for", "expect")


def console(asked: Asked) -> int:
    if asked.has("conserver-cf"):
        from bhyved.ctl.conserver import print_configuration

        return print_configuration(asked)
    if len(asked.names) != 1:
        raise Failure(USAGE, "console: it takes the name of one guest (vmctl console --help)")
    if any(asked.is_given(key) for key in _SCRIPTED):
        from bhyved.ctl.expect import run_script

        return run_script(asked)
    if asked.has("json"):
        raise Failure(USAGE, "console: --json goes with --send, --wait-for and --expect")
    since, lines = place(asked.text("since"))
    escape = Escape(_escape_character(asked.text("escape")))
    name, read_only = asked.names[0], asked.has("read-only")
    line = Line(socket_of(asked), name, asked.text("port") or "", read_only=read_only, steal=asked.has("steal"), since=since, lines=lines)
    line.open()
    try:
        with Terminal(f"vmctl: {name}") as terminal:
            return Session(line, terminal, escape, read_only=read_only).run()
    finally:
        line.close()


def _escape_character(word: str | None) -> bytes:
    if word is None:
        return b"~"
    if word == "none":
        return b""
    if len(word) == 2 and word[0] == "^" and ("@" <= word[1].upper() <= "_"):
        return bytes((ord(word[1].upper()) & 0x1F,))
    if len(word) == 1 and word.isascii():
        return word.encode()
    raise Failure(USAGE, f'--escape is one ASCII character, ^X for a control character, or none, not "{word}"')


def _shown(character: bytes) -> str:
    return f"^{chr(character[0] | 0x40)}" if character and character < b" " else character.decode()


class Session:
    """From attaching to leaving."""

    def __init__(self, line: Line, terminal: Terminal, escape: Escape, *, read_only: bool) -> None:
        self._line, self._terminal, self._escape, self._read_only = line, terminal, escape, read_only
        self._status: int | None = None
        self._has_keys = True
        self._whole = Whole()
        self._live_from = 0  # what comes before this offset was printed before anybody looked
        self._writer = ""
        self._said = ""  # why typing goes nowhere: said once until that changes

    def run(self) -> int:
        """The exit status. Raises Failure when the daemon refuses."""
        line, terminal = self._line, self._terminal
        while self._status is None:
            poll = select.poll()
            poll.register(terminal.woken, select.POLLIN)
            if self._has_keys:
                poll.register(terminal.keys, select.POLLIN)
            if terminal.wants_room:
                poll.register(terminal.screen, select.POLLOUT)
            fileno = line.fileno()
            wanted = (0 if terminal.is_full else select.POLLIN) | (select.POLLOUT if line.wants_room else 0)
            if fileno is not None and wanted:
                poll.register(fileno, wanted)
            retry_s = line.retry_s
            ready = dict(poll.poll(None if retry_s is None else retry_s * 1000 + 1))
            if terminal.woken in ready:
                self._obey_signals()
            if terminal.keys in ready:
                self._read_keys()
            if terminal.screen in ready:
                terminal.flush()
            if fileno is not None and fileno in ready:
                line.flush()
                if ready[fileno] & ~select.POLLOUT:
                    self._show(line.receive())
            if line.retry_s == 0.0:
                line.again()
        return self._status

    def _obey_signals(self) -> None:
        for number in self._terminal.taken_signals():
            if number in ENDS:
                self._status = 128 + number
            elif number == signal.SIGTSTP:
                self._terminal.suspend()
            elif number == signal.SIGCONT:
                self._terminal.resume()

    # --- keys ----------------------------------------------------------------------------------------------------------------

    def _read_keys(self) -> None:
        try:
            typed = os.read(self._terminal.keys, _KEYS_BYTES)
        except OSError:  # the terminal has gone
            typed = b""
        if not typed:
            self._has_keys = False
            if self._terminal.is_raw:
                self._status = 128 + signal.SIGHUP
            return
        for part in self._escape.feed(typed) if self._terminal.is_raw else [typed]:
            if isinstance(part, Wish):
                self._obey(part)
            else:
                self._type(part)

    def _type(self, keys: bytes) -> None:
        if self._read_only:
            self._say_once("this session is read-only: what you type goes nowhere")
        elif not self._line.type(keys):
            self._say_once("bhyved does not answer: what you type is lost")

    def _obey(self, wish: Wish) -> None:
        terminal = self._terminal
        match wish:
            case Wish.LEAVE:
                terminal.say("left; the guest runs on")
                self._status = OK
            case Wish.HELP:
                terminal.say(help_text(_shown(self._escape.character)))
            case Wish.SUSPEND:
                terminal.suspend()
            case Wish.BREAK:
                terminal.say("a null-modem line cannot carry a break; vmctl nmi may do what it was for")
            case Wish.WRITE if self._read_only:
                terminal.say("this session is read-only")
            case Wish.WRITE:
                self._line.take_keyboard()

    def _say_once(self, text: str) -> None:
        if self._said != text:
            self._said = text
            self._terminal.say(text)

    # --- what comes ----------------------------------------------------------------------------------------------------------

    def _show(self, items: Any) -> None:
        item: Item
        for item in items:
            if isinstance(item, Printed):
                self._print(item)
            elif isinstance(item, Opened):
                self._greet(item)
            elif isinstance(item, Gap):
                self._terminal.say(f"{item.size} bytes of output are missing here: {one_line(item.why)}")
            elif isinstance(item, Happened):
                self._tell(item.event)
            elif isinstance(item, Lost):
                self._terminal.say("bhyved has gone, the guest runs on; waiting for bhyved to come back")

    def _print(self, item: Printed) -> None:
        """Live output as it is; a replay without what a terminal would answer."""
        end = item.offset + len(item.data)
        if item.offset >= self._live_from:
            self._terminal.write(item.data)
        elif end < self._live_from:
            self._terminal.write(without_questions(self._whole.feed(item.data)))
        else:
            old = self._live_from - item.offset
            self._terminal.write(without_questions(self._whole.feed(item.data[:old]) + self._whole.rest()) + item.data[old:])

    def _greet(self, opened: Opened) -> None:
        about, name = opened.about, self._line.name
        self._said, self._writer = "", about["writer"]
        if opened.again:
            self._terminal.say("bhyved is back" if about["running"] else f"bhyved is back, and {name} is not running")
            return
        self._live_from = about["end"]
        key = _shown(self._escape.character) if self._terminal.is_raw else ""
        lines = [f"{name} {about['port']}" + (f": {key}. leaves, {key}? helps" if key else "")]
        if not about["running"]:
            lines.append(f"{name} is not running; what it prints when it starts is shown here")
        if about["problem"]:
            lines.append(one_line(about["problem"]))
        if about["viewers"]:
            lines.append(f"also here: {', '.join(map(one_line, about['viewers']))}")
        if about["writer"]:
            take = f"; {key}w takes it" if key and not self._read_only else ""
            lines.append(f"{one_line(about['writer'])} has the keyboard{take}")
        self._terminal.say("\n".join(lines))

    def _tell(self, event: dict[str, Any]) -> None:
        what, text = event["event"], one_line(str(event.get("text", "")))
        name = self._line.name
        if what == "writer":
            self._tell_writer(event)
        elif what == "refused":
            why = f"{one_line(event.get('writer', ''))} has the keyboard" if event.get("why") == "busy" else "you may watch, and not type"
            self._say_once(f"{why}: what you type goes nowhere")
        elif what == "dropped":
            self._terminal.say(f"{size(event['size'])} of what you typed were not taken: {one_line(event.get('why', ''))}")
        else:
            words = {
                "boot": f"{name} starts: {text}",
                "exit": f"{name} is down: {text}",
                "attach": f"{text} has come",
                "detach": f"gone: {text}",
            }
            self._terminal.say(words.get(what, text or what))

    def _tell_writer(self, event: dict[str, Any]) -> None:
        """Only what is news: that one gets the keyboard as one comes is what one expects."""
        writer, had = event["writer"], self._writer
        self._writer = writer
        self._said = ""
        if event["you"] and had:
            self._terminal.say("you have the keyboard")
        elif not event["you"] and writer and writer != had:
            self._terminal.say(f"{one_line(writer)} has the keyboard")
